//! What the controller may ask of a parked VP, on the VP's thread (I3).

use super::*;

/// Something to be done with a parked VP.
pub(crate) type Call = Box<dyn FnOnce(&mut dyn ParkedVp) + Send>;

/// A VP in user space, its last exit completed (I2).
pub(crate) trait ParkedVp {
    /// Puts the VP into its power-on state.
    fn init(&mut self) -> Result<(), MachineError>;

    /// Makes this what stops the VP, with no step under way, and tells KVM at once (I6).
    fn set_arms(&mut self, arms: Arms) -> Result<(), DebugError>;

    /// Where the VP stands.
    fn place(&mut self) -> Result<Place, DebugError>;

    /// How many debug registers the guest uses on this VP.
    fn count_guest_registers(&mut self) -> Result<usize, DebugError>;

    /// Asks what registers a VP of this VM has.
    fn find_registers(&mut self, vm: &VmFd) -> Result<RegisterFile, DebugError>;

    /// Sets how registers are read and written.
    fn set_register_file(&mut self, registers: RegisterFile);

    /// Every register, from the snapshot where one was taken since the VP parked.
    fn read_registers(&mut self) -> Result<Arc<X86VpState>, DebugError>;

    /// Writes what differs from the present state. A VP that had crashed is taken as repaired and tries again.
    fn write_registers(&mut self, new: &X86VpState) -> Result<(), DebugError>;

    /// Reads an MSR.
    fn read_msr(&mut self, msr: u32) -> Result<u64, DebugError>;

    /// Writes an MSR.
    fn write_msr(&mut self, msr: u32, value: u64) -> Result<(), DebugError>;

    /// Raises an NMI, which the VP takes once it runs.
    fn nmi(&mut self) -> Result<(), DebugError>;

    /// Whether the parked VP had work to do.
    fn activity(&mut self) -> Result<VpActivity, DebugError>;

    /// Writes back what the VP's local timer had left when a long stop began, where it counts. Before any VP enters: an interrupt that comes meanwhile
    /// would be lost.
    fn restart_counter(&mut self) -> Result<(), DebugError> {
        Ok(())
    }
}

impl ParkedVp for Vp {
    fn init(&mut self) -> Result<(), MachineError> {
        self.forget_snapshot();
        self.life = Life::Untouched;
        self.kvm_gave_up = KvmGaveUp::No;
        self.step_trap = StepTrap::Taken;
        self.events = Events::Unknown;
        self.guests = None;
        self.vcpu.set_own_trap_flag(TrapFlag::Clear);
        let index = self.around.index;
        if let Err(err) = self.release_timers() {
            tracing::error!(vp = %index, error = %err, "a VP's timer before its reset");
        }
        let machine = self.around.machine.clone();
        self.with_tsc_set(self.around.time.reset_at(), |vp| {
            machine.init_vp(index, vp.vcpu.raw())
        })
    }

    fn set_arms(&mut self, arms: Arms) -> Result<(), DebugError> {
        self.arm(arms)?;
        self.vcpu.program(DebugState {
            registers: self.debug_registers,
            bytes: arms.bytes,
            stepping: Stepping::Off,
            interrupts: Interrupts::Free,
        })
    }

    fn place(&mut self) -> Result<Place, DebugError> {
        let limits = self.register_file()?.paging_limits();
        self.vcpu.place(limits)
    }

    fn count_guest_registers(&mut self) -> Result<usize, DebugError> {
        Ok(self.guest_registers()?.count())
    }

    fn find_registers(&mut self, vm: &VmFd) -> Result<RegisterFile, DebugError> {
        RegisterFile::new(vm, self.vcpu.for_reading())
    }

    fn set_register_file(&mut self, registers: RegisterFile) {
        self.registers = Some(registers);
    }

    fn read_registers(&mut self) -> Result<Arc<X86VpState>, DebugError> {
        let snapshot = self.around.snapshot.clone();
        let mut snapshot = snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = &*snapshot {
            return Ok(state.clone());
        }
        let file = self.register_file()?;
        let (regs, sregs) = self.vcpu.registers()?;
        let state = Arc::new(file.read_with(self.vcpu.for_reading(), &regs, &sregs)?);
        *snapshot = Some(state.clone());
        Ok(state)
    }

    fn write_registers(&mut self, new: &X86VpState) -> Result<(), DebugError> {
        let old = self.read_registers()?;
        let file = self.register_file()?;
        self.forget_snapshot();
        // Also where only some of them could be written.
        self.events = Events::Unknown;
        self.guests = None;
        let result = file.write(self.vcpu.raw(), &old, new);
        if old.rip != new.rip && self.life == Life::Halted {
            self.life = Life::Started;
        }
        if let StepTrap::Expected(_) = self.step_trap {
            // A trap that is pending comes at the new RIP.
            self.step_trap = StepTrap::MayBePending;
        }
        result?;
        self.vcpu.set_own_trap_flag(TrapFlag::of(new.rflags));
        if self.kvm_gave_up == KvmGaveUp::Yes {
            self.vcpu.drop_exception()?;
            self.kvm_gave_up = KvmGaveUp::No;
        }
        Ok(())
    }

    fn read_msr(&mut self, msr: u32) -> Result<u64, DebugError> {
        let value = crate::kvm::x86_64::read_msr(self.vcpu.for_reading(), msr)?;
        Ok(self.clock_msr(msr, value))
    }

    fn write_msr(&mut self, msr: u32, value: u64) -> Result<(), DebugError> {
        self.forget_snapshot();
        self.forget_deadline(msr);
        self.with_tsc_set(self.around.time.taken_out_now(), |vp| {
            crate::kvm::x86_64::write_msr(vp.vcpu.raw(), msr, value)
        })
    }

    fn nmi(&mut self) -> Result<(), DebugError> {
        // What was known of pending events is known no more.
        self.events = Events::Unknown;
        self.vcpu.raise_nmi()?;
        if self.life == Life::Halted {
            self.life = Life::Started;
        }
        Ok(())
    }

    fn restart_counter(&mut self) -> Result<(), DebugError> {
        self.write_count_back()
    }

    fn activity(&mut self) -> Result<VpActivity, DebugError> {
        match self.life {
            Life::Halted => Ok(VpActivity::Halted),
            Life::Untouched | Life::Started => self.vcpu.activity(),
        }
    }
}

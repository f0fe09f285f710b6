//! What the controller may ask of a parked VP, on the VP's thread (I3).

use super::KvmGaveUp;
use super::Progress;
use super::Vp;
use super::vcpu::Vcpu;
use crate::arch::x86_64::code_location::CodeLocation;
use crate::arch::x86_64::step_effects::TrapFlag;
use crate::control::enter::StopSet;
use std::sync::Arc;
use std::sync::PoisonError;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::VpActivity;
use vmm_core_defs::regs::X86VpState;

impl<V: Vcpu> Vp<V> {
    /// Puts the VP into its power-on state, by this function of the VMM's.
    ///
    /// # Errors
    /// The error of `power_on`.
    pub(crate) fn power_on<E>(
        &mut self,
        power_on: impl FnOnce(&mut V) -> Result<(), E>,
    ) -> Result<(), E> {
        self.forget_snapshot();
        self.progress = Progress::NotStarted;
        self.kvm_gave_up = KvmGaveUp::No;
        self.stepping.reset();
        self.cpu.forget();
        let vcpu = &mut self.cpu.vcpu;
        vcpu.set_own_trap_flag(TrapFlag::Clear);
        self.clocks.reset(vcpu, power_on)
    }

    /// Makes this the set that stops the VP, with no step under way, and tells KVM at once (I6).
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn set_stops(&mut self, stops: StopSet) -> Result<(), DebugError> {
        self.debugging.set_stops(stops, &mut self.cpu)?;
        self.cpu.vcpu.program(self.debugging.parked_state())
    }

    /// The VMM gets the thread of the parked VP. No step flag and no debug register of ours is on the vCPU meanwhile (I11). Returns the linear address of RIP,
    /// if it can be read.
    pub(crate) fn leave_to_vmm(&mut self) -> Option<Gva> {
        if let Err(err) = self.set_stops(StopSet::default()) {
            let vp = self.index;
            tracing::error!(%vp, error = %err, "debug registers could not be taken off a VP");
        }
        self.cpu.linear_rip().ok()
    }

    /// The thread of the parked VP is back from the VMM, which may have changed any register. Returns the linear address of RIP, if it can be read.
    pub(crate) fn come_back(&mut self) -> Option<Gva> {
        self.forget_registers();
        self.cpu.linear_rip().ok()
    }

    /// The VMM may have changed registers.
    pub(crate) fn forget_registers(&mut self) {
        self.forget_snapshot();
        self.cpu.forget();
    }

    /// The address of the next instruction.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn location(&mut self) -> Result<CodeLocation, DebugError> {
        self.cpu.location()
    }

    /// How many debug registers the guest has enabled on this VP.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn count_guest_registers(&mut self) -> Result<usize, DebugError> {
        Ok(self.cpu.guest_registers()?.count())
    }

    /// Every register, from the snapshot if one was taken since the VP parked.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn read_registers(&mut self) -> Result<Arc<X86VpState>, DebugError> {
        let snapshot = self.snapshot.clone();
        let mut snapshot = snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = &*snapshot {
            return Ok(state.clone());
        }
        let state = Arc::new(self.cpu.vcpu.read_state()?);
        *snapshot = Some(state.clone());
        Ok(state)
    }

    /// Writes what differs from the present state. A VP that had crashed counts as repaired, and tries again.
    ///
    /// # Errors
    /// [`DebugError::BadRegister`]; [`DebugError::Hypervisor`].
    pub(crate) fn write_registers(&mut self, new: &X86VpState) -> Result<(), DebugError> {
        let old = self.read_registers()?;
        // Some registers may be written before another is refused.
        self.forget_snapshot();
        self.cpu.forget();
        let result = self.cpu.vcpu.write_state(&old, new);
        if old.linear_rip() != new.linear_rip() {
            self.wake();
        }
        self.stepping.moved();
        result?;
        self.cpu.vcpu.set_own_trap_flag(TrapFlag::of(new.rflags));
        if self.kvm_gave_up == KvmGaveUp::Yes {
            self.cpu.vcpu.drop_exception()?;
            self.kvm_gave_up = KvmGaveUp::No;
        }
        Ok(())
    }

    /// Reads an MSR.
    ///
    /// # Errors
    /// [`DebugError::BadRegister`].
    pub(crate) fn read_msr(&mut self, msr: u32) -> Result<u64, DebugError> {
        self.clocks.read_msr(msr, &mut self.cpu.vcpu)
    }

    /// Writes an MSR.
    ///
    /// # Errors
    /// [`DebugError::BadRegister`].
    pub(crate) fn write_msr(&mut self, msr: u32, value: u64) -> Result<(), DebugError> {
        self.forget_snapshot();
        self.clocks.write_msr(msr, value, &mut self.cpu.vcpu)
    }

    /// Raises an NMI, which the VP takes once it runs.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn raise_nmi(&mut self) -> Result<(), DebugError> {
        self.cpu.forget_events();
        self.cpu.vcpu.raise_nmi()?;
        self.wake();
        Ok(())
    }

    /// Whether the parked VP has instructions to execute.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn activity(&mut self) -> Result<VpActivity, DebugError> {
        match self.progress {
            Progress::Halted => Ok(VpActivity::Halted),
            Progress::NotStarted | Progress::Started => self.cpu.vcpu.activity(),
        }
    }

    /// Writes back what the VP's local timer had left when a long stop began. Comes before any VP enters: an interrupt that comes meanwhile
    /// would be lost.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn restart_counter(&mut self) -> Result<(), DebugError> {
        self.clocks.write_count_back(&mut self.cpu.vcpu)
    }

    /// The stop lasts: the guest's timers are not to fire while it stands.
    pub(crate) fn hold_timers(&mut self) {
        self.clocks.hold_timers(&mut self.cpu.vcpu);
    }

    /// Whether the guest's timers are held.
    pub(crate) fn holds_timers(&self) -> bool {
        self.clocks.is_held()
    }

    /// A halted VP goes on with the instruction at RIP.
    fn wake(&mut self) {
        if self.progress == Progress::Halted {
            self.progress = Progress::Started;
        }
    }
}

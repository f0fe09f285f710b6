//! One vCPU on its own thread: entering the guest, and guest debugging.
//!
//! An ioctl on a vCPU costs microseconds, so none is made twice: the debug state is remembered, and general and system registers
//! come with every exit where `KVM_CAP_SYNC_REGS` gives them.

mod halt;
mod nmi;
pub(crate) mod offers;
mod time;

use super::exit_decode::decode;
use super::kick::ThreadVcpu;
use super::pending_interrupt;
use crate::arch::x86_64::debug_registers::DebugRegisters;
use crate::arch::x86_64::debug_registers::GuestRegisters;
use crate::arch::x86_64::debug_registers::RegisterAccess;
use crate::arch::x86_64::dr7::DebugPayload;
use crate::arch::x86_64::dr7::GENERAL_DETECT;
use crate::arch::x86_64::page_walk::PagingLimits;
use crate::arch::x86_64::page_walk::PagingState;
use crate::arch::x86_64::place::Place;
use crate::arch::x86_64::step_effects::TrapFlag;
use crate::arch::x86_64::stop_cause::Stepping;
use crate::control::exit::VpExit;
use kvm_bindings::*;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use offers::Offers;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::VpActivity;
use vmm_core_defs::regs::x86_64::bits::efer;
use vmm_core_defs::regs::x86_64::bits::rflags;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::FaultRegisters;

pub(crate) const SHADOW_STI: u8 = 2;

/// The guest-debug state of a vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DebugState {
    pub(crate) registers: DebugRegisters,
    pub(crate) bytes: Bytes,
    pub(crate) stepping: Stepping,
    pub(crate) interrupts: Interrupts,
}

/// Whether KVM delivers interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupts {
    /// Not those that are yet to be delivered, if this host can hold them.
    Held,
    /// As they come.
    Free,
}

/// An event that KVM delivers when the VP next enters, before its next instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undelivered {
    /// An exception of this vector.
    Exception(u8),
    /// An interrupt of this vector, which its controller counts as delivered.
    Interrupt(u8),
    /// An interrupt of this vector, if nothing holds it back.
    Deliverable(u8),
}

/// Whether breakpoint bytes of ours may be in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Bytes {
    /// `INT3` has to be looked at.
    In,
    /// Every `INT3` is the guest's own.
    #[default]
    None,
}

/// What KVM was last told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Programmed {
    /// Nothing that still holds.
    Unknown,
    /// This, and the vCPU has run since.
    Used(DebugState),
    /// This, and the vCPU has not run since, or not so that it matters.
    Fresh(DebugState),
}

/// Whether general and system registers in `kvm_run` are the vCPU's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Synced {
    Yes,
    No,
}

#[derive(Debug)]
pub(crate) struct Vcpu {
    vcpu: ThreadVcpu,
    offers: Offers,
    programmed: Programmed,
    synced: Synced,
    /// Whether KVM steps: it hides RFLAGS.TF then, the guest's own with ours.
    hides: Stepping,
    /// The guest's own trap flag while KVM hides it.
    own: TrapFlag,
}

impl Vcpu {
    /// A vCPU on its thread.
    pub(crate) fn new(vcpu: ThreadVcpu, offers: Offers) -> Self {
        Self {
            vcpu,
            offers,
            programmed: Programmed::Unknown,
            synced: Synced::No,
            hides: Stepping::Off,
            own: TrapFlag::Clear,
        }
    }

    /// For ioctls that do not go through this type. What was remembered is forgotten.
    pub(crate) fn raw(&mut self) -> &mut VcpuFd {
        self.programmed = Programmed::Unknown;
        self.synced = Synced::No;
        self.vcpu.fd()
    }

    /// For ioctls that only read.
    pub(crate) fn for_reading(&mut self) -> &VcpuFd {
        self.vcpu.fd()
    }

    /// Sets `immediate_exit`: the next `run` completes what is pending and returns without entering the guest.
    pub(crate) fn set_immediate_exit(&mut self, on: bool) {
        self.vcpu.fd().set_kvm_immediate_exit(u8::from(on));
    }

    /// Whether registers are to come with each exit.
    pub(crate) fn want_registers(&mut self, on: bool) {
        let fields = match on && self.offers.sync_regs {
            true => KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS,
            false => 0,
        };
        self.vcpu.fd().get_kvm_run().kvm_valid_regs = fields.into();
    }

    /// `KVM_RUN`.
    pub(crate) fn run(&mut self) -> VpExit<'_> {
        if let Programmed::Fresh(state) = self.programmed {
            self.programmed = Programmed::Used(state);
        }
        let fd = self.vcpu.fd();
        let result = fd.run().map(drop);
        let run = fd.get_kvm_run();
        let reason = run.exit_reason;
        self.synced = match run.kvm_valid_regs {
            0 => Synced::No,
            _ => Synced::Yes,
        };
        if result.is_ok() && reason == KVM_EXIT_SHUTDOWN {
            return VpExit::Shutdown(self.registers_after_shutdown());
        }
        let run = self.vcpu.fd().get_kvm_run();
        match result.map_err(|err| err.errno()) {
            Ok(()) => decode(run),
            Err(libc::EINTR) => VpExit::Interrupted,
            Err(libc::EAGAIN) => VpExit::Nothing,
            Err(errno) => VpExit::Failed(CrashCause::Run { errno }),
        }
    }

    /// Whether KVM has reset this VP on its triple fault: then it is where INIT puts it (SDM volume 3, "Processor State After Reset").
    fn registers_after_shutdown(&mut self) -> FaultRegisters {
        match self.registers() {
            Ok((regs, sregs))
                if regs.rip == 0xfff0
                    && regs.rflags == 2
                    && sregs.cs.base == 0xffff_0000
                    && sregs.cr3 == 0 =>
            {
                FaultRegisters::ResetByHypervisor
            }
            _ => FaultRegisters::Kept,
        }
    }

    /// Makes KVM's debug state this one.
    ///
    /// While stepping it is told anew before every entry, whether or not it changed, but for [`kept_trap_flag`](Self::kept_trap_flag): some KVMs lose
    /// the trap flag when the guest's own `popf` or `iret` clears it, or when they carry an instruction out themselves.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn program(&mut self, wanted: DebugState) -> Result<(), DebugError> {
        let holds = match self.programmed {
            Programmed::Fresh(state) => state == wanted,
            Programmed::Used(state) => state == wanted && wanted.stepping == Stepping::Off,
            Programmed::Unknown => false,
        };
        if !holds {
            self.program_with(wanted, 0)?;
        }
        match (wanted.interrupts, self.offers.block_irq) {
            (Interrupts::Held, false) => self.cast_shadow(),
            _ => Ok(()),
        }
    }

    /// The step that has just ended executed an instruction that no KVM loses the trap flag over: it need not be told anew before the next.
    pub(crate) fn kept_trap_flag(&mut self) {
        if let Programmed::Used(state) = self.programmed {
            self.programmed = Programmed::Fresh(state);
        }
    }

    /// General registers are about to be written. KVM puts its trap flag in only where RIP is as it was when it was told to step.
    fn registers_change(&mut self) {
        self.synced = Synced::No;
        if let Programmed::Fresh(state) = self.programmed {
            self.programmed = Programmed::Used(state);
        }
    }

    /// Holds interrupts back for one instruction, as `sti` does. Without effect where the guest has them off, and left out then: VT-x refuses it.
    fn cast_shadow(&mut self) -> Result<(), DebugError> {
        let (regs, _) = self.registers()?;
        if regs.rflags & rflags::IF == 0 {
            return Ok(());
        }
        let fd = self.vcpu.fd();
        let cast = |err| refused("hold interrupts back", err);
        let mut events = fd.get_vcpu_events().map_err(cast)?;
        events.interrupt.shadow |= SHADOW_STI;
        events.flags |= KVM_VCPUEVENT_VALID_SHADOW;
        fd.set_vcpu_events(&events).map_err(cast)
    }

    /// Whether interrupts can be held back for longer than an instruction.
    pub(crate) fn holds_interrupts(&self) -> bool {
        self.offers.block_irq
    }

    /// The interrupt that KVM's controllers would have the VP take now, if it may take one. Without controllers in KVM, none.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn deliverable(&mut self, vm: &VmFd) -> Result<Option<u8>, DebugError> {
        let (regs, sregs) = self.registers()?;
        if regs.rflags & rflags::IF == 0 || self.has_interrupt_shadow()? {
            return Ok(None);
        }
        let Some((master, slave)) = pending_interrupt::pics(vm) else {
            return Ok(None);
        };
        let lapic = self.vcpu.fd().get_lapic();
        let lapic = lapic.map_err(|err| refused("read a VP's local APIC", err))?;
        Ok(pending_interrupt::next(
            &lapic,
            sregs.apic_base,
            &master,
            &slave,
        ))
    }

    /// Gives the guest its own `#DB` back, with DR6 as it would have found it. KVM clears the guest's DR7.GD when it delivers it.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn inject_debug(
        &mut self,
        state: DebugState,
        payload: DebugPayload,
    ) -> Result<(), DebugError> {
        let fd = self.vcpu.fd();
        let set = |err| refused("set the guest's DR6", err);
        let mut registers = fd.get_debug_regs().map_err(set)?;
        registers.dr6 = payload.deliver(registers.dr6);
        fd.set_debug_regs(&registers).map_err(set)?;
        self.program_with(state, KVM_GUESTDBG_INJECT_DB)
    }

    /// The guest's own DR0-3 and DR7.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn guest_registers(&mut self) -> Result<GuestRegisters, DebugError> {
        let registers = self.vcpu.fd().get_debug_regs();
        let registers =
            registers.map_err(|err| refused("read the guest's debug registers", err))?;
        Ok(GuestRegisters {
            db: registers.db,
            dr7: registers.dr7,
        })
    }

    /// Gives the guest its own `#BP` back with the next entry. Interrupts are held for it only where `KVM_GUESTDBG_BLOCKIRQ` can: an interrupt shadow is
    /// set together with all other events, and the `#BP` would be dropped.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn inject_breakpoint(&mut self, state: DebugState) -> Result<(), DebugError> {
        self.program_with(state, KVM_GUESTDBG_INJECT_BP)
    }

    /// Drops the `#UD` that KVM queues when it fails to emulate an instruction: the instruction is tried again instead.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn drop_exception(&mut self) -> Result<(), DebugError> {
        let fd = self.vcpu.fd();
        let drop = |err| refused("drop a pending exception", err);
        let mut events = fd.get_vcpu_events().map_err(drop)?;
        events.exception.injected = 0;
        events.exception.pending = 0;
        fd.set_vcpu_events(&events).map_err(drop)
    }

    /// Drops a `#BP` or `#OF` that is not delivered yet; the instruction that raised it is tried again. KVM does not tell of those, and takes it that there
    /// is none where it is told of none (api.rst, `KVM_GET_VCPU_EVENTS`; `kvm_vcpu_ioctl_x86_get_vcpu_events`).
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn drop_soft_exception(&mut self) -> Result<(), DebugError> {
        let fd = self.vcpu.fd();
        let drop = |err| refused("take back a breakpoint exception", err);
        let events = fd.get_vcpu_events().map_err(drop)?;
        fd.set_vcpu_events(&events).map_err(drop)
    }

    /// Whether the last instruction holds interrupts back for the next.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn has_interrupt_shadow(&mut self) -> Result<bool, DebugError> {
        let fd = self.vcpu.fd();
        let events = fd
            .get_vcpu_events()
            .map_err(|err| refused("read a VP's events", err))?;
        Ok(events.interrupt.shadow != 0)
    }

    /// Moves RIP behind an instruction that has executed, and ends its interrupt shadow.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn skip_to(&mut self, rip: u64) -> Result<(), DebugError> {
        let (mut regs, _) = self.registers()?;
        regs.rip = rip;
        self.registers_change();
        let skip = |err| refused("move a VP behind an instruction", err);
        let fd = self.vcpu.fd();
        fd.set_regs(&regs).map_err(skip)?;
        let mut events = fd.get_vcpu_events().map_err(skip)?;
        events.interrupt.shadow = 0;
        events.flags |= KVM_VCPUEVENT_VALID_SHADOW;
        fd.set_vcpu_events(&events).map_err(skip)
    }

    /// Writes what an instruction carried out in its place leaves.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn move_on(
        &mut self,
        gp: [u64; 16],
        rip: u64,
        rflags: u64,
    ) -> Result<(), DebugError> {
        let [
            rax,
            rcx,
            rdx,
            rbx,
            rsp,
            rbp,
            rsi,
            rdi,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
        ] = gp;
        let registers = kvm_regs {
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rsp,
            rbp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            rip,
            rflags,
        };
        self.registers_change();
        let set = self.vcpu.fd().set_regs(&registers);
        set.map_err(|err| refused("write a VP's registers", err))
    }

    fn program_with(&mut self, wanted: DebugState, inject: u32) -> Result<(), DebugError> {
        match (self.hides, wanted.stepping) {
            (Stepping::Off, Stepping::On) => {
                let (regs, _) = self.registers()?;
                self.own = TrapFlag::of(regs.rflags);
            }
            (Stepping::On, Stepping::Off) if self.own == TrapFlag::Set => {
                self.tell(wanted, 0)?;
                let (mut regs, _) = self.registers()?;
                regs.rflags |= rflags::TF;
                self.write_general(&regs)?;
            }
            _ => {}
        }
        self.tell(wanted, inject)
    }

    /// `KVM_SET_GUEST_DEBUG`.
    ///
    /// It is enabled always, if for nothing. A guest's access to its debug registers makes a KVM that has no guest debugging on leave them all to the
    /// guest for the entry that follows, and read them back after that. If the VP leaves KVM before that entry and debugging is turned on meanwhile,
    /// what KVM reads back as the guest's are the debugger's (seen with kvm-amd of Linux 6.12, where the kernel logs a warning).
    fn tell(&mut self, wanted: DebugState, inject: u32) -> Result<(), DebugError> {
        let mut debug = kvm_guest_debug {
            control: KVM_GUESTDBG_ENABLE | inject,
            ..Default::default()
        };
        if let Some((db, dr7)) = wanted.registers.programmed() {
            debug.control |= KVM_GUESTDBG_USE_HW_BP;
            debug.arch.debugreg[..db.len()].copy_from_slice(&db);
            let guard = match (self.offers.register_access, wanted.registers.access()) {
                (true, RegisterAccess::Reported) => GENERAL_DETECT,
                (true, RegisterAccess::CarriedOut) | (false, _) => 0,
            };
            debug.arch.debugreg[7] = dr7 | guard;
        }
        if wanted.bytes == Bytes::In {
            debug.control |= KVM_GUESTDBG_USE_SW_BP;
        }
        if wanted.stepping == Stepping::On {
            debug.control |= KVM_GUESTDBG_SINGLESTEP;
        }
        if wanted.interrupts == Interrupts::Held && self.offers.block_irq {
            debug.control |= KVM_GUESTDBG_BLOCKIRQ;
        }
        self.programmed = Programmed::Unknown;
        self.vcpu
            .fd()
            .set_guest_debug(&debug)
            .map_err(|err| refused("set a VP's debug registers", err))?;
        self.hides = wanted.stepping;
        self.programmed = match inject {
            0 => Programmed::Fresh(wanted),
            _ => Programmed::Unknown,
        };
        Ok(())
    }

    /// General and system registers, without an ioctl where they came with the last exit. RFLAGS.TF is the guest's own.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn registers(&mut self) -> Result<(kvm_regs, kvm_sregs), DebugError> {
        let fd = self.vcpu.fd();
        let (mut regs, sregs) = match self.synced {
            Synced::Yes => {
                let sync = fd.sync_regs();
                (sync.regs, sync.sregs)
            }
            Synced::No => {
                let read = |err| refused("read a VP's registers", err);
                (fd.get_regs().map_err(read)?, fd.get_sregs().map_err(read)?)
            }
        };
        if self.hides == Stepping::On && self.own == TrapFlag::Set {
            regs.rflags |= rflags::TF;
        }
        Ok((regs, sregs))
    }

    /// Says what the guest's own trap flag is from now on, where KVM hides it; nothing happens where it does not.
    pub(crate) fn set_own_trap_flag(&mut self, own: TrapFlag) {
        self.own = own;
    }

    /// Writes general registers and keeps what is yet to be delivered, which KVM drops when they are written.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn write_general(&mut self, regs: &kvm_regs) -> Result<(), DebugError> {
        self.registers_change();
        let fd = self.vcpu.fd();
        let write = |err| refused("write a VP's registers", err);
        let events = fd.get_vcpu_events().map_err(write)?;
        fd.set_regs(regs).map_err(write)?;
        match (events.exception.injected, events.exception.pending) {
            (0, 0) => Ok(()),
            _ => fd.set_vcpu_events(&events).map_err(write),
        }
    }

    /// What KVM delivers when the VP next enters.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn undelivered(&mut self) -> Result<Option<Undelivered>, DebugError> {
        let fd = self.vcpu.fd();
        let events = fd
            .get_vcpu_events()
            .map_err(|err| refused("read a VP's events", err))?;
        Ok(
            if events.exception.injected | events.exception.pending != 0 {
                Some(Undelivered::Exception(events.exception.nr))
            } else if events.interrupt.injected != 0 {
                Some(Undelivered::Interrupt(events.interrupt.nr))
            } else {
                None
            },
        )
    }

    /// Where it stands.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn place(&mut self, limits: PagingLimits) -> Result<Place, DebugError> {
        let (regs, sregs) = self.registers()?;
        Ok(place_of(&regs, &sregs, limits))
    }

    /// The linear address of RIP.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn linear_rip(&mut self) -> Result<u64, DebugError> {
        let (regs, sregs) = self.registers()?;
        Ok(linear_rip(&regs, &sregs))
    }

    /// Whether a parked VP had work to do. A KVM without in-kernel interrupt controller does not know, and says `Stopped`.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn activity(&mut self) -> Result<VpActivity, DebugError> {
        let state = self.vcpu.fd().get_mp_state();
        let state = state.map_err(|err| refused("read a VP's run state", err))?;
        Ok(match state.mp_state {
            KVM_MP_STATE_HALTED => VpActivity::Halted,
            KVM_MP_STATE_UNINITIALIZED | KVM_MP_STATE_INIT_RECEIVED => VpActivity::WaitingForStart,
            _ => VpActivity::Stopped,
        })
    }
}

/// Where a VP with these registers stands.
pub(crate) fn place_of(regs: &kvm_regs, sregs: &kvm_sregs, limits: PagingLimits) -> Place {
    let paging = PagingState {
        cr0: sregs.cr0,
        cr3: sregs.cr3,
        cr4: sregs.cr4,
        efer: sregs.efer,
        limits,
    };
    Place {
        rip: Gva::new(linear_rip(regs, sregs)),
        paging,
        user: sregs.ss.dpl == 3,
    }
}

fn linear_rip(regs: &kvm_regs, sregs: &kvm_sregs) -> u64 {
    match is_64_bit(sregs) {
        true => regs.rip,
        // Outside 64-bit mode linear addresses have 32 bits.
        false => sregs.cs.base.wrapping_add(regs.rip) & 0xffff_ffff,
    }
}

/// Whether the code is 64-bit code.
pub(crate) fn is_64_bit(sregs: &kvm_sregs) -> bool {
    sregs.efer & efer::LMA != 0 && sregs.cs.l != 0
}

fn refused(what: &str, err: kvm_ioctls::Error) -> DebugError {
    DebugError::Hypervisor {
        what: what.into(),
        why: err.to_string(),
    }
}

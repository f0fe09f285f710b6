//! A vCPU that follows a script, and records the calls that change it.

use crate::arch::x86_64::debug_registers::GuestRegisters;
use crate::arch::x86_64::dr7::DebugPayload;
use crate::arch::x86_64::dr7::Dr6;
use crate::arch::x86_64::emulate::Outcome;
use crate::arch::x86_64::page_walk::PagingLimits;
use crate::arch::x86_64::registers::CpuRegisters;
use crate::arch::x86_64::step_effects::TrapFlag;
use crate::arch::x86_64::stop_cause::DebugExit;
use crate::arch::x86_64::vp::debug_state::DebugState;
use crate::arch::x86_64::vp::debug_state::Undelivered;
use crate::arch::x86_64::vp::vcpu::Vcpu;
use crate::arch::x86_64::vp::vcpu::VcpuClocks;
use crate::control::exit::Exit;
use crate::control::guest_event::GuestEvent;
use crate::control::run_gate::RunGate;
use kvm_bindings::kvm_lapic_state;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_sregs;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::HypervisorCall;
use vmm_core_defs::debug_rpc::VpActivity;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::regs::x86_64::bits::msr;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::FaultRegisters;

/// One stay in the guest, or one completion of an I/O exit.
pub(crate) struct Stay {
    /// The changes that the guest makes to the vCPU before the exit.
    act: Box<dyn FnOnce(&mut FakeVcpu) + Send>,
    exit: Scripted,
    /// Whether this stay is the completion of the previous I/O exit.
    completes: bool,
}

/// An exit of the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scripted {
    Debug { vector: u32, dr6: u64 },
    PioWrite { port: u16 },
    MmioRead,
    Halted,
    Shutdown,
    SystemReset,
    SystemPowerOff,
    SystemCrash,
    Interrupted,
    Nothing,
    Failed(CrashCause),
}

impl Scripted {
    pub(crate) fn leaves_at(self, rip: u64) -> Stay {
        Stay {
            act: Box::new(move |vcpu| vcpu.registers.general.rip = rip),
            exit: self,
            completes: false,
        }
    }

    pub(crate) fn after(self, act: impl FnOnce(&mut FakeVcpu) + Send + 'static) -> Stay {
        Stay {
            act: Box::new(act),
            exit: self,
            completes: false,
        }
    }
}

impl Stay {
    pub(super) fn completing(self) -> Self {
        Self {
            completes: true,
            ..self
        }
    }
}

/// A call that changes the vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Program(DebugState),
    InjectDebug(DebugPayload),
    InjectBreakpoint,
    DropException,
    DropSoftException,
    Run,
    Complete,
    /// The calls of the hook.
    Left,
    HadByVmm,
    PowerOn,
    RegisterFile,
    Nmi,
}

/// See the module.
pub(crate) struct FakeVcpu {
    pub(crate) registers: CpuRegisters,
    pub(super) guest_registers: GuestRegisters,
    pub(super) undelivered: Option<Undelivered>,
    pub(super) activity: VpActivity,
    pub(crate) script: VecDeque<Stay>,
    pub(crate) told: Vec<Told>,
    /// The number of calls until one fails: 0 is the next call. `None`: no call fails.
    pub(crate) fails_at: Option<usize>,
    /// The call that has failed.
    pub(crate) failed: Option<&'static str>,
    /// Whether each exit is to bring the registers.
    pub(super) wants_registers: bool,
    pub(crate) tsc: u64,
    pub(crate) deadline: u64,
    /// `None`: the hypervisor has no local APIC.
    pub(crate) local_apic: Option<Box<kvm_lapic_state>>,
    /// The last exit.
    pub(crate) exit: Exit,
    /// `kvm_run.immediate_exit`, as the hook sees it.
    pub(crate) flag: &'static AtomicU8,
    gate: Arc<RunGate>,
    immediate_exit: bool,
    /// The port of the last exit, if the exit was a write to a port.
    port: Option<u16>,
}

impl FakeVcpu {
    /// A vCPU in 32-bit protected mode without paging, in ring 0, with interrupts on.
    pub(crate) fn new(gate: Arc<RunGate>, rip: u64) -> Self {
        let mut system = kvm_sregs {
            cr0: 0x11,
            ..Default::default()
        };
        system.cs.db = 1;
        system.cs.limit = u32::MAX;
        system.ss.limit = u32::MAX;
        system.cs.present = 1;
        system.ss.db = 1;
        let general = kvm_regs {
            rip,
            rflags: 0x202,
            rsp: super::STACK,
            ..Default::default()
        };
        Self {
            registers: CpuRegisters { general, system },
            guest_registers: GuestRegisters {
                db: [0; 4],
                dr7: 0x400,
            },
            undelivered: None,
            activity: VpActivity::Stopped,
            script: VecDeque::new(),
            told: Vec::new(),
            fails_at: None,
            failed: None,
            wants_registers: false,
            tsc: 0,
            deadline: 0,
            local_apic: None,
            exit: Exit::Nothing,
            flag: Box::leak(Box::default()),
            gate,
            immediate_exit: false,
            port: None,
        }
    }

    fn may_fail(&mut self, call: &'static str) -> Result<(), DebugError> {
        match &mut self.fails_at {
            Some(0) => {
                self.fails_at = None;
                self.failed = Some(call);
                Err(DebugError::Hypervisor {
                    call: HypervisorCall::ReadRegisters,
                    error: io::Error::other("the script says so").into(),
                })
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn made(&self, exit: Scripted) -> Exit {
        match exit {
            Scripted::Debug { vector, dr6 } => Exit::Debug(DebugExit {
                vector,
                pc: self.registers.linear_rip().value(),
                dr6: Dr6(0xffff_0ff0 | dr6),
            }),
            Scripted::PioWrite { .. } | Scripted::MmioRead => Exit::Device,
            Scripted::Halted => Exit::Halted,
            Scripted::Shutdown => Exit::Shutdown(FaultRegisters::Kept),
            Scripted::SystemReset => Exit::SystemReset,
            Scripted::SystemPowerOff => Exit::SystemPowerOff,
            Scripted::SystemCrash => Exit::SystemCrash,
            Scripted::Interrupted => Exit::Interrupted,
            Scripted::Nothing => Exit::Nothing,
            Scripted::Failed(cause) => Exit::Failed(cause),
        }
    }

    /// Runs the script. At the end of the script another thread kicks the VP.
    pub(crate) fn run(&mut self) -> Exit {
        self.told.push(match self.immediate_exit {
            true => Told::Complete,
            false => Told::Run,
        });
        let next = self.script.front().map(|stay| stay.completes);
        let stay = match (self.immediate_exit, next) {
            (true, Some(true)) | (false, Some(false)) => self.script.pop_front(),
            (true, _) => return Exit::Interrupted,
            (false, Some(true)) => panic!("a device access was not completed"),
            (false, None) => None,
        };
        let Some(stay) = stay else {
            // The VP is not in the guest, so no signal is needed.
            let _ = self.gate.kick();
            return Exit::Interrupted;
        };
        self.undelivered = None;
        (stay.act)(self);
        self.port = match stay.exit {
            Scripted::PioWrite { port } => Some(port),
            _ => None,
        };
        self.made(stay.exit)
    }

    /// The event for which the devices ask after an [`Exit::Device`]: a write to [`RESET_PORT`](super::RESET_PORT) resets the machine.
    pub(super) fn device_event(&self) -> Option<GuestEvent> {
        let vp = Some(super::VP);
        (self.port == Some(super::RESET_PORT)).then_some(GuestEvent::Reset { vp })
    }
}

impl Vcpu for FakeVcpu {
    fn set_immediate_exit(&mut self, on: bool) {
        self.immediate_exit = on;
    }

    fn want_registers(&mut self, wanted: bool) {
        self.wants_registers = wanted;
    }

    fn program(&mut self, state: DebugState) -> Result<(), DebugError> {
        self.may_fail("program")?;
        self.told.push(Told::Program(state));
        Ok(())
    }

    fn kept_trap_flag(&mut self) {}

    fn set_own_trap_flag(&mut self, _: TrapFlag) {}

    fn guest_debug_registers(&mut self) -> Result<GuestRegisters, DebugError> {
        self.may_fail("guest_debug_registers")?;
        Ok(self.guest_registers)
    }

    fn holds_interrupts(&self) -> bool {
        true
    }

    fn undelivered(&mut self) -> Result<Option<Undelivered>, DebugError> {
        self.may_fail("undelivered")?;
        Ok(self.undelivered)
    }

    fn deliverable(&mut self) -> Result<Option<u8>, DebugError> {
        self.may_fail("deliverable")?;
        Ok(None)
    }

    fn inject_debug(&mut self, _: DebugState, payload: DebugPayload) -> Result<(), DebugError> {
        self.may_fail("inject_debug")?;
        self.told.push(Told::InjectDebug(payload));
        Ok(())
    }

    fn inject_breakpoint(&mut self, _: DebugState) -> Result<(), DebugError> {
        self.may_fail("inject_breakpoint")?;
        self.told.push(Told::InjectBreakpoint);
        Ok(())
    }

    fn drop_exception(&mut self) -> Result<(), DebugError> {
        self.may_fail("drop_exception")?;
        self.told.push(Told::DropException);
        Ok(())
    }

    fn drop_soft_exception(&mut self) -> Result<(), DebugError> {
        self.may_fail("drop_soft_exception")?;
        self.told.push(Told::DropSoftException);
        Ok(())
    }

    fn has_interrupt_shadow(&mut self) -> Result<bool, DebugError> {
        self.may_fail("has_interrupt_shadow")?;
        Ok(false)
    }

    fn raise_nmi(&mut self) -> Result<(), DebugError> {
        self.may_fail("raise_nmi")?;
        self.told.push(Told::Nmi);
        Ok(())
    }

    fn registers(&mut self) -> Result<&CpuRegisters, DebugError> {
        self.may_fail("registers")?;
        Ok(&self.registers)
    }

    fn write_general(&mut self, general: &kvm_regs) -> Result<(), DebugError> {
        self.may_fail("write_general")?;
        self.registers.general = *general;
        Ok(())
    }

    fn skip_to(&mut self, rip: u64) -> Result<(), DebugError> {
        self.may_fail("skip_to")?;
        self.registers.general.rip = rip;
        Ok(())
    }

    fn write_outcome(&mut self, outcome: &Outcome) -> Result<(), DebugError> {
        self.may_fail("write_outcome")?;
        let general = &mut self.registers.general;
        (general.rip, general.rflags) = (outcome.rip, outcome.rflags);
        Ok(())
    }

    fn paging_limits(&self) -> Result<PagingLimits, DebugError> {
        Ok(PagingLimits::new(40, true))
    }

    fn read_state(&mut self) -> Result<X86VpState, DebugError> {
        self.may_fail("read_state")?;
        Ok(self.registers.state())
    }

    fn write_state(&mut self, _: &X86VpState, new: &X86VpState) -> Result<(), DebugError> {
        self.may_fail("write_state")?;
        let general = &mut self.registers.general;
        (general.rip, general.rflags) = (new.rip, new.rflags);
        Ok(())
    }

    fn activity(&mut self) -> Result<VpActivity, DebugError> {
        self.may_fail("activity")?;
        Ok(self.activity)
    }

    fn halt_at(&mut self, next_rip: u64) -> Result<bool, DebugError> {
        self.may_fail("halt_at")?;
        self.registers.general.rip = next_rip;
        self.activity = VpActivity::Halted;
        Ok(true)
    }
}

impl VcpuClocks for FakeVcpu {
    fn read_msr(&mut self, msr: u32) -> Result<u64, DebugError> {
        self.may_fail("read_msr")?;
        Ok(match msr {
            msr::TSC => self.tsc,
            msr::TSC_DEADLINE => self.deadline,
            _ => 0,
        })
    }

    fn write_clock_msr(&mut self, msr: u32, value: u64) -> Result<(), DebugError> {
        self.may_fail("write_clock_msr")?;
        match msr {
            msr::TSC => self.tsc = value,
            msr::TSC_DEADLINE => self.deadline = value,
            _ => panic!("MSR {msr:#x} is no clock"),
        }
        Ok(())
    }

    fn write_msr(&mut self, msr: u32, value: u64) -> Result<(), DebugError> {
        self.write_clock_msr(msr, value)
    }

    fn tsc_offset(&mut self) -> Option<u64> {
        Some(self.tsc)
    }

    fn put_back_tsc(&mut self, ticks: u64) -> Result<(), DebugError> {
        self.may_fail("put_back_tsc")?;
        self.tsc = self.tsc.wrapping_sub(ticks);
        Ok(())
    }

    fn local_apic(&mut self) -> Option<kvm_lapic_state> {
        self.local_apic.as_deref().copied()
    }

    fn change_local_apic(
        &mut self,
        _: impl FnOnce(&mut kvm_lapic_state),
    ) -> Result<(), DebugError> {
        self.may_fail("change_local_apic")
    }

    fn tell_of_pause(&mut self) -> bool {
        false
    }
}

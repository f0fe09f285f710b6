//! Single-steps one instruction without leaking our trap flag into guest-visible state (I8, I9).
//!
//! KVM steps with RFLAGS.TF, which instructions and exceptions store where the guest can see it. So:
//! - an instruction that stores RFLAGS, and an event that is about to be delivered, runs without TF, and an execution breakpoint waits where it leads;
//! - a guest that has set TF itself runs with its own TF. The runner keeps that trap from the guest, ends the step by it, and gives it back when the VP goes on;
//! - everything else is stepped with TF, and execution breakpoints wait at the handlers of the likeliest exceptions: TF is cleared on the way to a handler, which would
//!   run unseen. The frame that the handler finds is corrected.
//!
//! These breakpoints of a step ("traps") are on debug registers that are free. A register of the client's that waits at another instruction counts as free for the time of
//! the step, which does not get there.

mod after_step;
mod hlt;
mod plan;
mod range_step;
mod recent_code;
mod resume_flag;

use super::cpu::Cpu;
use super::debug_state::DebugState;
use super::debug_state::Interrupts;
use super::guest_memory::PAGE;
use super::guest_memory::SyscallMsrs;
use super::vcpu::Vcpu;
use crate::arch::x86_64::code_location::CodeLocation;
use crate::arch::x86_64::debug_registers::DebugRegisters;
use crate::arch::x86_64::registers::CpuRegisters;
use crate::arch::x86_64::step_effects::LIKELY_FAULTS;
use crate::arch::x86_64::step_effects::Landing;
use crate::arch::x86_64::step_effects::Step;
use crate::arch::x86_64::step_effects::class::Class;
use crate::arch::x86_64::stop_cause::DebugExit;
use crate::arch::x86_64::stop_cause::SingleStepping;
use iced_x86::Instruction;
pub(super) use range_step::FastPath;
use range_step::NextStep;
use recent_code::RecentCode;
use resume_flag::HiddenFlag;
pub(super) use resume_flag::ResumeFlag;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::regs::x86_64::bits::MAX_INSTRUCTION_LEN;
use vmm_core_defs::regs::x86_64::bits::msr;

/// The steps of one VP.
#[derive(Debug, Default)]
pub(super) struct Stepping {
    /// The step that is planned or under way.
    planned: Option<PlannedStep>,
    /// The VP is at the first instruction of a handler, and the step waits for its return.
    interrupted: Option<Interrupted>,
    /// RFLAGS.RF that is out of guest memory for one entry.
    hidden: Vec<HiddenFlag>,
    handlers: Option<FaultHandlers>,
    pending_trap: PendingTrap,
    recent: RecentCode,
}

/// A step that is planned or under way.
#[derive(Debug)]
struct PlannedStep {
    by_trap_flag: SingleStepping,
    interrupts: Interrupts,
    /// The client's debug registers, the guest's, and the step's own.
    registers: DebugRegisters,
    at_trap: AtTrap,
    before: CpuRegisters,
    location: CodeLocation,
    /// `None`: the instruction cannot be decoded.
    instruction: Option<Instruction>,
    class: Class,
    /// Present if the instruction was looked at closely.
    step: Option<Box<Step>>,
    next: NextStep,
    /// RFLAGS.RF in memory that would keep a trap of the step from being met.
    blocking: Vec<HiddenFlag>,
}

/// The position of the VP when it meets one of the step's traps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtTrap {
    /// The step is done.
    StepDone,
    /// The handler of an interrupt that came before the instruction is about to run. Only now is it visible whether the handler will return with RFLAGS.RF set, and
    /// meet no breakpoint: kvm-amd saved RF set although it was clear, where an exit had cut the delivery short.
    HandlerBegins,
    /// The handler of an interrupt that came before the instruction has returned to it.
    HandlerReturned,
}

/// An interrupt came before the instruction of the step. The VP is at the first instruction of the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Interrupted {
    /// The instruction of the step.
    rip: Gva,
    /// Where the delivery saved RF, if that is known: bit 0 of the byte.
    saved: Option<Gva>,
}

/// The handlers of the likeliest exceptions. Reading them takes longer than a step, and a range may take a million steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FaultHandlers {
    /// Base and limit of the IDT, and whether the code is 64-bit code.
    table: (u64, u16, bool),
    handlers: [Option<Landing>; LIKELY_FAULTS.len()],
}

/// The trap of our single step over an instruction that blocks debug exceptions for the next one, as `mov ss` does.
///
/// If that next instruction is an `INT3` of ours, VT-x exits for the `INT3` and keeps the trap pending (SDM volume 3, "Pending Debug Exceptions"). The trap
/// comes as soon as the VP enters again, before the VP executes anything. A processor may keep no such trap, so a trap that comes later is not this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum PendingTrap {
    /// No such trap is pending.
    #[default]
    None,
    /// Such a trap may be pending, and the VP has not entered since.
    Possible,
    /// Such a trap may be pending, and the VP has entered at this linear address.
    Expected(Gva),
}

impl Stepping {
    /// The VP is about to be entered for a new action.
    pub(super) fn begin(&mut self) {
        self.planned = None;
        self.interrupted = None;
        self.handlers = None;
    }

    /// No step is under way any more.
    pub(super) fn drop_plan(&mut self) {
        self.planned = None;
    }

    /// Whether a step is planned or under way.
    pub(super) fn is_planned(&self) -> bool {
        self.planned.is_some()
    }

    /// Whether the instruction of the step under way has executed, for a VP that met a breakpoint or watchpoint and is at `rip`. `trapped`: the trap of the step came with it.
    pub(super) fn is_executed(&self, rip: Gva, trapped: bool) -> bool {
        self.planned.as_ref().is_some_and(|planned| {
            planned.at_trap == AtTrap::StepDone && (trapped || planned.location.rip != rip)
        })
    }

    /// The linear address of the instruction that is stepped.
    pub(super) fn from(&self) -> Option<Gva> {
        self.planned.as_ref().map(|planned| planned.location.rip)
    }

    /// The guest may have run far since the handlers of its exceptions were read.
    pub(super) fn forget_handlers(&mut self) {
        self.handlers = None;
    }

    /// Adds the step to the debug state of the entry.
    pub(super) fn apply(&self, state: &mut DebugState) {
        if let Some(planned) = &self.planned {
            state.stepping = planned.by_trap_flag;
            state.interrupts = planned.interrupts;
            state.registers = planned.registers;
        }
    }

    /// The VP is about to enter. A VP that is not where the last entry left it has executed something, so the trap is not pending any more.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(super) fn expect_pending_trap<V: Vcpu>(
        &mut self,
        cpu: &mut Cpu<V>,
    ) -> Result<(), DebugError> {
        self.pending_trap = match self.pending_trap {
            PendingTrap::None => return Ok(()),
            PendingTrap::Possible => PendingTrap::Expected(cpu.linear_rip()?),
            PendingTrap::Expected(at) => match cpu.linear_rip()? {
                rip if rip == at => PendingTrap::Expected(at),
                _ => PendingTrap::None,
            },
        };
        Ok(())
    }

    /// Whether a debug exit is the trap of an earlier step, which was pending. Any debug exit takes such a trap.
    pub(super) fn takes_pending_trap(&mut self, exit: &DebugExit) -> bool {
        let pending = std::mem::take(&mut self.pending_trap);
        pending == PendingTrap::Expected(Gva::new(exit.pc)) && exit.is_step_alone()
    }

    /// A byte of ours was met, perhaps behind the instruction that was stepped.
    pub(super) fn met_byte(&mut self, exit: &DebugExit) {
        let stepped = self.planned.as_ref().is_some_and(|planned| {
            planned.by_trap_flag == SingleStepping::On && planned.location.rip.value() != exit.pc
        });
        if stepped {
            self.pending_trap = PendingTrap::Possible;
        }
    }

    /// RIP was written. A trap that is pending comes at the new RIP.
    pub(super) fn moved(&mut self) {
        if let PendingTrap::Expected(_) = self.pending_trap {
            self.pending_trap = PendingTrap::Possible;
        }
    }

    /// The VP was reset.
    pub(super) fn reset(&mut self) {
        self.pending_trap = PendingTrap::None;
    }
}

/// Whether an instruction at this address is on one page, however long it is.
fn is_within_page(rip: Gva) -> bool {
    rip.value() % PAGE <= PAGE - MAX_INSTRUCTION_LEN as u64
}

/// The MSRs that decide where `syscall` leads. An MSR that the VP does not have counts as 0.
fn syscall_msrs<V: Vcpu>(registers: &CpuRegisters, vcpu: &mut V) -> SyscallMsrs {
    let entry = match registers.is_64_bit_code() {
        true => msr::LSTAR,
        false => msr::CSTAR,
    };
    SyscallMsrs {
        entry: vcpu.read_msr(entry).unwrap_or(0),
        mask: vcpu.read_msr(msr::FMASK).unwrap_or(0),
    }
}

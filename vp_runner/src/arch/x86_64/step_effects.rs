//! The traces that a single step leaves in the guest, and the guest's own trap flag. Pure.
//!
//! A step sets RFLAGS.TF on the processor. Some instructions, and every exception or interrupt that is delivered during the step, store RFLAGS where the
//! guest can read it. Other instructions load RFLAGS, and TF with it. While KVM steps, KVM hides TF in the registers that it returns, including a TF that the
//! guest has set. So the guest's own TF is kept separately from before the first step on ([`TrapFlag`]), and computed from step to step.
//!
//! A step over an instruction that itself stores RFLAGS ([`Step::stores_flags`]) does not use TF. An execution breakpoint at the target of the instruction
//! ([`Step::landing`]) ends the step. If the guest itself has set TF, the guest's own trap ends the step. The debugger's TF is set only for the remaining
//! steps, or if no debug register is free. The traces of this TF in the guest are then corrected.
//!
//! Use: call [`Step::new`] before the step. After a step with the debugger's TF, call [`Step::after`] with the registers after the step. Then carry out
//! [`StepEffects::correction`], keep [`StepEffects::own`], and deliver the `#DB` of [`StepEffects::trap`] to the guest. [`class::of`] returns
//! which instructions need none of this.
//!
//! | instruction | stores TF in | the guest's own TF then | where the step stops |
//! |---|---|---|---|
//! | `pushf` | the stack | as before | after it |
//! | `popf`, `iret` | | as popped | after it; some KVMs lose the step |
//! | `int n`, `int3`, `int1`, `into` | the handler's frame | clear | TF is cleared, so only an execution breakpoint at the handler ends the step |
//! | an exception or interrupt | the handler's frame | clear | the same |
//! | `syscall` | R11 (long mode) | masked by IA32_FMASK | at the entry, or nowhere if the mask has TF |
//! | `sysenter` | | as before | at the entry |
//! | `sysret` | | as in R11 | where it leads, or nowhere if R11 has no TF |
//! | a task switch | the old task's TSS | as in the new task's TSS | KVM emulates the switch and loses the step, so only an execution breakpoint in the new task ends the step |
//! | `hlt` | | as before | when an interrupt wakes the VP, so the halt itself ends the step |
//! | `mov ss`, `pop ss` | | as before | one instruction later, as the manual says |
//! | `sti` | | as before | after it, with interrupts still blocked |
//! | `rep` strings | | as before | after each iteration; RIP changes only after the last |
//! | `cpuid`, `wrmsr` and similar | | as before | KVM emulates them; if KVM loses the step, RIP shows that they are done |
//!
//! Sources: SDM volume 3, "Single-Step Exception Condition", "Masking Exceptions and Interrupts When Switching Stacks", "Exception and Interrupt
//! Handling in 64-bit Mode", "Task Management"; volume 2 for each instruction.

use crate::arch::x86_64::cpu_mode::Segment;
use crate::arch::x86_64::cpu_mode::cpu_mode;
use crate::arch::x86_64::cpu_mode::linear_address;
use iced_x86::Instruction;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::CpuMode;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::regs::x86_64::Gp;
use vmm_core_defs::regs::x86_64::SegmentRegister;
use vmm_core_defs::regs::x86_64::bits::cr0;
use vmm_core_defs::regs::x86_64::bits::efer;
use vmm_core_defs::regs::x86_64::bits::rflags;
use vmm_core_defs::regs::x86_64::segment_attributes;

pub(crate) mod class;
mod delivery;
mod gate;
mod kind;
mod task;

pub(crate) use gate::handler;
use kind::Flow;
pub(crate) use kind::Kind;

/// The exceptions at whose handlers a step sets execution breakpoints, likeliest first: page fault, general protection, invalid opcode, divide error.
pub(crate) const LIKELY_FAULTS: [u8; 4] = [14, 13, 6, 0];

/// TF in bits 8-15 of RFLAGS: the second byte of any stored image.
const TF_IN_BYTE: u8 = 1;

/// A trap flag: the guest's own, or the one in an image of RFLAGS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrapFlag {
    /// TF is 1.
    Set,
    /// TF is 0.
    Clear,
}

impl TrapFlag {
    /// The flag in an image of RFLAGS.
    pub(crate) const fn of(rflags: u64) -> Self {
        match rflags & rflags::TF {
            0 => Self::Clear,
            _ => Self::Set,
        }
    }
}

/// Access to the guest's memory and to MSRs that are not in the register file.
pub(crate) trait GuestState {
    /// Reads `data.len()` bytes from a linear address of the VP. `false` if the bytes cannot be read.
    fn read(&self, gva: Gva, data: &mut [u8]) -> bool;
    /// IA32_FMASK (MSR C000_0084h). Read only after a `syscall`.
    fn syscall_mask(&self) -> u64;
    /// The target of `syscall` in the VP's present mode: IA32_LSTAR (MSR C000_0082h), or CSTAR (C000_0083h) from compatibility mode. Read only before
    /// a `syscall`.
    fn syscall_entry(&self) -> u64;
}

/// The location of an image of RFLAGS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlagsLocation {
    /// Bit 0 of the byte at this address is the image's TF.
    Memory(Gva),
    /// Bit 8 of this register is the image's TF.
    Register(Gp),
}

/// An image of RFLAGS whose TF must be corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Correction {
    /// The location of the image.
    pub location: FlagsLocation,
    /// The correct TF.
    pub flag: TrapFlag,
}

/// Whether the guest, which steps itself, gets a `#DB` (DR6.BS) now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GuestTrap {
    /// Yes. The guest's own TF was set and the instruction is done.
    SingleStepTrap,
    /// No.
    Nothing,
}

/// The effects of a step that the caller has to carry out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StepEffects {
    /// The image of RFLAGS that must be corrected.
    pub correction: Option<Correction>,
    /// The guest's own TF from now on.
    pub own: TrapFlag,
    /// Whether the guest gets a single-step trap now.
    pub trap: GuestTrap,
}

/// An instruction about to be stepped.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    kind: Kind,
    flow: Flow,
    own: TrapFlag,
    rip: u64,
    next_rip: u64,
    cs: u16,
    tr: SegmentRegister,
    /// TF in the value that the instruction will load into RFLAGS.
    loaded: Option<TrapFlag>,
    /// The location at which the instruction itself will store TF.
    stored: Option<FlagsLocation>,
    /// The target of the task switch, if the instruction switches tasks.
    task: Option<Landing>,
}

/// The target of an instruction or of the delivery of an exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Landing {
    /// The linear address of the first instruction there.
    pub(crate) first: Gva,
    /// The address of a byte whose bit 0 is EFLAGS.RF for the first instruction there, if this RF is set. RF is set in a task that a fault has left. The first
    /// instruction then triggers no execution breakpoint.
    pub(crate) resume_flag: Option<Gva>,
}

impl Landing {
    /// A target at which RF is clear.
    pub(crate) const fn at(first: Gva) -> Self {
        Self {
            first,
            resume_flag: None,
        }
    }
}

impl Step {
    /// Prepares a step over the instruction at RIP. `instruction` is `None` if the VP cannot execute any instruction there. `own` is the guest's own TF.
    pub(crate) fn new(
        state: &X86VpState,
        own: TrapFlag,
        instruction: Option<&Instruction>,
        guest: &impl GuestState,
    ) -> Self {
        let kind = kind::of(state.rflags, instruction);
        let (loaded, stored) = match kind {
            Kind::PushFlags { bytes } => {
                let at = stack_at(state, 1_i64 - i64::from(bytes));
                (None, Some(FlagsLocation::Memory(at)))
            }
            Kind::PopFlags => (popped(state, 1, guest), None),
            Kind::InterruptReturn { bytes } => {
                (popped(state, 2 * i64::from(bytes) + 1, guest), None)
            }
            Kind::SystemReturn { .. } => (Some(TrapFlag::of(state.gp[Gp::R11 as usize])), None),
            Kind::SystemCall if state.efer & efer::LMA != 0 => {
                (None, Some(FlagsLocation::Register(Gp::R11)))
            }
            _ => (None, None),
        };
        let task = match (kind, instruction) {
            (Kind::FarTransfer, Some(far)) => task::of_far_transfer(state, far, guest),
            (Kind::InterruptReturn { .. }, _) => task::of_interrupt_return(state, guest),
            _ => None,
        };
        Self {
            kind,
            flow: instruction.map_or(Flow::Sequential, kind::flow),
            own,
            rip: state.rip,
            next_rip: instruction.map_or(state.rip, |found| found.next_ip()),
            cs: state.cs.selector,
            tr: state.tr,
            loaded,
            stored,
            task,
        }
    }

    #[cfg(test)]
    fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the next instruction in memory follows, unless an exception or interrupt is delivered.
    pub(crate) fn goes_on(&self) -> bool {
        self.flow == Flow::Sequential && !matches!(self.kind, Kind::SoftwareInterrupt { .. })
    }

    /// Whether the instruction itself stores the trap flag.
    pub(crate) fn stores_flags(&self) -> bool {
        self.stored.is_some() || matches!(self.kind, Kind::SoftwareInterrupt { .. })
    }

    /// The target of the instruction, if TF may not end the step there and if the target is known. `state` is the state before the step.
    pub(crate) fn landing(&self, state: &X86VpState, guest: &impl GuestState) -> Option<Landing> {
        let long = state.efer & efer::LMA != 0;
        let first = match self.kind {
            Kind::SoftwareInterrupt { vector } => return handler(state, vector, guest),
            Kind::PushFlags { .. } => linear_address(state, Segment::Cs, self.next_rip),
            Kind::SystemCall if long => Gva::new(guest.syscall_entry()),
            // `sysret` loads a CS with base 0.
            Kind::SystemReturn { bytes } => {
                let rcx = state.gp[Gp::Rcx as usize];
                Gva::new(rcx & u64::MAX >> (64 - 8 * u32::from(bytes)))
            }
            _ => return self.task,
        };
        Some(Landing::at(first))
    }

    /// The address of the byte whose bit 0 is the saved RF, if an interrupt was delivered before the instruction. `after` is the state before the first
    /// instruction of the handler. `None` if the saved flags have 16 bits and so no RF, or if no delivery is recognised.
    pub(crate) fn saved_resume_flag(
        &self,
        after: &X86VpState,
        guest: &impl GuestState,
    ) -> Option<Gva> {
        match self.switched_task(after) {
            true => tss_flags_at(&self.tr)?.resume_flag(),
            false => delivery::frame(self, after, guest)?.resume_flag,
        }
    }

    /// The effects of the step, from the registers after the step. TF in `after` is ignored, because KVM hides it.
    pub(crate) fn after(&self, after: &X86VpState, guest: &impl GuestState) -> StepEffects {
        if self.switched_task(after) {
            return StepEffects {
                correction: tss_flags(&self.tr).and_then(|at| self.correct(at, after, guest)),
                own: tss_flags(&after.tr)
                    .and_then(|at| image(at, after, guest))
                    .unwrap_or(TrapFlag::Clear),
                trap: GuestTrap::Nothing,
            };
        }
        if let Some(flags) = delivery::frame(self, after, guest) {
            let at = FlagsLocation::Memory(flags.trap_flag);
            return StepEffects {
                correction: self.correct(at, after, guest),
                own: TrapFlag::Clear,
                trap: GuestTrap::Nothing,
            };
        }
        if !self.is_complete(after) {
            return StepEffects {
                correction: None,
                own: self.own,
                trap: GuestTrap::Nothing,
            };
        }
        let own = match (self.kind, self.loaded) {
            (Kind::SystemCall, _) if self.stored.is_some() => {
                match TrapFlag::of(guest.syscall_mask()) {
                    TrapFlag::Set => TrapFlag::Clear,
                    TrapFlag::Clear => self.own,
                }
            }
            (_, Some(loaded)) => loaded,
            (_, None) => self.own,
        };
        let trapping = match self.kind {
            // This trap is delayed to the end of the next instruction, which has a trap of its own.
            Kind::StackSegment => TrapFlag::Clear,
            // For these the processor uses TF after the instruction (Xen Security Advisory 204). Otherwise user mode could trap the first instruction of the kernel.
            Kind::SystemCall | Kind::SystemReturn { .. } => own,
            _ => self.own,
        };
        StepEffects {
            correction: self.stored.and_then(|at| self.correct(at, after, guest)),
            own,
            trap: match trapping {
                TrapFlag::Set => GuestTrap::SingleStepTrap,
                TrapFlag::Clear => GuestTrap::Nothing,
            },
        }
    }

    fn correct(
        &self,
        location: FlagsLocation,
        after: &X86VpState,
        guest: &impl GuestState,
    ) -> Option<Correction> {
        let flag = self.own;
        let wrong = image(location, after, guest)? != flag;
        wrong.then_some(Correction { location, flag })
    }

    fn is_complete(&self, after: &X86VpState) -> bool {
        match (self.kind, self.flow) {
            (Kind::RepeatedString, _) => after.rip == self.next_rip || after.rip == self.rip,
            (Kind::SystemCall, _) => after.gp[Gp::Rcx as usize] == self.next_rip,
            (_, Flow::Sequential) => after.rip == self.next_rip,
            (_, Flow::Near | Flow::Call | Flow::Far) => true,
        }
    }

    /// Only a task switch and `ltr` change TR (SDM volume 3, "Task Switching"). Long mode has no task switches.
    fn switched_task(&self, after: &X86VpState) -> bool {
        let may = after.cr0 & cr0::PE != 0 && after.efer & efer::LMA == 0;
        let changed = (self.tr.selector, self.tr.base) != (after.tr.selector, after.tr.base);
        may && changed && self.kind != Kind::LoadTaskRegister
    }
}

/// TF in the image of RFLAGS at a location.
fn image(location: FlagsLocation, state: &X86VpState, guest: &impl GuestState) -> Option<TrapFlag> {
    let byte = match location {
        FlagsLocation::Memory(at) => {
            let mut byte = [0];
            guest.read(at, &mut byte).then_some(byte[0])?
        }
        FlagsLocation::Register(register) => {
            let [_, byte, ..] = state.gp[register as usize].to_le_bytes();
            byte
        }
    };
    Some(match byte & TF_IN_BYTE {
        0 => TrapFlag::Clear,
        _ => TrapFlag::Set,
    })
}

fn popped(state: &X86VpState, displacement: i64, guest: &impl GuestState) -> Option<TrapFlag> {
    image(
        FlagsLocation::Memory(stack_at(state, displacement)),
        state,
        guest,
    )
}

/// The linear address `displacement` bytes from the top of the stack. SP wraps at 64 KiB and ESP at 4 GiB, if the stack uses them.
fn stack_at(state: &X86VpState, displacement: i64) -> Gva {
    let offset = state.gp[Gp::Rsp as usize].wrapping_add_signed(displacement);
    let big = state.ss.attributes & segment_attributes::DEFAULT_BIG != 0;
    let offset = match (cpu_mode(state), big) {
        (CpuMode::Long64, _) => offset,
        (_, true) => offset & 0xffff_ffff,
        (_, false) => offset & 0xffff,
    };
    linear_address(state, Segment::Ss, offset)
}

/// The location of TF in the flags of a TSS.
fn tss_flags(tr: &SegmentRegister) -> Option<FlagsLocation> {
    Some(FlagsLocation::Memory(tss_flags_at(tr)?.byte(1)))
}

/// EFLAGS or FLAGS in a TSS.
struct TssFlags {
    at: u64,
    /// Whether the flags have 32 bits.
    wide: bool,
}

impl TssFlags {
    /// The byte whose bit 0 is RF.
    fn resume_flag(&self) -> Option<Gva> {
        self.wide.then(|| self.byte(2))
    }

    fn byte(&self, number: u64) -> Gva {
        Gva::new(self.at.wrapping_add(number) & 0xffff_ffff)
    }
}

/// Sources: SDM volume 3, "Task-State Segment (TSS)" and "16-Bit Task-State Segment".
fn tss_flags_at(tr: &SegmentRegister) -> Option<TssFlags> {
    let (offset, wide) = match tr.attributes & 0b1101 {
        0b1001 => (0x24, true),
        0b0001 => (0x10, false),
        _ => return None,
    };
    let at = tr.base.wrapping_add(offset);
    Some(TssFlags { at, wide })
}

#[cfg(test)]
mod tests;

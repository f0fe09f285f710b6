//! What a single step leaves in the guest that would not be there without us, and what becomes of the guest's own trap flag. Pure.
//!
//! A step sets RFLAGS.TF on the processor. Some instructions, and every exception or interrupt delivered during the step, store RFLAGS where the
//! guest can see it; other instructions load RFLAGS, and TF with them. KVM hides TF in the registers it shows while it steps, and with it the
//! guest's own, so the guest's own is kept apart from before the first step on ([`TrapFlag`]) and computed from step to step.
//!
//! So a step over an instruction that stores RFLAGS itself ([`Step::stores_flags`]) is not made with TF at all: an execution breakpoint waits where
//! the instruction leads ([`Step::landing`]). Nor is one of a guest that has set TF itself: its own does. TF is for the rest, and for want of a free debug register;
//! what it left in the guest is corrected then.
//!
//! Use: [`Step::new`] before, the step, and where it was made with our TF [`Step::after`] with the registers after it; then carry out
//! [`Aftermath::correction`], keep [`Aftermath::own`], and give the guest the `#DB` that [`Aftermath::owed`] speaks of. [`class::of`] tells
//! which instructions need none of that.
//!
//! | instruction | stores TF in | the guest's own TF then | where the step stops |
//! |---|---|---|---|
//! | `pushf` | the stack | as before | after it |
//! | `popf`, `iret` | | as popped | after it; some KVMs forget the step |
//! | `int n`, `int3`, `int1`, `into` | the handler's frame | clear | TF is cleared: only an execution breakpoint at the handler stops there |
//! | an exception or interrupt | the handler's frame | clear | the same |
//! | `syscall` | R11 (long mode) | masked by IA32_FMASK | at the entry, or nowhere if the mask has TF |
//! | `sysenter` | | as before | at the entry |
//! | `sysret` | | as in R11 | where it leads, or nowhere if R11 has no TF |
//! | a task switch | the old task's TSS | as in the new task's TSS | KVM carries it out and forgets the step: only an execution breakpoint in the new task stops there |
//! | `hlt` | | as before | when an interrupt wakes it: the VP's halt ends the step |
//! | `mov ss`, `pop ss` | | as before | one instruction late, by the manual |
//! | `sti` | | as before | after it, interrupts still held back |
//! | `rep` strings | | as before | after each iteration, RIP unchanged but for the last |
//! | `cpuid`, `wrmsr` and their like | | as before | KVM executes them: where it forgets the step, RIP tells |
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

/// The exceptions that a step is looked after for, the likeliest first: page fault, general protection, invalid opcode, divide error.
pub(crate) const LIKELY_FAULTS: [u8; 4] = [14, 13, 6, 0];

/// TF in bits 8-15 of RFLAGS: the second byte of any stored image.
const TF_IN_BYTE: u8 = 1;

/// A trap flag: in the guest's mind, or in an image of RFLAGS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrapFlag {
    /// One.
    Set,
    /// Zero.
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

/// What has to be known of the guest besides its register file.
pub(crate) trait Guest {
    /// Reads linear addresses of the VP, as long as `data`. `false` where that cannot be done.
    fn read(&self, gva: Gva, data: &mut [u8]) -> bool;
    /// IA32_FMASK (MSR C000_0084h). Asked only after a `syscall`.
    fn syscall_mask(&self) -> u64;
    /// Where `syscall` leads in the VP's present mode: IA32_LSTAR (MSR C000_0082h), or CSTAR (C000_0083h) from compatibility mode. Asked only before
    /// a `syscall`.
    fn syscall_entry(&self) -> u64;
}

/// Where an image of RFLAGS was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlagsLocation {
    /// Bit 0 of the byte at this address is the image's TF.
    Memory(Gva),
    /// Bit 8 of this register is.
    Register(Gp),
}

/// An image of RFLAGS in which TF is not what the guest has to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Correction {
    /// Where it is.
    pub place: FlagsLocation,
    /// What TF has to be there.
    pub flag: TrapFlag,
}

/// Whether the guest, single-stepping itself, is to get its `#DB` (DR6.BS) now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owed {
    /// Yes: its own TF was set and the instruction is done.
    SingleStepTrap,
    /// No.
    Nothing,
}

/// What is to be done after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Aftermath {
    /// What is to be put right in the guest.
    pub correction: Option<Correction>,
    /// The guest's own TF from now on.
    pub own: TrapFlag,
    /// What the guest gets now.
    pub owed: Owed,
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
    /// TF in what the instruction will load into RFLAGS.
    loaded: Option<TrapFlag>,
    /// Where the instruction itself will store TF.
    stored: Option<FlagsLocation>,
    /// The task that it switches to.
    task: Option<Landing>,
}

/// Where an instruction or a delivery leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Landing {
    /// The linear address of the first instruction there.
    pub(crate) first: Gva,
    /// The first instruction begins with EFLAGS.RF set, as that of a task does that a fault has left: it meets no execution breakpoint. Bit 0 of the byte at
    /// this address is that RF.
    pub(crate) resume_flag: Option<Gva>,
}

impl Landing {
    /// One that begins with RF clear.
    pub(crate) const fn at(first: Gva) -> Self {
        Self {
            first,
            resume_flag: None,
        }
    }
}

impl Step {
    /// Looks at the instruction at RIP. `None`: there is none that the VP can execute. `own` is the guest's own TF.
    pub(crate) fn new(
        state: &X86VpState,
        own: TrapFlag,
        instruction: Option<&Instruction>,
        guest: &impl Guest,
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

    /// Whether it goes on with the next instruction, if nothing goes wrong.
    pub(crate) fn goes_on(&self) -> bool {
        self.flow == Flow::Sequential && !matches!(self.kind, Kind::SoftwareInterrupt { .. })
    }

    /// Whether the trap flag would show in what the instruction stores.
    pub(crate) fn stores_flags(&self) -> bool {
        self.stored.is_some() || matches!(self.kind, Kind::SoftwareInterrupt { .. })
    }

    /// Where the instruction leads, if TF may not end the step there and it can be said. `state` is as before the step.
    pub(crate) fn landing(&self, state: &X86VpState, guest: &impl Guest) -> Option<Landing> {
        let long = state.efer & efer::LMA != 0;
        let first = match self.kind {
            Kind::SoftwareInterrupt { vector } => return handler(state, vector, guest),
            Kind::PushFlags { .. } => linear_address(state, Segment::Cs, self.next_rip),
            Kind::SystemCall if long => Gva::new(guest.syscall_entry()),
            // The segment that it loads has base 0.
            Kind::SystemReturn { bytes } => {
                let rcx = state.gp[Gp::Rcx as usize];
                Gva::new(rcx & u64::MAX >> (64 - 8 * u32::from(bytes)))
            }
            _ => return self.task,
        };
        Some(Landing::at(first))
    }

    /// Where RF was saved by the delivery of an interrupt that came before the instruction: bit 0 of the byte. `after` is as before the handler's first instruction.
    /// `None` where the saved flags have 16 bits, which have no RF, and where no delivery is recognised.
    pub(crate) fn saved_resume_flag(&self, after: &X86VpState, guest: &impl Guest) -> Option<Gva> {
        match self.switched_task(after) {
            true => tss_flags_at(&self.tr)?.resume_flag(),
            false => delivery::frame(self, after, guest)?.resume_flag,
        }
    }

    /// What the step has left behind, given the registers after it. TF in `after` is not looked at: KVM hides it.
    pub(crate) fn after(&self, after: &X86VpState, guest: &impl Guest) -> Aftermath {
        if self.switched_task(after) {
            return Aftermath {
                correction: tss_flags(&self.tr).and_then(|at| self.correct(at, after, guest)),
                own: tss_flags(&after.tr)
                    .and_then(|at| image(at, after, guest))
                    .unwrap_or(TrapFlag::Clear),
                owed: Owed::Nothing,
            };
        }
        if let Some(flags) = delivery::frame(self, after, guest) {
            let at = FlagsLocation::Memory(flags.trap_flag);
            return Aftermath {
                correction: self.correct(at, after, guest),
                own: TrapFlag::Clear,
                owed: Owed::Nothing,
            };
        }
        if !self.is_complete(after) {
            return Aftermath {
                correction: None,
                own: self.own,
                owed: Owed::Nothing,
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
            // The trap waits for the end of the next instruction, which has its own.
            Kind::StackSegment => TrapFlag::Clear,
            // The processor looks at TF as these leave it (Xen Security Advisory 204), or the user could trap the kernel's first instruction.
            Kind::SystemCall | Kind::SystemReturn { .. } => own,
            _ => self.own,
        };
        Aftermath {
            correction: self.stored.and_then(|at| self.correct(at, after, guest)),
            own,
            owed: match trapping {
                TrapFlag::Set => Owed::SingleStepTrap,
                TrapFlag::Clear => Owed::Nothing,
            },
        }
    }

    fn correct(
        &self,
        place: FlagsLocation,
        after: &X86VpState,
        guest: &impl Guest,
    ) -> Option<Correction> {
        let flag = self.own;
        let wrong = image(place, after, guest)? != flag;
        wrong.then_some(Correction { place, flag })
    }

    fn is_complete(&self, after: &X86VpState) -> bool {
        match (self.kind, self.flow) {
            (Kind::RepeatedString, _) => after.rip == self.next_rip || after.rip == self.rip,
            (Kind::SystemCall, _) => after.gp[Gp::Rcx as usize] == self.next_rip,
            (_, Flow::Sequential) => after.rip == self.next_rip,
            (_, Flow::Near | Flow::Call | Flow::Far) => true,
        }
    }

    /// Only a task switch, and `ltr`, changes TR (SDM volume 3, "Task Switching"); there are none in long mode.
    fn switched_task(&self, after: &X86VpState) -> bool {
        let may = after.cr0 & cr0::PE != 0 && after.efer & efer::LMA == 0;
        let changed = (self.tr.selector, self.tr.base) != (after.tr.selector, after.tr.base);
        may && changed && self.kind != Kind::LoadTaskRegister
    }
}

/// TF in the image of RFLAGS at a place.
fn image(place: FlagsLocation, state: &X86VpState, guest: &impl Guest) -> Option<TrapFlag> {
    let byte = match place {
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

fn popped(state: &X86VpState, displacement: i64, guest: &impl Guest) -> Option<TrapFlag> {
    image(
        FlagsLocation::Memory(stack_at(state, displacement)),
        state,
        guest,
    )
}

/// The linear address so many bytes from the top of the stack. SP wraps at 64 KiB and ESP at 4 GiB where they are what the stack uses.
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

/// TF in the flags that a TSS keeps.
fn tss_flags(tr: &SegmentRegister) -> Option<FlagsLocation> {
    Some(FlagsLocation::Memory(tss_flags_at(tr)?.byte(1)))
}

/// EFLAGS or FLAGS in a TSS.
struct TssFlags {
    at: u64,
    /// Whether they have 32 bits.
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

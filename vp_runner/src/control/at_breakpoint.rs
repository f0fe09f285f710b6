//! Whether a VP may pass the breakpoint at its RIP, and how the VP gets past: one value for each VP.
//!
//! The value has one owner at a time. Run control owns the value while the VP is parked, and passes the value to the VP at the entry. The VP returns the
//! value as it parks.
//!
//! ```text
//!               reported                       decide: MayPass, or a byte of another address
//!      ToMeet -----------> MayPass              Meets ------------> Disarmed, Lifted, Emulated, OthersStopped
//!        ^                    |                   ^                                    |
//!        +--------------------+                   +------------------------------------+
//!         executed, may_have_moved, forget          executed, forget, clear_decision
//! ```
//! A VP that is kicked before it has executed its first instruction may still pass the breakpoint (I8).

/// One VP and the breakpoint at its RIP, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct AtBreakpoint {
    right: Right,
    emulation: Emulation,
    first: FirstInstruction,
}

/// Whether the stop of this VP at its present RIP was reported (I8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Right {
    /// No. The VP hits a breakpoint at RIP.
    ToMeet,
    /// Yes. The VP passes a breakpoint at RIP.
    MayPass,
}

/// Whether the instruction under a breakpoint byte can be emulated instead of executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Emulation {
    /// The emulator knows the instruction. The attempt may still fail.
    Possible,
    /// The emulator does not know the instruction, or an attempt has failed.
    Impossible,
}

/// How the first instruction of an entry treats a breakpoint at its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum FirstInstruction {
    /// The VP hits the breakpoint.
    Meets,
    /// There is no breakpoint byte. A debug register with an execution breakpoint on this instruction is disarmed until the instruction has executed.
    Disarmed,
    /// The breakpoint byte is lifted until the instruction has executed. No other VP runs.
    Lifted,
    /// The instruction is emulated with the byte in memory, while the other VPs run. If the emulation fails, the VP parks.
    Emulated,
    /// The breakpoint byte is lifted, every other VP stays stopped, and the VP parks after this one instruction.
    OthersStopped,
}

/// The breakpoint byte at the RIP of a VP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ByteAtRip {
    /// Which breakpoint the byte belongs to.
    pub of: ByteOf,
    /// Whether the instruction under the byte can be emulated.
    pub emulation: Emulation,
}

/// Which breakpoint a byte belongs to. One byte of memory may be mapped at several linear addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ByteOf {
    /// A breakpoint at the linear address of the VP's RIP. The VP passes this byte only if its stop was reported.
    ThisAddress,
    /// A breakpoint at another linear address. The VP always passes this byte, without a report.
    OtherAddress,
}

/// What the other VPs do while this one runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Others {
    /// At least one of them runs.
    Move,
    /// All of them stay parked.
    StayParked,
}

/// For run control, while the VP is parked.
impl AtBreakpoint {
    /// The value of a VP without a reported stop.
    pub(crate) const NEW: Self = Self {
        right: Right::ToMeet,
        emulation: Emulation::Possible,
        first: FirstInstruction::Meets,
    };

    /// The stop of this VP at its present RIP was reported.
    pub(crate) fn reported(&mut self) {
        self.right = Right::MayPass;
    }

    /// RIP was written, the VP was reset, or the session has ended.
    pub(crate) fn forget(&mut self) {
        *self = Self::NEW;
    }

    /// Whether the stop of this VP at its present RIP was reported.
    pub(crate) fn may_pass(&self) -> bool {
        self.right == Right::MayPass
    }

    /// Decides how the VP is entered. `byte`: the breakpoint byte at its RIP.
    pub(crate) fn decide(&mut self, byte: Option<ByteAtRip>, others: Others) {
        let passes = match byte.map(|byte| byte.of) {
            Some(ByteOf::OtherAddress) => true,
            Some(ByteOf::ThisAddress) | None => self.may_pass(),
        };
        let emulation = byte.map(|byte| match self.emulation {
            Emulation::Possible => byte.emulation,
            Emulation::Impossible => Emulation::Impossible,
        });
        self.first = match (passes, emulation, others) {
            (false, _, _) => FirstInstruction::Meets,
            (true, None, _) => FirstInstruction::Disarmed,
            (true, Some(_), Others::StayParked) => FirstInstruction::Lifted,
            (true, Some(Emulation::Possible), Others::Move) => FirstInstruction::Emulated,
            (true, Some(Emulation::Impossible), Others::Move) => FirstInstruction::OthersStopped,
        };
    }

    /// The entry has ended or will not happen, so the decision for it is void.
    pub(crate) fn clear_decision(&mut self) {
        self.first = FirstInstruction::Meets;
    }
}

/// For the VP, from its entry until it parks.
impl AtBreakpoint {
    /// How the VP gets past a breakpoint at its next instruction.
    pub(crate) fn first(&self) -> FirstInstruction {
        self.first
    }

    /// Whether the breakpoint byte is lifted for the next instruction.
    pub(crate) fn is_byte_lifted(&self) -> bool {
        matches!(
            self.first,
            FirstInstruction::Lifted | FirstInstruction::OthersStopped
        )
    }

    /// The instruction under the byte could not be emulated.
    pub(crate) fn emulation_failed(&mut self) {
        self.emulation = Emulation::Impossible;
    }

    /// The VP may have executed an instruction: the VP enters the guest without a breakpoint to pass, or the guest's exception handler runs first.
    pub(crate) fn may_have_moved(&mut self) {
        self.right = Right::ToMeet;
        self.emulation = Emulation::Possible;
    }

    /// The VP has executed an instruction.
    pub(crate) fn executed(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
mod tests;

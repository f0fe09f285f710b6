//! Whether a VP may pass the breakpoint at its RIP, and how the VP gets past: one value for each VP.
//!
//! The value has one owner at a time. Run control owns it while the VP is parked, and hands it over as the VP is entered; the VP gives it back as it parks.
//!
//! ```text
//!               reported                       decide: MayPass, or a byte of another address
//!      ToMeet -----------> MayPass              Meets ------------> Disarmed, Lifted, CarriedOut, OthersStopped
//!        ^                    |                   ^                                    |
//!        +--------------------+                   +------------------------------------+
//!         executed, may_have_moved, forget          executed, forget, undecided
//! ```
//! A VP that is kicked before it has executed the first instruction keeps its right to pass (I8).

/// One VP and the breakpoint at its RIP, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct AtBreakpoint {
    right: Right,
    emulation: Emulation,
    first: FirstInstruction,
}

/// Whether a stop was reported that named this VP at its present RIP (I8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Right {
    /// No. A breakpoint there is yet to be met.
    ToMeet,
    /// Yes. A breakpoint there is passed.
    MayPass,
}

/// Whether the instruction under a breakpoint byte can be carried out without executing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Emulation {
    /// The instruction is one of those that can be carried out. An attempt may fail all the same.
    Possible,
    /// No: the instruction is not one of those that can be carried out, or the attempt failed.
    Impossible,
}

/// What the first instruction of an entry does about a breakpoint at its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum FirstInstruction {
    /// The VP meets the breakpoint.
    Meets,
    /// No breakpoint byte is there. A debug register that waits for this instruction is disarmed until it has executed.
    Disarmed,
    /// The breakpoint byte is lifted until the instruction has executed. No other VP moves.
    Lifted,
    /// The instruction is carried out with the byte in place, while the other VPs run. Where that fails, the VP parks.
    CarriedOut,
    /// The breakpoint byte is lifted, every other VP stays stopped, and the VP parks after this one instruction.
    OthersStopped,
}

/// The breakpoint byte at the RIP of a VP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ByteAtRip {
    /// Which breakpoint the byte belongs to.
    pub of: ByteOf,
    /// Whether the instruction under the byte can be carried out.
    pub emulation: Emulation,
}

/// Which breakpoint a byte belongs to. One byte of memory may be mapped at several linear addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ByteOf {
    /// A breakpoint at the linear address of the VP's RIP. The VP passes this byte only where its stop was reported.
    ThisAddress,
    /// A breakpoint at another linear address. The VP always passes this byte, and the client is not told.
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

/// What run control does with the value of a parked VP.
impl AtBreakpoint {
    /// A VP that nothing was reported of.
    pub(crate) const NEW: Self = Self {
        right: Right::ToMeet,
        emulation: Emulation::Possible,
        first: FirstInstruction::Meets,
    };

    /// A stop was reported that names this VP at its present RIP.
    pub(crate) fn reported(&mut self) {
        self.right = Right::MayPass;
    }

    /// RIP was written, the VP was reset, or the session that was told of its stops is over.
    pub(crate) fn forget(&mut self) {
        *self = Self::NEW;
    }

    /// Whether a stop was reported that named this VP at its present RIP.
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
            (true, Some(Emulation::Possible), Others::Move) => FirstInstruction::CarriedOut,
            (true, Some(Emulation::Impossible), Others::Move) => FirstInstruction::OthersStopped,
        };
    }

    /// The entry is over, or will not take place. The next entry is decided anew.
    pub(crate) fn undecided(&mut self) {
        self.first = FirstInstruction::Meets;
    }
}

/// What the VP does with the value from its entry until it parks.
impl AtBreakpoint {
    /// How the VP gets past a breakpoint at the instruction that comes next.
    pub(crate) fn first(&self) -> FirstInstruction {
        self.first
    }

    /// Whether the breakpoint byte is out of memory for the instruction that comes next.
    pub(crate) fn is_byte_lifted(&self) -> bool {
        matches!(
            self.first,
            FirstInstruction::Lifted | FirstInstruction::OthersStopped
        )
    }

    /// The instruction under the byte could not be carried out.
    pub(crate) fn not_carried_out(&mut self) {
        self.emulation = Emulation::Impossible;
    }

    /// The VP may have executed something: the VP enters the guest with nothing to pass, or the guest's own handler runs first.
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

//! The x86 debug registers as values: the breakpoints of DR7 and the events of DR6 (SDM volume 3, chapter "Debug, Branch Profile, TSC ..."; section "Debug
//! Registers").
//!
//! Everything here is pure. [`Slot`] is one legal debug register; [`encode`] and [`decode`] turn four of them into DR0-3 and DR7
//! and back. [`Dr6`] is the debug status of an exit, and [`DebugPayload`] the part of it that is delivered to the guest.

use vmm_core_defs::addr::Gva;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::Unsupported;

/// How many debug registers x86 has (DR0 to DR3).
pub(crate) const SLOTS: usize = 4;

/// The four debug registers of one owner, by number. `None`: that register is free.
pub(crate) type Slots = [Option<Slot>; SLOTS];

/// Bit 10 of DR7 always reads as 1 (SDM volume 3, figure "Debug Registers").
const FIXED_1: u64 = 1 << 10;
/// GD: a `mov` to or from a debug register raises `#DB` with DR6.BD.
pub(crate) const GENERAL_DETECT: u64 = 1 << 13;
/// GE, "global exact": ignored since P6, and the SDM still recommends setting it with data breakpoints.
const GLOBAL_EXACT: u64 = 1 << 9;
/// Bit `2n + 1` is Gn; the L bits (`2n`) are cleared by hardware at a task switch, so ours are G bits.
const GLOBAL_ENABLE: u64 = 0b10;
const ANY_ENABLE: u64 = 0b11;
/// Any of them of any register.
pub(crate) const ENABLED: u64 = 0xff;

/// The R/W field of DR7: the access on which a debug register fires (SDM volume 3, "Debug Control Register (DR7)").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    /// 00b: the instruction at the address is about to execute.
    Execute,
    /// 01b: a watched byte is written.
    Write,
    /// 10b: an I/O port is accessed (with CR4.DE set). Guests may use this access. A debugger cannot.
    Io,
    /// 11b: a watched byte is read or written. Instruction fetches do not count.
    ReadWrite,
}

impl Access {
    const fn bits(self) -> u64 {
        match self {
            Self::Execute => 0b00,
            Self::Write => 0b01,
            Self::Io => 0b10,
            Self::ReadWrite => 0b11,
        }
    }

    const fn from_bits(bits: u64) -> Self {
        match bits & 0b11 {
            0b00 => Self::Execute,
            0b01 => Self::Write,
            0b10 => Self::Io,
            _ => Self::ReadWrite,
        }
    }
}

/// The LEN field of DR7. Its encoding is not in order of length: 8 is 10b, 4 is 11b.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Len {
    /// 00b; the only legal one for [`Access::Execute`].
    One,
    /// 01b.
    Two,
    /// 11b.
    Four,
    /// 10b.
    Eight,
}

impl Len {
    const fn bits(self) -> u64 {
        match self {
            Self::One => 0b00,
            Self::Two => 0b01,
            Self::Eight => 0b10,
            Self::Four => 0b11,
        }
    }

    const fn from_bits(bits: u64) -> Self {
        match bits & 0b11 {
            0b00 => Self::One,
            0b01 => Self::Two,
            0b10 => Self::Eight,
            _ => Self::Four,
        }
    }

    /// The length in bytes.
    pub(crate) const fn bytes(self) -> u64 {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    /// The length for this number of bytes, if a debug register can watch so many.
    pub(crate) const fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            1 => Some(Self::One),
            2 => Some(Self::Two),
            4 => Some(Self::Four),
            8 => Some(Self::Eight),
            _ => None,
        }
    }
}

/// The breakpoint of one enabled debug register. Only legal breakpoints can be constructed: aligned, and with length 1 for execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    address: Gva,
    access: Access,
    len: Len,
}

impl Slot {
    /// The debug register for a breakpoint of any kind. A software breakpoint becomes [`Access::Execute`]. A read watchpoint becomes [`Access::ReadWrite`], since
    /// x86 has no access for reads alone.
    ///
    /// # Errors
    /// [`DebugError::BadBreakpoint`] for a watchpoint whose length is not 1, 2, 4 or 8 or whose address is not a multiple of it
    /// (SDM volume 3, "Debug Address Registers"). The length of an execution breakpoint is ignored, because clients send the length of the instruction.
    pub(crate) fn new(breakpoint: &Breakpoint) -> Result<Self, DebugError> {
        let Breakpoint { kind, address, len } = *breakpoint;
        let refused = DebugError::BadBreakpoint { address, len };
        let (access, len) = match kind {
            BreakpointKind::Software | BreakpointKind::Execute | BreakpointKind::Trace => {
                (Access::Execute, Len::One)
            }
            BreakpointKind::Write => (Access::Write, Len::from_bytes(len).ok_or(refused.clone())?),
            BreakpointKind::Read | BreakpointKind::ReadWrite => (
                Access::ReadWrite,
                Len::from_bytes(len).ok_or(refused.clone())?,
            ),
            // A kind of a newer vmm_core_defs.
            unknown => {
                let request = format!("a breakpoint of kind {unknown:?}");
                return Err(Unsupported::Request { request }.into());
            }
        };
        if !address.value().is_multiple_of(len.bytes()) {
            return Err(refused);
        }
        Ok(Self {
            address,
            access,
            len,
        })
    }

    /// An execution breakpoint.
    pub(crate) const fn execute(address: Gva) -> Self {
        Self {
            address,
            access: Access::Execute,
            len: Len::One,
        }
    }

    /// The first byte watched.
    pub(crate) const fn address(&self) -> Gva {
        self.address
    }

    /// The access on which the register fires.
    pub(crate) const fn access(&self) -> Access {
        self.access
    }

    /// Whether each data access that hits `other` also hits this one.
    pub(crate) fn is_met_with(&self, other: &Self) -> bool {
        let access = match other.access {
            Access::Write => matches!(self.access, Access::Write | Access::ReadWrite),
            Access::ReadWrite => self.access == Access::ReadWrite,
            Access::Execute | Access::Io => false,
        };
        let last = |slot: &Self| slot.address.value() | (slot.len.bytes() - 1);
        access && self.address <= other.address && last(other) <= last(self)
    }
}

/// DR7 for four debug registers, each on or off. DR0-3 hold the addresses.
///
/// An empty set encodes to DR7's reset value (400h), with no breakpoint enabled.
pub(crate) fn encode(slots: &Slots) -> u64 {
    slots
        .iter()
        .enumerate()
        .filter_map(|(n, slot)| slot.map(|slot| (n, slot)))
        .fold(FIXED_1, |dr7, (n, slot)| {
            let condition = slot.access.bits() | (slot.len.bits() << 2);
            dr7 | GLOBAL_EXACT | (GLOBAL_ENABLE << (2 * n)) | (condition << (16 + 4 * n))
        })
}

/// The breakpoints of DR0-3 and DR7, as a guest or [`encode`] wrote them. `None` for a register that neither its L nor its G bit enables.
///
/// The address is rounded down to a multiple of the length, as hardware does (SDM volume 3, "Debug Address Registers"). The length of
/// an execution breakpoint is taken as 1, since other lengths are undefined.
pub(crate) fn decode(db: &[u64; SLOTS], dr7: u64) -> Slots {
    std::array::from_fn(|n| {
        if dr7 >> (2 * n) & ANY_ENABLE == 0 {
            return None;
        }
        let condition = dr7 >> (16 + 4 * n);
        let access = Access::from_bits(condition);
        let len = match access {
            Access::Execute => Len::One,
            _ => Len::from_bits(condition >> 2),
        };
        Some(Slot {
            address: Gva::new(db[n] & !(len.bytes() - 1)),
            access,
            len,
        })
    })
}

/// The debug status register, as `KVM_EXIT_DEBUG` reports it (SDM volume 3, "Debug Status Register (DR6)").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dr6(pub u64);

impl Dr6 {
    const BLD: u64 = 1 << 11;
    /// BD: an access to a debug register while DR7.GD was set.
    pub(crate) const ACCESS: u64 = 1 << 13;
    const BS: u64 = 1 << 14;
    const BT: u64 = 1 << 15;
    const RTM: u64 = 1 << 16;
    /// B0 to B3.
    const BREAKPOINTS: u64 = 0b1111;
    /// Bits that are 1 if their event did not happen, or that are always 1.
    const ACTIVE_LOW: u64 = 0xffff_0ff0;
    /// Reads as 0.
    const RESERVED: u64 = 1 << 12;

    /// B0-3: the condition of a debug register was met. Hardware may also set the bit of a register that is not enabled.
    pub(crate) const fn breakpoints(self) -> bool {
        self.0 & Self::BREAKPOINTS != 0
    }

    /// BS: the trap came from RFLAGS.TF, a single step.
    pub(crate) const fn single_step(self) -> bool {
        self.0 & Self::BS != 0
    }

    /// BD: the guest accessed a debug register while DR7.GD was set.
    pub(crate) const fn debug_register_access(self) -> bool {
        self.0 & Self::ACCESS != 0
    }

    /// Whether no event bit is set, as for `ICEBP`.
    pub(crate) fn is_empty(self) -> bool {
        !self.breakpoints() && !self.single_step() && self.others().is_empty()
    }

    /// The events other than B0-3 and BS: BD, a task switch (BT), a bus lock (BLD) and a transaction (RTM).
    pub(crate) const fn others(self) -> DebugPayload {
        let happened = self.0 ^ Self::ACTIVE_LOW;
        DebugPayload(happened & (Self::BLD | Self::ACCESS | Self::BT | Self::RTM))
    }
}

/// The changes of a `#DB` to DR6: a set bit for each event, also for events that clear their bit in DR6 (KVM api.rst, `KVM_CAP_EXCEPTION_PAYLOAD`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct DebugPayload(pub u64);

impl DebugPayload {
    /// A single step.
    pub(crate) const SINGLE_STEP: Self = Self(Dr6::BS);

    /// Whether no event bit is set, as for the `#DB` of `ICEBP`.
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The events of both.
    #[must_use]
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// DR6 after the delivery of the exception: B0-3 are replaced, other events are added (SDM volume 3, "Debug Status Register (DR6)").
    pub(crate) const fn deliver(self, dr6: u64) -> u64 {
        let kept = dr6 & !Dr6::BREAKPOINTS | Dr6::ACTIVE_LOW;
        ((kept | self.0) ^ (self.0 & Dr6::ACTIVE_LOW)) & !Dr6::RESERVED
    }
}

#[cfg(test)]
mod tests;

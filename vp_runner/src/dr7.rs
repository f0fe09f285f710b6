//! The x86 debug registers as values: what DR7 asks for, what DR6 reports (SDM volume 3, chapter "Debug, Branch Profile, TSC ..."; section "Debug
//! Registers").
//!
//! Everything here is pure. [`Slot`] is one legal debug register; [`encode`] and [`decode`] turn four of them into DR0-3 and DR7
//! and back; [`Dr6`] says which of them fired.

use vmm_core_defs::addr::Gva;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::debug_rpc::DebugError;

/// How many debug registers x86 has (DR0 to DR3).
pub const SLOTS: usize = 4;

/// Bit 10 of DR7 always reads as 1 (SDM volume 3, figure "Debug Registers").
const FIXED_1: u64 = 1 << 10;
/// GE, "global exact": ignored since P6, and the SDM still recommends setting it with data breakpoints.
const GLOBAL_EXACT: u64 = 1 << 9;
/// Bit `2n + 1` is Gn; the L bits (`2n`) are cleared by hardware at a task switch, so ours are G bits.
const GLOBAL_ENABLE: u64 = 0b10;
const ANY_ENABLE: u64 = 0b11;

/// The R/W field of DR7: which access a debug register waits for (SDM volume 3, "Debug Control Register (DR7)").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// 00b: the instruction at the address is about to execute.
    Execute,
    /// 01b: a watched byte is written.
    Write,
    /// 10b: an I/O port is accessed (with CR4.DE set). Decoded, for guests use it; never encoded for a debugger.
    Io,
    /// 11b: a watched byte is read or written, fetches excepted.
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
pub enum Len {
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
    pub const fn bytes(self) -> u64 {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    /// The length of that many bytes, where a debug register can watch it.
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            1 => Some(Self::One),
            2 => Some(Self::Two),
            4 => Some(Self::Four),
            8 => Some(Self::Eight),
            _ => None,
        }
    }
}

/// What one enabled debug register waits for. Only legal ones can be made: aligned, and of length 1 for execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    address: Gva,
    access: Access,
    len: Len,
}

impl Slot {
    /// The debug register that holds a breakpoint, of whichever kind: a software breakpoint is held as [`Access::Execute`], and
    /// a read watchpoint as [`Access::ReadWrite`], x86 having none for reads alone.
    ///
    /// # Errors
    /// [`DebugError::BadBreakpoint`] for a watchpoint whose length is not 1, 2, 4 or 8 or whose address is not a multiple of it
    /// (SDM volume 3, "Debug Address Registers"). The length of an instruction breakpoint is the client's instruction's, and not looked at.
    pub fn new(breakpoint: &Breakpoint) -> Result<Self, DebugError> {
        let Breakpoint { kind, address, len } = *breakpoint;
        let refused = DebugError::BadBreakpoint { address, len };
        let (access, len) = match kind {
            BreakpointKind::Software | BreakpointKind::Execute => (Access::Execute, Len::One),
            BreakpointKind::Write => (Access::Write, Len::from_bytes(len).ok_or(refused.clone())?),
            BreakpointKind::Read | BreakpointKind::ReadWrite => (
                Access::ReadWrite,
                Len::from_bytes(len).ok_or(refused.clone())?,
            ),
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

    /// The first byte watched.
    pub const fn address(&self) -> Gva {
        self.address
    }

    /// The access waited for.
    pub const fn access(&self) -> Access {
        self.access
    }

    /// How many bytes are watched.
    pub const fn len(&self) -> Len {
        self.len
    }
}

/// DR7 for four debug registers, each on or off. The addresses go to DR0-3 by themselves.
///
/// An empty set encodes to DR7's reset value (400h), with no breakpoint enabled.
pub fn encode(slots: &[Option<Slot>; SLOTS]) -> u64 {
    slots
        .iter()
        .enumerate()
        .filter_map(|(n, slot)| slot.map(|slot| (n, slot)))
        .fold(FIXED_1, |dr7, (n, slot)| {
            let condition = slot.access.bits() | (slot.len.bits() << 2);
            dr7 | GLOBAL_EXACT | (GLOBAL_ENABLE << (2 * n)) | (condition << (16 + 4 * n))
        })
}

/// What DR0-3 and DR7 ask for, as a guest or [`encode`] wrote them: `None` for a register that neither its L nor its G bit enables.
///
/// The address is cut to a multiple of the length, which is what hardware matches (SDM volume 3, "Debug Address Registers"), and the length of
/// an execution breakpoint read as 1, since any other is undefined there.
pub fn decode(db: &[u64; SLOTS], dr7: u64) -> [Option<Slot>; SLOTS] {
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
pub struct Dr6(pub u64);

impl Dr6 {
    const BD: u64 = 1 << 13;
    const BS: u64 = 1 << 14;

    /// The debug registers whose condition was met, of those that are enabled, lowest first.
    ///
    /// Hardware may set Bn for a register that is not enabled at all, which is why `enabled` decides (SDM volume 3, same section).
    pub fn hits(self, enabled: &[Option<Slot>; SLOTS]) -> impl Iterator<Item = (usize, Slot)> {
        enabled
            .iter()
            .enumerate()
            .filter(move |(n, _)| self.0 >> n & 1 != 0)
            .filter_map(|(n, slot)| slot.map(|slot| (n, slot)))
    }

    /// BS: the trap came from RFLAGS.TF, a single step.
    pub const fn single_step(self) -> bool {
        self.0 & Self::BS != 0
    }

    /// BD: the guest touched a debug register while DR7.GD was set.
    pub const fn debug_register_access(self) -> bool {
        self.0 & Self::BD != 0
    }
}

#[cfg(test)]
mod tests;

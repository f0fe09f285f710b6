//! The entry formats of each paging mode: which bits are the address, which are reserved, and which are permissions.

use super::PagingState;
use vmm_core_defs::regs::x86_64::bits::cr0;
use vmm_core_defs::regs::x86_64::bits::cr4;
use vmm_core_defs::regs::x86_64::bits::efer;

pub(in crate::arch::x86_64) const PRESENT: u64 = 1 << 0;
pub(in crate::arch::x86_64) const WRITABLE: u64 = 1 << 1;
pub(in crate::arch::x86_64) const USER: u64 = 1 << 2;
/// The processor has used the entry.
pub(in crate::arch::x86_64) const ACCESSED: u64 = 1 << 5;
/// The processor has written to the page of this last entry.
pub(in crate::arch::x86_64) const DIRTY: u64 = 1 << 6;
const PAGE_SIZE: u64 = 1 << 7;
/// This bit is reserved unless EFER.NXE is set. After the check of the reserved bits, the bit therefore means no-execute.
pub(in crate::arch::x86_64) const NO_EXECUTE: u64 = 1 << 63;

/// The paging mode (SDM volume 3, "Paging Modes and Control Bits").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PagingMode {
    /// CR0.PG is clear, as in real mode. Linear addresses are physical addresses.
    Off,
    /// Two levels of 32-bit entries.
    Bits32,
    /// Three levels, 32-bit linear addresses.
    Pae,
    /// Four levels, 48-bit linear addresses.
    Level4,
    /// Five levels, 57-bit linear addresses.
    Level5,
}

impl PagingMode {
    /// The mode that the registers select.
    pub(crate) const fn new(paging: &PagingState) -> Self {
        if paging.cr0 & cr0::PG == 0 {
            Self::Off
        } else if paging.cr4 & cr4::PAE == 0 {
            Self::Bits32
        } else if paging.efer & efer::LMA == 0 {
            Self::Pae
        } else if paging.cr4 & cr4::LA57 == 0 {
            Self::Level4
        } else {
            Self::Level5
        }
    }

    /// The address bits that the tables use, or `None` if the address is not canonical.
    pub(super) const fn linear(self, gva: u64) -> Option<u64> {
        let unused = match self {
            Self::Off | Self::Bits32 | Self::Pae => return Some(gva & 0xffff_ffff),
            Self::Level4 => 16,
            Self::Level5 => 7,
        };
        if (gva << unused).cast_signed() >> unused == gva.cast_signed() {
            Some(gva)
        } else {
            None
        }
    }

    /// The first canonical address of the upper half.
    pub(super) const fn upper_half(self) -> u64 {
        match self {
            Self::Off | Self::Bits32 | Self::Pae => 0,
            Self::Level4 => u64::MAX << 47,
            Self::Level5 => u64::MAX << 56,
        }
    }

    /// The first address after the aligned block of `size` bytes that holds `linear`. `None` after the last block.
    pub(super) fn after(self, linear: u64, size: u64) -> Option<u64> {
        let next = (linear | (size - 1)).checked_add(1)?;
        match self {
            Self::Off | Self::Bits32 | Self::Pae => (next >> 32 == 0).then_some(next),
            Self::Level4 | Self::Level5 => Some(self.linear(next).unwrap_or(self.upper_half())),
        }
    }

    /// The last linear address.
    pub(super) const fn last(self) -> u64 {
        match self {
            Self::Off | Self::Bits32 | Self::Pae => 0xffff_ffff,
            Self::Level4 | Self::Level5 => u64::MAX,
        }
    }

    pub(super) const fn levels(self) -> u8 {
        match self {
            Self::Off => 0,
            Self::Bits32 => 2,
            Self::Pae => 3,
            Self::Level4 => 4,
            Self::Level5 => 5,
        }
    }

    pub(super) const fn entry_bytes(self) -> u64 {
        match self {
            Self::Bits32 => 4,
            _ => 8,
        }
    }

    /// Bits of the linear address that index one table.
    const fn index_bits(self) -> u8 {
        match self {
            Self::Bits32 => 10,
            _ => 9,
        }
    }

    const fn shift(self, level: u8) -> u8 {
        12 + (level - 1) * self.index_bits()
    }

    pub(super) const fn entry_offset(self, linear: u64, level: u8) -> u64 {
        let index = linear >> self.shift(level) & ((1 << self.index_bits()) - 1);
        index * self.entry_bytes()
    }

    pub(super) const fn page_size(self, level: u8) -> u64 {
        1 << self.shift(level)
    }

    pub(super) const fn root(self, paging: &PagingState) -> u64 {
        match self {
            Self::Off => 0,
            Self::Bits32 => paging.cr3 & bits(12, 31),
            Self::Pae => paging.cr3 & bits(5, 31),
            Self::Level4 | Self::Level5 => self.next_table(paging.cr3, paging),
        }
    }

    pub(super) const fn next_table(self, entry: u64, paging: &PagingState) -> u64 {
        match self {
            Self::Bits32 => entry & bits(12, 31),
            _ => entry & bits(12, paging.limits.physical_bits - 1),
        }
    }

    /// A PAE root entry has no permission bits (SDM volume 3, table "Format of a PAE Page-Directory-Pointer-Table Entry").
    pub(super) const fn has_permissions(self, level: u8) -> bool {
        !matches!((self, level), (Self::Pae, 3))
    }

    pub(super) const fn is_leaf(self, entry: u64, level: u8, paging: &PagingState) -> bool {
        if level == 1 {
            return true;
        }
        let possible = match (self, level) {
            (Self::Bits32, 2) => paging.cr4 & cr4::PSE != 0,
            (Self::Pae | Self::Level4 | Self::Level5, 2) => true,
            (Self::Level4 | Self::Level5, 3) => paging.limits.gib_pages,
            _ => false,
        };
        possible && entry & PAGE_SIZE != 0
    }

    pub(super) const fn frame(self, entry: u64, level: u8, paging: &PagingState) -> u64 {
        match (self, level) {
            (Self::Bits32, 2) => {
                // Bits 32 and up of the frame are bits 13 and up of the entry (PSE-36).
                let high = entry & bits(13, pse36_bits(paging) - 20);
                entry & bits(22, 31) | high << 19
            }
            (Self::Bits32, _) => entry & bits(12, 31),
            _ => entry & bits(self.shift(level), paging.limits.physical_bits - 1),
        }
    }

    /// The bits that make an entry fault when set.
    pub(super) const fn reserved(self, level: u8, leaf: bool, paging: &PagingState) -> u64 {
        let physical_bits = paging.limits.physical_bits;
        let nx = if paging.efer & efer::NXE == 0 {
            NO_EXECUTE
        } else {
            0
        };
        match (self, level) {
            (Self::Off, _) => 0,
            (Self::Bits32, 2) if leaf => bits(pse36_bits(paging) - 19, 21),
            (Self::Bits32, _) => 0,
            (Self::Pae, 3) => bits(1, 2) | bits(5, 8) | bits(physical_bits, 63),
            (Self::Pae, 2) if leaf => bits(13, 20) | bits(physical_bits, 62) | nx,
            (Self::Pae, _) => bits(physical_bits, 62) | nx,
            (Self::Level4 | Self::Level5, _) => {
                let own = match (level, leaf) {
                    (2, true) => bits(13, 20),
                    (3, true) => bits(13, 29),
                    // PS is reserved where no page of this size exists.
                    (3, false) | (4.., _) => PAGE_SIZE,
                    _ => 0,
                };
                own | bits(physical_bits, 51) | nx
            }
        }
    }
}

/// M of the SDM's table "Format of a 32-Bit Page-Directory Entry that Maps a 4-MByte Page": at most 40.
const fn pse36_bits(paging: &PagingState) -> u8 {
    if paging.limits.physical_bits < 40 {
        paging.limits.physical_bits
    } else {
        40
    }
}

/// Bits `low..=high`. No bit if the range is empty.
const fn bits(low: u8, high: u8) -> u64 {
    if low > high {
        return 0;
    }
    u64::MAX << low & u64::MAX >> (63 - high)
}

//! Ids and addresses. Each is its own type, so the compiler rejects one kind in the place of another.

use serde::Deserialize;
use serde::Serialize;
use std::fmt;

/// The index of a virtual processor: 0 up to the VP count minus 1.
///
/// A client that counts from another number converts the index itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VpIndex(u32);

impl VpIndex {
    /// The bootstrap processor, which starts first.
    pub const BSP: Self = Self(0);

    /// Names the VP with this index. The receiver of a request checks whether the VP exists.
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// The index as a plain number.
    pub const fn index(self) -> u32 {
        self.0
    }
}

impl fmt::Display for VpIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(u64);

        impl $name {
            /// Makes an address from its value, in bytes.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The address as a plain number, in bytes.
            pub const fn value(self) -> u64 {
                self.0
            }

            /// The address `bytes` higher. `None` if the sum exceeds 64 bits.
            pub fn checked_add(self, bytes: u64) -> Option<Self> {
                self.0.checked_add(bytes).map(Self)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// A guest physical address: the result of a walk of the guest's page tables.
    Gpa
}
address! {
    /// A guest virtual address. On x86 it is a *linear* address: the segment base is already added.
    Gva
}

/// The first byte of a memory request.
///
/// A virtual and a physical address with the same number mean different bytes, so a request keeps the two kinds apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GuestAddress {
    /// A virtual address. The paging state of `vp` at the time of the request translates it.
    Gva {
        /// The VP whose page tables translate the address.
        vp: VpIndex,
        /// The virtual address of the first byte.
        gva: Gva,
    },
    /// A physical address, which is not translated.
    Gpa(Gpa),
}

impl fmt::Display for GuestAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gva { vp, gva } => write!(f, "{gva} on VP {vp}"),
            Self::Gpa(gpa) => write!(f, "physical address {gpa}"),
        }
    }
}

//! Ids and addresses, each its own type, so that one cannot be given for another.

use serde::Deserialize;
use serde::Serialize;
use std::fmt;

/// The index of a virtual processor: 0 up to the VP count less one.
///
/// It starts at 0. Where a client counts from another number, the conversion is the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VpIndex(u32);

impl VpIndex {
    /// The VP that starts first (the bootstrap processor).
    pub const BSP: Self = Self(0);

    /// Names the VP with this index. Whether it exists is checked by who receives it.
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// The plain number.
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
            /// The address with this value, in bytes.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The plain value, in bytes.
            pub const fn value(self) -> u64 {
                self.0
            }

            /// The address `bytes` further on, or `None` where it would pass the end of the 64-bit space.
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
    /// A guest physical address: what the guest's page tables yield.
    Gpa
}
address! {
    /// A guest virtual address. On x86 it is a *linear* address: segment bases are already added.
    Gva
}

/// Where a memory request begins.
///
/// The kinds are kept apart all the way from the client, since the same number means different bytes in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GuestAddress {
    /// Translated by the paging state of `vp` at the time of the request.
    Gva {
        /// Whose page tables translate.
        vp: VpIndex,
        /// The first byte.
        gva: Gva,
    },
    /// Not translated.
    Gpa(Gpa),
}

//! Register files, one type for each architecture, both always compiled.
//!
//! What a VP does not have is `None`, never zero.

pub mod aarch64;
pub mod x86_64;

pub use aarch64::Aarch64VpState;
pub use x86_64::X86VpState;

use serde::Deserialize;
use serde::Serialize;

/// The whole register file of a VP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DebuggerVpState {
    /// An x86 VP in any mode.
    X86_64(X86VpState),
    /// A 64-bit Arm VP.
    Aarch64(Aarch64VpState),
}

/// The extended register sets that a guest's VPs have. They are the same for all VPs and do not change while the guest lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct XFeatures {
    /// The upper halves of YMM0-15 ([`X86VpState::avx`]).
    pub avx: bool,
    /// Opmasks, upper halves of ZMM0-15, ZMM16-31 ([`X86VpState::avx512`]).
    pub avx512: bool,
    /// PKRU ([`X86VpState::pkru`]).
    pub pkru: bool,
}

//! Register files, one type for each architecture. Both types are always compiled.
//!
//! A register that a VP does not have is `None`, never zero.

pub mod aarch64;
pub mod x86_64;

pub use aarch64::Aarch64VpState;
pub use x86_64::X86VpState;

use serde::Deserialize;
use serde::Serialize;

/// The whole register file of a VP.
#[expect(
    clippy::large_enum_variant,
    reason = "it travels boxed; a guest has one architecture, so no space is lost"
)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DebuggerVpState {
    /// An x86 VP in any mode.
    X86_64(X86VpState),
    /// A 64-bit Arm VP.
    Aarch64(Aarch64VpState),
}

/// The extended register sets that a guest's VPs have. They are the same for all VPs, and are constant for the lifetime
/// of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct XFeatures {
    /// The upper halves of YMM0-15 ([`X86VpState::avx`]).
    pub avx: bool,
    /// Opmasks, upper halves of ZMM0-15, ZMM16-31 ([`X86VpState::avx512`]).
    pub avx512: bool,
    /// PKRU ([`X86VpState::pkru`]).
    pub pkru: bool,
}

impl XFeatures {
    /// No extended register set.
    pub const NONE: Self = Self {
        avx: false,
        avx512: false,
        pkru: false,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state in which no two fields have the same value, so that a test notices two exchanged fields.
    fn distinct() -> X86VpState {
        let mut state = X86VpState {
            avx: Some([u128::MAX; 16]),
            avx512: Some(Box::default()),
            pkru: Some(7),
            xcr0: Some(0xe7),
            ..Default::default()
        };
        for (i, gp) in state.gp.iter_mut().enumerate() {
            *gp = u64::MAX - i as u64;
        }
        state.sse.xmm[15] = u128::MAX - 1;
        state
    }

    #[test]
    fn a_register_file_survives_json() {
        let state = DebuggerVpState::X86_64(distinct());
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(
            serde_json::from_str::<DebuggerVpState>(&json).unwrap(),
            state
        );
    }

    #[test]
    fn an_absent_register_set_is_null_in_json_and_not_zero() {
        let json = serde_json::to_value(X86VpState::default()).unwrap();
        assert!(json["avx512"].is_null());
        assert!(json["pkru"].is_null());
    }
}

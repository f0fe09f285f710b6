//! The runner's calls of the VMM's own code, for error reports.

use crate::addr::GuestAddress;
use crate::addr::VpIndex;
use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;

/// A method of the VMM (`vp_runner::machine::Machine`) that the runner calls for a debugger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MachineCall {
    /// `Machine::mmio_read`, for a read of device memory.
    #[error("Machine::mmio_read of {len} bytes at {address}")]
    Read {
        /// The address of the first byte.
        address: GuestAddress,
        /// The length in bytes.
        len: u64,
    },
    /// `Machine::mmio_write`, for a write of device memory.
    #[error("Machine::mmio_write of {len} bytes at {address}")]
    Write {
        /// The address of the first byte.
        address: GuestAddress,
        /// The length in bytes.
        len: u64,
    },
    /// `Machine::reset`.
    #[error("Machine::reset")]
    Reset,
    /// `Machine::init_vp`.
    #[error("Machine::init_vp for VP {vp}")]
    InitVp {
        /// The VP that the method was to put into its power-on state.
        vp: VpIndex,
    },
}

/// How a method of the VMM failed.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MachineFailure {
    /// The method returned an error, with this text.
    #[error("returned an error: {0}")]
    Returned(String),
    /// The method panicked.
    #[error("panicked")]
    Panicked,
}

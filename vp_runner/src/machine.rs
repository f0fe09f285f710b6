//! The machine around the vCPUs: devices, and the power-on state.

pub(crate) mod device_access;
pub(crate) mod for_debugger;
mod machine_trait;

#[cfg(feature = "rust-vmm")]
pub use machine_trait::Machine;
#[cfg(not(feature = "rust-vmm"))]
pub(crate) use machine_trait::Machine;

use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::MachineCall;
use vmm_core_defs::debug_rpc::MachineFailure;

/// The effect of a device access on the whole machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceOutcome {
    /// No effect.
    Done,
    /// The guest asked for a reset.
    Reset,
    /// The guest asked to be switched off.
    PowerOff,
    /// The guest's kernel reports a panic. The runner only reports it to a debugger that asked for this event.
    Panicked,
}

/// Whether a device claims an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MmioOutcome {
    /// A device answered.
    Handled,
    /// No device claims the address. A read by the guest returns ones. A read by a debugger is an error.
    Unclaimed,
}

/// The VMM could not bring its side into the power-on state.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {why}")]
#[non_exhaustive]
pub struct MachineError {
    /// The action that failed, to complete the sentence "cannot ...".
    pub what: &'static str,
    /// The cause of the failure, for the log.
    pub why: String,
}

impl MachineError {
    /// An action, to complete the sentence "cannot ...", and the cause of its failure.
    pub fn new(what: &'static str, why: impl std::fmt::Display) -> Self {
        let why = why.to_string();
        Self { what, why }
    }

    /// The error for the debugger whose request needed the call.
    pub(crate) fn of_call(&self, call: MachineCall) -> DebugError {
        let how = MachineFailure::Returned(self.to_string());
        DebugError::MachineFailed { call, how }
    }
}

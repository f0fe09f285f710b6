//! The runner's calls of the hypervisor, and the errors of the host's operating system, for error reports.

use serde::Deserialize;
use serde::Serialize;
use std::io;
use thiserror::Error;

/// The purpose of a call of the hypervisor for one VP. The text of each variant completes the sentence "the hypervisor
/// refused to ...".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum HypervisorCall {
    /// Read the CPUID of the VP.
    #[error("read a VP's CPUID")]
    ReadCpuid,
    /// Read general, system or extended control registers.
    #[error("read a VP's registers")]
    ReadRegisters,
    /// Write general, system or extended control registers.
    #[error("write a VP's registers")]
    WriteRegisters,
    /// Read the registers of the floating-point and vector units.
    #[error("read a VP's vector registers")]
    ReadVectorRegisters,
    /// Write the registers of the floating-point and vector units.
    #[error("write a VP's vector registers")]
    WriteVectorRegisters,
    /// Read the debug registers that the guest has set.
    #[error("read the guest's debug registers of a VP")]
    ReadDebugRegisters,
    /// Write the debug registers that the guest has set.
    #[error("write the guest's debug registers of a VP")]
    WriteDebugRegisters,
    /// Set the debugger's breakpoints and steps.
    #[error("set the debug state of a VP")]
    SetDebugState,
    /// Read a model-specific register.
    #[error("read MSR {index:#x}")]
    ReadMsr {
        /// The number of the register.
        index: u32,
    },
    /// Write a model-specific register.
    #[error("write MSR {index:#x}")]
    WriteMsr {
        /// The number of the register.
        index: u32,
    },
    /// Read the pending exceptions and interrupts.
    #[error("read a VP's pending exceptions and interrupts")]
    ReadEvents,
    /// Delay interrupts for one instruction, which is a step.
    #[error("hold interrupts back during a step")]
    HoldInterrupts,
    /// Drop an exception that the VP has not taken yet.
    #[error("drop a VP's pending exception")]
    DropException,
    /// Set RIP to the next instruction, because the present one was carried out in another way.
    #[error("move a VP to its next instruction")]
    SkipInstruction,
    /// Raise a non-maskable interrupt.
    #[error("raise a non-maskable interrupt")]
    RaiseNmi,
    /// Read whether the VP waits, for an interrupt or for its start.
    #[error("read the run state of a VP")]
    ReadRunState,
    /// Read the local interrupt controller.
    #[error("read a VP's local APIC")]
    ReadLocalApic,
    /// Change the local interrupt controller, where the local timer is.
    #[error("change a VP's local APIC")]
    WriteLocalApic,
    /// Set the time-stamp counter back by the length of a stop.
    #[error("set a VP's time-stamp counter back")]
    SetBackCounter,
}

/// An error of the host's operating system.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error("{text}")]
pub struct OsError {
    pub(crate) errno: Option<i32>,
    pub(crate) text: String,
}

impl OsError {
    /// The error number, if the operating system gave one.
    pub const fn errno(&self) -> Option<i32> {
        self.errno
    }
}

impl From<io::Error> for OsError {
    fn from(error: io::Error) -> Self {
        Self {
            errno: error.raw_os_error(),
            text: error.to_string(),
        }
    }
}

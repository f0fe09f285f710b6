//! What the program ends with.

use std::process::ExitCode;
use vp_runner::runner::RunnerExit;

/// Why the program ends; `--help` lists the codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// The guest switched itself off; `doctor`: KVM can be used.
    Success,
    /// Trapgate itself failed, or could not start the guest again after a reset.
    Failed,
    /// Bad command line or input, or no usable KVM.
    BadInput,
    /// The guest asked for a reset, and is not to start again.
    GuestReset,
    /// A triple fault, and the guest is not to start again.
    TripleFault,
    /// KVM could not go on.
    Crashed,
    /// The debugger ended it.
    Killed,
    /// A signal, or the key for it.
    Signal(libc::c_int),
}

impl ExitStatus {
    /// How a guest ended, and with which signal if there was one.
    pub fn of(exit: &RunnerExit, signal: libc::c_int) -> Self {
        match exit {
            RunnerExit::PowerOff => Self::Success,
            RunnerExit::Reset => Self::GuestReset,
            RunnerExit::ResetFailed => Self::Failed,
            RunnerExit::TripleFault { .. } => Self::TripleFault,
            RunnerExit::Crashed { .. } => Self::Crashed,
            RunnerExit::Killed => Self::Killed,
            RunnerExit::Stopped => Self::Signal(signal),
        }
    }

    /// The number. For a signal, 128 and the signal's, as shells have it.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::BadInput => 2,
            Self::GuestReset => 3,
            Self::TripleFault => 4,
            Self::Crashed => 5,
            Self::Killed => 6,
            Self::Signal(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}

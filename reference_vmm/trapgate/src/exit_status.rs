//! The exit code of the program.

use std::process::ExitCode;
use vp_runner::runner::RunnerExit;

/// The reason why the program ends. `--help` lists the codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// The guest powered itself off; `doctor`: KVM can be used.
    Success,
    /// Trapgate itself failed, or could not start the guest again after a reset.
    Failed,
    /// Bad command line or input, or no usable KVM.
    BadInput,
    /// The guest asked for a reset, and `--no-reboot` was given.
    GuestReset,
    /// The guest had a triple fault, and `--no-reboot` was given.
    TripleFault,
    /// KVM could not run the guest any more.
    Crashed,
    /// The debugger ended the guest.
    Killed,
    /// A signal, or the key for it, ended the program.
    Signal(libc::c_int),
}

impl ExitStatus {
    /// Converts the end of the guest, and the signal if there was one, to an exit status.
    #[deny(clippy::wildcard_enum_match_arm)]
    pub fn of(exit: &RunnerExit, signal: libc::c_int) -> Self {
        match exit {
            RunnerExit::PowerOff => Self::Success,
            RunnerExit::Reset => Self::GuestReset,
            RunnerExit::ResetFailed => Self::Failed,
            RunnerExit::TripleFault { .. } => Self::TripleFault,
            RunnerExit::Crashed { .. } => Self::Crashed,
            RunnerExit::Killed => Self::Killed,
            // `Released` is told to debuggers only.
            RunnerExit::Stopped | RunnerExit::Released => Self::Signal(signal),
            // An end of a newer vmm_core_defs. `session_text::ending` says what it is.
            _ => Self::Failed,
        }
    }

    /// The exit code. For a signal it is 128 plus the signal's number, as in shells.
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

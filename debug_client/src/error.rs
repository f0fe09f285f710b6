//! The errors of a program's requests.

use crate::stop::Stop;
use crate::stop::StopKind;
use crate::symbols::SymbolsError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;
use vmm_core_defs::capability::Capability;
use vmm_core_defs::capability::Support;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::Unsupported;

/// The reason why a debugger could not do what a program asked for.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is no address of a VMM.
    #[error("`{0}` is not the address of a VMM; write unix:PATH, as behind --rpc of the VMM")]
    Address(String),
    /// The socket cannot be used.
    #[error(
        "cannot connect to {}: {source}; check that the VMM runs with --rpc unix:{}, as the same user", path.display(), path.display()
    )]
    Connect {
        /// The path of the socket.
        path: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
    /// The VMM refused a request.
    #[error("{request}: {}", reason(.source))]
    Refused {
        /// The request, as a verb phrase.
        request: &'static str,
        /// The VMM's reason.
        source: DebugError,
    },
    /// The connection to the VMM has ended.
    #[error(
        "{request}: the VMM has closed the connection{}; see its log (it serves 8 programs at a time), and connect again", because(.why)
    )]
    Gone {
        /// The request, as a verb phrase.
        request: &'static str,
        /// What ended the connection, if this side knows it.
        why: Option<String>,
    },
    /// The VMM has not answered in time. It may still carry out the request.
    #[error(
        "{request}: the VMM has not answered within {} s; if it has paused the guest, continue the guest there, otherwise see its log", limit.as_secs_f32()
    )]
    NoAnswer {
        /// The request, as a verb phrase.
        request: &'static str,
        /// The time limit.
        limit: Duration,
    },
    /// The guest stopped for another reason than the program waited for. It is stopped now.
    #[error(
        "the guest stopped before {wanted}: {stop}; continue from there, or remove the cause of this stop"
    )]
    OtherStop {
        /// What the program waited for.
        wanted: String,
        /// Why the guest stopped.
        stop: Stop,
    },
    /// The guest did not stop in time. It was interrupted, and is stopped now.
    #[error(
        "{wanted} did not happen within {} s; the guest was interrupted and is stopped: look at its registers, or wait longer", limit.as_secs_f32()
    )]
    TimedOut {
        /// What the program waited for.
        wanted: String,
        /// The time limit.
        limit: Duration,
        /// The stop by the interruption.
        stop: Stop,
    },
    /// The VMM does not tell its debug server of this event of the guest, so the event cannot be a stop.
    #[error(
        "{event} cannot be a stop: this VMM does not tell its debug server of the event; set a breakpoint in the code that causes the event"
    )]
    NoStopOn {
        /// The kind of the stop.
        event: StopKind,
    },
    /// The guest runs, and the request needs a stopped guest.
    #[error("the guest is running; interrupt it, or wait for its stop")]
    Running,
    /// The guest is stopped, so no stop can be waited for.
    #[error("the guest is stopped, so nothing can be waited for; resume it first")]
    NotRunning,
    /// No register has this name.
    #[error("there is no register `{name}` on this VP; the names are {known}")]
    NoSuchRegister {
        /// The name in the request.
        name: String,
        /// The names of all registers of the VP.
        known: String,
    },
    /// The value has more bits than the register.
    #[error("{value:#x} does not fit into the register `{name}`; give a smaller value")]
    RegisterTooSmall {
        /// The name of the register.
        name: String,
        /// The value in the request.
        value: u64,
    },
    /// A call's arguments are in registers only in 64-bit code.
    #[error(
        "the arguments of a call are known in 64-bit code only, and VP {vp} executes other code; read the stack"
    )]
    NoArguments {
        /// The VP.
        vp: u32,
    },
    /// Part of the memory could not be read.
    #[error(
        "only {got} of {len} bytes at {address:#x} can be read; read less, or map the rest first"
    )]
    PartOfMemory {
        /// The address of the first byte.
        address: u64,
        /// The number of bytes in the request.
        len: usize,
        /// The number of bytes that can be read.
        got: usize,
    },
    /// A condition is no expression that the VMM could evaluate.
    #[error("the condition cannot be used: {0}; write a shorter one")]
    BadCondition(String),
    /// The text of [`Printf`](crate::Printf) is none that the VMM could print.
    #[error(
        "the text cannot be printed: {0}; correct the format, or give it the values that it needs"
    )]
    BadText(String),
    /// A name was given, and no symbols are loaded.
    #[error(
        "no symbols are loaded, so `{0}` means nothing; call load_symbols with the ELF file that the guest executes"
    )]
    NoSymbols(String),
    /// A name is not known, or the symbols cannot be read.
    #[error(transparent)]
    Symbols(#[from] SymbolsError),
    /// The range passes the end of the address space.
    #[error(
        "{len} bytes from {address:#x} pass the end of the address space; check the address and the length"
    )]
    BadRange {
        /// The address of the first byte.
        address: u64,
        /// The number of bytes in the request.
        len: usize,
    },
}

/// The VMM's reason. A test of the host is told apart from what happened to this guest.
fn reason(source: &DebugError) -> String {
    let DebugError::Unsupported(Unsupported::Host(Capability {
        kind,
        support,
        seen,
    })) = source
    else {
        return source.to_string();
    };
    let finding = match support {
        Support::NoEffect => "has no effect",
        Support::NotOffered => "is not offered",
        _ => "does not work",
    };
    format!(
        "not possible on this host: {kind}. The VMM has tested the host at its start, with a small guest of its own, and this feature {finding} here (that guest's test: {seen}). \
         `trapgate doctor` lists what works on this host"
    )
}

fn because(why: &Option<String>) -> String {
    why.as_ref()
        .map_or_else(String::new, |why| format!(" ({why})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_core_defs::capability::CapabilityKind;

    /// The observation of the test reads like an event of the user's guest.
    #[test]
    fn a_feature_that_the_host_lacks_is_told_as_the_result_of_a_test_of_the_host() {
        let source = Unsupported::Host(Capability {
            kind: CapabilityKind::DataWatchpoints,
            support: Support::NoEffect,
            seen: "the guest ran on to its end".to_owned(),
        });
        let request = "set a watchpoint";
        let source = source.into();
        assert_eq!(
            Error::Refused { request, source }.to_string(),
            "set a watchpoint: not possible on this host: data watchpoints. The VMM has tested the host at its start, with a small guest of its own, and this feature has no \
             effect here (that guest's test: the guest ran on to its end). `trapgate doctor` lists what works on this host"
        );
    }
}

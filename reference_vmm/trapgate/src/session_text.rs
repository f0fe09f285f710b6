//! The texts for the user: the guest that runs, how to connect, and how the guest ended.

use crate::cli::RunArgs;
#[cfg(feature = "gdb")]
use debug_worker::ListenAddress;
#[cfg(feature = "gdb")]
use std::path::Path;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::stop::CrashCause;
#[cfg(feature = "gdb")]
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::RunnerFault;
use vp_runner::runner::RunnerExit;
use vp_runner::runner::StartMode;

/// The name of the guest.
pub(crate) fn guest_name(args: &RunArgs) -> String {
    args.kernel.as_deref().map_or_else(
        || "the demo guest".to_owned(),
        |path| path.display().to_string(),
    )
}

/// Describes the guest. `debugger` can continue a guest that is held.
pub(crate) fn guest(args: &RunArgs, start: StartMode, debugger: &str) -> String {
    let name = guest_name(args);
    let state = match start {
        StartMode::Run => "running".to_owned(),
        StartMode::WaitForDebugger => format!(
            "held at its first instruction until {debugger} continues it (--no-wait: run at once)"
        ),
    };
    let cpus = if args.cpus == 1 {
        "1 CPU".to_owned()
    } else {
        format!("{} CPUs", args.cpus)
    };
    format!("trapgate: {name}, {cpus}, {}, {state}", args.memory)
}

/// The line before another VMM takes the place of this program.
#[cfg(feature = "gdb")]
pub(crate) fn exec(program: &Path) -> String {
    format!(
        "trapgate: the debug server starts when {} creates a VM",
        program.display()
    )
}

/// The gdb line to paste.
#[cfg(feature = "gdb")]
pub(crate) fn connect(address: &ListenAddress, symbols: Option<&Path>) -> String {
    let target = match address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Unix(path) => path.display().to_string(),
    };
    let symbols = symbols
        .map(|path| format!(" {}", quoted(&path.display().to_string())))
        .unwrap_or_default();
    let connect = quoted(&format!("target remote {target}"));
    format!("gdb -ex {connect}{symbols}")
}

/// The lines about the debug server. Programs parse the first line, so its form must not change.
#[cfg(feature = "gdb")]
pub(crate) fn server(address: &ListenAddress, how_to_connect: &str) -> String {
    format!("gdb: listening on {address}\n\n    {how_to_connect}\n")
}

/// The line about the socket for programs. Programs parse it, so its form must not change.
#[cfg(feature = "gdb")]
pub(crate) fn rpc(address: &ListenAddress) -> String {
    format!("rpc: listening on {address}")
}

/// What connects without a server for GDB.
#[cfg(feature = "gdb")]
pub(crate) fn programs(address: Option<&ListenAddress>) -> String {
    let address = address.map(ToString::to_string).unwrap_or_default();
    format!("a program that uses trapgate-debug-client, on {address}")
}

/// The text for a crashed guest that is kept.
#[cfg(feature = "gdb")]
pub(crate) fn kept(reason: &DebugStopReason, how_to_connect: &str) -> String {
    let what = match reason {
        DebugStopReason::Crashed { vp, cause } => cannot_go_on(*vp, cause),
        DebugStopReason::TripleFault { vp, .. } => triple_fault(*vp),
        other => format!("the guest cannot go on: {other:?}"),
    };
    format!(
        "trapgate: {what}; the guest is kept, stopped (--on-crash stop). Attach a debugger to look at it:\n\n    {how_to_connect}\n"
    )
}

fn triple_fault(vp: VpIndex) -> String {
    format!("CPU {vp} met a triple fault (--no-reboot)")
}

fn cannot_go_on(vp: VpIndex, cause: &CrashCause) -> String {
    let who = match cause {
        CrashCause::Runner(_) => "Trapgate",
        _ => "KVM",
    };
    format!("{who} cannot go on with CPU {vp}: {}", crash(cause))
}

/// The text about the end of the guest. `None` for an ordinary end.
pub(crate) fn ending(exit: &RunnerExit) -> Option<String> {
    match exit {
        RunnerExit::PowerOff | RunnerExit::Stopped | RunnerExit::Released => None,
        RunnerExit::Reset => Some("trapgate: the guest asked for a reset (--no-reboot)".to_owned()),
        RunnerExit::Killed => Some("trapgate: the debugger ended the guest".to_owned()),
        RunnerExit::ResetFailed => Some(
            "trapgate: the guest could not be started again after a reset; the log line above has the reason"
                .to_owned(),
        ),
        RunnerExit::TripleFault { vp, shown } => {
            Some(format!("trapgate: {}{}", triple_fault(*vp), hint(*shown)))
        }
        RunnerExit::Crashed { vp, cause, shown } => Some(format!(
            "trapgate: {}{}",
            cannot_go_on(*vp, cause),
            hint(*shown)
        )),
        other => Some(format!("trapgate: the guest ended: {other}")),
    }
}

/// The advice to use a debugger, unless one saw the crash or this build has none.
const fn hint(shown: bool) -> &'static str {
    match shown || cfg!(not(feature = "gdb")) {
        true => "",
        false => {
            "; with gdb attached the guest would have stopped there, and with --on-crash stop it is kept for gdb"
        }
    }
}

#[deny(clippy::wildcard_enum_match_arm)]
fn crash(cause: &CrashCause) -> String {
    match cause {
        CrashCause::Internal { suberror: 1 } => "an instruction that KVM cannot emulate".to_owned(),
        CrashCause::Internal { suberror } => format!("internal error {suberror}"),
        CrashCause::FailEntry { hardware_reason } => {
            format!("the processor refused to enter the guest, reason {hardware_reason:#x}")
        }
        CrashCause::Run { errno } => format!(
            "KVM_RUN failed: {}",
            std::io::Error::from_raw_os_error(*errno)
        ),
        CrashCause::UnknownExit { reason } => {
            format!("exit reason {reason}, which this version does not know")
        }
        CrashCause::Runner(fault) => {
            let fault = match fault {
                RunnerFault::DebugState => "KVM refused to read or set its debug state",
                RunnerFault::ThreadPanicked => "a panic ended its thread",
                RunnerFault::ThreadGone => "its thread no longer accepts commands",
                _ => "a fault of the runner",
            };
            format!("{fault}; the log above has the details")
        }
        other => format!("a cause that this version does not know: {other:?}"),
    }
}

/// Quotes a word for a shell.
#[cfg(feature = "gdb")]
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=@%,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(all(test, feature = "gdb"))]
mod tests {
    use super::*;
    use vmm_core_defs::stop::FaultRegisters;

    #[test]
    fn the_gdb_line_can_be_pasted() {
        let address = ListenAddress::Tcp(([127, 0, 0, 1], 4711).into());
        let line = connect(&address, Some(Path::new("/home/a b/it's.elf")));
        let text = server(&address, &line);
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("gdb: listening on 127.0.0.1:4711"));
        let wanted = r"    gdb -ex 'target remote 127.0.0.1:4711' '/home/a b/it'\''s.elf'";
        assert!(lines.any(|line| line == wanted), "{text}");
    }

    #[test]
    fn only_a_stop_that_nobody_saw_is_said_to_be_one_that_gdb_could_have_seen() {
        let vp = VpIndex::new(1);
        let cause = CrashCause::Internal { suberror: 1 };
        for shown in [false, true] {
            for exit in [
                RunnerExit::TripleFault { vp, shown },
                RunnerExit::Crashed { vp, cause, shown },
            ] {
                let text = ending(&exit).expect("worth a line");
                assert_eq!(text.contains("with gdb attached"), !shown, "{text}");
            }
        }
    }

    #[test]
    fn a_guest_that_is_kept_is_told_of_with_what_befell_it_and_the_line_to_paste() {
        let vp = VpIndex::new(3);
        let cause = CrashCause::Internal { suberror: 1 };
        let registers = FaultRegisters::Kept;
        for (reason, words) in [
            (
                DebugStopReason::Crashed { vp, cause },
                "CPU 3: an instruction",
            ),
            (
                DebugStopReason::TripleFault { vp, registers },
                "CPU 3 met a triple fault",
            ),
        ] {
            let text = kept(&reason, "gdb -ex 'target remote HERE'");
            for part in [
                words,
                "kept, stopped",
                "\n    gdb -ex 'target remote HERE'\n",
            ] {
                assert!(text.contains(part), "{text}");
            }
        }
    }

    #[test]
    fn a_reset_that_failed_is_not_told_as_one_that_was_asked_for() {
        let failed = ending(&RunnerExit::ResetFailed).expect("worth a line");
        let asked = ending(&RunnerExit::Reset).expect("worth a line");
        assert!(failed.contains("could not") && !asked.contains("could not"));
    }

    #[test]
    fn gdb_wants_the_bare_path_of_a_unix_socket() {
        let address = ListenAddress::Unix("/run/gdb".into());
        let text = server(&address, &connect(&address, None));
        assert!(
            text.starts_with("gdb: listening on unix:/run/gdb\n"),
            "{text}"
        );
        assert!(
            text.contains("gdb -ex 'target remote /run/gdb'\n"),
            "{text}"
        );
    }
}

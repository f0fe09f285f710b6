//! Whether the debug server gets a process of its own, and what this host's kernel can take from the process.

use crate::cli::debug_args::Isolate;
use crate::cli::log_args;
use crate::cli::log_args::LogArgs;
use crate::debug_server::ServerError;
use debug_worker::process::Needed;
use debug_worker::process::Sandbox;
use debug_worker::process::WorkerHost;
use debug_worker::process::probe;
use debug_worker::process::system_calls;
use std::io;

/// The host of the debug server's process. `None`: the server runs in this process. The log says which of them, and what is missing.
pub(crate) fn workers(isolate: Isolate, log: &LogArgs) -> Result<Option<WorkerHost>, ServerError> {
    if isolate == Isolate::Off {
        tracing::info!("the debug server runs in the process of the VMM (--isolate off)");
        return Ok(None);
    }
    // A worker gets no descriptor that whoever started this program left open.
    close_fds::set_fds_cloexec_threadsafe(3, &[]);
    let workers = WorkerHost::new().log(log_args::for_worker(&log.log.clone().unwrap_or_default()));
    let found = probe(&workers);
    if let Some(why) = wanting(isolate, &found) {
        return Err(ServerError::Isolation(why));
    }
    match found {
        Ok(sandbox) => {
            tracing::info!("the debug server runs in {sandbox}");
            Ok(Some(workers))
        }
        Err(error) => {
            tracing::warn!(
                %error,
                "the debug server runs in the process of the VMM, because it cannot have its own here; see `trapgate doctor`"
            );
            Ok(None)
        }
    }
}

/// Why the user does not get what he requires.
fn wanting(isolate: Isolate, found: &io::Result<Sandbox>) -> Option<String> {
    match found {
        _ if isolate != Isolate::Require => None,
        Ok(sandbox) if sandbox.is_complete() => None,
        Ok(sandbox) => Some(sandbox.to_string()),
        Err(error) => Some(format!("no process can be started ({error})")),
    }
}

/// What `trapgate doctor` says of it.
pub(crate) fn report() -> String {
    let calls = |needed| {
        let names: Vec<_> = system_calls()
            .filter(|call| call.needed == needed)
            .map(|call| call.name)
            .collect();
        names.join(" ")
    };
    let verdict = match probe(&WorkerHost::new()) {
        Ok(sandbox) if sandbox.is_complete() => format!("yes  the debug server runs in {sandbox}"),
        Ok(sandbox) => format!("NO   the debug server runs in {sandbox}"),
        Err(error) => format!(
            "NO   the debug server runs in the process of the VMM, because it cannot have its own here ({error})"
        ),
    };
    format!(
        "{verdict}\n     Its system calls: {}\n     For a --gdb address that other machines reach: {}\n     With --dump-dir: {}\n",
        calls(Needed::Always),
        calls(Needed::ForNetwork),
        calls(Needed::ForDumps),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use debug_worker::process::Part;

    fn sandbox(missing: &[Part]) -> io::Result<Sandbox> {
        let mut sandbox = Sandbox::default();
        sandbox.active = vec![Part::Seccomp];
        sandbox.missing = missing
            .iter()
            .map(|part| (*part, "old kernel".to_owned()))
            .collect();
        Ok(sandbox)
    }

    #[test]
    fn who_requires_isolation_gets_all_of_it_or_the_reason() {
        let refused = || Err(io::ErrorKind::PermissionDenied.into());
        assert_eq!(wanting(Isolate::Require, &sandbox(&[])), None);
        let why = wanting(Isolate::Require, &sandbox(&[Part::Landlock])).expect("a reason");
        assert!(why.contains("missing: landlock (old kernel)"), "{why}");
        assert!(wanting(Isolate::Require, &refused()).is_some());
        assert_eq!(wanting(Isolate::Auto, &sandbox(&[Part::Landlock])), None);
        assert_eq!(wanting(Isolate::Auto, &refused()), None);
    }
}

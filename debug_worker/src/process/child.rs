//! The worker's process, as the VMM sees it.

use super::INVITATION;
use super::TITLE;
use super::control::ControlSocket;
use mesh::OneshotReceiver;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::Signal;
use rustix::process::pidfd_open;
use rustix::process::pidfd_send_signal;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::thread;

/// This program, also if its file has been replaced.
const PROGRAM: &str = "/proc/self/exe";

/// A worker's process. Dropping it kills the process.
pub(super) struct Child {
    pub(super) pid: u32,
    process: OwnedFd,
    exit: OneshotReceiver<io::Result<ExitStatus>>,
}

/// This program as a worker with this control socket, and with no other descriptor than the error output.
///
/// Nothing runs between fork and exec, so the standard library uses posix_spawn, which copies no page table: the guest's memory would make a fork slow, and
/// would be copied on write for a time.
pub(super) fn command(control: ControlSocket) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .arg0(TITLE)
        .env_clear()
        .env(INVITATION, "1")
        .stdin(OwnedFd::from(control))
        .stdout(Stdio::null())
        // Ctrl-C in the VMM's terminal is for the VMM.
        .process_group(0);
    command
}

impl Child {
    /// Starts a worker, on a thread that waits for its end.
    pub(super) async fn start(control: ControlSocket) -> io::Result<Self> {
        let (started, start) = mesh::oneshot();
        let (exited, exit) = mesh::oneshot();
        let run = move || {
            let child = command(control).spawn().and_then(|child| {
                // Nobody else waits for the child, so its number stays its own.
                let pid = Pid::from_child(&child);
                Ok((pidfd_open(pid, PidfdFlags::empty())?, child))
            });
            match child {
                Ok((process, mut child)) => {
                    started.send(Ok((child.id(), process)));
                    exited.send(child.wait());
                }
                Err(error) => started.send(Err(error)),
            }
        };
        thread::Builder::new()
            .name("debug worker".to_owned())
            .spawn(run)?;
        let gone = |_| Err(io::ErrorKind::BrokenPipe.into());
        let (pid, process) = start.await.unwrap_or_else(gone)?;
        Ok(Self { pid, process, exit })
    }

    /// Ends the process, whatever it does. Does not wait for the end.
    pub(super) fn kill(&self) {
        // The process has ended already if there is an error.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
    }

    /// Waits for the end. Cancel safe.
    pub(super) async fn exited(&mut self) -> io::Result<ExitStatus> {
        let gone = |_| Err(io::ErrorKind::BrokenPipe.into());
        (&mut self.exit).await.unwrap_or_else(gone)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

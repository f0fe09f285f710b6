//! The command line of `trapgate gdb` and `trapgate lldb`.

use clap::Args;
use debug_worker::ListenAddress;
use std::ffi::OsString;
use std::path::PathBuf;

/// What the commands do.
pub(super) const CLIENT_HELP: &str = "\
Without --connect, the command finds the VM of this user that runs with a debug server, started by `trapgate run` or
`trapgate exec`. If several run, it lists them. The debugger takes the place of trapgate, reads the symbols of the
guest if they are known, connects, and then does what ARGS say. If the debugger cannot be started, the exit status
is 2, and a message says what to do. For example:
  trapgate gdb -- -ex 'break do_round' -ex continue";

/// The VM, and the debugger.
#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    /// The debug server: HOST:PORT or unix:PATH, as at --gdb [default: that of the VM that runs]
    #[arg(long, value_name = "ADDR")]
    pub connect: Option<ListenAddress>,
    /// The file with the symbols of the guest, such as the vmlinux of a bzImage [default: the kernel with which the VM
    /// was started, if it is an ELF file]
    #[arg(long, value_name = "FILE")]
    pub symbols: Option<PathBuf>,
    /// The program of the debugger: a path, or a name in PATH
    #[arg(long, value_name = "PATH")]
    pub program: Option<PathBuf>,
    /// Arguments for the debugger
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<OsString>,
}

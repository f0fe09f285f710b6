//! The command line of `trapgate exec`.

use clap::Args;
use debug_worker::ListenAddress;
use std::ffi::OsString;
use std::path::PathBuf;

/// What `exec` does with the VMM.
pub(super) const EXEC_HELP: &str = "\
COMMAND is any dynamically linked VMM that uses KVM, for example
  trapgate exec --wait -- qemu-system-x86_64 -accel kvm -kernel bzImage
It takes the place of trapgate: the process id, the signals and the exit status are the VMM's.
If COMMAND cannot be started, the exit status is 2, and a message says what to do.";

/// The VMM to run, and the settings of its debug server.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Address for GDB: HOST:PORT (port 0 selects a free port, which is printed) or unix:PATH. A second VM of the same
    /// process gets another port, or a path with its number
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1234")]
    pub gdb: ListenAddress,
    /// Hold each guest before its first instruction until GDB continues it
    #[arg(long)]
    pub wait: bool,
    /// Log on standard error: error, warn, info, debug or trace, or PART=LEVEL. Without this option only errors are logged
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// The library to preload [default: libtrapgate_preload.so beside trapgate, or in ../lib/trapgate]
    #[arg(long, value_name = "FILE")]
    pub library: Option<PathBuf>,
    /// The VMM and its arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true,
        value_name = "COMMAND"
    )]
    pub command: Vec<OsString>,
}

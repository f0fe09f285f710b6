//! The command line of `trapgate exec`.

use super::debug_args::ServerArgs;
use super::log_args::LogArgs;
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
    /// The options that `trapgate run` has too.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Hold each guest before its first instruction until GDB continues it
    #[arg(long)]
    pub wait: bool,
    /// The log. Without a level only errors are logged.
    #[command(flatten)]
    pub log: LogArgs,
    /// The library to preload [default: libtrapgate_preload.so beside trapgate, or in ../lib/trapgate]
    #[arg(long, value_name = "FILE")]
    pub library: Option<PathBuf>,
    /// The VMM and its arguments. What follows the VMM's name is the VMM's
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Alone {
        #[command(flatten)]
        exec: ExecArgs,
    }

    fn parse(words: &[&str]) -> Result<ExecArgs, clap::Error> {
        let words = ["trapgate"].iter().chain(words);
        Alone::try_parse_from(words).map(|alone| alone.exec)
    }

    #[test]
    fn what_follows_the_name_of_the_vmm_is_the_vmms() {
        for words in [
            &["--wait", "--", "qemu", "-accel", "kvm", "--help", "--wait"][..],
            &["--wait", "qemu", "-accel", "kvm", "--help", "--wait"],
        ] {
            let args = parse(words).expect("understood");
            assert!(args.wait);
            assert_eq!(args.command, ["qemu", "-accel", "kvm", "--help", "--wait"]);
        }
    }

    #[test]
    fn an_unknown_option_is_not_the_name_of_the_vmm() {
        for words in [&["--no-such-option", "qemu"][..], &["-accel", "qemu"]] {
            let error = parse(words).expect_err("refused").to_string();
            assert!(error.contains("unexpected argument"), "{error}");
        }
    }
}

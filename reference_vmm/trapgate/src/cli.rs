//! The command line.

#[cfg(feature = "gdb")]
mod client_args;
#[cfg(feature = "gdb")]
pub(crate) mod debug_args;
#[cfg(feature = "gdb")]
mod exec_args;
pub(crate) mod log_args;
#[cfg(feature = "gdb")]
pub(crate) mod rpc_args;

use crate::memory::MemorySize;
use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
#[cfg(feature = "gdb")]
pub(crate) use client_args::ClientArgs;
#[cfg(feature = "gdb")]
use debug_args::DebugArgs;
#[cfg(feature = "gdb")]
pub(crate) use exec_args::ExecArgs;
use log_args::LogArgs;
#[cfg(feature = "gdb")]
use rpc_args::RpcArgs;
use std::path::PathBuf;
use std::str::FromStr;

/// The program.
#[derive(Debug, Parser)]
#[cfg_attr(feature = "gdb", command(about = "A small KVM virtual machine monitor with a built-in GDB server", long_about = ABOUT))]
#[cfg_attr(not(feature = "gdb"), command(about = "A small KVM virtual machine monitor, built without its GDB server", long_about = ABOUT))]
#[command(name = "trapgate", version, args_conflicts_with_subcommands = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The options of `run`, if no command is named.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What the program is.
#[cfg(feature = "gdb")]
const ABOUT: &str = "\
A small KVM virtual machine monitor with a built-in GDB server.

Without a command it runs `trapgate run`: it boots the built-in demo guest, holds the guest at its first instruction
and prints the gdb line to paste.";

/// What the program is.
#[cfg(not(feature = "gdb"))]
const ABOUT: &str = "\
A small KVM virtual machine monitor, built without its GDB server (cargo feature `gdb`).

Without a command it runs `trapgate run`: it boots the built-in demo guest.";

/// The meanings of the exit codes. `ExitStatus` has the same list.
const EXIT_CODES: &str = "\
Exit codes:
  0    the guest powered itself off (doctor: KVM can be used)
  1    Trapgate itself failed, or could not start the guest again after a reset
  2    bad command line or input, or no usable KVM; the message says what to do
  3    the guest asked for a reset, with --no-reboot
  4    a triple fault, with --no-reboot
  5    KVM could not run the guest any more
  6    the debugger ended the guest: by `monitor quit`, or it was lost or sent `kill` with --on-disconnect kill
  130  ended by Ctrl-C or SIGINT (129: SIGHUP, 143: SIGTERM)";

/// A command of the program.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[cfg_attr(feature = "gdb", doc = "Boot a guest with the debug server")]
    #[cfg_attr(not(feature = "gdb"), doc = "Boot a guest")]
    #[command(after_help = EXIT_CODES)]
    Run(Box<RunArgs>),
    /// Run another VMM, unmodified, with the debug server preloaded into it
    #[cfg(feature = "gdb")]
    #[command(after_help = exec_args::EXEC_HELP)]
    Exec(Box<ExecArgs>),
    /// Start GDB on a VM that runs, with the symbols of the guest
    #[cfg(feature = "gdb")]
    #[command(after_help = client_args::CLIENT_HELP)]
    Gdb(Box<ClientArgs>),
    /// Start LLDB on a VM that runs, with the symbols of the guest
    #[cfg(feature = "gdb")]
    #[command(after_help = client_args::CLIENT_HELP)]
    Lldb(Box<ClientArgs>),
    /// Make requests to the guest of a running VMM (--rpc), as lines of JSON
    #[cfg(feature = "gdb")]
    #[command(after_help = rpc_args::RPC_HELP)]
    Rpc(Box<RpcArgs>),
    /// Try which debugging features work on this host's KVM
    Doctor,
    /// Print the completions of this command line for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the man page of the program, or write its pages and those of its commands into a folder
    Man {
        /// The folder, which exists
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
    },
}

/// A shell that completes command lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// The Bourne-again shell
    Bash,
    /// The Z shell
    Zsh,
    /// The friendly interactive shell
    Fish,
}

/// The guest to run, and its options.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Kernel: a bzImage, an ELF vmlinux, or any x86-64 ELF file with a PVH note [default: the built-in demo guest]
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub initrd: Option<PathBuf>,
    /// Kernel command line
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub cmdline: String,
    /// Number of CPUs
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub cpus: u32,
    /// RAM, with K, M or G; a bare number is MiB
    #[arg(long, value_name = "SIZE", default_value = "512M")]
    pub memory: MemorySize,
    /// The options of the debug server.
    #[cfg(feature = "gdb")]
    #[command(flatten)]
    pub debug: DebugArgs,
    /// Destination of the serial port: stdio, file:PATH, or off
    #[arg(long, value_name = "WHERE", default_value = "stdio")]
    pub serial: SerialPlace,
    /// Exit, instead of starting again, when the guest resets or has a triple fault
    #[arg(long)]
    pub no_reboot: bool,
    /// The log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// The destination of the serial port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SerialPlace {
    /// Standard input and output.
    Stdio,
    /// Output to a file, no input.
    File(PathBuf),
    /// The output is dropped, and there is no input.
    Off,
}

impl FromStr for SerialPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "stdio" => Ok(Self::Stdio),
            None if text == "off" => Ok(Self::Off),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err("write stdio, file:PATH or off".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["trapgate"].iter().chain(words))
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bare_and_run_mean_the_same() {
        let bare = parse(&["--cpus", "3"]).expect("understood");
        let run = parse(&["run", "--cpus", "3"]).expect("understood");
        assert!(bare.command.is_none());
        let Some(Command::Run(run)) = run.command else {
            panic!("not run")
        };
        assert_eq!(
            (bare.run.cpus, bare.run.memory, bare.run.serial),
            (run.cpus, run.memory, run.serial)
        );
    }

    /// A value's help is shown without the option's help, so "It is not" would mean nothing.
    #[test]
    fn every_value_that_can_be_chosen_is_explained_by_itself() {
        let run = Cli::command()
            .find_subcommand("run")
            .expect("there")
            .clone();
        let mut looked_at = 0;
        for option in run.get_arguments() {
            for value in option.get_possible_values() {
                let name = (option.get_id(), value.get_name().to_owned());
                let Some(help) = value.get_help() else {
                    // The values true and false that clap adds for flags.
                    continue;
                };
                let words = help.to_string().split_whitespace().count();
                assert!(words >= 3, "{name:?}: {help}");
                assert!(!help.to_string().ends_with('.'), "{name:?}: {help}");
                looked_at += 1;
            }
        }
        assert!(looked_at >= 5, "{looked_at}");
    }

    #[test]
    fn bad_values_are_refused_with_what_to_write() {
        for (words, hint) in [
            (["--cpus", "0"], "0 is not in 1.."),
            (["--memory", "lots"], "such as 512M"),
            (["--serial", "printer"], "file:PATH"),
            (["--initrd", "x"], "--kernel"),
        ] {
            let error = parse(&words).expect_err("refused");
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(hint), "{error}");
        }
    }
}

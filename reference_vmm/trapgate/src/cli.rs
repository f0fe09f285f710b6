//! The command line.

use crate::memory::MemorySize;
use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use debug_worker::ListenAddress;
use nix::unistd::User;
use std::path::PathBuf;
use std::str::FromStr;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::debug_rpc::FreezeTime;

/// A small KVM virtual machine monitor with a built-in GDB server.
///
/// Without a command it runs `trapgate run`: it boots the built-in demo guest, holds the guest at its first instruction
/// and prints the gdb line to paste.
#[derive(Debug, Parser)]
#[command(name = "trapgate", version, args_conflicts_with_subcommands = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The options of `run`, if no command is named.
    #[command(flatten)]
    pub run: RunArgs,
}

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
    /// Boot a guest with the debug server
    #[command(after_help = EXIT_CODES)]
    Run(Box<RunArgs>),
    /// Try which debugging features work on this host's KVM
    Doctor,
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
    /// Address for GDB: HOST:PORT (port 0 selects a free port, which is printed), unix:PATH, or off
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1234")]
    pub gdb: GdbServer,
    /// Allow a --gdb address that other machines can reach. The protocol has no authentication: any program that
    /// reaches the port controls the guest
    #[arg(long)]
    pub gdb_allow_network: bool,
    /// Admit programs of this user at a --gdb address of this machine, in addition to those of trapgate's own user and
    /// root. A name or a number; may be repeated
    #[arg(long, value_name = "NAME")]
    pub gdb_allow_user: Vec<UserId>,
    /// Close a connection that sends no packet for this time, and a client that does not read its replies for this
    /// time. A debugger that is only silent is never closed
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub idle_timeout: u32,
    /// Let debuggers write core files of the guest into this folder, with `monitor dump FILE`. An existing file is not
    /// overwritten
    #[arg(long, value_name = "DIR")]
    pub dump_dir: Option<PathBuf>,
    /// What happens to the guest when GDB is lost (killed, disconnected) or kills it; after `detach` the guest always
    /// runs on. A held guest that was never continued stays held when GDB is lost
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnDisconnect::Resume)]
    pub on_disconnect: OnDisconnect,
    /// What happens when the guest crashes (KVM cannot run it, or a triple fault with --no-reboot) and no debugger is
    /// attached
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnCrash::End)]
    pub on_crash: OnCrash,
    /// Run at once, instead of holding the guest at its first instruction until GDB continues it
    #[arg(long)]
    pub no_wait: bool,
    /// Whether the guest's clocks and timers stop while a debugger has stopped the guest
    #[arg(long, value_name = "on|off", value_enum, default_value = "on")]
    pub freeze_time: Freeze,
    /// Destination of the serial port: stdio, file:PATH, or off
    #[arg(long, value_name = "WHERE", default_value = "stdio")]
    pub serial: SerialPlace,
    /// Exit, instead of starting again, when the guest resets or has a triple fault
    #[arg(long)]
    pub no_reboot: bool,
}

/// A user of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UserId(pub u32);

impl FromStr for UserId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse() {
            return Ok(Self(number));
        }
        match User::from_name(text) {
            Ok(Some(user)) => Ok(Self(user.uid.as_raw())),
            Ok(None) => Err(
                "there is no such user; write a name that `getent passwd` lists, or a number"
                    .to_owned(),
            ),
            Err(errno) => Err(format!(
                "the users of this machine cannot be looked up ({errno}); write the number that `id -u NAME` prints"
            )),
        }
    }
}

/// What happens to the guest when its debugger goes without `detach`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnDisconnect {
    /// The guest runs on
    Resume,
    /// The guest stays stopped until the next debugger attaches
    Stop,
    /// The guest ends, and trapgate with it
    Kill,
}

/// What happens to a guest that crashes while no debugger is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnCrash {
    /// The guest ends, and trapgate with it
    End,
    /// The guest is kept, stopped, until a debugger attaches
    Stop,
}

impl From<OnDisconnect> for DetachAction {
    fn from(what: OnDisconnect) -> Self {
        match what {
            OnDisconnect::Resume => Self::Resume,
            OnDisconnect::Stop => Self::Stay,
            OnDisconnect::Kill => Self::Kill,
        }
    }
}

/// Whether there is a debug server, and its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GdbServer {
    /// No debug server.
    Off,
    /// A debug server at this address.
    At(ListenAddress),
}

impl FromStr for GdbServer {
    type Err = <ListenAddress as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            address => address.parse().map(Self::At),
        }
    }
}

/// Whether the guest's clocks stop while a debugger has stopped the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Freeze {
    /// The clocks stop: the guest sees no time pass during a stop
    On,
    /// The clocks run on: the guest sees a stop as time in which it did not run
    Off,
}

impl From<Freeze> for FreezeTime {
    fn from(freeze: Freeze) -> Self {
        match freeze {
            Freeze::On => Self::On,
            Freeze::Off => Self::Off,
        }
    }
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
            (bare.run.cpus, bare.run.memory, bare.run.gdb),
            (run.cpus, run.memory, run.gdb)
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
    fn users_have_names_and_numbers() {
        let words = ["--gdb-allow-user", "root", "--gdb-allow-user", "1234"];
        let users = parse(&words).expect("understood").run.gdb_allow_user;
        assert_eq!(users, [UserId(0), UserId(1234)]);
    }

    #[test]
    fn bad_values_are_refused_with_what_to_write() {
        for (words, hint) in [
            (["--cpus", "0"], "0 is not in 1.."),
            (["--memory", "lots"], "such as 512M"),
            (["--gdb", "nowhere"], "HOST:PORT"),
            (["--serial", "printer"], "file:PATH"),
            (["--initrd", "x"], "--kernel"),
            (["--on-disconnect", "sleep"], "resume, stop, kill"),
            (["--on-crash", "sleep"], "end, stop"),
            (["--idle-timeout", "0"], "0 is not in 1.."),
            (["--gdb-allow-user", "no such user"], "getent passwd"),
        ] {
            let error = parse(&words).expect_err("refused");
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(hint), "{error}");
        }
    }
}

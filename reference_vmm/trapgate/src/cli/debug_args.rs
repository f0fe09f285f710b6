//! The options of the debug server.

use clap::Args;
use clap::ValueEnum;
use debug_worker::Exposure;
use debug_worker::ListenAddress;
use nix::unistd::User;
use std::path::PathBuf;
use std::str::FromStr;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::debug_rpc::FreezeTime;

/// See the module.
#[derive(Debug, Args)]
pub(crate) struct DebugArgs {
    /// Address for GDB: HOST:PORT (port 0 selects a free port, which is printed), unix:PATH, or off
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1234")]
    pub gdb: GdbServer,
    /// The options that `trapgate exec` has too.
    #[command(flatten)]
    pub server: ServerArgs,
    /// What happens when the guest crashes (KVM cannot run it, or a triple fault with --no-reboot) and no debugger is
    /// attached
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnCrash::End)]
    pub on_crash: OnCrash,
    /// Run at once, instead of holding the guest at its first instruction until GDB continues it
    #[arg(long)]
    pub no_wait: bool,
    /// Whether the server for GDB runs in a process of its own, which can open no file and no socket and is replaced if it
    /// dies. Programs at --rpc are served in the VMM
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Isolate::Auto)]
    pub isolate: Isolate,
    /// Whether the guest's clocks and timers stop while a debugger has stopped the guest
    #[arg(long, value_name = "on|off", value_enum, default_value = "on")]
    pub freeze_time: Freeze,
}

/// What `trapgate run` and `trapgate exec` have in common.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// Allow a --gdb address that other machines can reach. The protocol has no authentication: any program that
    /// reaches the port controls the guest
    #[arg(long)]
    pub gdb_allow_network: bool,
    /// Admit programs of this user at a --gdb address of this machine, in addition to those of the VMM's own user and
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
    /// The file with the symbols of the guest, such as the vmlinux of a bzImage, which GDB reads from the debug server [default
    /// with run: the kernel, if it is an ELF file]
    #[arg(long, value_name = "FILE")]
    pub symbols: Option<PathBuf>,
    /// Answer `GET /metrics` on this unix socket with the counters of the debug server, as OpenMetrics text: unix:PATH
    #[arg(long, value_name = "ADDR", value_parser = socket_file)]
    pub metrics: Option<ListenAddress>,
    /// Serve programs that debug the guest by requests (crate trapgate-debug-client) on this unix socket: unix:PATH
    #[arg(long, value_name = "ADDR", value_parser = socket_file)]
    pub rpc: Option<ListenAddress>,
    /// What happens to the guest when GDB is lost (killed, disconnected) or kills it; after `detach` the guest always
    /// runs on. A held guest that was never continued stays held when GDB is lost
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnDisconnect::Resume)]
    pub on_disconnect: OnDisconnect,
}

impl ServerArgs {
    /// Who may reach the debug server.
    pub(crate) const fn exposure(&self) -> Exposure {
        match self.gdb_allow_network {
            true => Exposure::Network,
            false => Exposure::LoopbackOnly,
        }
    }
}

/// Web pages can reach a port, and no file.
fn socket_file(text: &str) -> Result<ListenAddress, String> {
    match text.parse() {
        Ok(address @ ListenAddress::Unix(_)) => Ok(address),
        _ => Err("write unix:PATH, the path of a socket file".to_owned()),
    }
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
    /// The guest ends, and its VMM with it
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

/// Whether the debug server runs in a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Isolate {
    /// In the process of the VMM
    Off,
    /// In a process of its own, as far as this host's kernel can isolate it
    Auto,
    /// In a process of its own; trapgate ends if the kernel lacks a part of the isolation
    Require,
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Alone {
        #[command(flatten)]
        debug: DebugArgs,
    }

    fn parse(words: &[&str]) -> Result<DebugArgs, clap::Error> {
        let words = ["trapgate"].iter().chain(words);
        Alone::try_parse_from(words).map(|alone| alone.debug)
    }

    #[test]
    fn users_have_names_and_numbers() {
        let words = ["--gdb-allow-user", "root", "--gdb-allow-user", "1234"];
        let users = parse(&words).expect("understood").server.gdb_allow_user;
        assert_eq!(users, [UserId(0), UserId(1234)]);
    }

    #[test]
    fn bad_values_are_refused_with_what_to_write() {
        for (words, hint) in [
            (["--gdb", "nowhere"], "HOST:PORT"),
            (["--on-disconnect", "sleep"], "resume, stop, kill"),
            (["--on-crash", "sleep"], "end, stop"),
            (["--isolate", "perhaps"], "off, auto, require"),
            (["--idle-timeout", "0"], "0 is not in 1.."),
            (["--metrics", "127.0.0.1:9000"], "unix:PATH"),
            (["--rpc", "127.0.0.1:9000"], "unix:PATH"),
            (["--gdb-allow-user", "no such user"], "getent passwd"),
        ] {
            let error = parse(&words).expect_err("refused");
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(hint), "{error}");
        }
    }
}

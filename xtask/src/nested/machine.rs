//! What the bed needs of the machine that runs the outer kernel; QEMU and Bochs each have an implementation.

use super::channel::Kind;
use super::root_image::RootImage;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::time::Duration;

/// The KVM inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kvm {
    /// kvm-amd, in QEMU.
    Amd,
    /// kvm-intel, in Bochs.
    Intel,
    /// kvm-amd, in Bochs.
    AmdBochs,
}

impl Kvm {
    /// As the variable `TRAPGATE_NESTED_KVM` has it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Amd | Self::AmdBochs => "amd",
            Self::Intel => "intel",
        }
    }

    /// Whether the same seed gives the same run.
    pub(crate) fn repeats(self) -> bool {
        self != Self::Amd
    }
}

/// Where the init looks for the command, in the root image.
pub(super) const RUN_FILE: &str = ".trapgate-run";

/// One boot as it is asked for.
pub(super) struct Plan<'a> {
    /// A folder for sockets and images.
    pub scratch: &'a Path,
    /// Words added to the outer kernel's command line.
    pub cmdline: &'a str,
    /// vCPUs of the outer machine.
    pub cpus: u32,
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// How long the command inside may take.
    pub timeout: Duration,
    /// Chooses one of many timings, where the machine has a choice.
    pub seed: u64,
}

/// How long a boot may take, by the machine's own [clock](Machine::elapsed).
pub(super) struct Limits {
    /// What the clock counts, for messages.
    pub unit: &'static str,
    /// Until the init says `up`.
    pub up: Duration,
    /// From one word of the init to the next.
    pub alive: Duration,
    /// For the command, where the init itself does not end it.
    pub command: Option<Duration>,
    /// From `exit N` to the end of the machine.
    pub off: Duration,
}

/// A machine that boots the outer kernel.
///
/// It gives four channels of one [kind](Self::channels), which lie in [`Plan::scratch`] under the names of [`CHANNELS`]. On `control`, the init says
/// `up`, then `alive` now and then, and last `exit N`, or `timeout` where it has ended the command itself. It says `broken WHY` where the command would have
/// nothing to run on.
pub(super) trait Machine: Sync {
    /// For messages.
    fn name(&self) -> &'static str;

    /// The KVM that it is for.
    fn kvm(&self) -> Kvm;

    /// How the channels appear on this machine.
    fn channels(&self) -> Kind;

    /// Writes what all boots of `plan` start from.
    fn prepare(&self, root: RootImage, plan: &Plan<'_>) -> anyhow::Result<()>;

    /// Starts a boot.
    fn command(&self, plan: &Plan<'_>) -> Command;

    /// The limits for a boot.
    fn limits(&self, plan: &Plan<'_>) -> Limits;

    /// The time that a boot has taken by the clock that the limits are meant for.
    fn elapsed(&self, child: &Child, wall: Duration) -> Duration;

    /// Whose seconds the command's are, for messages.
    fn whose_time(&self) -> &'static str {
        ""
    }

    /// How often a boot is tried again after the bed itself failed.
    fn retries(&self) -> u32;

    /// After the end: how many instructions it was, where the machine counts them, and what the machine said of its own end.
    fn last_words(&self, _plan: &Plan<'_>) -> LastWords {
        LastWords::default()
    }
}

/// What a machine leaves behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LastWords {
    /// From power-on to the end, with one for each turn of an idle CPU.
    pub instructions: Option<u64>,
    /// Why it ended, in its own words.
    pub reason: Option<String>,
}

/// The channels' names.
pub(super) const CHANNELS: [&str; 4] = ["console", "stdout", "stderr", "control"];

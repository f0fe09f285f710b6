//! What the bed needs of the machine that runs the outer kernel; QEMU and Bochs each have an implementation.

use super::channel::Kind;
use super::root_image::RootImage;
use crate::cache::fnv1a;
use std::ffi::OsStr;
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
    /// What tells the init's words on `control` from all else.
    pub mark: Mark,
}

/// A word that the init says before each of its words on `control`. The command does not know this word: a line without it is no word of the init's,
/// whatever the command writes to that channel.
///
/// The same command with the same seed has the same mark, since the same files have to give the same run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark(String);

impl Mark {
    /// Where the mark belongs in an init's text.
    pub(super) const PLACE: &str = "MARK";

    /// The mark of the boots of one command.
    pub(super) fn of<'a>(words: impl IntoIterator<Item = &'a OsStr>, seed: u64) -> Self {
        let mut bytes = seed.to_le_bytes().to_vec();
        for word in words {
            bytes.extend(word.as_encoded_bytes());
            bytes.push(0);
        }
        Self(format!("{:016x}", fnv1a(&bytes)))
    }

    /// The init's text with the mark in its places.
    pub(super) fn fill(&self, init: &str) -> String {
        init.replace(Self::PLACE, &self.0)
    }

    /// What follows the mark. What stands before the mark is a line that somebody else began.
    pub(super) fn word<'a>(&self, line: &'a str) -> Option<&'a str> {
        let (_, word) = line.rsplit_once(self.0.as_str())?;
        Some(word.trim())
    }
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
/// nothing to run on. Each of these words comes behind the [`Mark`].
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_follows_the_mark_is_a_word() {
        let mark = |text: &str, seed| Mark::of([OsStr::new(text)], seed);
        let ours = mark("sh", 1);
        assert_eq!(ours, mark("sh", 1));
        assert_ne!(ours, mark("sh", 2));
        assert_ne!(ours, mark("bash", 1));
        let line = ours.fill("begun MARK exit 7");
        assert_eq!(ours.word(&line), Some("exit 7"));
        assert_eq!(ours.word("exit 0"), None);
        assert_eq!(ours.word(&mark("sh", 2).fill("MARK exit 0")), None);
    }
}

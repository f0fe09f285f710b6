//! The interface of a machine that runs the outer kernel. QEMU and Bochs each have an implementation.

use super::channel::Kind;
use super::root_image::RootImage;
use crate::cache::fnv1a;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::time::Duration;

/// The KVM inside, and the machine that it runs on.
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
    /// The value of the variable `TRAPGATE_NESTED_KVM`.
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

/// The path of the command in the root image.
pub(super) const RUN_FILE: &str = ".trapgate-run";

/// The parameters of one boot.
pub(super) struct Plan<'a> {
    /// A folder for sockets and images.
    pub scratch: &'a Path,
    /// Words that are added to the outer kernel's command line.
    pub cmdline: &'a str,
    /// The number of vCPUs of the outer machine.
    pub cpus: u32,
    /// The memory of the outer machine in MiB.
    pub memory_mib: u32,
    /// The time limit of the command inside.
    pub timeout: Duration,
    /// Selects one of many timings, if the machine has several.
    pub seed: u64,
    /// Distinguishes the words of the init on `control` from other text.
    pub mark: Mark,
}

/// A word that the init writes before each of its words on `control`. The command does not know the mark, so a line without the mark does not come from the init,
/// whatever the command writes to this channel.
///
/// The same command with the same seed has the same mark, because the same files have to give the same run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark(String);

impl Mark {
    /// The placeholder for the mark in the text of an init.
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

    /// The text of the init with the mark instead of the placeholders.
    pub(super) fn fill(&self, init: &str) -> String {
        init.replace(Self::PLACE, &self.0)
    }

    /// The text after the mark. The text before the mark is a line that another process has begun.
    pub(super) fn word<'a>(&self, line: &'a str) -> Option<&'a str> {
        let (_, word) = line.rsplit_once(self.0.as_str())?;
        Some(word.trim())
    }
}

/// The time limits of a boot, by the machine's own [clock](Machine::elapsed).
pub(super) struct Limits {
    /// The unit of the clock, for messages.
    pub unit: &'static str,
    /// The limit until the init writes `up`.
    pub up: Duration,
    /// The limit from one word of the init to the next.
    pub alive: Duration,
    /// The limit for the command, unless the init itself ends the command.
    pub command: Option<Duration>,
    /// The limit from `exit N` to the end of the machine.
    pub off: Duration,
}

/// A machine that boots the outer kernel.
///
/// A machine has four channels of one [kind](Self::channels) in [`Plan::scratch`], with the names of [`CHANNELS`]. The init writes to `control`:
/// `up`, then `alive` at intervals, and at the end `exit N`, or `timeout` if it has ended the command itself. It writes `broken WHY` if the command cannot
/// run. The [`Mark`] precedes each of these words.
pub(super) trait Machine: Sync {
    /// The name, for messages.
    fn name(&self) -> &'static str;

    /// The KVM that the machine has.
    fn kvm(&self) -> Kvm;

    /// The kind of the channels.
    fn channels(&self) -> Kind;

    /// Writes the files from which all boots of `plan` start.
    fn prepare(&self, root: RootImage, plan: &Plan<'_>) -> anyhow::Result<()>;

    /// Starts a boot.
    fn command(&self, plan: &Plan<'_>) -> Command;

    /// The time limits of a boot.
    fn limits(&self, plan: &Plan<'_>) -> Limits;

    /// The time that a boot has taken by the clock of the limits.
    fn elapsed(&self, child: &Child, wall: Duration) -> Duration;

    /// Describes the seconds of the command's time limit, for messages.
    fn whose_time(&self) -> &'static str {
        ""
    }

    /// How often a boot is repeated after a failure of the bed.
    fn retries(&self) -> u32;

    /// Called after the end. Returns the number of instructions, if the machine counts them, and the machine's own message about its end.
    fn last_words(&self, _plan: &Plan<'_>) -> LastWords {
        LastWords::default()
    }
}

/// The report of a machine that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LastWords {
    /// From power-on to the end. Each turn of an idle CPU counts as one.
    pub instructions: Option<u64>,
    /// The reason of the end, in the machine's words.
    pub reason: Option<String>,
}

/// The names of the channels.
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

//! What a worker gives up before it accepts a client.

use super::invitation::Task;
use super::system_calls::Needed;
use super::system_calls::rules;
use landlock::ABI;
use landlock::Access as _;
use landlock::AccessFs;
use landlock::AccessNet;
use landlock::Ruleset;
use landlock::RulesetAttr as _;
use landlock::RulesetCreatedAttr as _;
use landlock::RulesetError;
use landlock::RulesetStatus;
use landlock::Scope;
use landlock::path_beneath_rules;
use rustix::process::DumpableBehavior;
use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::set_dumpable_behavior;
use rustix::process::setrlimit;
use rustix::thread::CapabilitySet;
use rustix::thread::CapabilitySets;
use rustix::thread::capabilities;
use rustix::thread::set_capabilities;
use seccompiler::BpfProgram;
use seccompiler::SeccompAction;
use seccompiler::SeccompFilter;
use seccompiler::TargetArch;
use serde::Deserialize;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// Descriptors: 8 of the worker itself, and one for each client. There are at most 16 clients without a packet, 8 that
/// wait, 8 that are refused, 8 of the OpenMetrics endpoint, and the present one.
const DESCRIPTORS: u64 = 64;

/// Bytes of address space. The longest message of the debug socket and the largest core-file block take a few MiB, the program and its libraries some ten.
const ADDRESS_SPACE: u64 = 1 << 30;

/// A part of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Part {
    /// No system call but those of [`system_calls`](super::system_calls()); any other call kills the worker.
    Seccomp,
    /// No file (but new ones in the folder for core files), and no signal to another process.
    Landlock,
    /// None of the rights of root. With a folder for core files, root keeps the right to write where a file's mode forbids it (`CAP_DAC_OVERRIDE`); landlock limits this to the folder.
    NoCapabilities,
    /// A setuid program gives no privileges (`no_new_privs`).
    NoNewPrivileges,
    /// No core file of the worker, and no debugger of another user (`RLIMIT_CORE`, `PR_SET_DUMPABLE`).
    NoCoreFile,
    /// Limits of descriptors and memory (`RLIMIT_NOFILE`, `RLIMIT_AS`).
    Limits,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Seccomp => "seccomp",
            Self::Landlock => "landlock",
            Self::NoCapabilities => "no capabilities",
            Self::NoNewPrivileges => "no new privileges",
            Self::NoCoreFile => "no core file",
            Self::Limits => "limits of descriptors and memory",
        })
    }
}

/// The sandbox of a worker: what is active, and what the kernel refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sandbox {
    /// The parts that are active.
    pub active: Vec<Part>,
    /// The parts that are not, each with the reason.
    pub missing: Vec<(Part, String)>,
}

impl Sandbox {
    /// Whether nothing is missing.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    fn note(&mut self, part: Part, result: anyhow::Result<()>) {
        match result {
            Ok(()) => self.active.push(part),
            Err(why) => self.missing.push((part, format!("{why:#}"))),
        }
    }
}

/// `process, seccomp, landlock; missing: ...`.
impl fmt::Display for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a process of its own")?;
        self.active
            .iter()
            .try_for_each(|part| write!(f, ", {part}"))?;
        for (index, (part, why)) in self.missing.iter().enumerate() {
            let word = match index {
                0 => "; missing:",
                _ => ",",
            };
            write!(f, "{word} {part} ({why})")?;
        }
        Ok(())
    }
}

/// The sandbox of a debug server.
#[derive(Debug, Default)]
pub(super) struct SandboxProfile {
    network: bool,
    dump_folder: Option<PathBuf>,
}

impl SandboxProfile {
    pub(super) fn of(task: &Task) -> Self {
        Self {
            network: task.network,
            dump_folder: task.dump_folder(),
        }
    }

    /// Enters the sandbox, in the worker, when every descriptor is open. There must be one thread only.
    pub(super) fn finalize(&self) -> Sandbox {
        let mut sandbox = Sandbox::default();
        sandbox.note(Part::NoCoreFile, no_core_file());
        sandbox.note(Part::Limits, limits());
        sandbox.note(Part::NoCapabilities, self.no_capabilities());
        let privileges = rustix::thread::set_no_new_privs(true);
        sandbox.note(Part::NoNewPrivileges, privileges.map_err(Into::into));
        sandbox.note(Part::Landlock, self.landlock());
        sandbox.note(Part::Seccomp, self.seccomp());
        sandbox
    }

    fn no_capabilities(&self) -> anyhow::Result<()> {
        let kept = match self.dump_folder {
            Some(_) => CapabilitySet::DAC_OVERRIDE,
            None => CapabilitySet::empty(),
        };
        let kept = kept & capabilities(None)?.permitted;
        let sets = CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        };
        Ok(set_capabilities(None, sets)?)
    }

    fn landlock(&self) -> anyhow::Result<()> {
        let restrict = || -> Result<_, RulesetError> {
            let in_folder =
                AccessFs::MakeReg | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::RemoveFile;
            // Of these, a kernel enforces what it knows.
            Ruleset::default()
                .handle_access(AccessFs::from_all(ABI::V5))?
                .handle_access(AccessNet::from_all(ABI::V5))?
                .scope(Scope::from_all(ABI::V6))?
                .create()?
                .add_rules(path_beneath_rules(&self.dump_folder, in_folder))?
                .restrict_self()
        };
        let status = restrict()?;
        anyhow::ensure!(
            status.ruleset != RulesetStatus::NotEnforced,
            "the kernel has no landlock, or it is not among the modules of the boot parameter lsm="
        );
        Ok(())
    }

    fn seccomp(&self) -> anyhow::Result<()> {
        let wanted = |needed| match needed {
            Needed::Always => true,
            Needed::ForNetwork => self.network,
            Needed::ForDumps => self.dump_folder.is_some(),
        };
        let filter = SeccompFilter::new(
            rules(wanted)?,
            SeccompAction::KillProcess,
            SeccompAction::Allow,
            TargetArch::try_from(std::env::consts::ARCH)?,
        )?;
        let program: BpfProgram = filter.try_into()?;
        Ok(seccompiler::apply_filter(&program)?)
    }
}

fn no_core_file() -> anyhow::Result<()> {
    set_limit(Resource::Core, 0)?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

fn limits() -> anyhow::Result<()> {
    set_limit(Resource::Nofile, DESCRIPTORS)?;
    set_limit(Resource::As, ADDRESS_SPACE)
}

fn set_limit(resource: Resource, limit: u64) -> anyhow::Result<()> {
    let limit = Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    Ok(setrlimit(resource, limit)?)
}

#[cfg(test)]
mod tests;

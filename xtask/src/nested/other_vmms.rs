//! The files that the tests of `trapgate exec` need in the bed: other people's VMMs, the library to preload, and the programs that stand before a VMM in a command.

use super::suite::TestProgram;
use crate::debian_qemu::DebianQemu;
use crate::process;
use cargo_metadata::Artifact;
use std::path::Path;
use std::path::PathBuf;

/// A program of the workspace that the tests start, and that is built with them.
pub(super) const STARTED: &str = "small_vmm";

/// The folder of the package with the tests.
const FOLDER: &str = "preload";

/// The library, as cargo names its target.
const LIBRARY: &str = "trapgate_preload";

/// The applets of busybox are no substitute: nothing can be preloaded into a static program.
const PROGRAMS: [&str; 19] = [
    "bash", "cat", "chrt", "dash", "env", "grep", "ionice", "kill", "ls", "nice", "nohup",
    "prlimit", "qemu-img", "sed", "setsid", "sh", "stdbuf", "taskset", "true",
];

/// `stdbuf` preloads it.
const STDBUF: &str = "/usr/libexec/coreutils/libstdbuf.so";

/// Whether the program is one of these tests.
pub(super) fn are_started_by(test: &TestProgram) -> bool {
    test.folder().ends_with(FOLDER)
}

/// The library, if this is the artifact of the library.
pub(super) fn library(artifact: &Artifact) -> Option<PathBuf> {
    if artifact.profile.test || artifact.target.name != LIBRARY {
        return None;
    }
    let mut files = artifact.filenames.iter();
    let library = files.find(|file| file.extension() == Some("so"))?;
    Some(library.into())
}

/// All files that cargo has not built.
pub(super) fn files() -> anyhow::Result<Vec<PathBuf>> {
    let mut files = DebianQemu::installed()?.files().to_vec();
    files.extend(
        PROGRAMS
            .iter()
            .filter_map(|name| process::find_program(name)),
    );
    files.extend(Some(PathBuf::from(STDBUF)).filter(|file: &PathBuf| Path::is_file(file)));
    Ok(files)
}

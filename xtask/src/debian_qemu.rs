//! QEMU as Debian packages it, dynamically linked: the installed one, and the one of a newer release, unpacked beside it and never in its place.
//!
//! The newer one is started by the dynamic linker of its own release, with the libraries of that release.

use crate::cache::Cache;
use crate::debian::Apt;
use crate::process;
use crate::system_packages;
use crate::system_packages::CannotHere;
use anyhow::Context as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// The variable with the words of QEMU's command, for the tests of `preload` (`preload/tests/exec/bed/qemu.rs`).
pub(crate) const VARIABLE: &str = "TRAPGATE_TEST_QEMU";

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";

/// Debian 12 has QEMU 7.2, and this release has 10.0.
const SUITE: &str = "trixie";

/// Below the root of the release.
const LINKER: &str = "usr/lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const FIRMWARE_FOLDERS: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// The firmware that a PC with an ELF kernel, a Linux kernel or a disk starts with.
const FIRMWARE: [&str; 4] = [
    "bios-256k.bin",
    "kvmvapic.bin",
    "linuxboot_dma.bin",
    "pvh.bin",
];

/// A library that the compiler's runtime needs, whether QEMU itself does or not: `trapgate exec` preloads a Rust library.
const UNWINDER: &str = "libgcc_s.so.1";

/// A QEMU, and how it is started.
#[derive(Clone)]
pub(crate) struct DebianQemu {
    command: Vec<String>,
    version: String,
    files: Vec<PathBuf>,
}

impl DebianQemu {
    /// The one that is installed on this machine.
    pub(crate) fn installed() -> anyhow::Result<Self> {
        system_packages::ensure(&[PACKAGE], "have a VMM that is not ours")?;
        let program = process::find_program(PROGRAM)
            .with_context(|| format!("no {PROGRAM} here: install the Debian package {PACKAGE}"))?;
        // `-L help` lists the folders.
        let folders = process::capture(Command::new(&program).args(["-L", "help"]))?;
        let mut files = firmware(folders.lines().map(Path::new));
        files.push(program.clone());
        Self::started_by(vec![program.display().to_string()], files)
    }

    /// The one of a newer release: from the cache, or downloaded now.
    ///
    /// # Errors
    /// [`CannotHere`]: the release cannot be had.
    pub(crate) fn newer() -> anyhow::Result<Self> {
        Self::of_newer_release().map_err(|error| {
            // The archive or the network: no fault of the project.
            CannotHere(format!(
                "QEMU of Debian {SUITE} cannot be had now ({error:#}); connect to Debian's archive, and run this again"
            ))
            .into()
        })
    }

    /// The installed one, and the newer one if it can be had. The reason why not is printed.
    pub(crate) fn all() -> anyhow::Result<Vec<Self>> {
        let mut all = vec![Self::installed()?];
        match Self::newer() {
            Ok(newer) => all.push(newer),
            Err(error) => println!("SKIP: {error:#}"),
        }
        Ok(all)
    }

    fn of_newer_release() -> anyhow::Result<Self> {
        let cache = Cache::open()?;
        let folder = cache.artefact(&format!("debian-qemu-{SUITE}"), PACKAGE, |folder| {
            let apt = Apt::of_suite(cache.root(), SUITE)?;
            apt.unpack_with_dependencies(&[PACKAGE], &folder.join("root"))?;
            Ok(Self::unpacked(&folder.join("root"))?.version)
        })?;
        Self::unpacked(&folder.join("root"))
    }

    fn unpacked(root: &Path) -> anyhow::Result<Self> {
        let linker = root.join(LINKER);
        let libraries = root.join(LIBRARIES);
        let program = root.join("usr/bin").join(PROGRAM);
        let folders = FIRMWARE_FOLDERS.map(|folder| root.join(folder));
        let start = |option: Option<&str>| {
            let mut words = vec![linker.display().to_string()];
            words.extend(option.map(str::to_owned));
            words.push("--library-path".to_owned());
            words.push(libraries.display().to_string());
            words.push(program.display().to_string());
            words
        };
        let listing = start(Some("--list"));
        let listing = process::capture(Command::new(&listing[0]).args(&listing[1..]))?;
        let mut files = firmware(folders.iter().map(PathBuf::as_path));
        files.extend(listed(&listing).filter(|path| path.starts_with(root)));
        files.extend([libraries.join(UNWINDER), linker.clone(), program.clone()]);
        let mut command = start(None);
        for folder in folders {
            command.extend(["-L".to_owned(), folder.display().to_string()]);
        }
        Self::started_by(command, files)
    }

    fn started_by(command: Vec<String>, files: Vec<PathBuf>) -> anyhow::Result<Self> {
        anyhow::ensure!(
            !command
                .iter()
                .any(|word| word.contains(char::is_whitespace)),
            "`{}`: a folder has a space in its name, and commands of tests are split at spaces; set XDG_CACHE_HOME to another folder",
            command.join(" ")
        );
        let mut ask = Command::new(&command[0]);
        let text = process::capture(ask.args(&command[1..]).arg("--version"))?;
        // QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)
        let version = text.split_whitespace().nth(3);
        Ok(Self {
            version: version.context("QEMU says no version")?.to_owned(),
            command,
            files,
        })
    }

    /// The words of the command, with spaces between them.
    pub(crate) fn words(&self) -> String {
        self.command.join(" ")
    }

    /// As in `7.2.22`.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// What a machine without Debian's packages needs to run it; the libraries of an installed one are not among it.
    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Its command, without arguments.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]);
        command
    }
}

/// The subcommand; the result is the exit status for the process.
pub(crate) fn main() -> anyhow::Result<i32> {
    for qemu in [DebianQemu::installed()?, DebianQemu::newer()?] {
        println!("QEMU {}: {}", qemu.version, qemu.words());
    }
    Ok(0)
}

/// The files of [`FIRMWARE`] that these folders have.
fn firmware<'a>(folders: impl Iterator<Item = &'a Path> + Clone) -> Vec<PathBuf> {
    let find = |name: &&str| {
        let mut files = folders.clone().map(|folder| folder.join(name));
        files.find(|file| file.is_file())
    };
    FIRMWARE.iter().filter_map(find).collect()
}

/// The libraries in what the dynamic linker lists: `NAME => PATH (ADDRESS)`.
fn listed(listing: &str) -> impl Iterator<Item = PathBuf> {
    listing.lines().filter_map(|line| {
        let (_, path) = line.split_once(" => ")?;
        let (path, _) = path.split_once(" (")?;
        Some(PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_are_read_from_the_linkers_list() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                       \tlibz.so.1 => /c/root/usr/lib/libz.so.1 (0x00007f)\n\
                       \tlibgone.so => not found\n\
                       \t/c/root/ld-linux-x86-64.so.2 (0x00007f)\n";
        let paths: Vec<PathBuf> = listed(listing).collect();
        assert_eq!(paths, [PathBuf::from("/c/root/usr/lib/libz.so.1")]);
    }

    #[test]
    fn a_command_that_a_test_would_split_is_refused() {
        let words = vec!["/a folder/qemu".to_owned()];
        let error = DebianQemu::started_by(words, Vec::new()).err().unwrap();
        assert!(error.to_string().contains("XDG_CACHE_HOME"), "{error}");
    }
}

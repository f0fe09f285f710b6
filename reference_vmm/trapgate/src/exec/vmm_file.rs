//! The VMM's program: found as a shell finds it, and checked for whether a library can be preloaded into it.

use crate::search_path;
use object::LittleEndian;
use object::elf;
use object::read::ReadCache;
use object::read::ReadRef;
use object::read::elf::FileHeader as _;
use object::read::elf::ProgramHeader as _;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use thiserror::Error;

type ElfHeader = elf::FileHeader64<LittleEndian>;

/// The dynamic linker of glibc on x86-64, without its folder.
const GLIBC_LINKER: &[u8] = b"ld-linux-x86-64.so.2";

/// The options of the dynamic linker whose value is the next argument (ld.so(8)).
const WITH_VALUE: [&str; 7] = [
    "--argv0",
    "--audit",
    "--glibc-hwcaps-mask",
    "--glibc-hwcaps-prepend",
    "--inhibit-rpath",
    "--library-path",
    "--preload",
];

/// The reason why the program cannot be debugged by a preloaded library.
#[derive(Debug, Error)]
pub(crate) enum VmmFileError {
    /// No program with this name.
    #[error("there is no program {}; give its path, or check PATH", .0.display())]
    NotFound(PathBuf),
    /// The path is that of a folder.
    #[error("{} is a folder; give the path of the VMM's program, which may be in it", .0.display())]
    Folder(PathBuf),
    /// The user has given the dynamic linker, and no program that it would load.
    #[error(
        "{} is the dynamic linker, and no program follows; give the VMM itself as the command, alone or behind the linker and its options",
        .0.display()
    )]
    Linker(PathBuf),
    /// The file cannot be read.
    #[error("cannot read {}, to see whether a library can be preloaded into it; make it readable", path.display())]
    Unreadable {
        /// The program.
        path: PathBuf,
        /// The host's error.
        source: io::Error,
    },
    /// The program starts another one.
    #[error(
        "{} is a script, and only the program that `trapgate exec` itself starts is debugged; give the VMM's own command, which the script shows when it is run as `sh -x {}`; \
         or, if the script starts the VMM by `exec`, run `trapgate exec -- sh {}`",
        .0.display(), .0.display(), .0.display()
    )]
    Script(PathBuf),
    /// The file is not a program of this machine.
    #[error(
        "{} is {what}, and the library can be loaded into 64-bit programs of x86 only; give a build of the VMM for x86-64",
        path.display()
    )]
    NotX86_64 {
        /// The program.
        path: PathBuf,
        /// What the file is.
        what: &'static str,
    },
    /// Nothing can be preloaded into a static program.
    #[error(
        "{} is statically linked, so no library can be preloaded into it; build it for a target with a dynamic C library (Rust: `--target x86_64-unknown-linux-gnu`), or embed vp_runner in it",
        .0.display()
    )]
    Static(PathBuf),
    /// The program uses another C library than glibc.
    #[error(
        "{} uses the dynamic linker {linker}, and the library needs glibc's; give a build of the VMM for glibc (Rust: `--target x86_64-unknown-linux-gnu`)",
        path.display()
    )]
    OtherLinker {
        /// The program.
        path: PathBuf,
        /// The dynamic linker that its file names.
        linker: String,
    },
    /// The dynamic linker ignores `LD_PRELOAD` for programs that gain rights.
    #[error(
        "{} gains rights when it is started ({how}), and the dynamic linker preloads nothing into such a program; run `trapgate exec` as root, or use a copy without these rights",
        path.display()
    )]
    Privileged {
        /// The program.
        path: PathBuf,
        /// What gives it the rights.
        how: &'static str,
    },
}

/// Finds a program as `execvp` does (exec(3)): a name without a slash in the folders of `PATH`.
pub(super) fn find(name: &OsStr) -> Result<PathBuf, VmmFileError> {
    let missing = || VmmFileError::NotFound(name.into());
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return match (path.is_file(), path.is_dir()) {
            (true, _) => Ok(path),
            (false, true) => Err(VmmFileError::Folder(path)),
            (false, false) => Err(missing()),
        };
    }
    search_path::find(name).ok_or_else(missing)
}

/// Checks that a library can be preloaded into the program, and returns the program. Of the dynamic linker, it is the program that the arguments name: a VMM with
/// the libraries of another distribution is started in this way.
pub(super) fn check<'a>(
    path: &'a Path,
    arguments: &'a [OsString],
) -> Result<&'a Path, VmmFileError> {
    match check_file(path) {
        Err(VmmFileError::Linker(linker)) => match loaded_by_linker(arguments) {
            Some(program) => check_file(Path::new(program)).map(|()| Path::new(program)),
            None => Err(VmmFileError::Linker(linker)),
        },
        checked => checked.map(|()| path),
    }
}

/// The program in the arguments of the dynamic linker.
fn loaded_by_linker(arguments: &[OsString]) -> Option<&OsStr> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if WITH_VALUE.iter().any(|option| argument == option) {
            arguments.next();
        } else if !argument.as_bytes().starts_with(b"-") {
            return Some(argument);
        }
    }
    None
}

fn check_file(path: &Path) -> Result<(), VmmFileError> {
    let unreadable = |source| VmmFileError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !rustix::process::geteuid().is_root() {
        let privileged = |how| VmmFileError::Privileged {
            path: path.to_owned(),
            how,
        };
        if metadata.permissions().mode() & 0o6000 != 0 {
            return Err(privileged("set-user-ID or set-group-ID"));
        }
        let mut none = [0_u8; 0];
        if rustix::fs::fgetxattr(&file, "security.capability", &mut none).is_ok() {
            return Err(privileged("file capabilities"));
        }
    }
    check_contents(path, &ReadCache::new(file))
}

fn check_contents<'data>(path: &Path, data: impl ReadRef<'data>) -> Result<(), VmmFileError> {
    let foreign = |what| VmmFileError::NotX86_64 {
        path: path.to_owned(),
        what,
    };
    if data.read_bytes_at(0, 2) == Ok(b"#!") {
        return Err(VmmFileError::Script(path.to_owned()));
    }
    if data.read_bytes_at(0, 4) != Ok(&elf::ELFMAG[..]) {
        return Err(foreign("no program"));
    }
    let Ok(header) = ElfHeader::parse(data) else {
        return Err(foreign("a program of another kind of machine"));
    };
    if header.e_machine(LittleEndian) != elf::EM_X86_64 {
        return Err(foreign("a program of another kind of machine"));
    }
    let segments = header
        .program_headers(LittleEndian, data)
        .map_err(|_| foreign("no complete program"))?;
    let linker = segments
        .iter()
        .find_map(|segment| segment.interpreter(LittleEndian, data).transpose());
    match linker {
        None if is_linker(path) => Err(VmmFileError::Linker(path.to_owned())),
        None => Err(VmmFileError::Static(path.to_owned())),
        Some(Err(_)) => Err(foreign("no complete program")),
        Some(Ok(linker)) if linker.rsplit(|byte| *byte == b'/').next() == Some(GLIBC_LINKER) => {
            Ok(())
        }
        Some(Ok(linker)) => Err(VmmFileError::OtherLinker {
            path: path.to_owned(),
            linker: String::from_utf8_lossy(linker).into_owned(),
        }),
    }
}

/// The linker's usual path is a symbolic link.
fn is_linker(path: &Path) -> bool {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    [path, &real]
        .into_iter()
        .filter_map(Path::file_name)
        .any(|name| name.as_bytes() == GLIBC_LINKER)
}

#[cfg(test)]
mod tests;

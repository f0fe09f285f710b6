//! The library to preload.

use object::Architecture;
use object::LittleEndian;
use object::Object as _;
use object::ObjectKind;
use object::ObjectSymbol as _;
use object::read::ReadCache;
use object::read::elf::ElfFile64;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::path::PathBuf;
use thiserror::Error;

/// The file name, as cargo makes it.
const NAME: &str = "libtrapgate_preload.so";

/// The symbol by which the library is known, with the version of the variables that it reads (`preload/src/vmm_process/constructor.rs`).
const MARKER: &str = "trapgate_preload_settings_2";

/// Where an installation has it, seen from the folder of the program.
const INSTALLED: &str = "../lib/trapgate";

/// The reason why the library cannot be preloaded.
#[derive(Debug, Error)]
pub(crate) enum LibraryError {
    /// No file with the name of the library.
    #[error(
        "there is no {NAME} in {} or in {}; build it with `cargo build --release --package trapgate-preload`, copy it beside `trapgate`, or give its path with --library",
        beside.display(),
        installed.display()
    )]
    Missing {
        /// The folder of the program.
        beside: PathBuf,
        /// The folder of an installation.
        installed: PathBuf,
    },
    /// The file that the user has named is not there.
    #[error("cannot find {}, which --library names; give the path of {NAME}", path.display())]
    Named {
        /// The path.
        path: PathBuf,
        /// The host's error.
        source: io::Error,
    },
    /// The dynamic linker splits `LD_PRELOAD` at these characters.
    #[error(
        "{}: the dynamic linker cannot preload a library whose path has a space or a colon; copy the library to another folder and give its path with --library",
        .0.display()
    )]
    Unloadable(PathBuf),
    /// The file is not a library for this machine.
    #[error("{} is no shared library for x86-64; give the path of {NAME}, as cargo has built it", .0.display())]
    NoLibrary(PathBuf),
    /// The file is a library for something else, or of another version.
    #[error(
        "{} is not the library of this version of trapgate; give the path of {NAME}, built from the same sources as this program",
        .0.display()
    )]
    OtherLibrary(PathBuf),
    /// The program does not know where it is.
    #[error("cannot find the folder of this program; give the path of {NAME} with --library")]
    NoFolder(#[source] io::Error),
}

/// Finds the library: `named`, or beside this program, or where an installation has it.
pub(super) fn find(named: Option<&Path>) -> Result<PathBuf, LibraryError> {
    let path = match named {
        Some(path) => path.canonicalize().map_err(|source| LibraryError::Named {
            path: path.to_owned(),
            source,
        })?,
        None => {
            let program = std::env::current_exe().map_err(LibraryError::NoFolder)?;
            beside(program.parent().unwrap_or(Path::new("/")))?
        }
    };
    match path.as_os_str().as_bytes() {
        bytes if bytes.iter().any(|byte| b" \t\n:".contains(byte)) => {
            Err(LibraryError::Unloadable(path))
        }
        _ => {
            check(&path)?;
            Ok(path)
        }
    }
}

/// Checks that the dynamic linker can load the library, and that the library is ours.
fn check(path: &Path) -> Result<(), LibraryError> {
    let no_library = || LibraryError::NoLibrary(path.to_owned());
    let file = File::open(path).map_err(|source| LibraryError::Named {
        path: path.to_owned(),
        source,
    })?;
    let data = ReadCache::new(file);
    let library = ElfFile64::<LittleEndian, _>::parse(&data).map_err(|_| no_library())?;
    if library.architecture() != Architecture::X86_64 || library.kind() != ObjectKind::Dynamic {
        return Err(no_library());
    }
    let mut symbols = library.dynamic_symbols();
    match symbols.any(|symbol| symbol.is_definition() && symbol.name() == Ok(MARKER)) {
        true => Ok(()),
        false => Err(LibraryError::OtherLibrary(path.to_owned())),
    }
}

fn beside(folder: &Path) -> Result<PathBuf, LibraryError> {
    let installed = folder.join(INSTALLED);
    [folder, &installed]
        .into_iter()
        .find_map(|folder| folder.join(NAME).canonicalize().ok())
        .ok_or_else(|| LibraryError::Missing {
            beside: folder.to_owned(),
            installed: installed.clone(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_library_is_found_beside_the_program_and_where_it_is_installed() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path().canonicalize().expect("it is there");
        let (bin, lib) = (root.join("bin"), root.join("lib/trapgate"));
        for folder in [&bin, &lib] {
            fs::create_dir_all(folder).expect("writable");
        }
        let error = beside(&bin).expect_err("no file").to_string();
        assert!(error.contains("cargo build"), "{error}");
        for folder in [&lib, &bin] {
            fs::write(folder.join(NAME), "").expect("writable");
            assert_eq!(beside(&bin).expect("there"), folder.join(NAME));
        }
    }

    #[test]
    fn a_path_that_the_dynamic_linker_would_split_is_refused() {
        let root = tempfile::tempdir().expect("a folder");
        for name in ["a b.so", "a:b.so"] {
            let path = root.path().join(name);
            fs::write(&path, "").expect("writable");
            let error = find(Some(&path)).expect_err(name);
            assert!(matches!(error, LibraryError::Unloadable(_)), "{error}");
        }
        let missing = find(Some(&root.path().join("none.so"))).expect_err("none");
        assert!(matches!(missing, LibraryError::Named { .. }), "{missing}");
    }

    #[test]
    fn a_file_that_is_not_our_library_is_refused() {
        let root = tempfile::tempdir().expect("a folder");
        let file = |name: &str, bytes: &[u8]| {
            let path = root.path().join(name);
            fs::write(&path, bytes).expect("writable");
            path
        };
        let program = std::env::current_exe().expect("a path");
        let program = fs::read(program).expect("readable");
        let mut foreign = program.clone();
        // The machine number of AArch64.
        foreign[18] = 183;
        for (name, bytes) in [
            ("empty.so", &b""[..]),
            ("text.so", b"not a library"),
            ("cut.so", &program[..70]),
            ("foreign.so", &foreign),
            ("static.so", demo_guest::ELF),
        ] {
            let error = find(Some(&file(name, bytes))).expect_err(name);
            assert!(
                matches!(error, LibraryError::NoLibrary(_)),
                "{name}: {error}"
            );
        }
        // A program at any address is of the same kind as a library.
        let error = find(Some(&file("other.so", &program))).expect_err("not ours");
        assert!(matches!(error, LibraryError::OtherLibrary(_)), "{error}");
        let error = find(Some(root.path())).expect_err("a folder");
        assert!(!matches!(error, LibraryError::OtherLibrary(_)), "{error}");
    }
}

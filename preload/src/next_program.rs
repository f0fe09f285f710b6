//! Whether the dynamic linker loads the library into a program that takes the place of this one.
//!
//! Everything here may run in a signal handler: no lock, and no memory from the heap.

use object::LittleEndian;
use object::elf;
use object::read::elf::FileHeader as _;
use object::read::elf::ProgramHeader as _;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use std::ffi::CStr;

/// The dynamic linker of glibc on x86-64, without its folder.
const GLIBC_LINKER: &[u8] = b"ld-linux-x86-64.so.2";

/// The longest path of the kernel, with its zero byte.
const PATH_MAX: usize = 4096;

/// The part of a program's file that has its headers, in bytes.
const HEADERS: usize = 4096;

/// What is known of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextProgram {
    /// There is no such file that can be read.
    Unknown,
    /// The library is loaded into it, or into the interpreter of the script.
    Loads,
    /// The library is not loaded into it, because it has this property.
    DoesNotLoad(&'static str),
}

/// Looks at the program. `path` has the folders for a name without a slash, as `execvp` searches them.
pub(crate) fn look_at(program: &CStr, path: Option<&[u8]>) -> NextProgram {
    let name = program.to_bytes();
    let Some(path) = path.filter(|_| !name.contains(&b'/')) else {
        return look_at_file(program);
    };
    let mut buffer = [0; PATH_MAX];
    path.split(|byte| *byte == b':')
        .filter_map(|folder| {
            let file = joined(&mut buffer, folder, name)?;
            let executable = rustix::fs::access(file, rustix::fs::Access::EXEC_OK);
            executable.is_ok().then(|| look_at_file(file))
        })
        .find(|found| *found != NextProgram::Unknown)
        .unwrap_or(NextProgram::Unknown)
}

/// `None` if the path is longer than the kernel takes.
fn joined<'a>(buffer: &'a mut [u8], folder: &[u8], name: &[u8]) -> Option<&'a CStr> {
    // An empty one is the current folder.
    let folder = if folder.is_empty() { b"." } else { folder };
    let length = folder.len() + 1 + name.len();
    let (head, zero) = buffer.get_mut(..=length)?.split_at_mut(length);
    let (before, after) = head.split_at_mut(folder.len());
    before.copy_from_slice(folder);
    after[0] = b'/';
    after[1..].copy_from_slice(name);
    zero[0] = 0;
    CStr::from_bytes_with_nul(&buffer[..=length]).ok()
}

fn look_at_file(path: &CStr) -> NextProgram {
    let Ok(file) = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
        return NextProgram::Unknown;
    };
    let mut headers = [0; HEADERS];
    let (Ok(length), Ok(status)) = (
        rustix::io::pread(&file, &mut headers, 0),
        rustix::fs::fstat(&file),
    ) else {
        return NextProgram::Unknown;
    };
    let gains_rights = status.st_mode & 0o6000 != 0 && !rustix::process::geteuid().is_root();
    match gains_rights {
        true => NextProgram::DoesNotLoad("gains rights when it starts"),
        // The dynamic linker as a command is statically linked, and loads the library into the program that it is told to start.
        false if path.to_bytes().ends_with(GLIBC_LINKER) => NextProgram::Loads,
        false => of_headers(&headers[..length]),
    }
}

fn of_headers(data: &[u8]) -> NextProgram {
    if data.starts_with(b"#!") {
        return NextProgram::Loads;
    }
    if !data.starts_with(&elf::ELFMAG) {
        return NextProgram::Unknown;
    }
    let Ok(header) = elf::FileHeader64::<LittleEndian>::parse(data) else {
        return NextProgram::DoesNotLoad("is no 64-bit program");
    };
    if header.e_machine(LittleEndian) != elf::EM_X86_64 {
        return NextProgram::DoesNotLoad("is for another kind of machine");
    }
    let Ok(segments) = header.program_headers(LittleEndian, data) else {
        return NextProgram::Unknown;
    };
    let linker = segments
        .iter()
        .find_map(|segment| segment.interpreter(LittleEndian, data).transpose());
    match linker {
        None => NextProgram::DoesNotLoad("is statically linked"),
        Some(Err(_)) => NextProgram::Unknown,
        Some(Ok(linker)) if linker.ends_with(GLIBC_LINKER) => NextProgram::Loads,
        Some(Ok(_)) => NextProgram::DoesNotLoad("uses another C library than glibc"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    fn by_path(path: &Path) -> NextProgram {
        let path = CString::new(path.as_os_str().as_bytes()).expect("no zero byte");
        look_at(&path, None)
    }

    #[test]
    fn a_static_program_is_told_apart_from_a_dynamic_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let guest = folder.path().join("guest");
        fs::write(&guest, demo_guest::ELF).expect("writable");
        let is_static = NextProgram::DoesNotLoad("is statically linked");
        assert_eq!(by_path(&guest), is_static);
        let this = std::env::current_exe().expect("a path");
        assert_eq!(by_path(&this), NextProgram::Loads);
        let linker = Path::new("/lib64/ld-linux-x86-64.so.2");
        assert_eq!(by_path(linker), NextProgram::Loads);
        let script = folder.path().join("script");
        fs::write(&script, "#!/bin/sh\n").expect("writable");
        assert_eq!(by_path(&script), NextProgram::Loads);
        fs::write(&script, "true\n").expect("writable");
        assert_eq!(by_path(&script), NextProgram::Unknown);
        assert_eq!(by_path(&folder.path().join("none")), NextProgram::Unknown);
    }

    #[test]
    fn a_name_is_searched_as_execvp_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("guest");
        fs::write(&program, demo_guest::ELF).expect("writable");
        let path = [b"/nowhere:", folder.path().as_os_str().as_bytes()].concat();
        let look = || look_at(c"guest", Some(&path));
        assert_eq!(look(), NextProgram::Unknown, "it cannot be executed");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("own file");
        assert_eq!(look(), NextProgram::DoesNotLoad("is statically linked"));
        assert_eq!(
            look_at(c"no-such-program", Some(&path)),
            NextProgram::Unknown
        );
        let long = vec![b'x'; PATH_MAX];
        assert_eq!(look_at(c"guest", Some(&long)), NextProgram::Unknown);
    }
}

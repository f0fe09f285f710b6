//! The functions that run another program in the place of this one. Each has the contract of libc's function with its name.
//!
//! A wrapper (`env`, `setsid`, `sh -c`) runs the VMM in this way, in the same process. The library is added to the environment of the next program if this process
//! is the one that `trapgate exec` has started, and has created no VM. In a child, the call goes on unchanged. `execl` and its relatives take any number of
//! arguments, which Rust cannot define: they go on unchanged everywhere.

use super::environment;
use super::environment::Array;
use super::environment::Environment;
use super::real;
use crate::messages;
use crate::next_program;
use crate::next_program::NextProgram;
use crate::process;
use std::ffi::CStr;
use std::ffi::c_char;
use std::ffi::c_int;

/// Where the next program is.
#[derive(Clone, Copy)]
enum Program {
    File(*const c_char),
    /// A name without a slash is searched in the folders of `PATH`.
    Searched(*const c_char),
    /// Behind a descriptor, which the library does not look at.
    Descriptor,
}

/// # Safety
/// `program` is a string, and `array` an environment.
unsafe fn with_library<R>(program: Program, array: Array, real: impl FnOnce(Array) -> R) -> R {
    if !process::passes_debugger_on() {
        return real(array);
    }
    // SAFETY: the caller's.
    let Some(environment) = (unsafe { Environment::with_library(array) }) else {
        return real(array);
    };
    // SAFETY: the caller's.
    unsafe { tell(program) };
    real(environment.array())
}

/// # Safety
/// As [`with_library`].
unsafe fn tell(program: Program) {
    let (name, path) = match program {
        Program::File(name) => (name, None),
        // SAFETY: as for `execvp`, which reads the variable.
        Program::Searched(name) => (name, unsafe { environment::variable("PATH") }),
        Program::Descriptor => return,
    };
    if name.is_null() {
        return;
    }
    // SAFETY: the caller's.
    let name = unsafe { CStr::from_ptr(name) };
    match next_program::look_at(name, path) {
        NextProgram::Unknown => {}
        NextProgram::Loads if process::INTERPOSER.host().logs() => {
            messages::next_program(name.to_bytes());
        }
        NextProgram::Loads => {}
        NextProgram::DoesNotLoad(why) => {
            messages::next_program_without_debugger(name.to_bytes(), why);
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn execve(path: *const c_char, argv: Array, envp: Array) -> c_int {
    // SAFETY: the caller's.
    unsafe {
        with_library(Program::File(path), envp, |envp| {
            real::execve(path, argv, envp)
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn execv(path: *const c_char, argv: Array) -> c_int {
    // SAFETY: the caller's. `execv` is `execve` with the environment of this process.
    unsafe { execve(path, argv, environment::own()) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn execvpe(file: *const c_char, argv: Array, envp: Array) -> c_int {
    // SAFETY: the caller's.
    unsafe {
        with_library(Program::Searched(file), envp, |envp| {
            real::execvpe(file, argv, envp)
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn execvp(file: *const c_char, argv: Array) -> c_int {
    // SAFETY: the caller's. `execvp` is `execvpe` with the environment of this process.
    unsafe { execvpe(file, argv, environment::own()) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn fexecve(fd: c_int, argv: Array, envp: Array) -> c_int {
    // SAFETY: the caller's.
    unsafe {
        with_library(Program::Descriptor, envp, |envp| {
            real::fexecve(fd, argv, envp)
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn execveat(
    folder: c_int,
    path: *const c_char,
    argv: Array,
    envp: Array,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's.
    unsafe {
        with_library(Program::Descriptor, envp, |envp| {
            real::execveat(folder, path, argv, envp, flags)
        })
    }
}

/// The system calls `execve`, whose environment is its third argument, and `execveat`, whose environment is its fourth.
///
/// # Safety
/// As `syscall`.
pub(super) unsafe fn system_call(number: i64, mut arguments: [usize; 6]) -> i64 {
    let (program, place) = match number {
        libc::SYS_execve => (Program::File(arguments[0] as *const c_char), 2),
        _ => (Program::Descriptor, 3),
    };
    // SAFETY: the caller's.
    unsafe {
        with_library(program, arguments[place] as Array, |envp| {
            arguments[place] = envp as usize;
            real::syscall(number, arguments)
        })
    }
}

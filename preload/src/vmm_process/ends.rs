//! The functions that end the process without the destructors of libraries. Each has the contract of libc's function with its name.

use super::real;
use crate::process;
use std::ffi::c_int;

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn _exit(status: c_int) -> ! {
    process::end_at_once();
    // SAFETY: the caller's.
    unsafe { real::exit_at_once(status) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn _Exit(status: c_int) -> ! {
    process::end_at_once();
    // SAFETY: the caller's.
    unsafe { real::exit_at_once(status) }
}

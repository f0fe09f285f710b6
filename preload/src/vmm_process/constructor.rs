//! What happens before the VMM's `main`, and when it ends.

use super::environment;
use super::real;
use super::shared;
use crate::process;

/// `trapgate exec` knows the library by the name of this symbol (`reference_vmm/trapgate/src/exec/library.rs`). The number counts the changes of the variables.
#[used]
#[unsafe(no_mangle)]
static trapgate_preload_settings_2: u8 = 0;

/// The dynamic linker calls it before `main`, on the only thread, after the libraries that this one depends on.
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;

/// The dynamic linker calls it when the process calls `exit`.
#[used]
#[unsafe(link_section = ".fini_array")]
static END: extern "C" fn() = end;

extern "C" fn start() {
    real::look_up();
    // SAFETY: before `main`, on the only thread.
    let Some(settings) = (unsafe { environment::settings() }) else {
        return;
    };
    // SAFETY: as above.
    unsafe { environment::take(settings.ld_preload.as_deref()) };
    // A child that has got the variables all the same, of a program that keeps an environment of its own.
    if settings.process != std::process::id() {
        return;
    }
    process::begin(settings, shared::flag());
}

extern "C" fn end() {
    process::end();
}

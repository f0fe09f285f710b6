//! What happens before the VMM's `main`, and when it ends.

use super::real;
use crate::process;
use crate::settings;
use crate::settings::Settings;
use std::ffi::OsStr;
use std::ffi::OsString;

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
    let Some(settings) = Settings::read(|name| std::env::var_os(name)) else {
        return;
    };
    for name in settings::OURS {
        set(name, None);
    }
    set(settings::LD_PRELOAD, settings.ld_preload.as_ref());
    process::begin(settings);
}

fn set(name: &str, value: Option<&OsString>) {
    match value {
        // SAFETY: no other thread reads the environment: the process has only this one so far.
        Some(value) => unsafe { std::env::set_var(OsStr::new(name), value) },
        // SAFETY: as above.
        None => unsafe { std::env::remove_var(name) },
    }
}

extern "C" fn end() {
    process::end();
}

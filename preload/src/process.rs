//! The library's state in the process, and the library's work at the beginning and at the end of the process.

use crate::interposer::Interposer;
use crate::messages;
use crate::messages::say;
use crate::ours::is_ours;
use crate::settings::Settings;
use crate::vm_servers::VmServers;
use std::sync::atomic::AtomicBool;

/// The VMs of this process.
pub(crate) static INTERPOSER: Interposer<VmServers> = Interposer::new(VmServers::new());

/// Before `main`. `created` is shared with children.
pub(crate) fn begin(settings: Settings, created: Option<&'static AtomicBool>) {
    INTERPOSER.host().begin(settings);
    if let Some(created) = created {
        INTERPOSER.share(created);
    }
    INTERPOSER.arm();
}

/// Whether a program that takes the place of this one, in the same process, gets the debugger. Safe in a signal handler, and in a child.
pub(crate) fn passes_debugger_on() -> bool {
    !is_ours() && INTERPOSER.has_done_nothing()
}

/// When the process calls `_exit`, which a signal handler may do.
pub(crate) fn end_at_once() {
    if passes_debugger_on() {
        say(format_args!("{}\n", messages::NO_VM));
    }
}

/// When the process calls `exit`. Other threads may still run.
pub(crate) fn end() {
    if INTERPOSER.has_vms() {
        INTERPOSER.host().end();
    } else if INTERPOSER.has_done_nothing() {
        say(format_args!("{}\n", messages::NO_VM));
    }
}

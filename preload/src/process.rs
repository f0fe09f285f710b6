//! The library's state in the process, and the library's work at the beginning and at the end of the process.

use crate::interposer::Interposer;
use crate::messages;
use crate::settings::Settings;
use crate::vm_servers::VmServers;

/// The VMs of this process.
pub(crate) static INTERPOSER: Interposer<VmServers> = Interposer::new(VmServers::new());

/// Before `main`.
pub(crate) fn begin(settings: Settings) {
    INTERPOSER.host().begin(settings);
    INTERPOSER.arm();
}

/// When the process calls `exit`. Other threads may still run.
pub(crate) fn end() {
    if INTERPOSER.has_vms() {
        INTERPOSER.host().end();
    } else if INTERPOSER.has_done_nothing() {
        eprintln!("{}", messages::NO_VM);
    }
}

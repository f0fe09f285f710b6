//! Descriptors that alioth keeps to itself, found by their names in `/proc/self/fd` (proc(5)).

use rustix::process::PidfdFlags;
use rustix::process::PidfdGetfdFlags;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

/// Whether the process has a VM or a vCPU.
pub(crate) fn has_vm() -> io::Result<bool> {
    for entry in fs::read_dir("/proc/self/fd")? {
        // A descriptor of another thread may be closed by now.
        let target = fs::read_link(entry?.path()).unwrap_or_default();
        if target.to_string_lossy().starts_with("anon_inode:kvm-v") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A second descriptor of the open file with this name. Of several, the one with the highest number.
pub(crate) fn named(name: &str) -> io::Result<OwnedFd> {
    let mut found = None;
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        // A descriptor of another thread may be closed by now.
        let is_it = fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == name);
        if is_it && number > found {
            found = number;
        }
    }
    let number: i32 = found.ok_or(io::ErrorKind::NotFound)?;
    // A number is no proof that the descriptor stays open, so the kernel duplicates the descriptor.
    let process = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    let flags = PidfdGetfdFlags::empty();
    Ok(rustix::process::pidfd_getfd(process, number, flags)?)
}

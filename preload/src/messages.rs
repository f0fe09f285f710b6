//! The lines for the user. They go to standard error.

use crate::tracker::VmNumber;
use std::error::Error;
use std::fmt::Arguments;
use std::fmt::Write as _;
use std::io::Write as _;

/// The longest text of [`say`], in bytes. Longer ones are cut.
const LONGEST: usize = 2048;

/// Writes to standard error by one system call, without a lock and without memory from the heap.
pub(crate) fn say(text: Arguments<'_>) {
    let mut buffer = [0; LONGEST];
    let mut rest = &mut buffer[..];
    // What does not fit is cut.
    let _ = rest.write_fmt(text);
    let left = rest.len();
    // A standard error that is closed is no reason to end.
    let _ = rustix::io::write(rustix::stdio::stderr(), &buffer[..LONGEST - left]);
}

/// A program takes the place of this one.
pub(crate) fn next_program(program: &[u8]) {
    say(format_args!(
        "trapgate: {} takes the place of this program, with the debugger\n",
        program.escape_ascii()
    ));
}

/// A program takes the place of this one, and the dynamic linker does not load the library into it.
pub(crate) fn next_program_without_debugger(program: &[u8], why: &str) {
    say(format_args!(
        "trapgate: {} takes the place of this program and runs without the debugger, because it {why}.\n  \
         Give `trapgate exec` a VMM that is dynamically linked with glibc and gains no rights\n",
        program.escape_ascii()
    ));
}

/// The debug server of a VM listens. The first line has the form of `trapgate run`, which programs read.
pub(crate) fn listening(vm: VmNumber, address: &str, target: &str) -> String {
    let which = match vm.0 {
        1 => String::new(),
        number => format!("trapgate: VM {number} of this process:\n"),
    };
    format!("{which}gdb: listening on {address}\n\n    gdb -ex 'target remote {target}'\n")
}

/// The VM runs without a debug server.
pub(crate) fn no_server(vm: VmNumber, error: &dyn Error) -> String {
    let number = vm.0;
    let mut text = format!(
        "trapgate: NO DEBUGGER: VM {number} runs without a debug server (--wait does not hold it); end the VMM, mend the cause, and start again"
    );
    let mut cause = Some(error);
    while let Some(error) = cause {
        let _ = write!(text, "\n  because: {error}");
        cause = error.source();
    }
    // Each part of the debug server names its own call, and all of these have one remedy.
    if text.contains("(os error 24)") {
        text += "\n  The VMM has used up its file descriptors: raise the limit, for example with `ulimit -n 1024`";
    }
    text
}

/// A vCPU runs without a debugger.
pub(crate) fn vcpu_without_debugger(id: u32, error: &dyn Error) -> String {
    format!(
        "trapgate: vCPU {id} runs without a debugger: {error}; breakpoints do not stop it, and `monitor status` leaves it out"
    )
}

/// A fault of the library.
pub(crate) const DEBUGGER_FAILED: &str = "\
trapgate: the debugger has failed (see the lines above), and a vCPU runs without a debugger from now on. Please report the lines. To debug again, end the VMM and start it again";

/// The VMM has a debugger of its own.
pub(crate) const VMM_DEBUGS_ITSELF: &str = "\
trapgate: the VMM debugs its guest itself (KVM_SET_GUEST_DEBUG), and a vCPU has room for one debugger: each takes the breakpoints of the other away.
  Use one of them: start QEMU without -s and -gdb, and leave `gdbserver` out of its monitor; start crosvm, Cloud Hypervisor and Firecracker without --gdb";

/// The VMM has a seccomp filter.
pub(crate) const VMM_FILTERS_SYSTEM_CALLS: &str = "\
trapgate: the VMM forbids system calls (seccomp), and a debugger needs ioctls that a VMM's own filter may lack.
  If the VMM ends with `Bad system call`, start it without the filter: --seccomp false (Cloud Hypervisor), --no-seccomp (Firecracker), --disable-sandbox (crosvm).
  QEMU's -sandbox on lets the debugger work";

/// The program has ended, and was no VMM.
pub(crate) const NO_VM: &str = "\
trapgate: this process has created no VM, so nothing in it was debugged.
  Let the VMM use KVM (QEMU: -accel kvm). If this program starts the VMM as another process, give `trapgate exec` the command of the VMM itself";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_to_paste_names_the_server() {
        let text = listening(VmNumber(1), "127.0.0.1:1234", "127.0.0.1:1234");
        assert!(
            text.starts_with("gdb: listening on 127.0.0.1:1234\n"),
            "{text}"
        );
        assert!(
            text.contains("    gdb -ex 'target remote 127.0.0.1:1234'\n"),
            "{text}"
        );
        let second = listening(VmNumber(2), "unix:/a.2", "/a.2");
        assert!(
            second.contains("VM 2") && second.contains("target remote /a.2'"),
            "{second}"
        );
    }

    #[test]
    fn a_server_that_is_not_there_is_told_of_with_all_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::fmt::Error);
        let text = no_server(VmNumber(3), &Outer(std::fmt::Error));
        assert!(
            text.contains("VM 3") && text.contains("because: outer"),
            "{text}"
        );
        assert_eq!(text.matches("because: ").count(), 2, "{text}");
        assert!(!text.contains("ulimit"), "{text}");
    }

    #[test]
    fn file_descriptors_that_are_used_up_are_named() {
        let error = std::io::Error::from_raw_os_error(libc::EMFILE);
        let text = no_server(VmNumber(1), &error);
        assert!(text.contains("ulimit -n"), "{text}");
    }
}

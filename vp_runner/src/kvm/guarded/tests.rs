//! Faults that do not belong to the runner, faults of the runner while another library has installed handlers, and the pipe.
//!
//! Signal handlers belong to the whole process, so each test runs this program again as a process of its own.

use super::super::guest_ram;
use super::super::guest_ram::odd_ram::CLOSED;
use super::super::guest_ram::odd_ram::PAGE;
use super::super::guest_ram::odd_ram::READ_ONLY;
use super::super::guest_ram::odd_ram::SHRUNK;
use super::super::guest_ram::odd_ram::odd_ram;
use super::*;
use crate::memory::slots::MemorySlots;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::process::ExitStatus;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryBackend as _;
use vmm_core_defs::addr::Gpa;
use vmm_sys_util::signal::register_signal_handler;

const ROLE: &str = "TRAPGATE_TEST_OF_FAULTS";
const HANDLED_BY_ANOTHER: i32 = 77;

extern "C" fn another(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: it ends the process at once.
    unsafe { libc::_exit(HANDLED_BY_ANOTHER) };
}

/// Runs `act` in a process of its own, which executes the same test.
fn alone(test: &str, act: impl FnOnce()) -> Option<ExitStatus> {
    if std::env::var_os(ROLE).is_some() {
        act();
        return None;
    }
    let program = std::env::current_exe().unwrap();
    let mut again = Command::new(program);
    let name = format!("kvm::guarded::tests::{test}");
    again.args(["--exact", &name]).env(ROLE, "1");
    let output = again.output().unwrap();
    let status = output.status;
    assert!(
        status.code() != Some(101),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    Some(status)
}

fn host(ram: &MemorySlots, gpa: u64) -> usize {
    ram.backing().get_host_address(GuestAddress(gpa)).unwrap() as usize
}

fn fault(ram: &MemorySlots, gpa: u64) {
    // SAFETY: it is none: the process ends here, as the test wants.
    unsafe { std::ptr::read_volatile(host(ram, gpa) as *const u8) };
    panic!("a byte out of reach was read");
}

/// Both accesses return an error.
fn ours(ram: &MemorySlots) {
    let mut data = [0; 64];
    for gpa in [CLOSED, SHRUNK + PAGE as u64] {
        assert_eq!(guest_ram::read(ram, Gpa::new(gpa), &mut data), 0);
        assert_eq!(guest_ram::load_u64(ram, Gpa::new(gpa)), None);
    }
    assert_eq!(guest_ram::write(ram, Gpa::new(READ_ONLY), &data), 0);
    assert_eq!(guest_ram::store_u8(ram, Gpa::new(READ_ONLY), 1), None);
}

#[test]
fn faults_of_others_go_to_the_handler_before_ours() {
    let status = alone("faults_of_others_go_to_the_handler_before_ours", || {
        register_signal_handler(libc::SIGBUS, another).unwrap();
        let ram = odd_ram();
        ours(&ram);
        fault(&ram, SHRUNK + PAGE as u64);
    });
    if let Some(status) = status {
        assert_eq!(status.code(), Some(HANDLED_BY_ANOTHER));
    }
}

#[test]
fn a_fault_that_nobody_handles_ends_the_process_as_it_would_have() {
    let status = alone(
        "a_fault_that_nobody_handles_ends_the_process_as_it_would_have",
        || {
            let ram = odd_ram();
            ours(&ram);
            fault(&ram, CLOSED);
        },
    );
    if let Some(status) = status {
        assert_eq!(status.signal(), Some(libc::SIGSEGV));
    }
}

#[test]
fn a_handler_that_replaces_ours_costs_speed_and_nothing_else() {
    let status = alone(
        "a_handler_that_replaces_ours_costs_speed_and_nothing_else",
        || {
            let ram = odd_ram();
            ours(&ram);
            assert_eq!(WAY.load(Ordering::Relaxed), HANDLED);
            for signal in [libc::SIGSEGV, libc::SIGBUS] {
                register_signal_handler(signal, another).unwrap();
            }
            check();
            assert_eq!(WAY.load(Ordering::Relaxed), BY_PIPE);
            ours(&ram);
            let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
            let mut back = vec![0; bytes.len()];
            assert_eq!(guest_ram::write(&ram, Gpa::new(0x123), &bytes), bytes.len());
            assert_eq!(
                guest_ram::read(&ram, Gpa::new(0x123), &mut back),
                back.len()
            );
            assert_eq!(back, bytes);
            let end = Gpa::new(SHRUNK + PAGE as u64 - 13);
            assert_eq!(guest_ram::read(&ram, end, &mut back), 13);
            assert_eq!(guest_ram::write(&ram, end, &bytes), 13);
            // The pipe is empty.
            assert_eq!(
                guest_ram::read(&ram, Gpa::new(0x123), &mut back),
                back.len()
            );
            assert_eq!(back, bytes);
            assert_eq!(
                guest_ram::load_u32(&ram, Gpa::new(0x123)),
                Some(0x0302_0100)
            );
        },
    );
    if let Some(status) = status {
        assert!(status.success(), "{status}");
    }
}

//! A handler that the VMM takes away. It is of the whole process, so the test is a process of its own.

use super::KickSignal;
use conformance::machine::Setup;
use conformance::machine::guest::Mode;
use conformance::machine::guest::counting_loop;
use conformance::machine::interrupt;
use std::process::Command;
use vmm_sys_util::signal::register_signal_handler;

const ROLE: &str = "TRAPGATE_TEST_OF_KICKS";

extern "C" fn anothers(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

#[test]
fn every_break_is_answered_though_the_handler_is_taken_away_again_and_again() {
    if std::env::var_os(ROLE).is_some() {
        return take_handlers_away();
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    let name = "kvm::kick::tests::every_break_is_answered_though_the_handler_is_taken_away_again_and_again";
    let output = again
        .args(["--exact", name, "--nocapture"])
        .env(ROLE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn take_handlers_away() {
    let signal = KickSignal::default();
    let Some(vm) = Setup::new(Mode::Long, &counting_loop(Mode::Long)).build() else {
        return;
    };
    vm.attach();
    for _ in 0..5 {
        // SAFETY: an action without a handler.
        unsafe { libc::signal(signal.number(), libc::SIG_IGN) };
        // An ignored signal interrupts nothing: only one that is sent again, to a handler that is there again, ends this.
        interrupt(&vm, vm.resume());
    }
    for _ in 0..100 {
        register_signal_handler(signal.number(), anothers).unwrap();
        interrupt(&vm, vm.resume());
    }
}

#[test]
fn a_number_that_is_no_real_time_signal_is_refused_in_words() {
    let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    assert_eq!(KickSignal::new(first), Ok(KickSignal::default()));
    assert_eq!(KickSignal::new(last).map(KickSignal::number), Ok(last));
    for number in [0, libc::SIGSEGV, first - 1, last + 1] {
        let refused = KickSignal::new(number).unwrap_err().to_string();
        assert!(refused.contains("SIGRTMIN to SIGRTMAX"), "{refused}");
    }
}

//! A signal handler that the VMM replaces. Handlers belong to the whole process, so the test runs in a process of its own.

use super::KickSignal;
use std::process::Command;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use test_machine::machine::Setup;
use test_machine::machine::guest::Mode;
use test_machine::machine::guest::counting_loop;
use test_machine::machine::guest::jump_to_start;
use test_machine::machine::interrupt;
use vmm_sys_util::signal::register_signal_handler;

/// The number of times that the signal is ignored.
const ROUNDS: usize = 5;

const ROLE: &str = "TRAPGATE_TEST_OF_KICKS";

extern "C" fn anothers(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    TAKEN_BY_ANOTHER.fetch_add(1, Ordering::Relaxed);
}

static TAKEN_BY_ANOTHER: AtomicU32 = AtomicU32::new(0);

/// Runs this test again in a process of its own, which calls `act`. Returns the output and the log of that process.
fn alone(name: &str, act: fn()) -> String {
    if std::env::var_os(ROLE).is_some() {
        tracing_subscriber::fmt().with_ansi(false).init();
        act();
        std::process::exit(0);
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    let name = format!("kvm::kick::tests::{name}");
    let output = again
        .args(["--exact", &name, "--nocapture"])
        .env(ROLE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    text.into_owned()
}

#[test]
fn every_break_is_answered_though_the_handler_is_taken_away_again_and_again() {
    let name = "every_break_is_answered_though_the_handler_is_taken_away_again_and_again";
    let text = alone(name, take_handlers_away);
    if text.contains("SKIP") {
        return;
    }
    for said in [
        "has not left the guest for its kick, which is sent again",
        "another handler has taken the place of the runner's, which is installed again",
    ] {
        let times = text.matches(said).count();
        assert!(times >= ROUNDS, "{times} times: {said}");
    }
}

#[test]
fn a_runner_with_another_number_leaves_the_usual_one_to_the_vmm() {
    let name = "a_runner_with_another_number_leaves_the_usual_one_to_the_vmm";
    alone(name, use_another_number);
}

fn use_another_number() {
    let usual = KickSignal::default().number();
    register_signal_handler(usual, anothers).unwrap();
    let setup = Setup::new(Mode::Long, &counting_loop(Mode::Long)).vps(2);
    let Some(vm) = setup.kick_signal(usual + 3).build() else {
        return;
    };
    vm.attach();
    for _ in 0..20 {
        interrupt(&vm, vm.resume());
    }
    assert_eq!(TAKEN_BY_ANOTHER.load(Ordering::Relaxed), 0);
    // SAFETY: the signal's handler is an atomic addition.
    unsafe { libc::raise(usual) };
    let taken = TAKEN_BY_ANOTHER.load(Ordering::Relaxed);
    assert_eq!(taken, 1, "its handler is there still");
}

fn take_handlers_away() {
    let signal = KickSignal::default();
    // inc ebx; mov [0x6000], ebx
    let mut counts = vec![0xff, 0xc3, 0x89, 0x1c, 0x25, 0, 0x60, 0, 0];
    jump_to_start(&mut counts);
    let Some(vm) = Setup::new(Mode::Long, &counts).build() else {
        return;
    };
    vm.attach();
    let count = || vm.machine.raw_memory()[0x6000..0x6004].to_vec();
    for _ in 0..ROUNDS {
        // SAFETY: the action has no handler.
        unsafe { libc::signal(signal.number(), libc::SIG_IGN) };
        let before = count();
        let resume = vm.resume();
        while count() == before {
            thread::yield_now();
        }
        // The vCPU is in the guest, and an ignored signal interrupts nothing. Only a signal that is sent again, when a handler is installed again, ends this.
        interrupt(&vm, resume);
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

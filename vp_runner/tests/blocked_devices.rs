//! Calls of `Machine` that block: the runner logs them and serves all other requests. On real guests.

use test_machine::machine;

use machine::guest::*;
use machine::*;
use mesh::rpc::PendingFailableRpc;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::GuestAddress;

use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::stop::DebugStopReason;
use vp_runner::runner::RunnerExit;

const PATIENCE: Duration = Duration::from_secs(20);

/// The log of this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn get() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        let log = LOG.get_or_init(|| {
            let log = Self::default();
            let writer = log.clone();
            let subscriber = tracing_subscriber::fmt().with_ansi(false);
            subscriber.with_writer(move || writer.clone()).init();
            log
        });
        log.clone()
    }

    fn assert_has(&self, what: &str) {
        let overdue = "a call of `Machine` has not returned";
        let text = self.text();
        let has = text
            .lines()
            .any(|line| line.contains(overdue) && line.contains(what));
        assert!(has, "{what}: {text}");
    }

    /// The number of lines about a VP that does not stop. Only one test causes them.
    fn stuck_vps(&self) -> usize {
        let text = self.text();
        let lines = text.lines();
        lines
            .filter(|line| line.contains("a VP does not stop") && line.contains("vp=0"))
            .count()
    }

    fn wait_for_stuck_vp(&self, count: usize) {
        let start = Instant::now();
        while self.stuck_vps() < count {
            assert!(start.elapsed() < PATIENCE, "{}", self.text());
            thread::yield_now();
        }
    }

    /// The number of resets that have blocked so long that they were logged a second time.
    fn second_words_of_resets(&self) -> usize {
        let waited = |line: &str| {
            let (_, waited) = line.split_once("waited=")?;
            let (seconds, _) = waited.split_once('.')?;
            seconds.parse::<u64>().ok()
        };
        let second = |line: &str| {
            line.contains("Machine::reset") && waited(line).is_some_and(|seconds| seconds >= 4)
        };
        self.text().lines().filter(|line| second(line)).count()
    }

    fn wait_for_second_word_of_a_reset(&self, count: usize) {
        let start = Instant::now();
        while self.second_words_of_resets() < count {
            assert!(start.elapsed() < PATIENCE, "{}", self.text());
            thread::yield_now();
        }
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn read_device(vm: &TestVm) -> PendingFailableRpc<Vec<u8>, DebugError> {
    let device = GuestAddress::Gpa(HELD_DEVICE);
    vm.send(DebugRequest::ReadMemory, (device, 8))
}

#[track_caller]
fn assert_overdue<T: std::fmt::Debug>(result: Result<T, DebugError>, call: &str) {
    let Err(error @ DebugError::Overdue { .. }) = result else {
        panic!("{result:?}");
    };
    let text = error.to_string();
    assert!(text.contains(call), "{text}");
}

/// Repeats `ask` until the overdue call has returned, for which there is no event.
fn once_it_answers<T>(ask: impl Fn() -> Result<T, DebugError>) -> T {
    loop {
        match ask() {
            Ok(value) => return value,
            Err(DebugError::Overdue { .. }) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Asserts that requests that need no device are served.
fn assert_serves(vm: &TestVm) {
    assert_eq!(vm.read_gva(0, ENTRY, 1).map(|bytes| bytes.len()), Ok(1));
    let code = GuestAddress::Gpa(Gpa::new(ENTRY));
    assert!(vm.call(DebugRequest::ReadMemory, (code, 1)).is_ok());
    vm.insert(execute_at(0x5000));
    vm.remove(execute_at(0x5000));
    let rip = vm.regs(0).rip;
    let mut regs = vm.regs(0);
    regs.gp[3] = rip;
    vm.try_set_regs(0, regs).unwrap();
    assert_eq!(vm.status().vps.len(), 1);
}

#[test]
fn a_device_that_blocks_a_debuggers_access_is_told_of_and_everything_else_is_served() {
    let log = Log::get();
    let Some(vm) = Setup::new(Mode::Long, &telling_loop(Mode::Long)).build() else {
        return;
    };
    vm.attach();
    let read = read_device(&vm);
    let queued = read_device(&vm);
    vm.machine.wait_until("it blocks", |seen| seen.held == 1);
    assert_serves(&vm);
    let resume = vm.resume();
    vm.machine
        .wait_until("it runs", |seen| !seen.told.is_empty());
    interrupt(&vm, resume);
    assert_overdue(answer(read), "mmio_read");
    assert_overdue(answer(queued), "mmio_read");
    log.assert_has("mmio_read of 8 bytes at physical address 0x10001000");
    assert_overdue(answer(read_device(&vm)), "mmio_read");
    let write = (GuestAddress::Gpa(DEVICE), vec![1]);
    assert_overdue(
        vm.call(DebugRequest::WriteMemory, write.clone()),
        "mmio_read",
    );
    assert_serves(&vm);
    vm.step(0);
    vm.detach(DetachAction::Resume);
    vm.attach();
    assert_overdue(answer(read_device(&vm)), "mmio_read");
    vm.machine.release_all();
    let data = once_it_answers(|| answer(read_device(&vm)));
    assert_eq!(data, [0x5a; 8]);
    vm.call(DebugRequest::WriteMemory, write).unwrap();
    let seen = vm.machine.wait_until("now", |_| true);
    assert_eq!(seen.device[0], 1);
}

#[test]
fn the_vmm_can_end_a_guest_whose_device_blocks() {
    let Some(vm) = Setup::new(Mode::Long, &telling_loop(Mode::Long)).build() else {
        return;
    };
    vm.attach();
    let _read = read_device(&vm);
    vm.machine.wait_until("it blocks", |seen| seen.held == 1);
    vm.handle.stop();
    let machine = vm.machine.clone();
    assert_eq!(vm.join(), RunnerExit::Stopped);
    machine.release_all();
}

#[test]
fn a_reset_that_blocks_is_told_of_and_the_guest_stands_until_it_has_returned() {
    let log = Log::get();
    let setup = Setup::new(Mode::Long, &telling_loop(Mode::Long)).reset_is_held();
    let Some(vm) = setup.build() else {
        return;
    };
    vm.attach();
    vm.step(0);
    vm.step(0);
    assert_overdue(vm.call(DebugRequest::Reset, ()), "Machine::reset");
    log.assert_has("Machine::reset");
    assert_serves(&vm);
    assert_overdue(answer(vm.resume()), "Machine::reset");
    assert_overdue(vm.call(DebugRequest::Reset, ()), "Machine::reset");
    vm.detach(DetachAction::Resume);
    vm.attach();
    let told = vm.machine.wait_until("now", |_| true).told.len();
    assert!(told <= 1, "it ran");
    vm.machine.release_all();
    once_it_answers(|| vm.call(DebugRequest::Reset, ()));
    assert_eq!(vm.regs(0).rip, ENTRY);
    vm.step(0);
    let told = vm.machine.wait_until("now", |_| true).told.len();
    let resume = vm.resume();
    vm.machine
        .wait_until("it runs", |seen| seen.told.len() > told);
    interrupt(&vm, resume);
}

#[test]
fn a_guest_that_was_detached_while_its_reset_blocked_runs_when_it_has_returned() {
    let setup = Setup::new(Mode::Long, &telling_loop(Mode::Long)).reset_is_held();
    let Some(vm) = setup.build() else {
        return;
    };
    vm.attach();
    vm.step(0);
    assert_overdue(vm.call(DebugRequest::Reset, ()), "Machine::reset");
    vm.lose_session();
    vm.attach();
    vm.detach(DetachAction::Resume);
    vm.machine.release_all();
    let seen = vm
        .machine
        .wait_until("it runs", |seen| seen.told.len() > 20);
    assert_eq!(seen.resets, 1);
}

#[test]
fn a_guest_whose_last_debugger_is_gone_while_its_reset_blocks_runs_when_it_has_returned() {
    let log = Log::get();
    let setup = Setup::new(Mode::Long, &telling_loop(Mode::Long)).reset_is_held();
    let Some(mut vm) = setup.build() else {
        return;
    };
    vm.attach_with(DetachAction::Stay);
    vm.step(0);
    assert_overdue(vm.call(DebugRequest::Reset, ()), "Machine::reset");
    let told = log.second_words_of_resets();
    vm.drop_channel();
    // By now the runner knows that no debugger is attached.
    log.wait_for_second_word_of_a_reset(told + 1);
    vm.machine.release_all();
    vm.machine
        .wait_until("it runs", |seen| seen.told.len() > 20);
}

#[test]
fn a_guests_own_reset_that_blocks_lets_debuggers_come_and_go() {
    let reset = [0xe6, PORT_RESET, 0xeb, 0xfe];
    let setup = Setup::new(Mode::Long, &reset).reset_is_held().running();
    let Some(vm) = setup.build() else {
        return;
    };
    vm.machine.wait_until("it blocks", |seen| seen.held == 1);
    vm.attach();
    assert_serves(&vm);
    assert_overdue(answer(vm.resume()), "Machine::reset");
    vm.detach(DetachAction::Resume);
    vm.machine.release();
    // The guest asks for the next reset as soon as it runs.
    let seen = vm.machine.wait_until("it runs", |seen| seen.held == 2);
    assert_eq!((seen.resets, seen.inits), (1, 2));
    vm.machine.release_all();
}

/// No debugger was ever attached.
#[test]
fn a_guest_whose_own_reset_blocks_for_long_runs_when_it_has_returned_or_ends_when_it_has_failed() {
    let log = Log::get();
    let reset = [0xe6, PORT_RESET, 0xeb, 0xfe];
    let setup = Setup::new(Mode::Long, &reset).reset_is_held().running();
    let told = log.second_words_of_resets();
    let (Some(vm), Some(fails)) = (setup.clone().build(), setup.reset_fails().build()) else {
        return;
    };
    for vm in [&vm, &fails] {
        vm.machine.wait_until("it blocks", |seen| seen.held == 1);
    }
    log.wait_for_second_word_of_a_reset(told + 2);
    for vm in [&vm, &fails] {
        vm.machine.release();
    }
    vm.machine.wait_until("it runs", |seen| seen.held == 2);
    vm.machine.release_all();
    assert_eq!(fails.join(), RunnerExit::ResetFailed);
}

#[test]
fn a_guest_whose_reset_waits_for_a_blocked_device_stands_until_it_is_reset() {
    let Some(vm) = Setup::new(Mode::Long, &telling_loop(Mode::Long)).build() else {
        return;
    };
    vm.attach();
    vm.step(0);
    let read = read_device(&vm);
    vm.machine.wait_until("it blocks", |seen| seen.held == 1);
    assert_overdue(vm.call(DebugRequest::Reset, ()), "mmio_read");
    assert_overdue(answer(read), "mmio_read");
    assert_overdue(answer(vm.resume()), "mmio_read");
    vm.machine.release_all();
    let seen = vm
        .machine
        .wait_until("it is reset", |seen| seen.resets == 1);
    assert_eq!(seen.told, [], "it ran");
}

#[test]
fn the_resume_that_carries_a_blocked_reset_out_is_told_of_it() {
    let reset = [0xe6, PORT_RESET, 0xeb, 0xfe];
    let Some(vm) = Setup::new(Mode::Long, &reset).reset_is_held().build() else {
        return;
    };
    vm.attach();
    let stop = stop(vm.resume());
    assert!(matches!(stop, DebugStopReason::Reset { .. }));
    assert_overdue(answer(vm.resume()), "Machine::reset");
    assert_serves(&vm);
    vm.machine.release_all();
    // The guest is reset once, and the next stop is that of its next reset.
    loop {
        match answer(vm.resume()) {
            Ok(stop) => {
                break assert!(matches!(stop.reason, DebugStopReason::Reset { .. }));
            }
            Err(DebugError::Overdue { .. }) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(vm.machine.wait_until("now", |_| true).resets, 1);
}

#[test]
fn a_vp_that_its_own_device_blocks_is_told_of_and_awaited_by_a_break_and_by_the_runners_end() {
    let log = Log::get();
    // A read of the device, in a loop.
    let mut code = vec![0xa1];
    code.extend(HELD_DEVICE.value().to_le_bytes());
    code.extend([0xeb, 0xf5]);
    let Some(vm) = Setup::new(Mode::Long, &code).build() else {
        return;
    };
    vm.attach();
    let resume = vm.resume();
    vm.machine.wait_until("it blocks", |seen| seen.held == 1);
    let stopping = vm.send(DebugRequest::Break, ());
    log.wait_for_stuck_vp(1);
    // A request that needs no VP is served.
    let code = GuestAddress::Gpa(Gpa::new(ENTRY));
    assert!(vm.call(DebugRequest::ReadMemory, (code, 1)).is_ok());
    assert_eq!(vm.status().vps.len(), 1);
    vm.machine.release();
    answer(stopping).unwrap();
    assert_eq!(stop(resume), DebugStopReason::Break);
    let told = log.stuck_vps();
    vm.detach(DetachAction::Resume);
    vm.machine.wait_until("it blocks", |seen| seen.held == 2);
    vm.handle.stop();
    log.wait_for_stuck_vp(told + 1);
    vm.machine.release_all();
    assert_eq!(vm.join(), RunnerExit::Stopped);
}

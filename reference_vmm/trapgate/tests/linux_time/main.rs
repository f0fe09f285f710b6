//! A stock Linux kernel's clocks and watchdogs over a stop. What passes during a stop is the thing tested here, so the test does wait.
//!
//! One program for each kind of test: the nested bed boots afresh for each, and a fresh one is the steadiest.

#[path = "../linux_guest/debugger.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod debugger;
#[path = "../linux_guest/mod.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod linux_guest;

use amount::Amount;
use conformance::amount;
use conformance::running;
use debugger::ARGUMENT;
use debugger::Debugger;
use debugger::MARK;
use linux_guest::Linux;
use running::Running;
use std::thread;
use std::time::Duration;

/// Past what the guest's soft-lockup watchdog allows, by [`WATCHDOG`].
const STOP: Duration = Duration::from_secs(12);
/// In a soak. The guest's own default of 20 s for soft lockups, and of 21 s for stalls of RCU, are well below it.
const LONG_STOP: Duration = Duration::from_secs(60);
const SHORT_STOP: Duration = Duration::from_secs(2);
/// Soft lockups are told of after twice the threshold (kernel-parameters.txt, `watchdog_thresh`), here after 10 s.
const WATCHDOG: &str = "watchdog_thresh=5";
/// A period of that watchdog, and several of the one that compares clocks.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// What a stop may look like to the guest, what it ran on the way into the stop and out of it included.
const JUMP: Duration = Duration::from_millis(10);
/// A busy machine may hold up the guest while it runs, which takes time that it sees: so often it may do so at once.
const ATTEMPTS: u32 = 5;

/// What the kernel may say of time that it misses. Not that a look at its clocks came late: on a busy machine it does.
const COMPLAINTS: &[&str] = &[
    "soft lockup",
    "as unstable",
    "rcu: INFO",
    "blocked for more than",
    "exercise: WRONG",
];

#[test]
fn its_clocks_stand_over_a_stop_and_no_watchdog_barks() {
    let Some(linux) = Linux::given() else { return };
    let stop = amount::soak().map_or(STOP, |seconds| seconds.clamp(STOP, LONG_STOP));
    let mut guest = Guest::start(&linux);
    // The outer machine's first way through all of this takes it 30 ms, whether the guest stands or not.
    guest.stand(Duration::ZERO);
    let amount = Amount::time(Duration::ZERO, Duration::ZERO);
    let mut stops = 0;
    while stops == 0 || amount.is_left(stops) {
        stops += 1;
        guest.sees_nothing_of(stop);
    }
    // So that the test could fail.
    guest.debugger.monitor("freeze-time off");
    let seen = guest.stand(SHORT_STOP);
    assert!(seen >= SHORT_STOP, "{seen:?} with clocks that go on");
    guest.has_nothing_to_complain_of();
}

/// A guest that stands at the mark of a round, which it looks at its clocks before and after.
struct Guest {
    debugger: Debugger,
    running: Running,
    /// Its age when it last told of a round.
    age: Duration,
}

impl Guest {
    fn start(linux: &Linux) -> Self {
        let args = ["--gdb", "127.0.0.1:0", "--no-wait", "--cpus", "1"];
        let cmdline = format!("{WATCHDOG} trapgate.clocks");
        let mut running = linux.start(&args, &cmdline);
        let address = running.address();
        running.wait_for("exercise: clocks 2 ");
        let mut debugger = Debugger::attach(&address);
        debugger.set(0, linux.address("__x64_sys_getpgid"), 1);
        debugger.run_into("swbreak");
        Self {
            debugger,
            running,
            age: Duration::ZERO,
        }
    }

    /// Stands for so long. How much of it the clock saw that saw most, with what the guest ran between its looks at it.
    fn stand(&mut self, stop: Duration) -> Duration {
        let round = self.debugger.saved(ARGUMENT) - MARK;
        // Time passes for the guest or does not: there is no event to wait for.
        thread::sleep(stop);
        self.debugger.run_into("swbreak");
        let line = self
            .running
            .wait_for(&format!("exercise: clocks {round} monotonic "));
        println!("stopped for {stop:?}: {line}");
        self.age = Duration::from_millis(number(&line, "at"));
        let passed = ["monotonic", "realtime", "boottime"].map(|clock| number(&line, clock));
        Duration::from_micros(passed.into_iter().max().expect("three"))
    }

    fn sees_nothing_of(&mut self, stop: Duration) {
        for _ in 0..ATTEMPTS {
            let seen = self.stand(stop);
            assert!(seen < stop / 2, "the clocks went on: {seen:?} of {stop:?}");
            if seen < JUMP {
                return;
            }
        }
        panic!("each of {ATTEMPTS} stops of {stop:?} was a jump of {JUMP:?} or more");
    }

    /// Lets it run until its watchdogs have looked, and reads what it said.
    fn has_nothing_to_complain_of(mut self) {
        self.debugger.detach();
        let until = self.age + AFTERWARDS;
        self.running.line("a greater age", |line| {
            line.starts_with("exercise: clocks ")
                && Duration::from_millis(number(line, "at")) >= until
        });
        self.running.signal("INT");
        let ended = self.running.finish();
        for complaint in COMPLAINTS {
            assert!(!ended.output.contains(complaint), "{}", ended.output);
        }
    }
}

/// The number behind a word of a line that tells of a round.
#[track_caller]
fn number(line: &str, word: &str) -> u64 {
    line.split_whitespace()
        .skip_while(|here| *here != word)
        .nth(1)
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no number after `{word}`: {line}"))
}

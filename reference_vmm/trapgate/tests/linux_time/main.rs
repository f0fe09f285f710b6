//! The clocks and watchdogs of a stock Linux kernel over a stop. The test waits, because the time that passes during a
//! stop is its subject.
//!
//! Each kind of test is a separate program, because the nested bed boots once per program, and a new boot is the most
//! reliable.

#[path = "../linux_guest/debugger.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod debugger;

use amount::Amount;
use debugger::ARGUMENT;
use debugger::Debugger;
use debugger::MARK;
use running::Running;
use std::thread;
use std::time::Duration;
use test_machine::amount;
use test_machine::linux_guest::Linux;
use test_machine::running;

/// Longer than the guest's soft-lockup watchdog allows with [`WATCHDOG`].
const STOP: Duration = Duration::from_secs(12);
/// In a soak. The guest's default limits, 20 s for soft lockups and 21 s for stalls of RCU, are well below it.
const LONG_STOP: Duration = Duration::from_secs(60);
const SHORT_STOP: Duration = Duration::from_secs(2);
/// Soft lockups are reported after twice the threshold (kernel-parameters.txt, `watchdog_thresh`), here after 10 s.
const WATCHDOG: &str = "watchdog_thresh=5";
/// A period of that watchdog, and several periods of the watchdog that compares clocks.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// The maximum jump that the guest may see over a stop, including its running time before and after the stop.
const JUMP: Duration = Duration::from_millis(10);
/// A busy machine may delay the guest while it runs, which the guest sees. The test allows this number of consecutive
/// delays.
const ATTEMPTS: u32 = 5;

/// Messages of the kernel about missing time. A message about a late check of its clocks is allowed, because it happens
/// on a busy machine.
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
    // The first pass through this code takes the outer machine 30 ms, whether the guest stops or not.
    guest.stand(Duration::ZERO);
    let amount = Amount::time(Duration::ZERO, Duration::ZERO);
    let mut stops = 0;
    while stops == 0 || amount.is_left(stops) {
        stops += 1;
        guest.sees_nothing_of(stop);
    }
    // Shows that the test can fail.
    guest.debugger.monitor("freeze-time off");
    let seen = guest.stand(SHORT_STOP);
    assert!(seen >= SHORT_STOP, "{seen:?} with clocks that go on");
    guest.has_nothing_to_complain_of();
}

/// A guest that has stopped at the mark of a round. The guest reads its clocks before and after the mark.
struct Guest {
    debugger: Debugger,
    running: Running,
    /// The guest's age at its last report.
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

    /// Stops the guest for `stop`. Returns the largest jump of its clocks, including its running time between two
    /// reads.
    fn stand(&mut self, stop: Duration) -> Duration {
        let round = self.debugger.saved(ARGUMENT) - MARK;
        // There is no event to wait for: the test observes whether time passes for the guest.
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

    /// Runs the guest until its watchdogs have checked, and reads its messages.
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

/// The number behind a word in a report of a round.
#[track_caller]
fn number(line: &str, word: &str) -> u64 {
    line.split_whitespace()
        .skip_while(|here| *here != word)
        .nth(1)
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no number after `{word}`: {line}"))
}

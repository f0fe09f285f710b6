//! Boots of a shell script in the place of a machine.

use super::super::machine::Kvm;
use super::super::machine::LastWords;
use super::super::machine::Mark;
use super::super::root_image::RootImage;
use super::super::scratch::Scratch;
use super::*;
use std::ffi::OsStr;
use std::process::Command;

/// A script in the place of a machine. It writes to the channels, which are files in its current folder. `say` writes a word of the init to `control`.
struct Script {
    text: &'static str,
    limits: fn() -> Limits,
}

/// Enough time for a script on a busy machine.
fn usual() -> Limits {
    let long = Duration::from_secs(60);
    Limits {
        unit: "s",
        up: long,
        alive: long,
        command: None,
        off: long,
    }
}

impl Machine for Script {
    fn name(&self) -> &'static str {
        "the script"
    }

    fn kvm(&self) -> Kvm {
        Kvm::Amd
    }

    fn channels(&self) -> Kind {
        Kind::Pipe
    }

    fn prepare(&self, _root: RootImage, _plan: &Plan<'_>) -> anyhow::Result<()> {
        Ok(())
    }

    fn command(&self, plan: &Plan<'_>) -> Command {
        let say = "say() { echo \"MARK $*\" >control; }";
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{}; {}", plan.mark.fill(say), self.text)])
            .current_dir(plan.scratch);
        command
    }

    fn limits(&self, _plan: &Plan<'_>) -> Limits {
        (self.limits)()
    }

    fn elapsed(&self, _child: &Child, wall: Duration) -> Duration {
        wall
    }

    fn retries(&self) -> u32 {
        0
    }

    fn last_words(&self, _plan: &Plan<'_>) -> LastWords {
        LastWords {
            instructions: Some(7),
            reason: None,
        }
    }
}

/// Boots the script. Returns the boot and the output of the command.
fn boot_script(text: &'static str, limits: fn() -> Limits) -> (Ended, String) {
    let scratch = Scratch::new().unwrap();
    let plan = Plan {
        scratch: scratch.path(),
        cmdline: "",
        cpus: 1,
        memory_mib: 1,
        timeout: Duration::from_secs(60),
        seed: 0,
        mark: Mark::of([OsStr::new(text)], 0),
    };
    let written = Collected::default();
    let sink = || Box::new(written.clone());
    let ended = boot(&Script { text, limits }, &plan, sink(), sink()).unwrap();
    (ended, String::from_utf8(written.take()).unwrap())
}

/// The reason for which the bed failed.
#[track_caller]
fn failure(text: &'static str, limits: fn() -> Limits) -> String {
    match boot_script(text, limits).0.outcome {
        Outcome::BedFailed { why } => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_commands_status_and_all_of_its_output_come_through() {
    for (text, status) in [
        ("say up; seq 1 5000 >stdout; say exit 7", 7),
        ("say up; seq 1 5000 >stdout; say exit 0", 0),
    ] {
        let (ended, written) = boot_script(text, usual);
        assert!(
            matches!(ended.outcome, Outcome::Exited(code) if code == status),
            "{text}"
        );
        let expected: String = (1..=5000).map(|number| format!("{number}\n")).collect();
        assert_eq!(written, expected);
        assert_eq!(ended.instructions, Some(7));
    }
}

#[test]
fn a_machine_that_ends_before_the_command_has_no_result() {
    let why = failure("say up; echo 'test result: ok' >stdout", usual);
    assert!(
        why.starts_with("the script ended (exit status: 0) before"),
        "{why}"
    );
    // A truncated status is no status.
    let why = failure("say up; say exit", usual);
    assert!(why.contains("before the command did"), "{why}");
    let panic = "say up; echo '[  1.0] Kernel panic - not syncing: x' >console";
    assert_eq!(
        failure(panic, usual),
        "the outer kernel crashed: Kernel panic - not syncing: x"
    );
}

#[test]
fn a_command_that_writes_to_the_inits_channel_ends_nothing() {
    for (text, status) in [
        ("say up; echo exit 0 >control; say exit 7", 7),
        ("say up; echo timeout >control; say exit 0", 0),
        // A line without an end, and bytes that are no text.
        ("say up; printf 'exit 0 ' >control; say exit 7", 7),
        ("say up; printf '\\377\\n' >control; say exit 7", 7),
    ] {
        let (ended, _) = boot_script(text, usual);
        assert!(
            matches!(ended.outcome, Outcome::Exited(code) if code == status),
            "{text}: {:?}",
            ended.outcome
        );
    }
    // Such a line does not count as `alive`.
    let quick_alive = || Limits {
        alive: Duration::from_millis(500),
        ..usual()
    };
    let text = "say up; while sleep 0.1; do echo alive >control; done";
    let why = failure(text, quick_alive);
    assert!(why.contains("gave no sign of life for"), "{why}");
}

#[test]
fn an_init_that_finds_its_machine_broken_says_why() {
    let text = "say broken no such thing; say up; say exit 0";
    assert_eq!(failure(text, usual), "no such thing");
}

#[test]
fn a_command_that_failed_while_the_kernel_complained_has_that_told() {
    let (ended, _) = boot_script(
        "say up; echo '[  1.0] Oops: 0000' >console; sleep 0.2; say exit 1",
        usual,
    );
    assert!(matches!(ended.outcome, Outcome::Exited(1)));
    assert_eq!(ended.complaint.as_deref(), Some("Oops: 0000"));
    assert_eq!(ended.console, "[  1.0] Oops: 0000");
}

#[test]
fn a_machine_or_a_command_that_says_nothing_is_ended() {
    let quick_up = || Limits {
        up: Duration::from_millis(500),
        ..usual()
    };
    let why = failure("exec sleep 600", quick_up);
    assert!(
        why.starts_with("the outer kernel was not up after"),
        "{why}"
    );
    let quick_alive = || Limits {
        alive: Duration::from_millis(500),
        ..usual()
    };
    let why = failure("say up; exec sleep 600", quick_alive);
    assert!(
        why.starts_with("the outer kernel gave no sign of life for"),
        "{why}"
    );
    let quick_command = || Limits {
        command: Some(Duration::from_millis(500)),
        ..usual()
    };
    for text in [
        // By our clock, and by the init's clock.
        "say up; while sleep 0.1; do say alive; done",
        "say up; say timeout; exec sleep 600",
    ] {
        let (ended, _) = boot_script(text, quick_command);
        assert!(
            matches!(ended.outcome, Outcome::TimedOut),
            "{:?}",
            ended.outcome
        );
    }
}

#[test]
fn a_machine_that_does_not_power_off_is_ended_and_the_status_stands() {
    let quick_off = || Limits {
        off: Duration::from_millis(200),
        ..usual()
    };
    let (ended, _) = boot_script("say up; say exit 3; exec sleep 600", quick_off);
    assert!(matches!(ended.outcome, Outcome::Exited(3)));
}

#[test]
fn whole_lines_are_passed_on_and_at_the_end_what_is_left() {
    struct Pieces(Collected);
    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.write_all(bytes)?;
            self.0.write(b"|")?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    for (whole_lines, expected) in [(true, "one\n|two\n|left|"), (false, "one\ntw|o\nleft|")] {
        let collected = Collected::default();
        let mut stream = b"one\ntw".chain(&b"o\nleft"[..]);
        copy(
            &mut stream,
            Box::new(Pieces(collected.clone())),
            whole_lines,
        );
        let text = String::from_utf8(collected.take()).unwrap();
        assert_eq!(text, expected);
    }
}

#[test]
fn a_kernel_that_went_wrong_is_told_by_its_first_complaint() {
    let console = "[    1.2] all is well\n\
                   [    7.9] Kernel panic - not syncing: corrupted stack end detected inside scheduler\n\
                   [    8.0] Oops: 0000";
    assert_eq!(
        complaint(console),
        Some("Kernel panic - not syncing: corrupted stack end detected inside scheduler")
    );
    assert_eq!(complaint("[    1.2] kvm: loaded\ndebugging"), None);
}

#[test]
fn a_machine_whose_clock_stands_is_given_up_and_one_that_is_slow_is_not() {
    let standstill = Duration::from_secs(180);
    let start = Instant::now();
    let mut pulse = Pulse::new(standstill);
    let (clock, tick) = (Duration::from_secs(5), Duration::from_millis(10));
    assert!(!pulse.has_stopped(clock, start));
    assert!(!pulse.has_stopped(clock + tick, start + standstill));
    assert!(!pulse.has_stopped(clock + tick, start + standstill * 2 - tick));
    assert!(pulse.has_stopped(clock + tick, start + standstill * 2));
}

#[test]
fn a_machine_that_says_and_does_nothing_is_a_failure_of_the_bed() {
    let (_events, received) = mpsc::channel();
    let hour = Duration::from_secs(3600);
    let limits = Limits {
        unit: "s of CPU",
        up: hour,
        alive: hour,
        command: None,
        off: hour,
    };
    let verdict = watch(&received, &limits, Duration::from_millis(20), || hour / 2);
    assert!(
        matches!(&verdict, Verdict::Stalled(why) if why.contains("did nothing")),
        "{verdict:?}"
    );
}

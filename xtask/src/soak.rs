//! `cargo xtask soak`: runs the tests that repeat something, for a given time and from fresh seeds.

use crate::debuggers;
use crate::mutants;
use crate::nested::Bed;
use crate::nested::Kvm;
use crate::nested::places;
use crate::process;
use crate::system_packages::CannotHere;
use crate::test_output::Note;
use crate::test_output::Watch;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

/// Arguments of `cargo xtask soak`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The time to run, without the rest of the last test.
    #[arg(long)]
    minutes: u64,
    /// Only the tests whose name contains this text.
    #[arg(long, default_value = "")]
    only: String,
}

/// A test that repeats something for `TRAPGATE_SOAK_SECONDS`, and makes its random choices from `TRAPGATE_SEED`.
struct Member {
    place: Place,
    package: &'static str,
    /// The test program.
    program: &'static str,
    /// The full name of the test.
    test: &'static str,
}

/// The place where a test runs.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Here,
    /// The nested kvm-amd, because the test needs a Linux guest.
    Bed,
}

/// The variables that every test reads.
const SECONDS: &str = "TRAPGATE_SOAK_SECONDS";

const MEMBERS: &[Member] = &[
    counting(
        "a_hundred_thousand_continues_over_a_software_breakpoint_advance_one_turn_each_and_lose_no_tick",
    ),
    counting(
        "a_hundred_thousand_continues_over_a_debug_register_advance_one_turn_each_and_lose_no_tick",
    ),
    counting("ten_thousand_steps_stay_in_the_loop_and_lose_no_tick"),
    counting("four_vps_through_a_hundred_breakpoints_report_what_the_guest_counts"),
    counting("eight_vps_through_a_hundred_breakpoints_report_what_the_guest_counts"),
    Member {
        place: Place::Here,
        package: "conformance",
        program: "random_operations",
        test: "the_model_agrees_after_every_one_of_10_000_random_operations",
    },
    Member {
        place: Place::Bed,
        package: "trapgate",
        program: "linux_time",
        test: "its_clocks_stand_over_a_stop_and_no_watchdog_barks",
    },
    clients("gdb_counts_what_the_guest_counts_whatever_is_done_at_a_stop"),
    clients("lldb_counts_what_the_guest_counts_whatever_is_done_at_a_stop"),
];

const fn counting(test: &'static str) -> Member {
    conformance("counting", test)
}

/// Uses this machine's debuggers and newer ones.
const fn clients(test: &'static str) -> Member {
    conformance(CLIENTS, test)
}

const CLIENTS: &str = "clients";

const fn conformance(program: &'static str, test: &'static str) -> Member {
    Member {
        place: Place::Here,
        package: "conformance",
        program,
        test,
    }
}

/// All real-guest test programs, in the nested kvm-intel.
const ON_INTEL: &str = "all tests in nested kvm-intel";

/// A sample of the mutants of each folder.
const MUTANTS: &str = "a sample of mutants";
const MUTANTS_OF_EACH: usize = 5;

/// The time limit on a busy machine, with the build of Bochs.
const ALL_ON_INTEL: Duration = Duration::from_secs(90 * 60);

/// The shortest time that a test gets.
const SHORTEST: Duration = Duration::from_secs(10);

/// The time that a test may take besides its share: the build, and the shortest run on a busy machine.
const EXTRA: Duration = Duration::from_secs(15 * 60);

/// The subcommand; the result is the exit status for the process.
pub(crate) fn main(args: &Args) -> anyhow::Result<i32> {
    let mut members: Vec<&Member> = MEMBERS
        .iter()
        .filter(|member| member.test.contains(&args.only))
        .collect();
    let on_intel = ON_INTEL.contains(&args.only);
    let with_mutants = MUTANTS.contains(&args.only);
    anyhow::ensure!(
        !members.is_empty() || on_intel || with_mutants,
        "no test of the soak has a name with `{}` in it",
        args.only
    );
    let mut skips = BTreeMap::<String, u32>::new();
    if members.iter().any(|member| member.place == Place::Bed)
        && let Err(error) = Bed::provide(Kvm::Amd)
    {
        let CannotHere(reason) = error.downcast::<CannotHere>()?;
        members.retain(|member| member.place != Place::Bed);
        anyhow::ensure!(!members.is_empty() || on_intel || with_mutants, reason);
        skips.insert(reason, 1);
    }
    if members.iter().any(|member| member.program == CLIENTS)
        && let Err(error) = debuggers::provide()
    {
        // The test uses the debuggers that are available.
        let CannotHere(reason) = error.downcast::<CannotHere>()?;
        skips.insert(reason, 1);
    }
    let whole = Duration::from_secs(60 * args.minutes);
    let rounds = 2;
    let share = (whole / u32::try_from(members.len().max(1) * rounds)?).max(SHORTEST);
    let start = Instant::now();
    let mut seed = first_seed();
    let mut runs = BTreeMap::<&str, u32>::new();
    let mut failures = Vec::new();
    if on_intel {
        match all_on_intel(seed % 1_000_000, &mut skips)? {
            Ended::CannotHere => {}
            Ended::Passed => drop(runs.insert(ON_INTEL, 1)),
            Ended::Failed(why) => {
                runs.insert(ON_INTEL, 1);
                failures.push(why);
            }
        }
    }
    if with_mutants {
        let words = mutants::words(MUTANTS_OF_EACH, seed);
        println!("\n=== soak: {MUTANTS}: cargo {words}");
        *runs.entry(MUTANTS).or_default() += 1;
        if let Err(error) = process::run(process::cargo().args(words.split(' '))) {
            failures.push(format!("{error:#}; again with\n    cargo {words}"));
        }
    }
    for member in members.iter().cycle() {
        if start.elapsed() >= whole {
            break;
        }
        seed = next_seed(seed);
        println!("\n=== soak: {}, seed {seed}", member.test);
        let mut command = member.command(seed, share);
        let (sender, notes) = mpsc::channel();
        let result = process::run_watched(
            &mut command,
            share + EXTRA,
            Watch::new(std::io::stdout(), sender),
            std::io::stderr(),
        );
        let mut passed = 0;
        for note in notes {
            match note {
                Note::Skip(reason) => *skips.entry(reason).or_default() += 1,
                // The exit status of the test program reports a failed test.
                Note::Failure { .. } => {}
                Note::Counts { passed: count, .. } => passed += count,
            }
        }
        *runs.entry(member.test).or_default() += 1;
        let why = match result {
            Ok(()) if passed == member.times() => continue,
            Ok(()) => format!(
                "{passed} tests of that name were run, not {}",
                member.times()
            ),
            Err(error) => format!("{error:#}"),
        };
        failures.push(format!(
            "seed {seed}: {why}; again with\n    {}",
            member.typed(seed, share)
        ));
    }
    println!("\n=== soak: {} minutes", start.elapsed().as_secs() / 60);
    for (test, times) in &runs {
        println!("{times} x {test}");
    }
    for (reason, times) in &skips {
        println!("{times} x skipped: {reason}");
    }
    for failure in &failures {
        println!("FAILED with {failure}");
    }
    println!(
        "{} runs, {} failed",
        runs.values().sum::<u32>(),
        failures.len()
    );
    Ok(i32::from(!failures.is_empty()))
}

/// The outcome of all tests in kvm-intel.
enum Ended {
    Passed,
    Failed(String),
    CannotHere,
}

/// Runs the tests once. With the same seed they would run in the same way again.
fn all_on_intel(seed: u64, skips: &mut BTreeMap<String, u32>) -> anyhow::Result<Ended> {
    if let Err(error) = Bed::provide(Kvm::Intel) {
        let CannotHere(reason) = error.downcast::<CannotHere>()?;
        *skips.entry(reason).or_default() += 1;
        return Ok(Ended::CannotHere);
    }
    println!("\n=== soak: {ON_INTEL}, seed {seed}");
    let words = format!("xtask nested --kvm intel --seed {seed}");
    let mut command = process::cargo();
    command.args(words.split(' '));
    let (sender, notes) = mpsc::channel();
    let output = Watch::new(std::io::stdout(), sender);
    let result = process::run_watched(&mut command, ALL_ON_INTEL, output, std::io::stderr());
    for note in notes {
        if let Note::Skip(reason) = note {
            *skips.entry(reason).or_default() += 1;
        }
    }
    Ok(match result {
        Ok(()) => Ended::Passed,
        Err(error) => Ended::Failed(format!(
            "seed {seed}: {error:#}; again with\n    cargo {words}"
        )),
    })
}

impl Member {
    fn command(&self, seed: u64, share: Duration) -> Command {
        let mut command = process::cargo();
        command.args(self.words());
        for (name, value) in variables(seed, share) {
            command.env(name, value);
        }
        command
    }

    /// The number of runs: in a nested KVM, one in each KVM for which the program is meant.
    fn times(&self) -> u32 {
        match self.place {
            Place::Here => 1,
            Place::Bed => {
                let kvms = places::of(&format!("{}/{}", self.package, self.program));
                u32::try_from(kvms.len()).unwrap_or(u32::MAX)
            }
        }
    }

    /// The command that a person can type to repeat the run.
    fn typed(&self, seed: u64, share: Duration) -> String {
        let mut text = String::new();
        for (name, value) in variables(seed, share) {
            text.push_str(&format!("{name}={value} "));
        }
        text + "cargo " + &self.words().join(" ")
    }

    fn words(&self) -> Vec<String> {
        let Self {
            place,
            package,
            program,
            test,
        } = self;
        let line = match place {
            Place::Here => {
                format!("test -p {package} --test {program} -- --exact {test} --nocapture")
            }
            Place::Bed => format!("xtask nested --only {package}/{program} --filter {test}"),
        };
        line.split(' ').map(str::to_owned).collect()
    }
}

/// The time for which each test repeats its work. Zero outside of a soak, and if the variable is no number, which the tests report.
pub(crate) fn share() -> Duration {
    let value = std::env::var(SECONDS).unwrap_or_default();
    Duration::from_secs(value.parse().unwrap_or(0))
}

fn variables(seed: u64, share: Duration) -> [(&'static str, String); 2] {
    [
        ("TRAPGATE_SEED", seed.to_string()),
        (SECONDS, share.as_secs().to_string()),
    ]
}

fn first_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.subsec_nanos().into()) ^ u64::from(std::process::id()) << 32
}

/// The step and the mixing of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators").
pub(crate) fn next_seed(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_of_the_soak_exists() {
        for member in MEMBERS {
            let path = format!("{}/tests/{}", member.package, member.program);
            let files: Vec<_> = ["", "reference_vmm", "test_support"]
                .into_iter()
                .map(|group| process::workspace_root().join(group).join(&path))
                .flat_map(|path| [path.with_extension("rs"), path.join("main.rs")])
                .collect();
            let text = files
                .iter()
                .find_map(|file| std::fs::read_to_string(file).ok());
            let text = text.unwrap_or_else(|| panic!("none of {files:?} can be read"));
            assert!(
                text.contains(&format!("fn {}(", member.test)),
                "{} has no {}",
                member.program,
                member.test
            );
        }
    }

    #[test]
    fn a_failure_can_be_typed_again() {
        let typed = MEMBERS[2].typed(7, Duration::from_secs(30));
        assert_eq!(
            typed,
            "TRAPGATE_SEED=7 TRAPGATE_SOAK_SECONDS=30 cargo test -p conformance --test counting -- --exact ten_thousand_steps_stay_in_the_loop_and_lose_no_tick --nocapture"
        );
        let typed = MEMBERS[6].typed(7, Duration::from_secs(30));
        assert_eq!(
            typed,
            "TRAPGATE_SEED=7 TRAPGATE_SOAK_SECONDS=30 cargo xtask nested --only trapgate/linux_time --filter its_clocks_stand_over_a_stop_and_no_watchdog_barks"
        );
    }
}

//! `cargo xtask hunt`: one test under many timings. Each seed is a run of its own in Bochs, where the same seed gives the same run.

use super::Bed;
use super::MEMORY_MIB;
use super::Suite;
use super::boot::Collected;
use super::boot::Sink;
use super::machine::Kvm;
use super::queue;
use super::suite::TestProgram;
use crate::process;
use crate::test_output::Note;
use crate::test_output::Watch;
use anyhow::Context as _;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::mpsc;
use std::time::Instant;

/// Arguments of `cargo xtask hunt`.
#[derive(clap::Args)]
pub struct Args {
    /// A test program, as in `vp_runner/races`, or some of its tests, as in `vp_runner/races::a_break`.
    test: String,
    /// The first and the last seed.
    #[arg(long, default_value = "1..200")]
    seeds: Seeds,
    /// How many seeds to run at a time: by default as many as this machine has cores, fewer where memory is short.
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
}

/// From the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seeds {
    first: u64,
    last: u64,
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let number = |text: &str| {
            let number = text.parse::<u64>();
            number.map_err(|err| format!("`{text}` is no number ({err}); give `1..200`, or one"))
        };
        let (first, last) = (number(first)?, number(last)?);
        if last < first {
            return Err(format!(
                "{last} comes before {first}; give the lower number first"
            ));
        }
        Ok(Self { first, last })
    }
}

impl Seeds {
    fn count(self) -> anyhow::Result<usize> {
        let count = usize::try_from(self.last - self.first)?;
        count
            .checked_add(1)
            .context("there are not so many numbers")
    }
}

/// How a seed's run ended.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    /// A test failed, or was still running at the end of its time.
    Failed {
        status: i32,
        log: PathBuf,
    },
    /// Every test that was chosen skipped itself.
    Skipped(String),
}

/// The subcommand; the result is the exit status for the process.
pub fn main(args: &Args) -> anyhow::Result<i32> {
    let (program, filter) = match args.test.split_once("::") {
        Some((program, filter)) => (program, Some(filter)),
        None => (args.test.as_str(), None),
    };
    let suite = Suite::build()?.only(program, filter)?;
    let test = suite.single()?;
    let bed = Bed::provide(Kvm::Intel)?;
    let folder = process::workspace_root().join("target/hunt");
    std::fs::create_dir_all(&folder)?;
    let count = args.seeds.count()?;
    let room = args.jobs.unwrap_or_else(|| queue::room(MEMORY_MIB));
    let started = Instant::now();
    let mut failed = Vec::new();
    queue::in_parallel(
        count,
        room,
        |number| {
            let seed = args.seeds.first + number as u64;
            let log = folder.join(format!("{}-{seed}.log", test.name().replace('/', "-")));
            Ok((seed, run(&suite, test, seed, &bed, log)?))
        },
        |(seed, verdict)| match verdict {
            Verdict::Passed => println!("hunt: seed {seed} passed"),
            Verdict::Skipped(why) => println!("hunt: seed {seed} skipped: {why}"),
            Verdict::Failed { status, log } => {
                println!(
                    "hunt: seed {seed} FAILED (status {status}), its output is in {}",
                    log.display()
                );
                failed.push(seed);
            }
        },
    )?;
    failed.sort_unstable();
    let took = started.elapsed().as_secs_f64();
    println!(
        "hunt: {}: {count} seeds, {} failed, {took:.1} s",
        args.test,
        failed.len()
    );
    for seed in &failed {
        println!(
            "hunt: again: cargo xtask hunt {} --seeds {seed}..{seed}",
            args.test
        );
    }
    Ok(i32::from(!failed.is_empty()))
}

/// # Errors
/// The bed failed, or no test was run.
fn run(
    suite: &Suite,
    test: &TestProgram,
    seed: u64,
    bed: &Bed,
    log: PathBuf,
) -> anyhow::Result<Verdict> {
    let output = Collected::default();
    let (sender, notes) = mpsc::channel();
    let mut job = suite.job(test);
    job.seed = seed;
    let result = bed.run(&job, &|| {
        let sink = || -> Sink { Box::new(Watch::new(output.clone(), sender.clone())) };
        (sink(), sink())
    });
    drop(sender);
    let text = output.take();
    if !matches!(result, Ok(0)) {
        std::fs::write(&log, &text)?;
    }
    let status = result.with_context(|| format!("seed {seed}"))?;
    match status {
        0 => of_notes(notes.into_iter()),
        _ => Ok(Verdict::Failed { status, log }),
    }
}

fn of_notes(notes: impl Iterator<Item = Note>) -> anyhow::Result<Verdict> {
    let (mut ran, mut skipped) = (0, Vec::new());
    for note in notes {
        match note {
            Note::Skip(why) => skipped.push(why),
            Note::Counts { passed, failed } => ran += passed + failed,
        }
    }
    anyhow::ensure!(
        ran > 0,
        "no test has such a name; give a part of one, as in `vp_runner/races::a_break`"
    );
    let all_skipped = skipped.len() >= usize::try_from(ran)?;
    Ok(match skipped.pop() {
        Some(why) if all_skipped => Verdict::Skipped(why),
        Some(_) | None => Verdict::Passed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read_with_both_ends() {
        let seeds: Seeds = "1..200".parse().unwrap();
        assert_eq!((seeds.first, seeds.count().unwrap()), (1, 200));
        let one: Seeds = "7".parse().unwrap();
        assert_eq!((one.first, one.count().unwrap()), (7, 1));
        for wrong in ["", "a..3", "3..", "5..4", "-1..2"] {
            assert!(wrong.parse::<Seeds>().is_err(), "{wrong}");
        }
        assert!(
            Seeds {
                first: 0,
                last: u64::MAX
            }
            .count()
            .is_err()
        );
    }

    #[test]
    fn a_run_of_no_test_is_an_error_and_one_that_only_skips_is_said() {
        let counts = |passed| Note::Counts { passed, failed: 0 };
        let skip = || Note::Skip("no GDB".to_owned());
        assert!(of_notes([].into_iter()).is_err());
        assert!(of_notes([counts(0)].into_iter()).is_err());
        let verdict = |notes: Vec<Note>| of_notes(notes.into_iter()).unwrap();
        assert_eq!(verdict(vec![counts(2)]), Verdict::Passed);
        assert_eq!(verdict(vec![skip(), counts(2)]), Verdict::Passed);
        let skipped = Verdict::Skipped("no GDB".to_owned());
        assert_eq!(verdict(vec![skip(), counts(1)]), skipped);
    }
}

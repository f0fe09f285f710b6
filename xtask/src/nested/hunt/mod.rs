//! `cargo xtask hunt`: runs tests under many timings. Each seed is a run of its own in Bochs, where the same seed gives the same run.
//!
//! All named tests run in the same boot, one after the other, because a boot takes longer than many tests.

mod races;
mod seeds;
mod verdict;

use super::Bed;
use super::MEMORY_MIB;
use super::Suite;
use super::boot::Collected;
use super::boot::Sink;
use super::machine::Kvm;
use super::queue;
use super::sources;
use super::suite::Chosen;
use crate::process;
use crate::test_output::Watch;
use anyhow::Context as _;
use seeds::Seeds;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::mpsc;
use std::time::Instant;
use verdict::Verdict;

/// Tests that choose at random read this variable.
const SEED: &str = "TRAPGATE_SEED";

/// Arguments of `cargo xtask hunt`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A test program, such as `vp_runner/races`, or some of its tests, such as `vp_runner/races::a_break`; several run one after the other.
    #[arg(required_unless_present = "races")]
    tests: Vec<String>,
    /// The tests of the Guide's table of races. With TESTS, only the programs whose name contains one of them.
    #[arg(long)]
    races: bool,
    /// The first and the last seed.
    #[arg(long, default_value = "1..200")]
    seeds: Seeds,
    /// The number of seeds that run at a time. The default is the number of cores of this machine, or fewer if memory is short.
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
}

/// The subcommand; the result is the exit status for the process.
pub(crate) fn main(args: &Args) -> anyhow::Result<i32> {
    check(args)?;
    let suite = Suite::for_hunts()?;
    let batch = chosen(args, &suite)?;
    let bed = Bed::provide(Kvm::Intel)?;
    let folder = process::workspace_root().join("target/hunt");
    std::fs::create_dir_all(&folder)?;
    let count = args.seeds.count()?;
    let room = args.jobs.unwrap_or_else(|| queue::room(MEMORY_MIB));
    let words = typed(args);
    let name = words.trim_start_matches('-').replace(['/', ':', ' '], "-");
    let started = Instant::now();
    let mut failed = Vec::new();
    queue::in_parallel(
        count,
        room,
        |number| {
            let seed = args.seeds.first + number as u64;
            let log = folder.join(format!("{name}-{seed}.log"));
            Ok((seed, run(&suite, &batch, seed, &bed, &log)?, log))
        },
        |(seed, verdict, log)| match verdict {
            Verdict::Passed => println!("hunt: seed {seed} passed"),
            Verdict::Skipped(why) => println!("hunt: seed {seed} skipped: {why}"),
            Verdict::Failed(tests) => {
                println!(
                    "hunt: seed {seed} FAILED: {}; its output is in {}",
                    tests.join(", "),
                    log.display()
                );
                failed.push(seed);
            }
        },
    )?;
    failed.sort_unstable();
    let took = started.elapsed().as_secs_f64();
    println!(
        "hunt: {words}: {count} seeds, {} failed, {took:.1} s",
        failed.len()
    );
    for seed in &failed {
        println!("hunt: again: cargo xtask hunt {words} --seeds {seed}..{seed}");
    }
    Ok(i32::from(!failed.is_empty()))
}

/// The arguments that select the tests. Earlier tests are part of the timing of a test, so a seed repeats only with the same tests.
fn typed(args: &Args) -> String {
    let races = args.races.then(|| "--races".to_owned());
    let words: Vec<String> = races.into_iter().chain(args.tests.clone()).collect();
    words.join(" ")
}

fn chosen<'a>(args: &Args, suite: &'a Suite) -> anyhow::Result<Vec<Chosen<'a>>> {
    if !args.races {
        return args.tests.iter().map(|test| one(test, suite)).collect();
    }
    let wanted = |program: &str| {
        args.tests.is_empty() || args.tests.iter().any(|part| program.contains(part))
    };
    let mut batch = Vec::new();
    for (program, filters) in races::tests()? {
        if wanted(&program) {
            let program = suite.program(&program)?;
            batch.push(Chosen { program, filters });
        }
    }
    anyhow::ensure!(
        !batch.is_empty(),
        "the table of races names no test of such a program"
    );
    Ok(batch)
}

/// Looks the names up in the sources, because a build takes minutes.
fn check(args: &Args) -> anyhow::Result<()> {
    let unbuilt = Suite::unbuilt_for_hunts()?;
    for Chosen { program, filters } in chosen(args, &unbuilt)? {
        for filter in filters {
            anyhow::ensure!(
                sources::may_have(program.path(), &filter)?,
                "no test of {} has a name with `{filter}` in it; give a part of one, as in `vp_runner/races::a_break`",
                program.name()
            );
        }
    }
    Ok(())
}

fn one<'a>(test: &str, suite: &'a Suite) -> anyhow::Result<Chosen<'a>> {
    let (program, filter) = match test.split_once("::") {
        Some((program, filter)) => (program, Some(filter)),
        None => (test, None),
    };
    Ok(Chosen {
        program: suite.program(program)?,
        filters: filter.map(str::to_owned).into_iter().collect(),
    })
}

/// # Errors
/// The bed failed, or no test ran.
fn run(
    suite: &Suite,
    batch: &[Chosen<'_>],
    seed: u64,
    bed: &Bed,
    log: &Path,
) -> anyhow::Result<Verdict> {
    let output = Collected::default();
    let (sender, notes) = mpsc::channel();
    let mut job = suite.batch(batch, seed);
    if std::env::var_os(SEED).is_none() {
        job.environment.push((SEED.into(), seed.to_string().into()));
    }
    let result = bed.run(&job, &|| {
        let sink = || -> Sink { Box::new(Watch::new(output.clone(), sender.clone())) };
        (sink(), sink())
    });
    drop(sender);
    let text = output.take();
    // The log is also kept for runs that passed: it contains their length and the output of their tests.
    std::fs::write(log, &text)?;
    let status = result.with_context(|| format!("seed {seed}"))?;
    Verdict::of(status, &String::from_utf8_lossy(&text), notes.into_iter())
}

//! `cargo xtask bench --nested`: measures stops in the nested kvm-amd, beside QEMU's gdbstub.
//!
//! This program is copied into the bed with all files that it starts, and started again there. [`main`] runs outside, [`inside`] runs inside.

use super::QEMU;
use super::aims::Bound;
use super::measures;
use super::report::Report;
use super::round_trips;
use super::servers;
use super::servers::Server;
use super::stops::Spinning;
use crate::nested::Bed;
use crate::nested::Collected;
use crate::nested::Job;
use crate::nested::Kvm;
use crate::nested::Qemu;
use crate::nested::Sink;
use anyhow::Context as _;
use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

/// A round takes about 30 s. The first round also counts instructions.
const TIMEOUT: Duration = Duration::from_secs(1200);

/// Arguments of the hidden subcommand that runs in the bed.
#[derive(clap::Args)]
pub(crate) struct Inside {
    #[arg(long)]
    qemu: PathBuf,
    /// Another build of `trapgate`, which is measured in QEMU's place.
    #[arg(long)]
    before: Option<PathBuf>,
    #[arg(long)]
    kernel: PathBuf,
    #[arg(long)]
    trapgate: PathBuf,
    #[arg(long)]
    bare_step: PathBuf,
    #[arg(long)]
    step_over: PathBuf,
    #[arg(long)]
    condition_cost: PathBuf,
    #[arg(long)]
    rounds: u32,
}

/// Boots the bed and measures in it. Compares our server with QEMU, or with the build `before`.
pub(super) fn main(
    folder: &Path,
    kernel: &Path,
    rounds: u32,
    before: Option<&Path>,
) -> anyhow::Result<i32> {
    let trapgate = servers::build_trapgate()?;
    let bare_step = super::build_example("bare_step")?;
    let step_over = super::build_example("step_over")?;
    let condition_cost = super::build_example("condition_cost")?;
    let bed = Bed::provide(Kvm::Amd)?;
    let qemu = Bed::qemu()?;
    let this = std::env::current_exe()?;
    let mut files = vec![
        this.clone(),
        kernel.to_owned(),
        trapgate.clone(),
        bare_step.clone(),
        step_over.clone(),
        condition_cost.clone(),
        qemu.program(),
    ];
    for entry in std::fs::read_dir(qemu.firmware())? {
        files.push(entry?.path());
    }
    let before = before
        .map(|program| {
            std::path::absolute(program)
                .with_context(|| format!("no absolute path of {}", program.display()))
        })
        .transpose()?;
    files.extend(before.clone());
    let mut command: Vec<OsString> = vec![this.into(), "bench-inside".into()];
    for (option, value) in [
        ("--qemu", qemu.folder()),
        ("--kernel", kernel),
        ("--trapgate", &trapgate),
        ("--bare-step", &bare_step),
        ("--step-over", &step_over),
        ("--condition-cost", &condition_cost),
    ] {
        command.extend([option.into(), value.into()]);
    }
    command.extend(["--rounds".into(), rounds.to_string().into()]);
    if let Some(before) = before {
        command.extend(["--before".into(), before.into()]);
    }
    let mut job = Job::new(command, folder.to_owned(), files);
    job.timeout = TIMEOUT;
    // The server runs beside the guest, as on any host.
    job.cpus = 2;
    let errors = Collected::default();
    let code = bed.run(&job, &|| {
        (
            Box::new(std::io::stdout()) as Sink,
            Box::new(errors.clone()) as Sink,
        )
    });
    let errors = errors.take();
    let errors = String::from_utf8_lossy(&errors);
    let (json, others): (Vec<&str>, Vec<&str>) =
        errors.lines().partition(|line| line.starts_with('{'));
    for line in others {
        eprintln!("{line}");
    }
    let code = code?;
    if let Some(json) = json.last() {
        let path = folder.join("nested.json");
        std::fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))?;
        println!("written to {}", path.display());
    }
    Ok(code)
}

/// Runs in the bed: measures, prints the table, and writes the figures as one line of JSON to standard error.
pub(crate) fn inside(args: &Inside) -> anyhow::Result<i32> {
    let logs = std::env::temp_dir();
    let qemu = Qemu::at(&args.qemu);
    let other = || match &args.before {
        None => Server::qemu(qemu.command(), &args.kernel, 1, &logs),
        Some(program) => Server::before(program, &args.kernel, 1, &logs),
    };
    let ours = || {
        Server::trapgate(
            "trapgate",
            &args.trapgate,
            servers::IN_PROCESS,
            &args.kernel,
            1,
            &logs,
        )
    };
    // The server that is started first has its memory first.
    let start = |round: u32| -> anyhow::Result<[Server; 2]> {
        Ok(match round.is_multiple_of(2) {
            true => [ours()?, other()?],
            false => [other()?, ours()?],
        })
    };
    let mut report = Report::new(match &args.before {
        None => QEMU,
        Some(_) => super::BEFORE,
    });
    measure(&mut report, args, start).inspect_err(|_| show_logs(&logs))?;
    println!();
    report.print();
    if args.before.is_none() {
        reach(&report);
    }
    eprintln!("{}", serde_json::to_string(&report)?);
    Ok(0)
}

fn show_logs(logs: &Path) {
    for name in ["qemu.log", "before.log", "trapgate.log"] {
        let text = std::fs::read_to_string(logs.join(name)).unwrap_or_default();
        eprintln!("{name}:\n{text}");
    }
}

/// Each round starts the servers anew. On the emulated CPU, two processes of one program differ by up to 38 % for as long as they live (a breakpoint's round trip, 6 rounds).
/// So many short rounds say more than a few long ones: with 5 rounds of 6 turns, a build was 7 % slower than itself (`s`).
fn measure(
    report: &mut Report,
    args: &Inside,
    start: impl Fn(u32) -> anyhow::Result<[Server; 2]>,
) -> anyhow::Result<()> {
    let echo = Server::echo()?;
    let mut floor = echo.client()?;
    let mut steps = None;
    for round in 1..=args.rounds {
        println!("round {round} of {}", args.rounds);
        let servers = start(round)?;
        let mut guests = servers
            .iter()
            .map(|server| {
                Spinning::start(server)
                    .with_context(|| format!("{} does not get to the loop", server.name))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        for guest in &mut guests {
            guest.steps = steps;
        }
        floors(report, &mut floor)?;
        if args.before.is_none() {
            super::step_overs(report, &args.step_over)?;
            super::condition_costs(report, &args.condition_cost)?;
        }
        for _ in 0..TURNS {
            guests.reverse();
            report.add("s", "us", "echo", measures::floor(&mut floor, 32)?);
            for guest in &mut guests {
                let step = measures::micros(guest.client()?, measures::step)?;
                report.add("s", "us", guest.name, step);
                report.add(INTERRUPT, "us", guest.name, guest.interrupt()?);
                round_trips::of(report, guest).with_context(|| format!("with {}", guest.name))?;
            }
        }
        for guest in &mut guests {
            if guest.name != QEMU {
                runs_of(report, guest, &args.bare_step)?;
            }
        }
        steps = guests.iter().find_map(|guest| guest.steps);
    }
    Ok(())
}

fn floors(report: &mut Report, floor: &mut super::Client) -> anyhow::Result<()> {
    let one = measures::floor(floor, 32)?;
    report.add(INTERRUPT, "us", "echo", one);
    round_trips::floors(report, floor)
}

const INTERRUPT: &str = "c and Ctrl-C";
const RANGE: &str = "vCont;r, instructions";
const RANGE_SHARE: &str = "vCont;r, of the bare ioctls";
const ATTACHED: &str = "guest's rounds, attached";
const DETACHED: &str = "guest's rounds, detached";
const ATTACHED_SHARE: &str = "attached, of detached";
/// The number of comparisons in a round: of a step, of a Ctrl-C and of the round trips of breakpoints on both servers, of an attached and a detached guest, and of a range step and the bare ioctls.
const TURNS: u32 = 2;

/// Measures the rates of steps and of the running guest in pairs, because the machine is faster or slower for seconds at a time.
fn runs_of(report: &mut Report, guest: &mut Spinning<'_>, bare_step: &Path) -> anyhow::Result<()> {
    let name = guest.name;
    for turn in 0..TURNS {
        let bare = super::bare_step(bare_step)?;
        report.add("bare step, KVM_RUN alone", "us", "bare", bare.run_us);
        report.add("bare step, with debug state", "us", "bare", bare.full_us);
        let range = guest.range_steps()?;
        report.add(RANGE, "1/s", name, range);
        // The median leaves out the rare long steps. The time of a range step includes them.
        report.add(RANGE_SHARE, "%", name, range * bare.full_us / 1e6 * 100.0);
        let (attached, detached) = guest.rounds(turn)?;
        report.add(ATTACHED, "1/s", name, attached);
        report.add(DETACHED, "1/s", name, detached);
        report.add(ATTACHED_SHARE, "%", name, attached / detached * 100.0);
    }
    Ok(())
}

/// Compares the project's aims with the figures of this run.
fn reach(report: &Report) {
    let get = |name: &str, server| report.median(name, server);
    let above_floor = |name: &str, server| Some(get(name, server)? - get(name, "echo")?);
    let of_qemu = |ours: &str, theirs: &str| {
        Some(above_floor(ours, "trapgate")? / above_floor(theirs, "qemu")?)
    };
    let share = |name| get(name, "trapgate").map(|percent| percent / 100.0);
    let mut aims = vec![(
        "s above the floor, of QEMU's".to_owned(),
        of_qemu("s", "s"),
        Bound::AtMost(0.1),
    )];
    for (ours, theirs) in round_trips::names() {
        aims.push((
            format!("{ours}, of QEMU's z s Z c"),
            of_qemu(&ours, &theirs),
            Bound::AtMost(0.2),
        ));
    }
    aims.push((
        "c and Ctrl-C above the floor, of QEMU's".to_owned(),
        of_qemu(INTERRUPT, INTERRUPT),
        Bound::AtMost(1.0),
    ));
    aims.push((
        "vCont;r, of the bare ioctls' rate".to_owned(),
        share(RANGE_SHARE),
        Bound::AtLeast(0.8),
    ));
    aims.push((
        "guest's rounds attached, of detached".to_owned(),
        share(ATTACHED_SHARE),
        Bound::AtLeast(0.99),
    ));
    aims.extend(super::aims::of_conditions(report));
    println!();
    for (what, value, bound) in aims {
        println!("{what:<48} {}", bound.judge(value));
    }
}

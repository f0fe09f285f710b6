//! `cargo xtask bench`: measures the debug server and QEMU's gdbstub in one run, with the same machine, KVM, guest and client.
//!
//! The rounds of the servers are interleaved, so a drift of the machine affects all servers. The floor is the round trip of an echo server with a reply of
//! the same size.

mod aims;
mod chart;
mod cores;
mod echo;
mod elf_symbols;
mod measures;
mod nested;
mod report;
mod round_trips;
mod rsp;
mod servers;
mod stops;

use crate::debian_qemu::DebianQemu;
use crate::process;
use anyhow::Context as _;
use measures::Encoding;
pub(crate) use nested::Inside;
pub(crate) use nested::inside;
use report::Report;
use report::quantile;
use rsp::Client;
use serde::Deserialize;
use servers::Server;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// The name of `trapgate run` in the report.
const OURS: &str = "trapgate";
/// The name of QEMU's stub in the report.
const QEMU: &str = "qemu";
/// The name of `trapgate exec` around the same QEMU in the report.
const EXEC: &str = "exec";
/// The name of `trapgate` with its debug server in a process of its own in the report.
const ISOLATED: &str = "isolated";
/// The name of the other build of `trapgate` in the report.
const BEFORE: &str = "before";

/// Both guests are stopped at this symbol for the measures that need a guest in its main loop.
const STOP_AT: &str = "do_round";
const INTERRUPTED_CPUS: u32 = 8;
/// The number of parts into which the Ctrl-C stops are divided. The servers alternate between parts, because the machine is sometimes slower for seconds.
const INTERRUPT_TURNS: u32 = 10;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The number of rounds.
    #[arg(long, default_value_t = 9)]
    rounds: u32,
    /// The number of Ctrl-C stops in all rounds together.
    #[arg(long, default_value_t = 300)]
    interrupts: u32,
    /// Measure QEMU only, to test the benchmark itself.
    #[arg(long)]
    without_trapgate: bool,
    /// Measure another build of `trapgate` in QEMU's place, to compare two trees in one run.
    #[arg(long, value_name = "PROGRAM", conflicts_with = "without_trapgate")]
    before: Option<PathBuf>,
    /// Measure steps, breakpoints and Ctrl-C in the nested kvm-amd.
    #[arg(long)]
    nested: bool,
}

/// The subcommand.
pub(crate) fn main(args: &Args) -> anyhow::Result<i32> {
    if cfg!(debug_assertions) {
        return optimised();
    }
    let folder = process::target_dir().join("bench");
    std::fs::create_dir_all(&folder)?;
    let kernel = folder.join("demo-guest.elf");
    std::fs::write(&kernel, demo_guest::ELF)?;
    if args.nested {
        return nested::main(&folder, &kernel, args.rounds, args.before.as_deref());
    }
    let qemu = match &args.before {
        Some(_) => None,
        None => Some(qemu()?),
    };
    let trapgate = if args.without_trapgate {
        None
    } else {
        Some(servers::build_trapgate()?)
    };
    if let Some(qemu) = &qemu {
        println!("QEMU {}", qemu.version());
    }
    let start = |cpus: u32| -> anyhow::Result<Vec<Server>> {
        let mut servers = Vec::new();
        if let Some(qemu) = &qemu {
            servers.push(Server::qemu(qemu.command(), &kernel, cpus, &folder)?);
        }
        if let (Some(qemu), Some(program)) = (&qemu, &trapgate) {
            servers.push(Server::exec(program, qemu, &kernel, cpus, &folder)?);
        }
        if let Some(program) = &args.before {
            servers.push(Server::before(program, &kernel, cpus, &folder)?);
        }
        if let Some(program) = &trapgate {
            let mut ours = |name, options: &[&str]| -> anyhow::Result<()> {
                let server = Server::trapgate(name, program, options, &kernel, cpus, &folder)?;
                servers.push(server);
                Ok(())
            };
            if args.before.is_none() {
                ours(ISOLATED, &["--isolate=require"])?;
            }
            ours("trapgate", servers::IN_PROCESS)?;
        }
        Ok(servers)
    };

    let mut report = Report::new(match &args.before {
        Some(_) => BEFORE,
        None => QEMU,
    });
    packets(&mut report, args.rounds, &start(1)?)?;
    round_trips::here(&mut report, args.rounds, || start(1))?;
    stops(&mut report, args.interrupts, &start(INTERRUPTED_CPUS)?);
    let bare = match args.before {
        // No server takes part in these measures, so they do not compare servers.
        Some(_) => None,
        None => without_server(&mut report),
    };

    println!();
    report.print();
    if args.before.is_none() {
        aims::print(&report, bare.as_ref());
    }
    report.save(&folder.join("latest.json"))?;
    Ok(0)
}

/// The newest QEMU that is available. The bed's own is statically linked, and no library can be preloaded into it.
fn qemu() -> anyhow::Result<DebianQemu> {
    let newest = DebianQemu::all()?.pop();
    newest.context("no QEMU")
}

/// Prints the times of the ioctls and of the runner without a server.
fn without_server(report: &mut Report) -> Option<BareStep> {
    let bare = build_example("bare_step").and_then(|program| bare_step(&program));
    match &bare {
        Ok(bare) => println!(
            "bare KVM step: KVM_RUN {:.1} us, with debug state and registers {:.1} us",
            bare.run_us, bare.full_us
        ),
        Err(error) => report.missing("bare KVM step", &format!("{error:#}")),
    }
    let over = build_example("step_over").and_then(|program| step_overs(report, &program));
    if let Err(error) = over {
        report.missing("continues over a breakpoint byte", &format!("{error:#}"));
    }
    let hook = build_example("hook_cost").and_then(|program| hook_costs(report, &program));
    if let Err(error) = hook {
        report.missing("exits with the hook", &format!("{error:#}"));
    }
    let conditions =
        build_example("condition_cost").and_then(|program| condition_costs(report, &program));
    if let Err(error) = conditions {
        report.missing("conditions", &format!("{error:#}"));
    }
    bare.ok()
}

/// Starts this command again with a client that is built for release. In a debug build, the client would take most of a round trip.
fn optimised() -> anyhow::Result<i32> {
    let status = process::cargo()
        .args(["run", "--quiet", "--release", "--package", "xtask", "--"])
        .args(std::env::args_os().skip(1))
        .status()
        .context("cannot start cargo")?;
    Ok(status.code().unwrap_or(1))
}

/// Takes all measures that need only one vCPU.
fn packets(report: &mut Report, rounds: u32, servers: &[Server]) -> anyhow::Result<()> {
    let echo = Server::echo()?;
    let mut floor = echo.client()?;
    let stop_at = elf_symbols::address(demo_guest::ELF, STOP_AT)
        .with_context(|| format!("the demo guest has no symbol {STOP_AT}"))?;

    let mut sessions = Vec::new();
    let mut memory = None;
    let mut registers = 0;
    for server in servers {
        let mut client = server.client()?;
        measures::run_to(&mut client, stop_at)
            .with_context(|| format!("{} does not reach {STOP_AT}", server.name))?;
        println!(
            "{}: packets of {} bytes, acknowledgements {}",
            server.name,
            client.packet_size(),
            if client.acks() { "on" } else { "off" }
        );
        registers = client.request("g")?.len();
        let sample = Encoding::Hex.sample(&mut client)?;
        anyhow::ensure!(
            *memory.get_or_insert_with(|| sample.clone()) == sample,
            "the servers read different memory"
        );
        let bulk = bulk_sizes(&mut client);
        sessions.push((server, client, bulk));
    }

    // The last server is ours if it takes part, and its packet sizes are used.
    let floor_sizes = sessions
        .last()
        .map_or_else(Vec::new, |(_, _, bulk)| bulk.clone());
    if servers.iter().any(|server| server.name == BEFORE) {
        // Two builds with the same limits differ in the fastest size only by chance. The rows with sizes would then compare unequal sizes.
        for (_, _, bulk) in &mut sessions {
            bulk.clone_from(&floor_sizes);
        }
    }
    for round in 1..=rounds {
        println!("round {round} of {rounds}");
        // The first server finds the caches as the measures of the floor have left them.
        sessions.reverse();
        // The measures of one server follow each other, right after the floor, because the kernel moves client and server between cores from second to second.
        for (measure, packet, reply) in [("m, 8 bytes", "m100000,8", 16), ("g", "g", registers)] {
            let echoed = measures::floor(&mut floor, reply)?;
            report.add(measure, "us", "echo", echoed);
            let together = measures::floor_on_one_core(&mut floor, reply)?;
            report.add(&format!("{measure}, on one core"), "us", "echo", together);
            for (server, client, _) in &mut sessions {
                let answered = measures::micros(client, measures::request(packet))?;
                report.add(measure, "us", server.name, answered);
            }
        }
        for (measure, encoding, size) in &floor_sizes {
            let rate = measures::bulk_floor(&mut floor, *encoding, *size)?;
            report.add(measure, "MB/s", "echo", rate);
        }
        for (server, client, bulk) in &mut sessions {
            for (measure, encoding, size) in bulk {
                let rate = encoding.throughput(client, *size)?;
                report.add(measure, "MB/s", server.name, rate);
            }
        }
        report.add("s", "us", "echo", measures::floor(&mut floor, 32)?);
        for (server, client, _) in &mut sessions {
            let step = measures::micros(client, measures::step)?;
            report.add("s", "us", server.name, step);
        }
    }
    for (server, client, _) in &mut sessions {
        let percent = measures::idle_cpu(server, client)?;
        report.add("idle, of a core", "%", server.name, percent);
    }
    for (_, client, _) in sessions {
        client.detach()?;
    }
    let mut in_turn: Vec<&Server> = servers.iter().collect();
    for _ in 0..rounds {
        in_turn.reverse();
        for server in &in_turn {
            let (first, whole) = measures::attach(server)
                .with_context(|| format!("cannot attach to {} again", server.name))?;
            report.add("attach, to the first `?`", "us", server.name, first);
            report.add("attach, all of GDB's packets", "us", server.name, whole);
        }
    }
    Ok(())
}

/// The names and sizes of bulk reads: QEMU's usual 2 KiB, and for each encoding the size that is fastest on this server.
fn bulk_sizes(client: &mut Client) -> Vec<(String, Encoding, usize)> {
    let mut chosen = vec![("m, 2 KiB packets".to_owned(), Encoding::Hex, 2048)];
    for (name, encoding) in [
        ("m, best packet size", Encoding::Hex),
        ("x, best packet size", Encoding::Binary),
    ] {
        let best = encoding
            .sizes(client.packet_size())
            .into_iter()
            // A server replies with an error if it does not support `x`, or cannot send as much as it has announced.
            .filter_map(|size| Some((size, encoding.throughput(client, size).ok()?)))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((size, _)) = best {
            println!("  {name}: {size} bytes");
            chosen.push((name.to_owned(), encoding, size));
        }
    }
    chosen
}

/// Measures Ctrl-C with more vCPUs than cores. A failure of one server does not affect the other.
fn stops(report: &mut Report, times: u32, servers: &[Server]) {
    // Every session stops its guest, so no other guest uses the cores during a measure.
    let mut sessions: Vec<_> = servers
        .iter()
        .map(|server| {
            (
                server.name,
                server.client().map(|client| (client, Vec::new())),
            )
        })
        .collect();
    for turn in 0..INTERRUPT_TURNS {
        let slice = times / INTERRUPT_TURNS + u32::from(turn < times % INTERRUPT_TURNS);
        sessions.reverse();
        for (_, session) in &mut sessions {
            let Ok((client, latencies)) = session else {
                continue;
            };
            match measures::interrupts(client, slice) {
                Ok(more) => latencies.extend(more),
                Err(error) => *session = Err(error),
            }
        }
    }
    for (name, session) in sessions {
        match session {
            Ok((_, latencies)) => {
                let measure = format!("Ctrl-C, {INTERRUPTED_CPUS} vCPUs");
                for (suffix, share) in [("p50", 0.5), ("p99", 0.99)] {
                    let value = quantile(&latencies, share);
                    report.add(&format!("{measure}, {suffix}"), "us", name, value);
                }
            }
            Err(error) => {
                report.missing(&format!("Ctrl-C stops of {name}"), &format!("{error:#}"));
            }
        }
    }
}

/// The output of the example `bare_step` of `vp_runner`: ioctls without a server.
#[derive(Deserialize)]
struct BareStep {
    /// The time of `KVM_RUN`, in microseconds.
    run_us: f64,
    /// The time of `KVM_SET_GUEST_DEBUG`, `KVM_RUN` and `KVM_GET_REGS`, in microseconds.
    full_us: f64,
}

/// Builds an example of `vp_runner`, which measures without a server.
fn build_example(name: &str) -> anyhow::Result<PathBuf> {
    process::run(process::cargo().args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "trapgate-vp-runner",
        "--example",
        name,
    ]))?;
    Ok(process::target_dir().join("release/examples").join(name))
}

fn bare_step(program: &Path) -> anyhow::Result<BareStep> {
    let output = process::capture(&mut Command::new(program))?;
    let bare: BareStep = serde_json::from_str(output.trim())
        .with_context(|| format!("bare_step printed `{}`", output.trim()))?;
    Ok(bare)
}

/// The output of the example `step_over` of `vp_runner`: one line for each case.
#[derive(Deserialize)]
#[serde(untagged)]
enum StepOver {
    /// From one reported hit to the next, in microseconds.
    Hits {
        vps: u32,
        carried_out_us: f64,
        executed_us: f64,
    },
    /// Passes of a byte that nobody is told of, and counts of another VP meanwhile, in a second.
    Passes {
        how: String,
        passes_per_s: f64,
        others_counts_per_s: f64,
    },
}

fn step_overs(report: &mut Report, program: &Path) -> anyhow::Result<()> {
    let output = process::capture(&mut Command::new(program))?;
    for line in output.lines() {
        let over: StepOver =
            serde_json::from_str(line).with_context(|| format!("step_over printed `{line}`"))?;
        match over {
            StepOver::Hits {
                vps,
                carried_out_us,
                executed_us,
            } => {
                for (how, us) in [
                    ("carried out", carried_out_us),
                    ("others held", executed_us),
                ] {
                    report.add(&format!("hit to hit, {vps} VPs, {how}"), "us", OURS, us);
                }
            }
            StepOver::Passes {
                how,
                passes_per_s,
                others_counts_per_s,
            } => {
                let how = how.replace('_', " ");
                report.add(&format!("bytes passed, {how}"), "1/s", OURS, passes_per_s);
                let others = format!("the other VP meanwhile, {how}");
                report.add(&others, "1/s", OURS, others_counts_per_s);
            }
        }
    }
    Ok(())
}

/// The output of the example `condition_cost` of `vp_runner`: one line for each case.
#[derive(Deserialize)]
struct ConditionCost {
    what: String,
    /// Passes of a breakpoint in a second, by bare ioctls.
    bare_per_s: f64,
    /// Evaluations of false conditions in a second.
    conditions_per_s: f64,
    /// The median of the ratios of consecutive turns.
    ratio: f64,
}

/// The name of the ratio of a [`ConditionCost`] in the report.
fn of_condition(what: &str) -> String {
    format!("conditions, {what}, of bare")
}

fn condition_costs(report: &mut Report, program: &Path) -> anyhow::Result<()> {
    let output = process::capture(&mut Command::new(program))?;
    for line in output.lines() {
        let cost: ConditionCost = serde_json::from_str(line)
            .with_context(|| format!("condition_cost printed `{line}`"))?;
        let rate = format!("conditions, {}", cost.what);
        report.add(&rate, "1/s", "bare", cost.bare_per_s);
        report.add(&rate, "1/s", OURS, cost.conditions_per_s);
        report.add(&of_condition(&cost.what), "ratio", OURS, cost.ratio);
    }
    Ok(())
}

/// The output of the example `hook_cost` of `vp_runner`: one line for each case.
#[derive(Deserialize)]
struct HookCost {
    what: String,
    /// The time of an exit without the hook, in nanoseconds.
    bare_ns: f64,
    /// The time of an exit with the hook, in nanoseconds.
    hook_ns: f64,
    /// The median of the ratios of consecutive turns.
    ratio: f64,
}

/// The name of the ratio of a [`HookCost`] in the report.
fn of_hook(what: &str) -> String {
    format!("exits with the hook, {what}")
}

fn hook_costs(report: &mut Report, program: &Path) -> anyhow::Result<()> {
    let output = process::capture(&mut Command::new(program))?;
    for line in output.lines() {
        let cost: HookCost =
            serde_json::from_str(line).with_context(|| format!("hook_cost printed `{line}`"))?;
        let exit = format!("an exit, {}", cost.what);
        report.add(&exit, "ns", "echo", cost.bare_ns);
        report.add(&exit, "ns", "trapgate", cost.hook_ns);
        report.add(&of_hook(&cost.what), "ratio", "trapgate", cost.ratio);
    }
    Ok(())
}

/// The hidden subcommand that [`Server::echo`] starts.
pub(crate) fn serve_echo() -> anyhow::Result<i32> {
    echo::serve()?;
    Ok(0)
}

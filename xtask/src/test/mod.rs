//! `cargo xtask test`: runs everything that CI runs. A failed step does not prevent the other steps.

mod by_itself;
mod python;
mod summary;

use crate::conformance;
use crate::debian_qemu;
use crate::debian_qemu::DebianQemu;
use crate::debuggers;
use crate::dependencies;
use crate::fmt;
use crate::interface;
use crate::nested::Bed;
use crate::nested::Kvm;
use crate::nested::Suite;
use crate::packages;
use crate::process;
use crate::system_packages;
use crate::system_packages::CannotHere;
use crate::test_output::Note;
use crate::test_output::Watch;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;
use summary::Summary;
use summary::Verdict;

/// The time limit for one `cargo test`, including the build. A busy machine takes several times as long as a quiet one.
const TEST_TIMEOUT: Duration = Duration::from_secs(40 * 60);

/// The packages that the tests need: a compiler for the demo guest, both debuggers, and a VMM of others.
const TEST_PACKAGES: &[&str] = &[
    "gcc",
    "libc6-dev",
    "gdb",
    "lldb",
    "qemu-system-x86",
    "qemu-utils",
];

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only the steps whose name contains this text (may be given again).
    #[arg(long)]
    only: Vec<String>,
}

type Step = (&'static str, fn(&mut Summary) -> anyhow::Result<()>);

const STEPS: &[Step] = &[
    ("format", |_| fmt::rustfmt(true)),
    ("own lints", |_| fmt::lints()),
    ("clippy", |_| clippy()),
    ("the program by itself", |_| by_itself::program()),
    ("the core by itself", |_| by_itself::core()),
    ("without GDB", |_| by_itself::without_gdb()),
    ("docs", |_| docs()),
    ("public types", |_| interface::types()),
    ("semver", |_| interface::semver()),
    ("packages", |_| packages::check()),
    ("dependencies", |_| dependencies::check()),
    ("advisories", |_| dependencies::advisories()),
    ("debuggers", |_| {
        system_packages::ensure(TEST_PACKAGES, "debug real guests with real debuggers")
    }),
    ("newer debuggers", |_| debuggers::provide()),
    ("tests", tests),
    ("trapgate exec in newer QEMU", exec_in_newer_qemu),
    ("conformance in QEMU", |_| conformance::check()),
    ("clients in QEMU", clients_in_qemu),
    ("over the wire", over_the_wire),
    ("without a process of its own", not_isolated),
    ("run loops of a VMM", run_loops),
    ("doc tests", doc_tests),
    ("python", python::tests),
    ("loom", loom),
    ("shuttle", shuttle),
    ("nested kvm-amd", nested_amd),
    ("nested kvm-intel", nested_intel),
    ("conformance in nested QEMU", |_| {
        conformance::check_nested()
    }),
];

/// The subcommand.
pub(crate) fn main(args: &Args) -> anyhow::Result<i32> {
    let mut summary = Summary::default();
    for (name, step) in STEPS {
        if !args.only.is_empty() && !args.only.iter().any(|only| name.contains(only.as_str())) {
            continue;
        }
        println!("\n=== {name}");
        let started = Instant::now();
        let verdict = match step(&mut summary) {
            Ok(()) => Verdict::Passed,
            Err(error) => match error.downcast_ref::<CannotHere>() {
                Some(_) => Verdict::CouldNotRun(format!("{error:#}")),
                None => Verdict::Failed(format!("{error:#}")),
            },
        };
        if let Verdict::Failed(why) | Verdict::CouldNotRun(why) = &verdict {
            eprintln!("{why}");
        }
        summary.step(name, verdict, started.elapsed());
    }
    print!("\n{summary}");
    Ok(i32::from(summary.failed()))
}

fn clippy() -> anyhow::Result<()> {
    process::run(process::cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ]))
}

fn docs() -> anyhow::Result<()> {
    process::run(
        process::cargo()
            .args(["doc", "--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "--deny warnings"),
    )
}

/// Uses cargo's own test runner, which every machine has. A second way to run tests would have to be maintained.
fn tests(summary: &mut Summary) -> anyhow::Result<()> {
    cargo_test(
        process::cargo()
            .args(["test", "--workspace", "--all-targets", "--no-fail-fast"])
            // Shows the output of a test, such as a SKIP line, together with the name of the test.
            .args(["--", "--show-output"]),
        summary,
    )?;
    Ok(())
}

fn doc_tests(summary: &mut Summary) -> anyhow::Result<()> {
    cargo_test(
        process::cargo().args(["test", "--workspace", "--doc"]),
        summary,
    )?;
    Ok(())
}

/// The tests of `trapgate exec` that start QEMU, with a newer one than this machine's.
fn exec_in_newer_qemu(summary: &mut Summary) -> anyhow::Result<()> {
    let qemu = DebianQemu::newer()?;
    println!("QEMU {}", qemu.version());
    let passed = cargo_test(
        process::cargo()
            .args(["test", "--workspace", "--test", "exec"])
            .args(["--", "--show-output", "qemu"])
            .env(debian_qemu::VARIABLE, qemu.words()),
        summary,
    )?;
    anyhow::ensure!(passed > 0, "no test of `preload` has `qemu` in its path");
    Ok(())
}

/// The table of real clients, with QEMU's guest under `trapgate exec`.
fn clients_in_qemu(summary: &mut Summary) -> anyhow::Result<()> {
    cargo_test(
        process::cargo()
            .args(["test", "--workspace", "--test", "clients"])
            .args(["--", "--show-output"])
            .env(conformance::COMMAND, conformance::exec_around_qemu()?),
        summary,
    )?;
    Ok(())
}

/// The tests of the debug server again, with the VM behind a socket.
fn over_the_wire(summary: &mut Summary) -> anyhow::Result<()> {
    cargo_test(
        process::cargo()
            .args(["test", "--package", "trapgate-debug-worker", "--lib"])
            .args(["--", "--show-output"])
            .env("TRAPGATE_TEST_TRANSPORT", "wire"),
        summary,
    )?;
    Ok(())
}

/// The tests of `trapgate run` with debuggers again, with the debug server in the process of the VMM.
fn not_isolated(summary: &mut Summary) -> anyhow::Result<()> {
    cargo_test(
        process::cargo()
            .args(["test", "--package", "trapgate", "--test", "gdb"])
            .args(["--", "--show-output"])
            .env("TRAPGATE_TEST_ISOLATE", "off"),
        summary,
    )?;
    Ok(())
}

/// The test programs of vp_runner that test the guest and the debugger, and not the runner's own threads.
const ON_ANY_RUN_LOOP: &[&str] = &[
    "breakpoints",
    "debug_regs",
    "guest_debug",
    "interrupts",
    "limits",
    "many_vps",
    "races",
    "requests",
    "session",
    "sessions",
    "software",
    "software_changes",
    "step_kinds",
    "stepping",
    "task_switches",
    "time",
    "trap_flag",
];

/// The same tests with the vCPUs on run loops of a VMM, in both forms of the hook, and under the published seccomp filter.
fn run_loops(summary: &mut Summary) -> anyhow::Result<()> {
    for shape in ["run", "lock"] {
        let mut command = process::cargo();
        command
            .args(["test", "--package", "trapgate-vp-runner", "--no-fail-fast"])
            .env("TRAPGATE_TEST_LOOPS", shape);
        for program in ON_ANY_RUN_LOOP {
            command.args(["--test", program]);
        }
        cargo_test(command.args(["--", "--show-output"]), summary)?;
    }
    Ok(())
}

/// The model of the kick protocol.
fn loom(summary: &mut Summary) -> anyhow::Result<()> {
    model_check("loom", &["run_gate"], summary)
}

/// The hook, with the controller and by itself, under random schedules.
fn shuttle(summary: &mut Summary) -> anyhow::Result<()> {
    let tests = ["controller::tests::faces", "hook::tests", "hook::mailbox"];
    model_check("shuttle", &tests, summary)
}

/// Runs the tests of `vp_runner` with one of these texts in their path, with the locks and atomics of a model checker. The `--cfg` makes another build, which has a folder of its own so
/// that neither build replaces the other.
fn model_check(checker: &str, tests: &[&str], summary: &mut Summary) -> anyhow::Result<()> {
    let passed = cargo_test(
        process::cargo()
            .args(["test", "--package", "trapgate-vp-runner", "--lib"])
            .arg("--target-dir")
            .arg(process::target_dir().join(checker))
            .args(["--", "--show-output"])
            .args(tests)
            .env("RUSTFLAGS", format!("--cfg {checker}")),
        summary,
    )?;
    anyhow::ensure!(
        passed > 0,
        "no {checker} test was run: vp_runner has none whose path contains one of {tests:?}"
    );
    Ok(())
}

fn nested_amd(summary: &mut Summary) -> anyhow::Result<()> {
    nested(Kvm::Amd, "nested kvm-amd", summary)
}

fn nested_intel(summary: &mut Summary) -> anyhow::Result<()> {
    nested(Kvm::Intel, "nested kvm-intel", summary)
}

/// The test programs that are meant for this KVM. The soak runs all of them in kvm-intel too.
fn nested(kvm: Kvm, place: &'static str, summary: &mut Summary) -> anyhow::Result<()> {
    let bed = Bed::provide(kvm)?;
    bed.check_panic()?;
    let suite = Suite::unbuilt()?.meant_for(kvm).built(kvm)?;
    let failed = suite.run(&bed, None, &mut |note| summary.note(place, note))?;
    anyhow::ensure!(failed == 0, "{failed} test program(s) failed in {place}");
    Ok(())
}

/// Runs a command, shows and reads its output, and returns the number of tests that passed.
fn cargo_test(command: &mut Command, summary: &mut Summary) -> anyhow::Result<u32> {
    let (sender, notes) = mpsc::channel();
    let result = process::run_watched(
        command,
        TEST_TIMEOUT,
        Watch::new(std::io::stdout(), sender.clone()),
        Watch::new(std::io::stderr(), sender),
    );
    let mut all = 0;
    for note in notes {
        if let Note::Counts { passed, .. } = &note {
            all += passed;
        }
        summary.note("this machine", note);
    }
    result.map(|()| all)
}

//! `cargo xtask conformance`: checks the promises to a client, by packets and by GDB, with several debug servers in one run: `trapgate run`, `trapgate exec` around each
//! version of QEMU, and the stub of the same QEMU. The result is a table. `--record` writes the table into the Guide.
//!
//! The tests are `packets` and `gdb` of the package `conformance`. `test_machine::any_vmm` describes how the tests find their VMM.

mod beds;
mod outcome;
mod page;
mod programs;

use crate::debian_qemu::DebianQemu;
use crate::process;
use crate::system_packages;
use beds::Place;
use outcome::Outcome;
use page::Column;
use programs::Programs;
use std::time::Instant;

/// The variable with the command of the VMM, which the tests read.
pub(crate) const COMMAND: &str = "TRAPGATE_CONFORMANCE_VMM";

/// The test programs.
const TESTS: [&str; 2] = ["packets", "gdb"];

/// Arguments of `cargo xtask conformance`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run the tests in the nested kvm-amd too.
    #[arg(long)]
    nested: bool,
    /// Write the table into the Guide.
    #[arg(long)]
    record: bool,
}

/// A debug server, named by its VMM.
struct Server {
    /// The heading of the column, before the version of QEMU.
    heading: &'static str,
    /// The words before QEMU's command, or the whole command if no VMM follows.
    before: &'static str,
    /// The arguments after those of every QEMU. `None` if no VMM follows.
    qemu: Option<&'static str>,
    /// Whether a failed test is a defect of this project.
    ours: bool,
}

const EXEC: Server = Server {
    heading: "trapgate exec",
    before: "{trapgate} exec --wait --gdb 127.0.0.1:0 --library {library} --",
    qemu: Some(""),
    ours: true,
};

const SERVERS: [Server; 3] = [
    Server {
        heading: "trapgate run",
        before: "{trapgate} run --kernel {guest} --cpus {cpus} --memory 64M --gdb 127.0.0.1:0",
        qemu: None,
        ours: true,
    },
    EXEC,
    Server {
        heading: "QEMU's stub",
        before: "",
        qemu: Some(" -S -gdb tcp:{address}"),
        ours: false,
    },
];

impl Server {
    /// The command, with the placeholders of [`COMMAND`].
    fn command(&self, programs: &Programs, qemu: &DebianQemu) -> String {
        let mut command = self.before.replace("{library}", &programs.library);
        if let Some(arguments) = self.qemu {
            command += &format!(
                " {} -accel kvm -nodefaults -no-user-config -display none -serial stdio -smp {{cpus}} -m 64M -kernel {{guest}}{arguments}",
                qemu.words()
            );
        }
        command.trim_start().to_owned()
    }

    /// The heading of the column and the command for each version of QEMU.
    fn versions(&self, programs: &Programs) -> Vec<(String, String)> {
        let Some((installed, newer)) = programs.qemus.split_first() else {
            return Vec::new();
        };
        if self.qemu.is_none() {
            return vec![(self.heading.to_owned(), self.command(programs, installed))];
        }
        let each = [installed].into_iter().chain(newer);
        each.map(|qemu| {
            let heading = format!("{}, QEMU {}", self.heading, qemu.version());
            (heading, self.command(programs, qemu))
        })
        .collect()
    }
}

/// The subcommand; the result is the exit status for the process.
pub(crate) fn main(args: &Args) -> anyhow::Result<i32> {
    let mut places = vec![Place::here()];
    if args.nested {
        places.push(Place::bed()?);
    }
    let columns = run(&places, &SERVERS)?;
    if args.record {
        page::record(&columns)?;
    }
    let failures = faults(&columns);
    failures.iter().for_each(|line| eprintln!("{line}"));
    Ok(i32::from(!failures.is_empty()))
}

/// The command of QEMU under `trapgate exec`, for the table of real clients.
pub(crate) fn exec_around_qemu() -> anyhow::Result<String> {
    system_packages::ensure(&["qemu-system-x86", "gdb"], "run the tests in QEMU")?;
    let programs = Programs::build()?;
    Ok(EXEC.command(&programs, &programs.qemus[0]))
}

/// The step of `cargo xtask test`. The tests against `trapgate run` are in other steps, and those against QEMU's own stub show no fault of this project.
pub(crate) fn check() -> anyhow::Result<()> {
    no_faults(Place::here())
}

/// The step of `cargo xtask test` in the nested kvm-amd.
pub(crate) fn check_nested() -> anyhow::Result<()> {
    no_faults(Place::bed()?)
}

fn no_faults(place: Place) -> anyhow::Result<()> {
    let failures = faults(&run(&[place], &[EXEC])?);
    anyhow::ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// Runs all tests against these servers, and prints the table.
fn run(places: &[Place], servers: &[Server]) -> anyhow::Result<Vec<Column>> {
    system_packages::ensure(&["qemu-system-x86", "gdb"], "run the tests in QEMU")?;
    let programs = Programs::build()?;
    // The places share nothing, and the nested kvm-amd takes much longer.
    let columns = std::thread::scope(|scope| {
        let started: Vec<_> = places
            .iter()
            .map(|place| scope.spawn(|| in_place(place, servers, &programs)))
            .collect();
        let ended = started.into_iter().map(|place| place.join());
        let columns = ended.map(|columns| columns.expect("a panic has been printed"));
        columns.collect::<anyhow::Result<Vec<_>>>()
    })?;
    let columns: Vec<Column> = columns.into_iter().flatten().collect();
    println!("\n{}", page::table(&columns));
    Ok(columns)
}

/// Runs all tests against these servers in one place.
fn in_place(place: &Place, servers: &[Server], programs: &Programs) -> anyhow::Result<Vec<Column>> {
    let log = process::target_dir().join(format!("conformance-{}.log", place.name()));
    let mut columns = Vec::new();
    for server in servers {
        for (heading, command) in server.versions(programs) {
            let started = Instant::now();
            let tests = place.run(programs, &command, &log)?;
            println!(
                "conformance: {heading}, {}: {:.1} s",
                place.name(),
                started.elapsed().as_secs_f64()
            );
            columns.push(Column {
                heading,
                place: place.name(),
                ours: server.ours,
                tests,
            });
        }
    }
    Ok(columns)
}

/// The failed tests of servers that have to pass.
fn faults(columns: &[Column]) -> Vec<String> {
    let ours = columns.iter().filter(|column| column.ours);
    let failed = ours.flat_map(|column| {
        let tests = column.tests.iter();
        tests.filter_map(move |(test, outcome)| match outcome {
            Outcome::Failed(why) => Some(format!(
                "{} {}: {test} failed: {why}",
                column.heading, column.place
            )),
            Outcome::Passed | Outcome::PassedInPart(_) | Outcome::Skipped(_) => None,
        })
    });
    failed.collect()
}

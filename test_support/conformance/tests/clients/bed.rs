//! Runs cells of the table: a guest and a debugger go through the cells and report the results.

use crate::table::Combination;
use crate::table::Dimension;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;
use test_machine::amount::is_nested;
use test_machine::any_vmm::Vmm;
use test_machine::debuggers::Client;
use test_machine::debuggers::Debugger;
use test_machine::running::Running;
use test_machine::running::Silent;

const GDB_DRIVER: &str = include_str!("gdb_driver.py");
const LLDB_DRIVER: &str = include_str!("lldb_driver.py");

/// A debugger without output for this time hangs: GDB prints every stop, and the driver of LLDB prints some lines in a
/// thousand rounds.
const PATIENCE: Duration = Duration::from_secs(60);

/// In the nested bed GDB takes a minute to start if it was not in memory before.
const PATIENCE_IN_THE_BED: Duration = Duration::from_secs(300);

/// The number of the debugger's last lines that are shown with a failure.
const SHOWN: usize = 25;

/// How much of each cell is run.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub rounds: u32,
    /// The time after which a cell ends, once it has made the minimum number of rounds.
    pub seconds: u32,
    /// In a soak all rounds are made, with a separate guest and process for each cell; no cell begins after this time.
    pub soak: Option<Duration>,
}

/// A combination of the table.
pub(crate) struct Cell {
    /// The values, in the order of the dimensions.
    pub name: String,
    debugger: usize,
    values: Vec<String>,
}

/// The indexes of a cell's values behind the client.
const VCPUS: usize = 0;
const KIND: usize = 1;
const ACTION: usize = 2;
const MODE: usize = 3;

impl Cell {
    /// The first dimension is the client.
    pub(crate) fn new(dimensions: &[Dimension], combination: &Combination) -> Self {
        let mut values: Vec<String> = dimensions
            .iter()
            .zip(combination)
            .map(|(dimension, &value)| dimension[value].clone())
            .collect();
        let name = values.join(" ");
        values.remove(0);
        Self {
            name,
            debugger: combination[0],
            values,
        }
    }

    /// The parameters for the drivers, which are written in Python.
    fn as_python(&self, plan: Plan) -> String {
        let [vcpus, kind, action, mode] = [VCPUS, KIND, ACTION, MODE].map(|at| &self.values[at]);
        format!(
            "dict(name='{}', vcpus={vcpus}, kind='{kind}', action='{action}', mode='{mode}', rounds={}, seconds={})",
            self.name, plan.rounds, plan.seconds
        )
    }
}

/// The results so far.
#[derive(Default)]
struct Results {
    passed: usize,
    hits: u64,
    failures: Vec<String>,
}

/// Runs the cells.
///
/// # Panics
/// A cell failed. All cells are tried first.
pub(crate) fn run(client: Client, debuggers: &[Debugger], cells: Vec<Cell>, plan: Plan) {
    let start = Instant::now();
    let all = cells.len();
    let mut results = Results::default();
    // With fewer than a thousand rounds, starting a guest and a debugger takes longer than a cell.
    let groups = match plan.soak {
        Some(_) => cells.into_iter().map(|cell| vec![cell]).collect(),
        None => grouped(cells),
    };
    for group in groups {
        if plan.soak.is_some_and(|time| start.elapsed() >= time) {
            break;
        }
        let debugger = &debuggers[group[0].debugger];
        let mut rest = &group[..];
        while !rest.is_empty() {
            let done = session(client, debugger, rest, plan, &mut results);
            rest = &rest[done..];
        }
    }
    let Results {
        passed,
        hits,
        failures,
    } = results;
    println!(
        "{} of {all} cells, {hits} hits, {:.0} s",
        passed + failures.len(),
        start.elapsed().as_secs_f64()
    );
    assert!(
        failures.is_empty(),
        "{} of {} cells failed:\n{}",
        failures.len(),
        passed + failures.len(),
        failures.join("\n")
    );
}

fn grouped(mut cells: Vec<Cell>) -> Vec<Vec<Cell>> {
    let key = |cell: &Cell| (cell.debugger, cell.values[VCPUS].clone());
    cells.sort_by_key(key);
    let mut groups: Vec<Vec<Cell>> = Vec::new();
    for cell in cells {
        match groups.last_mut() {
            Some(group) if key(&group[0]) == key(&cell) => group.push(cell),
            _ => groups.push(vec![cell]),
        }
    }
    groups
}

/// Runs cells with one guest and one process of the debugger. Returns the number of cells that were run.
fn session(
    client: Client,
    debugger: &Debugger,
    cells: &[Cell],
    plan: Plan,
    results: &mut Results,
) -> usize {
    let vcpus: usize = cells[0].values[VCPUS].parse().expect("a number");
    let Some(mut vmm) = Vmm::start_guest(demo_guest::ELF, vcpus) else {
        return cells.len();
    };
    vmm.let_run();
    for vcpu in 1..vcpus {
        vmm.process
            .wait_for(&format!("demo guest: CPU {vcpu} is up"));
    }
    let address = &vmm.address;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = folder.path().join("driver.py");
    let mut text = format!("ADDRESS = '{address}'\nCELLS = [\n");
    for cell in cells {
        text += &format!("    {},\n", cell.as_python(plan));
    }
    text += "]\n";
    text += match client {
        Client::Gdb => GDB_DRIVER,
        Client::Lldb => LLDB_DRIVER,
    };
    std::fs::write(&script, text).expect("room for a small file");
    let mut running = Running::spawn(command(client, debugger, &script, &vmm.guest));

    let mut last = VecDeque::new();
    let (mut begun, mut ended) = (0, 0);
    let patience = match is_nested() {
        true => PATIENCE_IN_THE_BED,
        false => PATIENCE,
    };
    let why = loop {
        let line = match running.next_line(patience) {
            Ok(Some(line)) => line,
            Ok(None) => break "the debugger ended".to_owned(),
            Err(Silent) => break format!("nothing was printed for {patience:?}"),
        };
        if last.len() == SHOWN {
            last.pop_front();
        }
        last.push_back(line.clone());
        let Some(rest) = line.strip_prefix("cell ") else {
            continue;
        };
        // A cell's name contains no colon.
        let Some((name, said)) = rest.split_once(": ") else {
            continue;
        };
        if said == "begins" {
            begun += 1;
            last.clear();
        } else if let Some(ok) = said.strip_prefix("ok, ") {
            ended += 1;
            results.passed += 1;
            results.hits += number(ok, " hits");
            println!("{name}: {ok}");
            let rounds = number(ok, " rounds");
            if plan.soak.is_some() && rounds < plan.rounds.into() {
                println!(
                    "SKIP: this machine is too busy for {} rounds of `{name}` in {} s: there were {rounds}",
                    plan.rounds, plan.seconds
                );
            }
        } else if let Some(wrong) = said.strip_prefix("wrong: ") {
            ended += 1;
            let last: Vec<&str> = last.iter().map(String::as_str).collect();
            println!("{name}: WRONG, {wrong}\n    {}", last.join("\n    "));
            results.failures.push(format!("{name}: {wrong}"));
        }
    };
    if !vmm.process.is_running() {
        results
            .failures
            .push(format!("the guest is gone after {} cells", ended));
    }
    // After a cell that failed, the debugger exits, and the next cell gets another debugger.
    if ended == cells.len() || (begun == ended && ended > 0) {
        return ended;
    }
    // The cell that was in progress, or the first cell.
    let cell = &cells[ended];
    let last: Vec<String> = last.into();
    println!("{}: WRONG, {why}\n    {}", cell.name, last.join("\n    "));
    let told = last
        .iter()
        .find(|line| line.contains("internal") || line.contains("rror"))
        .cloned()
        .unwrap_or_default();
    results
        .failures
        .push(format!("{}: {why}; {told}", cell.name));
    ended + 1
}

fn number(ok: &str, of: &str) -> u64 {
    ok.split(", ")
        .find_map(|part| part.strip_suffix(of)?.parse().ok())
        .unwrap_or_default()
}

fn command(client: Client, debugger: &Debugger, script: &PathBuf, elf: &str) -> Command {
    let mut command = Command::new(&debugger.program);
    command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    if let Some(python) = &debugger.python {
        command.env("PYTHONPATH", python);
    }
    match client {
        Client::Gdb => command.args(["-nx", "-batch", "-x"]).arg(script).arg(elf),
        Client::Lldb => command
            .args(["--no-lldbinit", "--batch", "--no-use-colors", "-o"])
            .arg(format!("command script import {}", script.display()))
            .arg(elf),
    };
    command
}

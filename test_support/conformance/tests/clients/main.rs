//! Real debuggers count what the guest counts: a table of clients, vCPUs, breakpoint kinds, actions at a stop, and
//! vCPUs that run meanwhile.
//!
//! Each combination is a *cell*: some hundred stops in one session. No hit may be missing or be reported twice (the
//! drivers `gdb_driver.py` and `lldb_driver.py` explain the check), the debugger must not exit, and no command may
//! hang.
//!
//! A plain run takes so many cells that every two values meet, for a second each. A soak takes all cells in an order
//! that `TRAPGATE_SEED` selects, with a thousand rounds each, until `TRAPGATE_SOAK_SECONDS` have passed.
//! `TRAPGATE_CELLS` selects the cells whose name contains its value.

mod bed;
mod table;

use bed::Cell;
use bed::Plan;
use std::time::Duration;
use table::Dimension;
use test_machine::amount::is_nested;
use test_machine::amount::soak;
use test_machine::debuggers::Client;
use test_machine::running::kvm_here;

const VCPUS: [&str; 3] = ["2", "4", "8"];
const KINDS: [&str; 3] = ["software", "hardware", "both"];

/// The actions at a stop that `gdb_driver.py` supports.
const GDB_ACTIONS: [&str; 13] = [
    "continue",
    "commands",
    "dprintf",
    "tbreak",
    "until",
    "advance",
    "finish",
    "next",
    "step",
    "stepi",
    "thread",
    "ignore",
    "condition",
];
/// GDB's `scheduler-locking`.
const GDB_MODES: [&str; 4] = ["off", "on", "step", "replay"];

/// The actions at a stop that `lldb_driver.py` supports.
const LLDB_ACTIONS: [&str; 10] = [
    "continue",
    "callback",
    "one-shot",
    "ignore",
    "condition",
    "thread",
    "step-out",
    "step-over",
    "step-in",
    "step-inst",
];
/// The values of LLDB's `--run-mode` for steps.
const LLDB_MODES: [&str; 3] = ["all-threads", "while-stepping", "this-thread"];

#[test]
fn gdb_counts_what_the_guest_counts_whatever_is_done_at_a_stop() {
    let nested = ["continue", "next", "finish"];
    run(Client::Gdb, &GDB_ACTIONS, &GDB_MODES, &nested);
}

#[test]
fn lldb_counts_what_the_guest_counts_whatever_is_done_at_a_stop() {
    let nested = ["continue", "step-out"];
    run(Client::Lldb, &LLDB_ACTIONS, &LLDB_MODES, &nested);
}

/// `nested` contains the actions for which the nested bed has time.
fn run(client: Client, actions: &[&str], modes: &[&str], nested: &[&str]) {
    if !kvm_here() {
        return;
    }
    let debuggers = client.all();
    if debuggers.is_empty() {
        return;
    }
    let dimension =
        |values: &[&str]| -> Dimension { values.iter().map(|&value| value.to_owned()).collect() };
    let names: Vec<&str> = debuggers.iter().map(|found| found.name.as_str()).collect();
    let (vcpus, kinds, actions, modes) = match is_nested() {
        // In the nested bed everything takes a hundred times as long.
        true => (&VCPUS[..1], &KINDS[2..], nested, &modes[..1]),
        false => (&VCPUS[..], &KINDS[..], actions, modes),
    };
    let dimensions = [
        dimension(&names),
        dimension(vcpus),
        dimension(kinds),
        dimension(actions),
        dimension(modes),
    ];
    let seed = match std::env::var("TRAPGATE_SEED") {
        Ok(seed) => seed.parse().expect("TRAPGATE_SEED is a number"),
        Err(_) => 1,
    };
    let only = std::env::var("TRAPGATE_CELLS").ok();
    let (combinations, plan) = match (soak(), &only) {
        (Some(time), _) => (table::all(&dimensions, seed), Plan::soak(time)),
        (None, Some(_)) => (table::all(&dimensions, seed), Plan::short()),
        (None, None) => (table::pairs(&dimensions, seed), Plan::short()),
    };
    let mut cells: Vec<Cell> = combinations
        .iter()
        .map(|combination| Cell::new(&dimensions, combination))
        .collect();
    cells.retain(|cell| !gdb_18_loses_track(cell));
    if let Some(only) = only {
        cells.retain(|cell| cell.name.contains(&only));
        assert!(!cells.is_empty(), "TRAPGATE_CELLS={only} names no cell");
    }
    bed::run(client, &debuggers, cells, plan);
}

/// A fault of GDB 18.1: it sometimes removes its breakpoints (`z0`) for a `continue` in the commands of a breakpoint,
/// and sends `vCont;c` without inserting them again.
fn gdb_18_loses_track(cell: &Cell) -> bool {
    let loses = cell.name.starts_with("gdb-18") && cell.name.contains(" commands ");
    if loses {
        println!(
            "SKIP: {}: this GDB runs on without its breakpoints after commands that continue",
            cell.name
        );
    }
    loses
}

impl Plan {
    /// A thousand rounds of each cell. No cell begins after `time`.
    fn soak(time: Duration) -> Self {
        Self {
            rounds: 1_000,
            seconds: 600,
            soak: Some(time),
        }
    }

    /// A second for each cell, or the minimum number of rounds of a driver.
    fn short() -> Self {
        Self {
            rounds: 1_000,
            seconds: if is_nested() { 5 } else { 1 },
            soak: None,
        }
    }
}

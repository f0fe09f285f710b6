//! The project's aims against the figures of a run.

use super::BareStep;
use super::EXEC;
use super::ISOLATED;
use super::OURS;
use super::QEMU;
use super::of_condition;
use super::of_hook;
use super::report::Report;
use super::round_trips;

/// What is aimed for.
pub(super) enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// A figure without an aim.
    Free,
}

impl Bound {
    pub(super) fn judge(&self, value: Option<f64>) -> String {
        let Some(value) = value else {
            return "not measured".to_owned();
        };
        let (reached, word, bound) = match self {
            Self::AtMost(bound) => (value <= *bound, "at most", bound),
            Self::AtLeast(bound) => (value >= *bound, "at least", bound),
            Self::Free => return format!("{value:>8.3}"),
        };
        let verdict = if reached { "reached" } else { "MISSED" };
        format!("{value:>8.3}  {word} {bound}: {verdict}")
    }
}

/// What is measured, the value and the aim.
pub(super) type Aim = (String, Option<f64>, Bound);

/// Prints how this machine's figures meet the aims: `trapgate run` beside QEMU's stub, and `trapgate exec` beside the stub of the same QEMU.
pub(super) fn print(report: &Report, bare: Option<&BareStep>) {
    let mut aims = beside_qemu(report, OURS);
    aims.extend(of_the_hook(report, bare));
    aims.extend(of_conditions(report));
    aims.extend(of_isolation(report));
    aims.extend(
        beside_qemu(report, EXEC)
            .into_iter()
            .map(|(what, value, bound)| (format!("exec: {what}"), value, bound)),
    );
    println!();
    for (what, value, bound) in aims {
        println!("{what:<54} {}", bound.judge(value));
    }
}

fn ratio(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(a? / b?)
}

/// Of a server of ours.
fn beside_qemu(report: &Report, server: &'static str) -> Vec<Aim> {
    let ours = |name: &str| report.median(name, server);
    let theirs = |name: &str| report.median(name, QEMU);
    let floor = |name: &str| report.median(name, "echo");
    // `echo` has as many packets as each of the two.
    let above_floor = |name: &str, other: &str| {
        let above = Some(ours(name)? - floor(name)?);
        ratio(above, Some(theirs(other)? - floor(other)?))
    };
    let best_of_qemu = [
        "m, 2 KiB packets",
        "m, best packet size",
        "x, best packet size",
    ]
    .into_iter()
    .filter_map(theirs)
    .max_by(f64::total_cmp);
    let mut aims = vec![
        (
            "s above the floor, of QEMU's".to_owned(),
            above_floor("s", "s"),
            Bound::AtMost(0.5),
        ),
        (
            "g, of the floor".to_owned(),
            ratio(ours("g"), floor("g")),
            Bound::AtMost(1.15),
        ),
        (
            "g, of QEMU's".to_owned(),
            ratio(ours("g"), theirs("g")),
            Bound::AtMost(1.0),
        ),
        (
            "m of 8 bytes, of the floor".to_owned(),
            ratio(ours("m, 8 bytes"), floor("m, 8 bytes")),
            Bound::AtMost(1.15),
        ),
    ];
    for (name, other) in round_trips::names() {
        let what = format!("{name}, above the floor, of QEMU's z s Z c");
        aims.push((what, above_floor(&name, &other), Bound::AtMost(0.2)));
    }
    aims.extend([
        (
            "bulk m, times QEMU's in 2 KiB packets".to_owned(),
            ratio(ours("m, best packet size"), theirs("m, 2 KiB packets")),
            Bound::AtLeast(10.0),
        ),
        (
            "bulk m, times QEMU's at its best".to_owned(),
            ratio(ours("m, best packet size"), theirs("m, best packet size")),
            Bound::AtLeast(10.0),
        ),
        (
            "bulk x, times the fastest of QEMU".to_owned(),
            ratio(ours("x, best packet size"), best_of_qemu),
            Bound::AtLeast(25.0),
        ),
        (
            "bulk m, of the floor's rate".to_owned(),
            ratio(ours("m, best packet size"), floor("m, best packet size")),
            Bound::Free,
        ),
        (
            "attach with all packets, of QEMU's".to_owned(),
            ratio(
                ours("attach, all of GDB's packets"),
                theirs("attach, all of GDB's packets"),
            ),
            Bound::AtMost(1.0),
        ),
        (
            "idle, percent of a core".to_owned(),
            ours("idle, of a core"),
            Bound::AtMost(1.0),
        ),
    ]);
    aims
}

fn of_the_hook(report: &Report, bare: Option<&BareStep>) -> Vec<Aim> {
    let step = || Some(report.median("s", OURS)? - report.median("s", "echo")?);
    vec![
        (
            "s above the floor, of the bare ioctls".to_owned(),
            ratio(step(), bare.map(|bare| bare.full_us)),
            Bound::AtMost(2.0),
        ),
        (
            "an exit with the hook, of one without".to_owned(),
            report.median(&of_hook("no debugger"), OURS),
            Bound::AtMost(1.01),
        ),
        (
            "the same with a debugger attached".to_owned(),
            report.median(&of_hook("debugger attached"), OURS),
            Bound::AtMost(1.02),
        ),
    ]
}

/// False conditions, beside QEMU with a client that evaluates them, and beside a loop of bare ioctls.
pub(super) fn of_conditions(report: &Report) -> Vec<Aim> {
    let of_qemu = round_trips::conditions_of_qemu(report)
        .map(|(what, value)| (what, value, Bound::AtLeast(100.0)));
    let of_bare = ["software", "hardware"].into_iter().flat_map(|kind| {
        [("executed", 0.7), ("carried out", 1.0)].map(|(how, least)| {
            let what = format!("{kind}, {how}");
            let value = report.median(&of_condition(&what), OURS);
            let what = format!("{what}: false conditions, of the bare loop");
            (what, value, Bound::AtLeast(least))
        })
    });
    of_qemu.chain(of_bare).collect()
}

/// The debug server in a process of its own, beside the same server in the VMM.
fn of_isolation(report: &Report) -> Vec<Aim> {
    [
        ("s", Bound::AtMost(1.5)),
        ("g", Bound::AtMost(1.5)),
        ("m, 8 bytes", Bound::Free),
        ("x, best packet size", Bound::AtLeast(0.8)),
        ("m, best packet size", Bound::Free),
        ("attach, all of GDB's packets", Bound::Free),
        ("Ctrl-C, 8 vCPUs, p50", Bound::Free),
    ]
    .into_iter()
    .map(|(measure, bound)| {
        let value = ratio(
            report.median(measure, ISOLATED),
            report.median(measure, OURS),
        );
        (
            format!("isolated: {measure}, of the VMM's own"),
            value,
            bound,
        )
    })
    .collect()
}

//! A thousand breakpoints at once in a stock Linux kernel, with a workload whose results and system calls are known.
//!
//! Each kind of test is a separate program, because the nested bed boots once per program, and a new boot is the most
//! reliable.

#[path = "../linux_guest/debugger.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod debugger;

use debugger::ARGUMENT;
use debugger::CALL_NUMBER;
use debugger::Debugger;
use debugger::MARK;
use running::Running;
use std::collections::BTreeMap;
use test_machine::linux_guest::Linux;
use test_machine::running;

const BREAKPOINTS: usize = 1000;
/// The initialization code in front of `start_kernel` is smaller than this, and the gap to the code before it is
/// larger.
const INIT_TEXT: u64 = 4 << 20;

/// The number of calls of each system call in one round, by the call's number.
type Counts = BTreeMap<u64, u32>;

#[test]
fn a_thousand_breakpoints_hit_exactly_as_often_as_the_guest_makes_system_calls() {
    let Some(linux) = Linux::given() else { return };
    let (entries, others) = places(&linux);
    let all = || entries.keys().chain(&others).copied();
    println!(
        "{} system-call entries, and {} other functions to make up {BREAKPOINTS}",
        entries.len(),
        others.len()
    );
    let args = ["--gdb", "127.0.0.1:0", "--no-wait", "--cpus", "1"];
    let mut running = linux.start(&args, "trapgate.calls");
    let address = running.address();
    running.wait_for("exercise: calls 2 right");
    let mut debugger = Debugger::attach(&address);
    let text = debugger.pages(all());
    all().for_each(|address| debugger.set(0, address, 1));
    let armed = debugger.monitor("breakpoints");
    assert_eq!(armed.matches("in memory").count(), BREAKPOINTS, "{armed}");
    assert!(
        debugger.pages(all()) == text,
        "what is read shows breakpoints"
    );
    let (before, _) = follow(&mut debugger, &entries, &others);
    let (round, counts) = follow(&mut debugger, &entries, &others);
    debugger.detach();
    assert_eq!(round, before + 1);
    assert_eq!(counts, counted(&mut running, round), "round {round}");
    // The guest goes on without any breakpoint.
    running.wait_for(&format!("exercise: calls {} right", round + 3));
    let mut debugger = Debugger::attach(&address);
    assert_eq!(same(&debugger.pages(all()), &text), Ok(()));

    // The client is lost without a detach, in the middle of a round.
    all().for_each(|address| debugger.set(0, address, 1));
    let (round, _) = follow(&mut debugger, &entries, &others);
    debugger.vanish_while_it_runs();
    running.wait_for(&format!("exercise: calls {} right", round + 3));
    let mut debugger = Debugger::attach(&address);
    assert_eq!(same(&debugger.pages(all()), &text), Ok(()));
    debugger.detach();

    running.signal("INT");
    let ended = running.finish();
    for complaint in ["WRONG", "Oops", "kernel BUG", "Kernel panic"] {
        assert!(!ended.output.contains(complaint), "{}", ended.output);
    }
}

/// Every system-call entry of 64-bit programs by name, and further functions up to the number: those behind file system
/// calls, which are hit often, and the entries of 32-bit programs, which are not hit.
fn places(linux: &Linux) -> (BTreeMap<u64, String>, Vec<u64>) {
    let entries: BTreeMap<u64, String> = linux
        .functions(&|name| name.starts_with("__x64_sys_"))
        .into_iter()
        .take(BREAKPOINTS)
        .collect();
    // The kernel's initialization code is not executable any more once init runs. It is behind all other code.
    let starts = linux.functions(&|name| name == "start_kernel");
    let &(start_kernel, _) = starts.first().expect("a kernel starts somewhere");
    let is_kept = |address: u64| address + INIT_TEXT < start_kernel;
    let mut others: Vec<u64> = Vec::new();
    for prefix in ["vfs_", "__ia32_sys_", "__ia32_compat_sys_", "do_"] {
        for (address, _) in linux.functions(&|name| name.starts_with(prefix)) {
            if entries.len() + others.len() == BREAKPOINTS {
                break;
            }
            if is_kept(address) && !entries.contains_key(&address) && !others.contains(&address) {
                others.push(address);
            }
        }
    }
    assert_eq!(entries.len() + others.len(), BREAKPOINTS);
    (entries, others)
}

/// Continues over breakpoints up to the mark at the end of a round. Each hit has to be at a breakpoint. At a system
/// call's breakpoint the guest's registers have to contain that call's number. Returns the round, and the number of
/// hits of each system call.
fn follow(
    debugger: &mut Debugger,
    entries: &BTreeMap<u64, String>,
    others: &[u64],
) -> (u64, Counts) {
    let mut numbers: BTreeMap<u64, u64> = BTreeMap::new();
    let mut counts = Counts::new();
    loop {
        let at = debugger.run_into("swbreak");
        let Some(name) = entries.get(&at) else {
            assert!(others.contains(&at), "no breakpoint is at {at:#x}");
            continue;
        };
        let number = debugger.saved(CALL_NUMBER);
        assert_eq!(*numbers.entry(at).or_insert(number), number, "{name}");
        *counts.entry(number).or_default() += 1;
        if name == "__x64_sys_getpgid" {
            let round = debugger.saved(ARGUMENT) - MARK;
            println!(
                "round {round}: {} system calls met",
                counts.values().sum::<u32>()
            );
            return (round, counts);
        }
    }
}

/// The number of calls that the guest reports for this round.
fn counted(running: &mut Running, round: u64) -> Counts {
    let line = running.wait_for(&format!("exercise: calls {round} right: "));
    let (_, counts) = line.split_once("right: ").expect("counts");
    let pair = |word: &str| {
        let (number, times) = word.split_once('=')?;
        Some((number.parse().ok()?, times.parse().ok()?))
    };
    counts
        .split_whitespace()
        .map(|word| pair(word).unwrap_or_else(|| panic!("{line}")))
        .collect()
}

/// Compares the pages. The error is the first address that differs.
fn same(now: &[(u64, Vec<u8>)], before: &[(u64, Vec<u8>)]) -> Result<(), String> {
    for ((address, now), (_, before)) in now.iter().zip(before) {
        if let Some(at) = (0..now.len()).find(|at| now[*at] != before[*at]) {
            let near = at.saturating_sub(4)..(at + 8).min(now.len());
            return Err(format!(
                "at {:#x}: {:02x?}, before {:02x?}",
                address + at as u64,
                &now[near.clone()],
                &before[near]
            ));
        }
    }
    Ok(())
}

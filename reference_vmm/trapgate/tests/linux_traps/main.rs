//! A guest process that debugs itself and another process gets exactly its own traps, while software breakpoints of the
//! debugger are hit.
//!
//! Each kind of test is a separate program, because the nested bed boots once per program, and a new boot is the most
//! reliable.

#[path = "../linux_guest/debugger.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod debugger;

use debugger::CODE_SEGMENT;
use debugger::Debugger;
use running::Running;
use test_machine::linux_guest::Linux;
use test_machine::running;

/// The correct report of each round, which is the same without a debugger.
const RIGHT: &str = "int3 100 icebp 20 flag 45 watch 40 exec 20 poke 10 step 50";
/// The number of these traps with vector 3.
const INT3S: u32 = 100 + 10;
/// The number of these traps with vector 1. A breakpoint byte is stepped over where it was set.
const DEBUGS: u32 = 20 + 45 + 40 + 20 + 10 + 50;
/// The number of returns from handlers of the process's own traps.
const RETURNS: u32 = 100 + 20 + 45;
const ROUNDS: usize = 2;

/// The process waits for each stop of the process that it debugs, and for its end.
const WAITS: u32 = 1 + 40 + 20 + 2 * 10 + 50 + 1;

/// The hits in one round.
#[derive(Debug, Default, PartialEq)]
struct Met {
    int3s: u32,
    debugs: u32,
    returns: u32,
    waits: u32,
}

#[test]
fn a_process_that_debugs_gets_exactly_its_own_traps() {
    let Some(linux) = Linux::given() else { return };
    let args = ["--gdb", "127.0.0.1:0", "--no-wait", "--cpus", "1"];
    let mut running = linux.start(&args, "trapgate.traps");
    let address = running.address();
    for round in 1..=2 {
        is_right(&mut running, round);
    }

    let mut debugger = Debugger::attach(&address);
    let exc_int3 = linux.address("exc_int3");
    let exc_debug = linux.address("noist_exc_debug");
    let sigreturn = linux.address("__x64_sys_rt_sigreturn");
    // Once per round, to report that all values are right.
    let write = linux.address("__x64_sys_write");
    let wait = linux.address("__x64_sys_wait4");
    // While the debugger uses debug registers, the guest can miss its own breakpoints for a short time. With breakpoint
    // bytes it cannot.
    for place in [exc_int3, exc_debug, sigreturn, write, wait] {
        debugger.set(0, place, 1);
    }
    let next = |debugger: &mut Debugger| {
        let at = debugger.run_into("swbreak");
        let traps = at == exc_int3 || at == exc_debug;
        // The kernel has its own traps while it changes its code.
        let user = traps && debugger.saved(CODE_SEGMENT) & 3 == 3;
        (at, user)
    };
    while next(&mut debugger).0 != write {}
    for _ in 0..ROUNDS {
        let mut met = Met::default();
        loop {
            match next(&mut debugger) {
                (at, _) if at == write => break,
                (at, _) if at == sigreturn => met.returns += 1,
                (at, _) if at == wait => met.waits += 1,
                (at, user) if at == exc_int3 => met.int3s += u32::from(user),
                (at, user) if at == exc_debug => met.debugs += u32::from(user),
                (at, _) => panic!("no breakpoint is at {at:#x}"),
            }
        }
        let right = Met {
            int3s: INT3S,
            debugs: DEBUGS,
            returns: RETURNS,
            waits: WAITS,
        };
        if met != right {
            // The guest's own report has more details.
            debugger.detach();
            (3..=9).for_each(|round| is_right(&mut running, round));
            panic!("met {met:?}, the guest {right:?}");
        }
    }
    debugger.detach();

    for round in 3..=9 {
        is_right(&mut running, round);
    }
    running.signal("INT");
    let ended = running.finish();
    for complaint in ["WRONG", "Oops", "kernel BUG", "Kernel panic"] {
        assert!(!ended.output.contains(complaint), "{}", ended.output);
    }
}

#[track_caller]
fn is_right(running: &mut Running, round: u32) {
    let wanted = format!("exercise: traps {round} ");
    let line = running.line(&format!("`{wanted}`"), |line| {
        line.contains(&wanted) || line.contains("WRONG")
    });
    assert_eq!(line, format!("exercise: traps {round} right: {RIGHT}"));
}

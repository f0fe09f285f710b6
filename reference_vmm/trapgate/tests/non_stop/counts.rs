//! Each stop is told once, whatever the client does while other vCPUs run.

use crate::session::Session;
use crate::session::address_of;
use std::collections::BTreeMap;
use test_machine::amount::Amount;

/// What the client does between two stops.
#[derive(Debug, Clone, Copy)]
enum Operation {
    Continue,
    Step,
    ReadRegisters,
    ReadMemory,
    StopAnother,
    ChangeBreakpoints,
}

const OPERATIONS: [Operation; 11] = [
    Operation::Continue,
    Operation::ReadRegisters,
    Operation::Continue,
    Operation::StopAnother,
    Operation::Continue,
    Operation::Step,
    Operation::ReadMemory,
    Operation::Continue,
    Operation::ChangeBreakpoints,
    Operation::Step,
    Operation::Continue,
];

fn hits_are_what_the_guest_counts(cpus: u32, kind: &str) {
    let Some(mut session) = Session::new(cpus) else {
        return;
    };
    let do_round = address_of("do_round");
    session.ok(&format!("{kind},{do_round:x},1"));
    session.resume("c", 1);
    let amount = Amount::turns(1_500, 150);
    let mut done = 0;
    while amount.is_left(done) {
        if session.stopped.is_empty() {
            session.wait();
        }
        done += 1;
        let turn = usize::try_from(done).expect("a small number");
        let thread = session.stopped[turn % session.stopped.len()];
        match OPERATIONS[turn % OPERATIONS.len()] {
            Operation::Continue => session.resume("c", thread),
            Operation::Step => session.resume("s", thread),
            Operation::ReadRegisters => {
                session.ok(&format!("Hg{thread:x}"));
                assert!(session.packets.ask("g").len() > 100);
            }
            Operation::ReadMemory => {
                session.rounds(thread);
            }
            Operation::StopAnother => {
                let another = 1 + u32::try_from(done).expect("a small number") % cpus;
                session.ok(&format!("vCont;t:{another:x}"));
                if !session.stopped.contains(&another) {
                    session.wait();
                }
            }
            Operation::ChangeBreakpoints => {
                let elsewhere = address_of("report");
                session.ok(&format!("Z1,{elsewhere:x},1"));
                session.ok(&format!("z1,{elsewhere:x},1"));
            }
        }
    }
    session.stop_all(cpus);
    let mut all = 0;
    for thread in 1..=cpus {
        let hits = session.hits.get(&thread).copied().unwrap_or_default();
        let rounds = session.rounds(thread);
        // The thread may be in a round.
        assert!(
            hits == rounds || hits == rounds + 1,
            "thread {thread} of {cpus}, {kind}: {hits} hits, {rounds} rounds"
        );
        all += hits;
    }
    assert!(all > 10, "{all} hits");
    println!("{cpus} CPUs, {kind}: {all} hits in {done} operations");
}

#[test]
fn every_hit_is_told_once_on_one_to_eight_vcpus_with_breakpoints_of_both_kinds() {
    for cpus in [1, 2, 4, 8] {
        for kind in ["Z0", "Z1"] {
            hits_are_what_the_guest_counts(cpus, kind);
        }
    }
}

/// The others run while one is stopped and inspected.
#[test]
fn the_others_run_while_one_is_inspected() {
    let Some(mut session) = Session::new(3) else {
        return;
    };
    let do_round = address_of("do_round");
    session.ok(&format!("Z1,{do_round:x},1"));
    session.resume("c", 1);
    while !session.stopped.contains(&1) {
        session.wait();
    }
    session.ok("Hg1");
    let registers = session.packets.ask("g");
    let mine = session.rounds(1);
    let before = [2, 3].map(|other| session.rounds(other));
    // Each of the others meets the breakpoint some times, and runs on.
    let hits = session.hits.clone();
    let more = |session: &Session, other| {
        let of = |hits: &BTreeMap<u32, u64>| hits.get(&other).copied().unwrap_or_default();
        of(&session.hits) - of(&hits)
    };
    while more(&session, 2) < 6 || more(&session, 3) < 6 {
        for thread in session.stopped.clone() {
            if thread != 1 {
                session.resume("c", thread);
            }
        }
        session.wait();
    }
    for (other, before) in [2, 3].into_iter().zip(before) {
        assert!(session.rounds(other) >= before + 5, "thread {other}");
    }
    assert_eq!(session.rounds(1), mine);
    assert_eq!(session.packets.ask("g"), registers);
    // A running thread has no registers. A stop that came before the breakpoint was removed was told before, too.
    session.ok(&format!("z1,{do_round:x},1"));
    while session.packets.has_notification() {
        session.wait();
    }
    if session.stopped.contains(&2) {
        session.resume("c", 2);
    }
    session.ok("Hg2");
    assert_eq!(session.packets.ask("g"), "E10");
    assert_eq!(
        session.packets.ask("qThreadExtraInfo,2"),
        "565020313a2072756e6e696e67"
    );
}

/// The client goes while one thread is stopped and others run: no breakpoint stays, and the guest runs on.
#[test]
fn a_client_that_goes_leaves_a_guest_that_runs() {
    let Some(mut session) = Session::new(2) else {
        return;
    };
    let do_round = address_of("do_round");
    session.ok(&format!("Z0,{do_round:x},1"));
    session.resume("c", 1);
    while !session.stopped.contains(&1) {
        session.wait();
    }
    let mut session = session.reconnect();
    let bytes = session.packets.ask(&format!("m{do_round:x},1"));
    assert_ne!(bytes, "cc");
    session.ok(&format!("Z1,{do_round:x},1"));
    session.resume("c", 1);
    while session.hits.get(&1) != Some(&3) {
        session.wait();
        for thread in session.stopped.clone() {
            session.resume("c", thread);
        }
    }
}

/// A step ends once and executes one instruction, also if another vCPU stops at the same time.
#[test]
fn a_step_executes_one_instruction_while_others_stop() {
    let Some(mut session) = Session::new(4) else {
        return;
    };
    let do_round = address_of("do_round");
    session.ok(&format!("Z1,{do_round:x},1"));
    session.resume("c", 1);
    let amount = Amount::turns(300, 40);
    let mut done = 0;
    let mut path = Vec::new();
    while amount.is_left(done) {
        while !session.stopped.contains(&1) {
            let stopped = session.stopped.clone();
            stopped
                .into_iter()
                .for_each(|thread| session.resume("c", thread));
            session.wait();
        }
        done += 1;
        let mut steps = Vec::new();
        for _ in 0..6 {
            session.resume("s", 1);
            while !session.stopped.contains(&1) {
                session.wait();
                for other in session.stopped.clone() {
                    // In the first turn the others stay where they stop.
                    if other != 1 && done > 1 {
                        session.resume("c", other);
                    }
                }
            }
            steps.push(session.rip(1));
        }
        if path.is_empty() {
            path.clone_from(&steps);
        }
        assert_eq!(steps, path, "turn {done}");
        session.resume("c", 1);
    }
    assert_eq!(path[0], 1 + do_round, "{path:x?}");
    println!("{done} turns of 6 steps, {:?} hits", session.hits);
}

//! Packets of the client cross events of the guest. Afterwards both sides agree whether the guest runs, and no stop is
//! lost or reported twice.

use super::bed::Bed;
use super::bed::Client;
use super::bed::unhex;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::stop::DebugStopReason;

const WATCHED: DebugStopReason = DebugStopReason::Watchpoint {
    vp: VpIndex::new(1),
    breakpoint: Breakpoint {
        kind: BreakpointKind::Write,
        address: Gva::new(0x2000),
        len: 4,
    },
    address: Gva::new(0x2000),
};

/// Only `WATCHED` ends the next resume: no earlier interrupt ends it, and nothing was reported in between.
fn runs_until_watched(bed: &Bed, client: &mut Client) {
    bed.let_run(client);
    bed.vm.stop(WATCHED);
    let stop = client.reply();
    assert!(stop.contains("watch:2000;"), "{stop}");
}

/// The packets that GDB sends after a stop that it shows to the user.
fn shown(client: &mut Client) {
    assert_eq!(client.ask("qfThreadInfo"), "m1,2");
}

#[test]
fn an_interrupt_behind_a_stop_leaves_the_guest_stopped_and_the_next_resume_alone() {
    let bed = Bed::new();
    let mut client = bed.attach();
    runs_until_watched(&bed, &mut client);
    client.send_raw(b"\x03");
    // The reply to this packet is the next packet.
    assert_eq!(client.ask("m1,1"), "01");
    assert_eq!(bed.vm.asked("break"), 0, "a stopped guest was interrupted");
    assert_eq!(bed.vm.resumes().len(), 1, "and it was not resumed");
    shown(&mut client);
    runs_until_watched(&bed, &mut client);
}

#[test]
fn an_interrupt_behind_a_stop_that_is_not_shown_ends_the_next_resume() {
    let bed = Bed::new();
    let mut client = bed.attach();
    for round in 1..=10 {
        runs_until_watched(&bed, &mut client);
        client.send_raw(b"\x03");
        let stop = client.ask("vCont;c");
        assert!(stop.starts_with("T02"), "round {round}: {stop}");
        assert_eq!(bed.vm.asked("break"), round);
    }
    shown(&mut client);
    runs_until_watched(&bed, &mut client);
}

#[test]
fn a_hit_while_an_interrupt_is_on_its_way_is_told_instead_of_it() {
    let bed = Bed::new();
    let mut client = bed.attach();
    for _ in 0..10 {
        bed.let_run(&mut client);
        bed.vm.mute("break");
        let before = bed.vm.asked("break");
        client.send_raw(b"\x03");
        bed.vm.wait_asked_more("break", before);
        bed.vm.stop(WATCHED);
        // The interrupt reaches a guest that is already stopped.
        bed.vm.answer_muted();
        let stop = client.reply();
        assert!(stop.contains("watch:2000;"), "the hit is lost: {stop}");
        assert_eq!(client.ask("m1,1"), "01");
        shown(&mut client);
        runs_until_watched(&bed, &mut client);
    }
}

#[test]
fn interrupts_by_the_dozen_are_one_stop() {
    let bed = Bed::new();
    let mut client = bed.attach();
    for _ in 0..10 {
        bed.let_run(&mut client);
        client.send_raw(&[3; 12]);
        assert!(client.reply().starts_with("T02"));
        assert_eq!(client.ask("m1,1"), "01");
        shown(&mut client);
        runs_until_watched(&bed, &mut client);
    }
}

#[test]
fn a_resume_while_the_guest_runs_reaches_no_vm_and_loses_no_stop() {
    let bed = Bed::new();
    let mut client = bed.attach();
    bed.let_run(&mut client);
    // The fake panics if a running guest is resumed.
    for resume in ["vCont;c", "vCont;s:1"] {
        let refusal = client.ask(resume);
        assert!(refusal.starts_with('E'), "{resume}: {refusal}");
    }
    assert_eq!(bed.vm.resumes().len(), 1);
    bed.vm.stop(WATCHED);
    assert!(client.reply().contains("watch:2000;"));
    assert_eq!(client.ask("m1,1"), "01", "told once");
}

#[test]
fn what_the_vps_did_while_the_guest_ran_is_not_what_a_stop_shows() {
    let bed = Bed::new();
    let mut client = bed.attach();
    for _ in 0..2 {
        bed.let_run(&mut client);
        let running = unhex(&client.ask("qThreadExtraInfo,1"));
        assert!(running.contains("running"), "{running}");
        bed.vm.stop(WATCHED);
        assert!(client.reply().contains("watch:2000;"));
        let stopped = unhex(&client.ask("qThreadExtraInfo,1"));
        assert!(stopped.contains("halted"), "{stopped}");
    }
}

#[test]
fn a_detach_that_crosses_a_stop_ends_the_session_and_the_next_client_is_told_nothing_of_it() {
    for said in [true, false] {
        let bed = Bed::new();
        let mut client = bed.attach();
        bed.let_run(&mut client);
        let mut next = if said {
            bed.vm.stop(WATCHED);
            bed.answers_arrive();
            client.send("D");
            // The client sends this before it has read the stop reply.
            assert!(client.reply().contains("watch:2000;"));
            assert_eq!(client.reply(), "OK");
            client.expect_closed();
            bed.connect()
        } else {
            bed.vm.mute("detach");
            drop(client);
            bed.vm.wait_asked("detach");
            // The VM knows the stop, and no resume is pending.
            bed.vm.stop(WATCHED);
            bed.vm.answer_muted();
            bed.connect()
        };
        assert_eq!(bed.vm.wait_detached().len(), 1);
        next.start();
        let stop = next.ask("?");
        assert!(stop.starts_with("T02"), "another session's stop: {stop}");
        runs_until_watched(&bed, &mut next);
    }
}

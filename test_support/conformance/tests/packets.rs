//! Promises to every client, by raw packets, against any VMM. `test_machine::any_vmm` says how to name one.

use std::net::TcpStream;
use test_machine::amount::Amount;
use test_machine::any_vmm::*;
use test_machine::packets::Packets;

/// A session with a guest that has stopped in the loop, with its timer running. `None`, with the reason printed, if it
/// cannot run.
fn in_the_loop() -> Option<(Vmm, Packets<TcpStream>)> {
    let vmm = Vmm::start()?;
    let mut packets = vmm.packets();
    set(&mut packets, "Z1", LOOP);
    go(&mut packets, "c", LOOP);
    set(&mut packets, "z1", LOOP);
    Some((vmm, packets))
}

#[track_caller]
fn set(packets: &mut Packets<TcpStream>, packet: &str, address: u64) {
    let reply = packets.ask(&format!("{packet},{address:x},1"));
    assert_eq!(reply, "OK", "{packet} at {address:#x}");
}

/// Continues or steps to `rip`. Returns the number of turns.
#[track_caller]
fn go(packets: &mut Packets<TcpStream>, packet: &str, rip: u64) -> u64 {
    let reply = packets.ask(packet);
    assert!(
        reply.starts_with("T05") || reply.starts_with("S05"),
        "`{packet}` was answered `{reply}`"
    );
    let (turns, now) = turns_and_rip(packets);
    assert_eq!(
        now, rip,
        "`{packet}` ended at {now:#x}, after {turns} turns"
    );
    turns
}

fn ticks(packets: &mut Packets<TcpStream>) -> u64 {
    let reply = packets.ask(&format!("m{TICKS:x},8"));
    u64::from_str_radix(&reply, 16)
        .unwrap_or_else(|_| panic!("`m` was answered `{reply}`"))
        .swap_bytes()
}

/// The client leaves its breakpoint inserted, so the server has to pass it.
fn continues_advance_by_one_turn(kind: &str) {
    let Some((_vmm, mut packets)) = in_the_loop() else {
        return;
    };
    set(&mut packets, kind, SITE);
    let first = go(&mut packets, "c", SITE);
    let before = ticks(&mut packets);
    let amount = Amount::turns(5_000, 100);
    let mut done = 0;
    while amount.is_left(done) {
        done += 1;
        assert_eq!(go(&mut packets, "c", SITE), first + done, "continue {done}");
    }
    println!(
        "{done} continues, {} ticks meanwhile",
        ticks(&mut packets) - before
    );
}

#[test]
fn a_continue_from_a_software_breakpoint_advances_by_one_turn() {
    continues_advance_by_one_turn("Z0");
}

#[test]
fn a_continue_from_a_hardware_breakpoint_advances_by_one_turn() {
    continues_advance_by_one_turn("Z1");
}

/// The packets that GDB sends at every stop: remove the breakpoint, step, insert the breakpoint.
#[test]
fn a_client_that_removes_and_steps_and_inserts_advances_by_one_turn() {
    let Some((_vmm, mut packets)) = in_the_loop() else {
        return;
    };
    set(&mut packets, "Z0", SITE);
    let first = go(&mut packets, "c", SITE);
    let amount = Amount::turns(2_000, 50);
    let mut done = 0;
    while amount.is_left(done) {
        done += 1;
        set(&mut packets, "z0", SITE);
        go(&mut packets, "s", SITE + 1);
        set(&mut packets, "Z0", SITE);
        assert_eq!(go(&mut packets, "c", SITE), first + done, "continue {done}");
    }
    println!("{done} rounds");
}

#[test]
fn no_step_of_ten_thousand_lands_in_the_handler() {
    let Some((_vmm, mut packets)) = in_the_loop() else {
        return;
    };
    let (first, _) = turns_and_rip(&mut packets);
    let before = ticks(&mut packets);
    let amount = Amount::turns(10_000, 200);
    let mut done = 0;
    while amount.is_left(done) {
        done += 1;
        let at = IN_LOOP[usize::try_from(done % 4).unwrap()];
        assert_eq!(
            go(&mut packets, "s", at),
            first + done.div_ceil(4),
            "step {done}"
        );
    }
    let during = ticks(&mut packets) - before;
    println!("{done} steps, {during} ticks meanwhile");
    assert!(during <= 1, "{during} handlers ran inside steps");
}

/// While breakpoint bytes are in memory, reads return the guest's own bytes. Two clients later the guest has its bytes
/// back.
#[test]
fn no_byte_is_shown_to_the_client_or_left_by_one_that_is_lost() {
    let Some((vmm, mut packets)) = in_the_loop() else {
        return;
    };
    let code = format!("m{LOOP:x},7");
    assert_eq!(packets.ask(&code), "48ffc39090ebf9");
    set(&mut packets, "Z0", SITE);
    go(&mut packets, "c", SITE);
    assert_eq!(packets.ask(&code), "48ffc39090ebf9");
    // The client disconnects without `D`.
    drop(packets);
    let mut packets = vmm.packets();
    packets.ask("?");
    assert_eq!(packets.ask(&code), "48ffc39090ebf9");
    // A breakpoint left in memory would stop or kill the guest there.
    set(&mut packets, "Z1", SITE + 1);
    let turns = go(&mut packets, "c", SITE + 1);
    assert_eq!(go(&mut packets, "c", SITE + 1), turns + 1);
}

//! Ctrl-C while GDB handles a stop that it does not show.

use crate::gdb_client::guest;
use crate::gdb_client::start_gdb;

const ROUNDS: usize = 5;

/// GDB is nearly always between a stop and the next resume here, so Ctrl-C nearly always comes there.
fn every_ctrl_c_stops(breakpoint: &[&str]) {
    let Some(mut guest) = guest(&[]) else { return };
    let mut commands = breakpoint.to_vec();
    // This makes the packets visible in the log.
    commands.push("set debug remote 1");
    let rounds: Vec<_> = (0..ROUNDS)
        .map(|round| format!("echo round {round}\\n"))
        .collect();
    for round in &rounds {
        commands.extend([round, "continue"]);
    }
    commands.extend(["delete", "detach"]);
    let mut gdb = start_gdb(&guest.gdb_line(), &commands);
    for round in 0..ROUNDS {
        gdb.wait_for(&format!("round {round}"));
        for _ in 0..3 {
            gdb.wait_for("Sending packet: $vCont;c");
        }
        gdb.signal("INT");
        // One Ctrl-C is enough; no second one is sent.
        gdb.wait_for("received signal SIGINT");
    }
    gdb.wait_for("detached]");
}

#[test]
fn ctrl_c_stops_a_guest_whose_breakpoint_has_a_false_condition() {
    every_ctrl_c_stops(&["break is_prime if $rdi == -77"]);
}

#[test]
fn ctrl_c_stops_a_guest_whose_breakpoint_is_ignored_a_million_times() {
    every_ctrl_c_stops(&["break is_prime", "ignore 1 1000000"]);
}

#[test]
fn ctrl_c_stops_a_guest_with_a_dprintf() {
    every_ctrl_c_stops(&[r#"dprintf is_prime,"n = %d\n",n"#]);
}

//! GDB killed, GDB refused, and GDB on a unix socket.

use crate::gdb_client::gdb;
use crate::gdb_client::guest;
use crate::gdb_client::in_order;
use crate::gdb_client::start_gdb;
use crate::running::Running;

#[test]
fn gdb_killed_leaves_the_guest_running_and_room_for_another() {
    let Some(mut guest) = guest(&[]) else { return };
    let line = guest.gdb_line();
    // Once while the guest has stopped at a breakpoint, once while it runs.
    for commands in [
        &[
            "hbreak do_round",
            "continue",
            "echo \\nhere\\n",
            "python import time; time.sleep(100)",
        ][..],
        &["echo \\nhere\\n", "continue"],
    ] {
        let mut killed = start_gdb(&line, commands);
        killed.wait_for("here");
        killed.signal("KILL");
        let ended = killed.finish();
        assert_eq!(ended.code, None, "{}", ended.output);
    }
    let text = gdb(
        &mut guest,
        &[
            "info breakpoints",
            "p counter",
            "hbreak do_round",
            "continue",
            "continue",
            "detach",
        ],
    );
    in_order(
        &text,
        &[
            "No breakpoints",
            "$1 = ",
            "hit Breakpoint 1",
            "hit Breakpoint 1",
        ],
    );
    guest.wait_for("demo guest: CPU 1 is up");
}

#[test]
fn a_lost_gdb_ends_the_guest_where_that_is_the_policy() {
    let Some(mut guest) = guest(&["--on-disconnect", "kill"]) else {
        return;
    };
    // A guest that is resumed by `detach` or by a second session ends in neither case.
    gdb(&mut guest, &["detach"]);
    guest.wait_for("demo guest: CPU 1 is up");
    let mut lost = start_gdb(
        &guest.gdb_line(),
        &["echo \\nhere\\n", "python import time; time.sleep(100)"],
    );
    lost.wait_for("here");
    lost.signal("KILL");
    assert_eq!(guest.finish().code, Some(6));
}

#[test]
fn gdbs_kill_leaves_the_guest_running_unless_the_policy_says_otherwise() {
    for (policy, code) in [("resume", None), ("kill", Some(6))] {
        let Some(mut guest) = guest(&["--on-disconnect", policy]) else {
            return;
        };
        let text = gdb(&mut guest, &["kill"]);
        in_order(&text, &["killed"]);
        match code {
            None => {
                guest.wait_for("demo guest: CPU 1 is up");
            }
            code => assert_eq!(guest.finish().code, code),
        }
    }
}

#[test]
fn a_second_gdb_is_refused_and_the_first_does_not_notice() {
    let Some(mut guest) = guest(&[]) else { return };
    let line = guest.gdb_line();
    let mut first = start_gdb(
        &line,
        &[
            "echo \\nhere\\n",
            "hbreak do_round",
            "continue",
            "python import time; time.sleep(100)",
        ],
    );
    first.wait_for("here");
    let second = start_gdb(&line, &["info threads"]).finish();
    assert!(!second.output.contains("vCPU 0"), "{}", second.output);
    first.wait_for("hit Breakpoint 1, do_round");
}

#[test]
fn gdb_connects_to_a_unix_socket_with_the_printed_line() {
    if guest(&[]).is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let place = format!("unix:{}", folder.path().join("with space").display());
    let mut guest = Running::start(&["--gdb", &place]);
    let text = gdb(&mut guest, &["p/x $rip", "detach"]);
    in_order(&text, &["$1 = 0x100000"]);
    guest.wait_for("demo guest: boot 1");
}

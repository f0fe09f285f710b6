//! Stops other than breakpoints: resets, power-off, faults, data accesses.

use crate::gdb_client::gdb;
use crate::gdb_client::gdb_to_the_end;
use crate::gdb_client::guest;
use crate::gdb_client::in_order;
use crate::gdb_client::works_here;
use crate::packets::Packets;

#[test]
fn power_off_stops_first_and_happens_at_the_next_continue() {
    let Some(mut guest) = guest(&["--cmdline", "scenario=poweroff"]) else {
        return;
    };
    let text = gdb_to_the_end(&mut guest, &["continue", "bt", "continue"]);
    in_order(
        &text,
        &["power_off ()", "run_scenario ()", "exited normally"],
    );
    assert!(text.contains("asked to be switched off"), "{text}");
    let ended = guest.finish();
    assert_eq!(ended.code, Some(0));
    assert!(!ended.output.contains("WARN"), "{}", ended.output);
}

/// GDB steps the vCPUs with the false condition one at a time, so the thread in the server's last stop is another one.
#[test]
fn a_stop_for_power_off_or_reset_names_the_vcpu_that_asked() {
    for scenario in ["poweroff", "reset", "reset-kbd"] {
        let command_line = format!("scenario={scenario}");
        let Some(mut guest) = guest(&["--cpus", "4", "--cmdline", &command_line]) else {
            return;
        };
        let text = gdb(
            &mut guest,
            &["break do_round if 0 == 1", "continue", "thread", "kill"],
        );
        assert!(text.contains("Current thread is 1 "), "{scenario}: {text}");
        assert!(text.contains("on VP 0. `continue`"), "{scenario}: {text}");
    }
}

#[test]
fn a_panic_is_a_stop_where_asked_for_and_the_rest_is_not_where_not() {
    let Some(mut guest) = guest(&["--cpus", "1", "--cmdline", "scenario=panic,poweroff"]) else {
        return;
    };
    let text = gdb_to_the_end(
        &mut guest,
        &[
            "monitor stop-on",
            "monitor stop-on panic",
            "continue",
            "bt",
            "set var scenario = SCENARIO_RESET",
            "continue",
        ],
    );
    in_order(
        &text,
        &[
            "SIGABRT",
            "report_panic ()",
            "run_scenario ()",
            "exited normally",
        ],
    );
    // The server's text goes to another stream.
    in_order(
        &text,
        &[
            "poweroff      a stop",
            "panic         no stop",
            "poweroff      no stop",
            "panic         a stop",
            "kernel panicked on VP 0",
        ],
    );
    let ended = guest.finish();
    assert!(ended.output.contains("boot 2,"), "{}", ended.output);
    assert_eq!(ended.code, Some(0));
}

#[test]
fn a_reset_stops_first_and_breakpoints_hit_again_after_it() {
    let Some(mut guest) = guest(&["--cpus", "1", "--cmdline", "scenario=reset"]) else {
        return;
    };
    let text = gdb(
        &mut guest,
        &[
            "break do_round",
            "continue",
            "continue",
            "continue",
            "continue",
            "p counter",
            "detach",
        ],
    );
    in_order(&text, &["Breakpoint 1, do_round", "Breakpoint 1, do_round"]);
    // The server's text goes to another stream.
    assert!(text.contains("asked for a reset"), "{text}");
    guest.wait_for("demo guest: boot 2,");
}

#[test]
fn a_software_breakpoint_is_a_byte_that_gdb_never_sees() {
    let Some(mut guest) = guest(&["--cpus", "1"]) else {
        return;
    };
    let text = gdb(
        &mut guest,
        &[
            "set breakpoint always-inserted on",
            "p/x *(unsigned char *) do_round",
            "break *do_round",
            "monitor breakpoints",
            "continue",
            "p/x *(unsigned char *) do_round",
            "set $round = counter",
            "continue",
            "p counter - $round",
            "continue",
            "p counter - $round",
            "delete",
            "monitor breakpoints",
            "detach",
        ],
    );
    let byte = text
        .split("$1 = ")
        .nth(1)
        .and_then(|rest| rest.lines().next())
        .expect("the first byte");
    in_order(
        &text,
        &[
            "Breakpoint 1, ",
            &format!("$2 = {byte}"),
            "Breakpoint 1, ",
            "$3 = 1",
            "Breakpoint 1, ",
            "$4 = 2",
        ],
    );
    // GDB writes the output of `monitor` to another stream.
    in_order(
        &text,
        &["software  in memory, physical 0x", "No breakpoint is set"],
    );
}

#[test]
fn a_triple_fault_stops_with_all_state_readable() {
    let Some(mut guest) = guest(&[
        "--cpus",
        "1",
        "--no-reboot",
        "--cmdline",
        "scenario=triplefault",
    ]) else {
        return;
    };
    let text = gdb_to_the_end(
        &mut guest,
        &["continue", "bt", "p/x $idtr_limit", "x/i $pc", "continue"],
    );
    for part in ["met a triple fault", "terminated with signal SIGSEGV"] {
        assert!(text.contains(part), "{text}");
    }
    if text.contains("KVM has reset the VP") {
        in_order(&text, &["0x00000000fffffff0 in ??"]);
        println!(
            "SKIP: this host's KVM (kvm-amd) resets a vCPU at a triple fault before anybody can read its state; tested that it is said"
        );
    } else {
        in_order(&text, &["triple_fault ()", "run_scenario ()", "ud2"]);
    }
    let ended = guest.finish();
    assert_eq!(ended.code, Some(4));
    // GDB was attached.
    assert!(
        !ended.output.contains("with gdb attached"),
        "{}",
        ended.output
    );
}

#[test]
fn watchpoints_hit_or_are_refused_in_words() {
    let Some(mut guest) = guest(&["--cpus", "1"]) else {
        return;
    };
    let commands = [
        "hbreak cpu_loop",
        "continue",
        "delete",
        "watch counter",
        "continue",
        "bt 1",
        "detach",
    ];
    if works_here("data watchpoints") {
        let text = gdb(&mut guest, &commands);
        in_order(
            &text,
            &[
                "Hardware watchpoint 2: counter",
                "Old value = 0",
                "New value = 1",
                "do_round",
            ],
        );
    } else {
        println!(
            "SKIP: data watchpoints do not work on this host's KVM; tested that they are refused"
        );
        let mut client = Packets::connect(&guest.address());
        for packet in ["Z2,900000,8", "Z3,900000,8", "Z4,900000,8"] {
            let reply = client.ask(packet);
            assert!(
                reply.starts_with('E'),
                "{packet}: `{reply}`: a watchpoint that never fires was accepted"
            );
        }
        drop(client);
    }
}

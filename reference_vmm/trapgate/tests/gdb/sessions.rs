//! Typical GDB sessions.

use crate::gdb_client::gdb;
use crate::gdb_client::guest;
use crate::gdb_client::in_order;

#[test]
fn the_guest_is_held_at_its_first_instruction_with_source_lines() {
    let Some(mut guest) = guest(&[]) else { return };
    let text = gdb(
        &mut guest,
        &[
            "info threads",
            "p/x $rip",
            "info symbol $rip",
            "x/i $pc",
            "p $_siginfo",
            "detach",
        ],
    );
    in_order(
        &text,
        &[
            "pvh_start () at",
            "boot.S:",
            "* 1 ",
            "32-bit protected mode",
            "  2 ",
            "not started (waits for INIT-SIPI)",
            "$1 = 0x100000",
            "pvh_start in section .text",
            "<pvh_start>:\tcli",
        ],
    );
    // After the detach the guest runs.
    guest.wait_for("demo guest: CPU 1 is up");
}

#[test]
fn a_breakpoint_shows_where_it_is_and_how_it_got_there() {
    let Some(mut guest) = guest(&["--cpus", "1"]) else {
        return;
    };
    let text = gdb(
        &mut guest,
        &[
            "hbreak is_prime",
            "continue",
            "bt",
            "info args",
            "up",
            "info locals",
            "down",
            "finish",
            "delete",
            "next",
            "p counter",
            "set var cpus[0].primes = 4711",
            "p cpus[0]",
            "x/8i $pc",
            "info registers",
            "p/x $cr3",
            "p/x $cr0",
            "p $xmm0",
            "p $efer",
            "monitor regs",
            "detach",
        ],
    );
    in_order(
        &text,
        &[
            "Breakpoint 1, is_prime (n=",
            "#0  is_prime (n=",
            "#1  ",
            " count_primes (from=",
            "10)",
            "#2  ",
            " do_round (cpu=",
            "#3  ",
            " cpu_loop (cpu=",
            "#4  ",
            " first_cpu_main (",
            "#5  ",
            " first_cpu_64 ()",
            "n = 0",
            "found = 0",
            "Value returned is $1 = false",
            "$2 = 0",
            "primes = 4711",
            "=> 0x",
            "rip ",
            "cs             0x18",
            " = 0x103000",
            "v4_float = {",
        ],
    );
    // GDB writes this to its other output stream, so its place among the lines may vary.
    assert!(text.contains("LME LMA"), "{text}");
    assert!(
        !text.contains("#6"),
        "a backtrace ends at the assembly: {text}"
    );
}

/// GDB writes the program counter and continues, with a breakpoint inserted there.
#[test]
fn a_breakpoint_on_the_function_that_is_called_or_jumped_to_is_met() {
    let Some(mut guest) = guest(&["--cpus", "1"]) else {
        return;
    };
    let text = gdb(
        &mut guest,
        &[
            "tbreak do_round",
            "continue",
            "break *is_prime",
            "p is_prime(11)",
            // From the breakpoint itself: the program counter keeps its value.
            "p is_prime(13)",
            "info breakpoints",
            "delete",
            "tbreak *count_primes",
            "set $edi=1",
            "set $esi=5",
            "jump *count_primes",
            "kill",
        ],
    );
    in_order(
        &text,
        &[
            "Breakpoint 2, is_prime (n=11)",
            "Breakpoint 2, is_prime (n=13)",
            "breakpoint already hit 2 times",
            "Temporary breakpoint 3, count_primes (from=1, to=5)",
        ],
    );
}

#[test]
fn stepping_goes_instruction_by_instruction_and_line_by_line() {
    let Some(mut guest) = guest(&["--cpus", "1"]) else {
        return;
    };
    let text = gdb(
        &mut guest,
        &[
            "stepi",
            "p (long) $pc - (long) &pvh_start",
            "stepi",
            "p (long) $pc - (long) &pvh_start",
            "hbreak count_primes",
            "continue",
            "delete",
            "step",
            "step",
            "step",
            "bt 1",
            "finish",
            "detach",
        ],
    );
    // `cli` and `cld` have one byte each.
    in_order(
        &text,
        &[
            "$1 = 1",
            "$2 = 2",
            "Breakpoint 1, count_primes (from=",
            "is_prime (n=",
            "Value returned",
        ],
    );
}

#[test]
fn each_cpu_is_a_thread_with_its_own_registers_and_stack() {
    let Some(mut guest) = guest(&["--cpus", "4"]) else {
        return;
    };
    let text = gdb(
        &mut guest,
        &[
            "hbreak do_round if cpus_online == 4 && cpu->id == 3",
            "continue",
            "p $_thread",
            "p cpu->id",
            "thread 2",
            "bt -1",
            "thread 4",
            "bt -1",
            "thread apply all -q p/x $cr3",
            "p cpus_online",
            "detach",
        ],
    );
    in_order(
        &text,
        &[
            "do_round (cpu=",
            "$1 = 4",
            "$2 = 3",
            "Switching to thread 2",
            "Switching to thread 4",
            " next_cpu_64 ()",
        ],
    );
    assert_eq!(text.matches("= 0x103000").count(), 4, "{text}");
}

#[test]
fn detach_leaves_the_guest_running_and_another_session_finds_it_so() {
    let Some(mut guest) = guest(&[]) else { return };
    let first = gdb(
        &mut guest,
        &["hbreak do_round", "continue", "p counter", "detach"],
    );
    in_order(&first, &["hit Breakpoint 1", "$1 = ", "detached"]);
    // The guest runs on without a breakpoint of the debugger: it passes the function thousands of times.
    guest.wait_for("demo guest: 10 s, 2 CPUs");
    let second = gdb(
        &mut guest,
        &[
            "p counter > 100",
            "info threads",
            "hbreak do_round",
            "continue",
            "detach",
        ],
    );
    in_order(
        &second,
        &[
            "$1 = 1",
            "64-bit mode",
            "64-bit mode",
            "hit Breakpoint 1, do_round",
        ],
    );
    let third = gdb(
        &mut guest,
        &[
            "p $_exitcode",
            "set var scenario = SCENARIO_POWER_OFF",
            "detach",
        ],
    );
    in_order(&third, &["detached"]);
    assert_eq!(guest.finish().code, Some(0));
}

#[test]
fn a_running_guest_stops_when_asked_and_goes_on() {
    let Some(mut guest) = guest(&["--no-wait"]) else {
        return;
    };
    guest.wait_for("demo guest: CPU 1 is up");
    // `continue&` and `interrupt`: a Ctrl-C without a terminal.
    let text = gdb(
        &mut guest,
        &[
            "python import gdb, threading",
            "python threading.Timer(0.3, lambda: gdb.post_event(lambda: gdb.execute('interrupt'))).start()",
            "p counter",
            "continue",
            "p counter > $1",
            "info threads",
            "detach",
        ],
    );
    in_order(&text, &["received signal SIGINT", "$2 = 1", "* "]);
}

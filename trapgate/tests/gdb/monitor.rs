//! What `monitor` tells the person in front of GDB, and scripts that were written for QEMU.

use crate::gdb_client::gdb;
use crate::gdb_client::gdb_to_the_end;
use crate::gdb_client::guest;
use crate::gdb_client::in_order;

#[test]
fn the_monitor_commands_answer() {
    let Some(mut guest) = guest(&[]) else { return };
    let text = gdb(
        &mut guest,
        &[
            "monitor help",
            "monitor status",
            "monitor translate 0x100000",
            "monitor doctor",
            "detach",
        ],
    );
    in_order(&text, &["translate", "single step"]);
}

/// After `info threads` GDB 13 and 16 show thread 1 as selected and have told the server of thread 2.
#[test]
fn an_answer_about_a_vp_names_it_and_any_vp_can_be_asked_for() {
    let Some(mut guest) = guest(&["--cpus", "2"]) else {
        return;
    };
    let text = gdb(
        &mut guest,
        &[
            "info threads",
            "monitor mode",
            "monitor mode vp 0",
            "monitor mode vp 1",
            "monitor translate 0x100000 vp 1",
            "monitor disas vp 0",
            "monitor mode vp 2",
            "detach",
        ],
    );
    // GDB writes what `monitor` says to another stream than its own.
    let said: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("VP ") || line.starts_with("there is no VP"))
        .collect();
    assert!(
        ["VP 0: 32-bit protected mode", "VP 1: real mode"].contains(&said[0]),
        "{text}"
    );
    assert_eq!(
        said[1..5],
        [
            "VP 0: 32-bit protected mode",
            "VP 1: real mode",
            "VP 1",
            "VP 0, 32-bit protected mode",
        ],
        "{text}"
    );
    assert!(said[5].contains("this guest has 2"), "{text}");
}

#[test]
fn the_line_that_passes_a_symbol_works_as_it_is_advised() {
    let Some(mut guest) = guest(&["--cpus", "1"]) else {
        return;
    };
    let text = gdb(&mut guest, &["monitor translate do_round", "detach"]);
    let advice = text.split("a symbol or a register: ").nth(1);
    let advice = advice.and_then(|rest| rest.lines().next()).expect(&text);
    let mut guest = crate::gdb_client::guest(&["--cpus", "1"]).expect("as before");
    let text = gdb(&mut guest, &["p/x &do_round", advice, "detach"]);
    let address = text
        .split("$1 = ")
        .nth(1)
        .and_then(|rest| rest.lines().next());
    let address = address.expect("the address");
    let walk = format!("{address} -> physical {address}");
    assert!(text.contains(&walk), "{text}");
}

/// GDB gives the resume up for which it inserts breakpoints, and says the same for every reason.
#[test]
fn why_a_breakpoint_was_refused_is_said_by_the_next_command_and_kept() {
    let Some(mut guest) = guest(&["--cpus", "1"]) else {
        return;
    };
    let text = gdb(
        &mut guest,
        &[
            "hbreak *0x100010",
            "hbreak *0x100011",
            "hbreak *0x100012",
            "hbreak *0x100013",
            "hbreak *0x100014",
            "continue",
            "monitor step-irqs",
            "monitor step-irqs",
            "monitor breakpoints",
            "delete",
            "detach",
        ],
    );
    let told = text.matches("The hardware breakpoint at 0x10001");
    assert_eq!(told.count(), 1, "{text}");
    in_order(
        &text,
        &[
            "was refused: all 4 debug registers are in use",
            "Steps hold interrupts back.",
            "Steps hold interrupts back.",
            "Refused, the last one first:\n0x10001",
            "all 4 debug registers are in use",
        ],
    );
}

/// With the ways in which public scripts take the answers apart.
#[test]
fn python_finds_in_the_answers_what_scripts_for_qemu_search() {
    let Some(mut guest) = guest(&["--cpus", "1"]) else {
        return;
    };
    let text = gdb(
        &mut guest,
        &[
            "break do_round",
            "continue",
            "python import re",
            "python mon = lambda line: gdb.execute('monitor ' + line, to_string=True)",
            "python cr3 = int(re.search(r'CR3=([0-9a-f]{16})', mon('info registers'))[1], 16)",
            "python print('same CR3:', cr3 == int(gdb.parse_and_eval('(long)$cr3')))",
            "python root = int(mon('xp/gx %#x' % cr3).split(':')[1].strip(), 16)",
            "python print('a present root entry:', root & 1)",
            "python line = mon('info mem').splitlines()[0]",
            "python print('mapped from', int(line[:line.index('-')], 16), 'r' in line[line.rindex(' '):])",
            "python page = mon('info tlb').splitlines()[0].split(':')",
            "python print('first page', int(page[0], 16), int(page[1].split()[0], 16), len(page[1].split()[1]))",
            "python print('gpa', int(mon('gva2gpa 0x100000').split(' ')[-1], 16))",
            "python print('ram', re.search(r'-([0-9a-f]+) \\(prio 0, ram\\)', mon('info mtree -f'))[1])",
            "python print('gdt', re.search(r'GDT\\s*=\\s*(\\S+) (\\S+)', mon('info registers')).groups() != None)",
            "delete",
            "detach",
        ],
    );
    in_order(
        &text,
        &[
            "same CR3: True",
            "a present root entry: 1",
            "mapped from 0 True",
            "first page 0 0 9",
            "gpa 1048576",
            "ram 000000001fffffff",
            "gdt True",
        ],
    );
}

#[test]
fn quit_ends_the_guest_whatever_becomes_of_it_when_a_client_is_lost() {
    let Some(mut guest) = guest(&["--on-disconnect", "resume"]) else {
        return;
    };
    let text = gdb_to_the_end(&mut guest, &["monitor quit", "disconnect"]);
    assert!(text.contains("The guest has been ended"), "{text}");
    let ended = guest.finish();
    assert_eq!(ended.code, Some(6), "{}", ended.output);
    assert!(ended.output.contains("the debugger ended the guest"));
}

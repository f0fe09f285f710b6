//! The output of `monitor` for people, and for scripts that were written for QEMU.

use crate::gdb_client::gdb;
use crate::gdb_client::gdb_to_the_end;
use crate::gdb_client::guest;
use crate::gdb_client::in_order;
use crate::gdb_client::start_gdb;

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

/// After `info threads` GDB 13 and 16 show thread 1 as selected, but have selected thread 2 at the server.
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
    // GDB writes the output of `monitor` to another stream than its own.
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

/// GDB gives up the resume for which it inserts breakpoints, and prints the same text for every reason.
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
            "Refused breakpoints, with the last one first:\n0x10001",
            "all 4 debug registers are in use",
        ],
    );
}

/// Frames, code and values that GDB shows after the word `here`, without GDB's messages.
fn shown(text: &str) -> Vec<String> {
    let wanted = |line: &&str| {
        ["#", "=> ", "$"]
            .iter()
            .any(|start| line.starts_with(start))
    };
    let (_, after) = text.split_once("\nhere\n").expect(text);
    after.lines().filter(wanted).map(str::to_owned).collect()
}

#[test]
fn gdb_opens_a_dump_and_shows_what_it_showed_of_the_guest() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().to_str().expect("a plain path");
    let Some(mut guest) = guest(&["--dump-dir", place, "--memory", "64M"]) else {
        return;
    };
    let look = [
        "echo \\nhere\\n",
        "thread 1",
        "bt",
        "x/2i $pc",
        "p counter",
        "p cpus[0]",
        "p cpus[1]",
        "p $rsp",
        "p $eflags",
        "p $xmm1.v2_int64",
        "p $mxcsr",
        "p/x *(long *) $rsp@4",
        "thread 2",
        "bt",
        "x/2i $pc",
        "p $rdi",
    ];
    let begin = [
        "hbreak do_round",
        "continue",
        "continue",
        "set var $xmm1.v2_int64[0] = 0x1122334455667788",
        "monitor dump one",
        "monitor dump one",
        "monitor dump ../two",
    ];
    let elf = guest.gdb_line();
    let elf = elf.rsplit(' ').next().expect("a file").to_owned();
    let end = ["delete", "detach"];
    let live = gdb(&mut guest, &[&begin[..], &look, &end].concat());
    assert!(
        live.contains("one exists, and a dump does not overwrite a file"),
        "{live}"
    );
    assert!(
        live.contains("`../two` cannot be the name of a dump"),
        "{live}"
    );
    let open = format!("gdb {elf} {place}/one");
    let saved = start_gdb(&open, &[&look[..], &["info threads"]].concat()).finish();
    let saved = saved.output;
    in_order(&saved, &["  1 ", "LWP 1", "* 2 ", "LWP 2"]);
    let (live, saved) = (shown(&live), shown(&saved));
    assert!(live.len() >= 12, "{live:?}");
    assert_eq!(live, saved);
}

#[test]
fn without_a_folder_there_is_no_dump() {
    let Some(mut guest) = guest(&["--cpus", "1"]) else {
        return;
    };
    let text = gdb(&mut guest, &["monitor dump one", "detach"]);
    assert!(
        text.contains("VP 0: a dump is a file on the VMM's machine"),
        "{text}"
    );
    assert!(text.contains("--dump-dir"), "{text}");
}

/// With the expressions by which public scripts parse the answers.
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
    assert!(
        text.contains("The guest and this debug session have ended"),
        "{text}"
    );
    let ended = guest.finish();
    assert_eq!(ended.code, Some(6), "{}", ended.output);
    assert!(ended.output.contains("the debugger ended the guest"));
}

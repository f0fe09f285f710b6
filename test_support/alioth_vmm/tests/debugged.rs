//! alioth of crates.io under GDB, up to the end of its guest.

use object::Object as _;
use object::ObjectSymbol as _;
use std::io::Write as _;
use std::process::ChildStdin;
use test_machine::gdb_client::gdb_here;
use test_machine::packets::Packets;
use test_machine::packets::packet;
use test_machine::running::Running;
use test_machine::running::kvm_here;
use test_machine::running::program;
use test_machine::typed_gdb::TypedGdb;

/// alioth with two vCPUs, both of which run. `None`, with the reason printed, if this host has no KVM.
fn alioth() -> Option<(Running, ChildStdin)> {
    if !kvm_here() {
        return None;
    }
    let mut command = program("alioth_vmm");
    command.args([demo_guest::ELF_PATH, "2"]);
    let (mut vmm, input) = Running::spawn_with_input(command);
    vmm.wait_for("demo guest: CPU 1 is up");
    Some((vmm, input))
}

/// The guest switches itself off, and alioth ends.
#[track_caller]
fn power_off((vmm, mut input): (Running, ChildStdin)) {
    writeln!(input, "q").expect("the VMM reads");
    ends(vmm);
}

#[track_caller]
fn ends(vmm: Running) {
    let ended = vmm.finish();
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    assert!(ended.output.contains("demo guest: power off"));
    assert!(ended.output.contains("vmm: the guest has ended"));
}

fn address_of(name: &str) -> u64 {
    let file = object::File::parse(demo_guest::ELF).expect("an ELF file");
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name));
    symbol.expect("a symbol of the demo guest").address()
}

#[test]
fn gdb_breaks_steps_and_reads_on_both_vcpus_and_detaches() {
    if !gdb_here() {
        return;
    }
    let Some(mut alioth) = alioth() else { return };
    let mut gdb = TypedGdb::connect(demo_guest::ELF, &alioth.0.address());
    let mut ids = Vec::new();
    for thread in [1, 2] {
        gdb.say(&format!("break do_round thread {thread}"));
        for _ in 0..3 {
            let hit = gdb.say("continue");
            assert!(hit.contains(", do_round (cpu="), "{hit}");
            let threads = gdb.say("info threads");
            assert!(threads.contains(&format!("* {thread}")), "{threads}");
            let id = gdb.say("print cpu->id");
            let id = id.split(" = ").nth(1).and_then(|id| id.lines().next());
            ids.push(id.map(str::to_owned).expect("a value"));
            let stepped = gdb.say("stepi");
            assert!(stepped.contains("0x"), "{stepped}");
            let registers = gdb.say("info registers rip cr0");
            assert!(registers.contains("do_round+"), "{registers}");
            // PG, WP, ET and PE, with or without the caches.
            assert!(registers.contains("0010011 "), "{registers}");
            let up = gdb.say("backtrace");
            assert!(up.contains("cpu_loop ("), "{up}");
        }
        gdb.say("delete");
    }
    assert!(gdb.say("detach").contains("detached"));
    assert_eq!(ids, ["0", "0", "0", "1", "1", "1"]);
    power_off(alioth);
}

#[test]
fn packets_break_step_and_write_memory_and_a_power_off_waits_for_the_debugger() {
    let Some((mut vmm, _input)) = alioth() else {
        return;
    };
    let mut packets = Packets::connect(&vmm.address());
    packets.ask("qSupported:swbreak+;hwbreak+");
    let do_round = address_of("do_round");
    assert_eq!(packets.ask(&format!("Z0,{do_round:x},1")), "OK");
    let mut seen = [false; 2];
    while seen != [true; 2] {
        let stop = packets.ask("vCont;c");
        let thread = stop.split("thread:").nth(1).expect("a thread");
        let thread = thread.split(';').next().expect("its number");
        seen[usize::from(thread != "1" && !thread.ends_with(".1"))] = true;
        let stop = packets.ask(&format!("vCont;s:{thread}"));
        assert!(stop.starts_with("T05"), "{stop}");
    }
    assert_eq!(packets.ask(&format!("z0,{do_round:x},1")), "OK");
    // SCENARIO_POWER_OFF.
    let scenario = address_of("scenario");
    assert_eq!(packets.ask(&format!("M{scenario:x},4:01000000")), "OK");
    assert_eq!(packets.ask(&format!("m{scenario:x},4")), "01000000");
    let mut stop = packets.ask("vCont;c");
    // The server's text for the user comes first.
    while stop.starts_with('O') {
        stop = packets.reply().expect("the session goes on");
    }
    // GDB's number of SIGQUIT.
    assert!(stop.starts_with("T03"), "{stop}");
    packets.send_raw(&packet(b"vCont;c"));
    ends(vmm);
}

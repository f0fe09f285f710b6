//! A guest that QEMU has paused (`-S`, `stop`): a debugger attaches, looks, sets breakpoints and continues, and the guest stops there once QEMU lets it run.

use crate::bed::monitor;
use crate::bed::qemu::Qemu;
use crate::bed::qemu::rip;
use crate::bed::qemu::start;
use crate::bed::qemu::start_with;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;
use test_machine::amount::is_nested;
use test_machine::gdb_client::gdb_here;
use test_machine::gdb_client::in_order;
use test_machine::gdb_client::start_gdb;
use test_machine::packets::Packets;
use test_machine::packets::packet;
use test_machine::running::DEADLINE;

/// Far less than the 5 s after which a debugger is refused.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The first instruction of a PC after power-on.
const POWER_ON: u64 = 0xffff_fff0;

/// Whether the bed can run a guest that QEMU has started paused and that stops at a debug register: QEMU 10.0.2 with TCG, which is the emulator of the nested bed, ends
/// with SIGSEGV then.
fn bed_can_stop_it() -> bool {
    if is_nested() {
        println!(
            "SKIP: the emulator of the nested bed ends with SIGSEGV when a guest that began paused stops at a debug register; run this test on a host with KVM"
        );
    }
    !is_nested()
}

/// Attaches, and checks that the guest is stopped at once.
#[track_caller]
fn attach(qemu: &mut Qemu) -> Packets<TcpStream> {
    let since = Instant::now();
    let mut packets = qemu.vmm.packets();
    let stop = packets.ask("?");
    assert!(stop.starts_with("T0"), "{stop}");
    assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
    packets
}

/// GDB steps past a breakpoint at which the guest stands, so this one is where the first instruction jumps to.
#[test]
fn gdb_breaks_in_the_firmware_of_a_guest_that_qemu_starts_paused() {
    if !bed_can_stop_it() {
        return;
    }
    let Some(mut qemu) = start_with(&[], &["-S"]) else {
        return;
    };
    if !gdb_here() {
        return;
    }
    let line = format!("{} {}", qemu.vmm.process.gdb_line(), qemu.guest());
    let mut gdb = start_gdb(
        &line,
        &[
            "p/x $pc",
            "info threads",
            "monitor status",
            "x/1xb 0xffff0",
            "hbreak *0xfe05b",
            "hbreak do_round",
            "echo continues\\n",
            "continue",
            "p/x $pc",
            "delete 1",
            "continue",
            "p/x $pc == (unsigned long)&do_round",
            "info threads",
            "detach",
        ],
    );
    gdb.wait_for("continues");
    qemu.at_once("cont");
    let ended = gdb.finish();
    in_order(
        &ended.output,
        &[
            "$1 = 0xfffffff0",
            "held by the VMM",
            "held by the VMM",
            "0xffff0:\t0xea",
            "continues",
            "Breakpoint 1, ",
            "$2 = 0xfe05b",
            "Breakpoint 2, do_round",
            "$3 = 0x1",
            "detached",
        ],
    );
    qemu.at_once("query-status");
}

#[test]
fn a_guest_that_qemu_starts_paused_is_interrupted_and_left_before_it_runs() {
    if !bed_can_stop_it() {
        return;
    }
    let Some(mut qemu) = start_with(&[], &["-S"]) else {
        return;
    };
    let mut packets = attach(&mut qemu);
    assert_eq!(rip(&mut packets), POWER_ON);
    assert!(monitor(&mut packets, "status").contains("held by the VMM"));
    let frozen = monitor(&mut packets, "freeze-time on");
    assert!(frozen.contains("the VMM owns the clocks"), "{frozen}");
    // Ctrl-C works while `continue` waits for QEMU.
    packets.send_raw(&packet(b"c"));
    packets.send_raw(&[3]);
    let stop = packets.reply().expect("a stop");
    assert!(stop.starts_with("T02"), "{stop}");
    assert_eq!(rip(&mut packets), POWER_ON);
    // QEMU may write registers of its own after it, so a change is refused.
    let refused = packets.ask("P10=0000000000000000");
    assert!(refused.starts_with('E'), "{refused}");
    // The client has not said that it shows the text of an error.
    let told = monitor(&mut packets, "status");
    let why = "The last write of registers was refused: VP 0 is held by the VMM";
    assert!(told.contains(why), "{told}");
    assert_eq!(packets.ask("Z1,fffffff0,1"), "OK");
    packets.send_raw(&packet(b"c"));
    qemu.at_once("cont");
    let stop = packets.reply().expect("a stop");
    assert!(stop.starts_with("T05"), "{stop}");
    assert_eq!(rip(&mut packets), POWER_ON);
    assert!(!monitor(&mut packets, "status").contains("held by the VMM"));
    assert_eq!(packets.ask("z1,fffffff0,1"), "OK");
    assert_eq!(packets.ask("D"), "OK");
    drop(packets);
    // The guest has got past the firmware.
    drop(qemu.in_its_loop());
}

#[test]
fn a_debugger_attaches_to_a_guest_that_qemu_has_stopped_and_breaks_after_cont() {
    let Some(mut qemu) = start(&["--wait"]) else {
        return;
    };
    let mut packets = qemu.in_its_loop();
    assert_eq!(packets.ask("D"), "OK");
    drop(packets);
    for _ in 0..5 {
        qemu.at_once("stop");
        let mut packets = attach(&mut qemu);
        let registers = packets.ask("g");
        assert!(registers.len() > 500, "{registers}");
        assert!(monitor(&mut packets, "status").contains("held by the VMM"));
        // A byte in memory, which goes in when QEMU lets the guest run.
        let site = qemu.address_of("is_prime");
        assert_eq!(packets.ask(&format!("Z0,{site:x},1")), "OK");
        packets.send_raw(&packet(b"c"));
        let answer = qemu.at_once("query-status");
        assert!(answer.contains(r#""running": false"#), "{answer}");
        qemu.at_once("cont");
        let stop = packets.reply().expect("a stop");
        assert!(stop.starts_with("T05"), "{stop}");
        assert_eq!(rip(&mut packets), site);
        assert_eq!(packets.ask(&format!("z0,{site:x},1")), "OK");
        assert_eq!(packets.ask("D"), "OK");
    }
    qemu.at_once("query-status");
}

#[test]
fn a_debugger_that_leaves_a_stopped_guest_leaves_it_as_it_was() {
    let Some(mut qemu) = start_with(&[], &["-S"]) else {
        return;
    };
    let mut packets = attach(&mut qemu);
    assert_eq!(packets.ask("Z1,fffffff0,1"), "OK");
    assert_eq!(packets.ask("D"), "OK");
    drop(packets);
    let answer = qemu.at_once("query-status");
    assert!(answer.contains(r#""running": false"#), "{answer}");
    qemu.at_once("cont");
    drop(qemu.in_its_loop());
}

/// QEMU resets the vCPUs while they are parked for the debugger, whose client has read their registers.
#[test]
fn a_client_sees_the_registers_after_a_reset() {
    let Some(mut qemu) = start(&["--wait"]) else {
        return;
    };
    let mut packets = qemu.in_its_loop();
    let before = (packets.ask("g"), rip(&mut packets));
    assert_ne!(before.1, POWER_ON);
    assert_eq!(packets.ask("g"), before.0);
    // A reset itself takes 100 ms in the nested bed, without a debugger as well.
    qemu.monitor("system_reset", "");
    let deadline = Instant::now() + DEADLINE;
    while rip(&mut packets) != POWER_ON {
        assert!(Instant::now() < deadline, "the registers are as before");
    }
    assert_ne!(packets.ask("g"), before.0);
    // The guest stays stopped, and goes on from there.
    let site = qemu.address_of("do_round");
    assert_eq!(packets.ask(&format!("Z1,{site:x},1")), "OK");
    qemu.runs_to(&mut packets, site);
}

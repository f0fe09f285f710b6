//! Files into which QEMU writes the guest: they have no byte of the debugger's, and the guest that is made of them runs.

use crate::bed::qemu::Qemu;
use crate::bed::qemu::rip;
use crate::bed::qemu::start;
use crate::bed::qemu::start_with;
use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::process::Stdio;
use std::time::Instant;
use test_machine::packets::Packets;
use test_machine::running::DEADLINE;

/// The function with a breakpoint while the guest is written to a file.
const FUNCTION: &str = "is_prime";

/// The guest stands at a software breakpoint, which is the only one.
fn at_breakpoint(qemu: &mut Qemu) -> Packets<TcpStream> {
    let mut packets = qemu.in_its_loop();
    let other = qemu.address_of(FUNCTION);
    assert_eq!(packets.ask(&format!("Z0,{other:x},1")), "OK");
    qemu.runs_to(&mut packets, other);
    packets
}

/// Writes the guest to a file, and returns the file.
fn migrate(qemu: &mut Qemu) -> Vec<u8> {
    let file = qemu.folder.path().join("migration");
    let uri = format!(r#""uri":"exec:cat > {}""#, file.display());
    qemu.monitor("migrate", &uri);
    let deadline = Instant::now() + DEADLINE;
    while !qemu.monitor("query-migrate", "").0.contains("completed") {
        assert!(Instant::now() < deadline, "the migration does not end");
    }
    fs::read(&file).expect("readable")
}

/// The first bytes of the function, as the guest was built and as a breakpoint makes them.
fn codes(qemu: &Qemu) -> (Vec<u8>, Vec<u8>) {
    use object::Object as _;
    use object::ObjectSection as _;
    let file = object::File::parse(demo_guest::ELF).expect("an ELF file");
    let text = file.section_by_name(".text").expect("a section");
    let code = text.data_range(qemu.address_of(FUNCTION), 48);
    let code = code.expect("readable").expect("it is code").to_vec();
    let mut patched = code.clone();
    patched[0] = 0xcc;
    (code, patched)
}

fn last(stream: &[u8], part: &[u8]) -> Option<usize> {
    memchr::memmem::rfind(stream, part)
}

/// Without a breakpoint before, there is no byte to take out when the VMM pauses the guest.
#[test]
fn a_breakpoint_that_is_set_while_the_vmm_has_paused_the_guest_is_in_no_file() {
    let Some(mut qemu) = start(&["--wait"]) else {
        return;
    };
    let mut packets = qemu.in_its_loop();
    qemu.monitor("stop", "");
    let other = qemu.address_of(FUNCTION);
    assert_eq!(packets.ask(&format!("Z0,{other:x},1")), "OK");
    let stream = migrate(&mut qemu);
    let (clean, patched) = codes(&qemu);
    assert!(last(&stream, &clean).is_some());
    assert_eq!(last(&stream, &patched), None);
}

#[test]
fn the_file_of_a_stopped_guest_has_no_byte_of_ours() {
    let Some(mut qemu) = start(&["--wait"]) else {
        return;
    };
    let mut packets = at_breakpoint(&mut qemu);
    qemu.at_once("stop");
    let stream = migrate(&mut qemu);
    let (code, patched) = codes(&qemu);
    assert!(
        last(&stream, &code).is_some(),
        "the code is not in the file"
    );
    assert_eq!(last(&stream, &patched), None, "a breakpoint is in the file");
    // The guest stays where it was, and the debugger attached.
    qemu.at_once("cont");
    let site = qemu.address_of(FUNCTION);
    assert_eq!(rip(&mut packets), site);
    qemu.runs_to(&mut packets, site);
    assert_eq!(packets.ask("D"), "OK");
}

/// QEMU copies the memory while the guest runs, then stops the guest and copies again what was written meanwhile. The breakpoint byte goes with the stop.
#[test]
fn the_guest_of_a_live_migration_has_no_byte_of_ours() {
    let Some(mut qemu) = start(&["--wait"]) else {
        return;
    };
    let mut packets = at_breakpoint(&mut qemu);
    let stream = migrate(&mut qemu);
    let (code, patched) = codes(&qemu);
    assert!(last(&stream, &code) > last(&stream, &patched));
    assert_eq!(packets.ask("D"), "OK");

    let file = qemu.folder.path().join("migration");
    let incoming = format!("exec:cat {}", file.display());
    let arguments = ["-incoming", incoming.as_str()];
    let mut other = start_with(&[], &arguments).expect("it has just been started");
    let deadline = Instant::now() + DEADLINE;
    while !other
        .monitor("query-status", "")
        .0
        .contains(r#""running": true"#)
    {
        assert!(Instant::now() < deadline, "the guest does not run");
    }
    let site = other.address_of(FUNCTION);
    let xp = format!(r#""command-line":"xp /1xb {site}""#);
    let (answer, _) = other.monitor("human-monitor-command", &xp);
    let byte = format!(": {:#04x}", code[0]);
    assert!(answer.contains(&byte), "{answer}");
    // The guest works in its new process, and is debugged there.
    let mut packets = other.vmm.packets();
    assert_eq!(packets.ask(&format!("Z0,{site:x},1")), "OK");
    other.runs_to(&mut packets, site);
}

#[test]
fn a_snapshot_has_no_byte_of_ours_and_a_breakpoint_outlives_its_loading() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("disk.qcow2");
    let disk = disk.to_str().expect("text");
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", disk, "1M"])
        .stdout(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        println!("SKIP: no qemu-img; install it with `apt-get install qemu-utils`");
        return;
    }
    let drive = format!("if=virtio,format=qcow2,file={disk}");
    let Some(mut qemu) = start_with(&["--wait"], &["-drive", &drive]) else {
        return;
    };
    let mut packets = at_breakpoint(&mut qemu);
    let site = rip(&mut packets);
    assert_eq!(packets.ask("Hg1"), "OK");
    let saved = packets.ask("g");
    let command = |qemu: &mut Qemu, line: &str| {
        let line = format!(r#""command-line":"{line}""#);
        let (answer, _) = qemu.monitor("human-monitor-command", &line);
        assert!(!answer.contains("Error"), "{answer}");
    };
    command(&mut qemu, "savevm here");
    let file = fs::read(disk).expect("readable");
    let (code, patched) = codes(&qemu);
    assert!(last(&file, &code).is_some(), "the code is not in the file");
    assert_eq!(last(&file, &patched), None, "a breakpoint is in the file");
    qemu.runs_to(&mut packets, site);
    // A VP may be at the site again, or come to the site by a step, with the same registers.
    assert_eq!(packets.ask("Hg1"), "OK");
    assert_eq!(packets.ask("P3=8877665544332211"), "OK");
    assert_ne!(
        packets.ask("g"),
        saved,
        "other registers than in the snapshot"
    );
    command(&mut qemu, "loadvm here");
    assert_eq!(packets.ask("g"), saved, "the registers of the snapshot");
    for _ in 0..3 {
        qemu.runs_to(&mut packets, site);
    }
    assert_eq!(packets.ask("D"), "OK");
}

//! Operations on long ranges of memory.

use super::bed::Bed;
use super::fake_vm::MEMORY_SIZE;
use crate::SessionSettings;
use std::time::Duration;

/// A length that fits the whole address space but its first byte.
const ALL: &str = "1;ffffffffffffffff";

#[test]
fn a_match_is_found_across_pieces_and_regions() {
    let bed = Bed::new();
    let mut client = bed.attach();
    // 0x2000 is the border between code and data. The pieces of data from 0x80000 on are 256 KiB long.
    for at in [
        0x1000,
        0x1ffd,
        0x2ffa,
        0x8_0000,
        0xb_fffd,
        0xc_0000,
        MEMORY_SIZE - 6,
    ] {
        bed.vm.write(at, b"needle");
        for range in [ALL.to_owned(), format!("{at:x};6"), format!("{at:x};ffff")] {
            let found = client.ask(&format!("qSearch:memory:{range};needle"));
            assert_eq!(found, format!("1,{at:x}"), "{range}");
        }
        let found = client.ask(&format!("qSearch:memory:{at:x};5;needle"));
        assert_eq!(found, "0");
        let behind = client.ask(&format!("qSearch:memory:{:x};ffff;needle", at + 1));
        assert_eq!(behind, "0");
        bed.vm.write(at, b"------");
    }
}

#[test]
fn holes_and_devices_are_left_out_and_cost_one_request_each() {
    let bed = Bed::new();
    let mut client = bed.attach();
    // Half of each is in RAM; all of one is in a device, and all of one in a hole.
    for at in [0xffd, 0x2ffd, 0x3500, 0x3ffd, 0x7_0000, 0x7_fffd] {
        bed.vm.write(at, b"needle");
    }
    assert_eq!(client.ask(&format!("qSearch:memory:{ALL};needle")), "0");
    assert_eq!(bed.vm.asked("memory region"), 7);
    assert_eq!(bed.vm.asked("read memory"), 4);
    // A piece on each side of a hole is no match.
    bed.vm.write(0x2ffd, b"nee");
    bed.vm.write(0x8_0000, b"dle");
    assert_eq!(client.ask(&format!("qSearch:memory:{ALL};needle")), "0");
    assert_eq!(client.ask("qSearch:memory:3000;1000;needle"), "0");
}

#[test]
fn physical_memory_is_searched_in_that_mode() {
    let bed = Bed::new();
    let mut client = bed.attach();
    bed.vm.write(0x7_0000, b"needle");
    assert_eq!(client.ask(&format!("qSearch:memory:{ALL};needle")), "0");
    client.ask("Qqemu.PhyMemMode:1");
    let found = client.ask(&format!("qSearch:memory:{ALL};needle"));
    assert_eq!(found, "1,70000");
    assert_eq!(client.ask("qSearch:memory:100000;ffff;needle"), "0");
}

/// A client that closes its direction may read on, but the search may take as long as the guest is large.
#[test]
fn a_search_ends_with_its_client_and_at_an_error() {
    let bed = Bed::with(SessionSettings {
        rpc_deadline: Duration::from_millis(50),
        ..Default::default()
    });
    let mut client = bed.attach();
    for mute in ["read memory", "memory region"] {
        bed.vm.mute(mute);
        // 110 in hex.
        assert_eq!(client.ask("qSearch:memory:1000;8;needle"), "E6e");
        bed.vm.mute("");
    }
    let bed = Bed::with(SessionSettings {
        // The search does not end by itself.
        rpc_deadline: Duration::from_secs(3600),
        ..Default::default()
    });
    let mut client = bed.attach();
    bed.vm.mute("read memory");
    client.send("qSearch:memory:1000;8;needle");
    bed.vm.wait_asked("read memory");
    client.half_close();
    assert_eq!(bed.vm.wait_detached().len(), 1);
    client.expect_closed();
}

/// GDB would give up, and take the late answer for that of its next packet.
#[test]
fn a_client_that_waits_for_a_search_receives_a_sign_of_life() {
    let bed = Bed::new();
    let mut client = bed.attach();
    bed.vm.write(0x1000, b"needle");
    bed.vm.mute("read memory");
    client.send("qSearch:memory:1000;8;needle");
    for _ in 0..2 {
        assert_eq!(client.bytes_outside_packets(), b"+");
    }
    bed.vm.answer_muted();
    assert_eq!(client.reply(), "1,1000");
}

#[test]
fn a_checksum_is_that_of_gdb_across_pieces_and_regions() {
    let bed = Bed::new();
    let mut client = bed.attach();
    // The check value of CRC-32/MPEG-2, as catalogues of CRCs give it.
    for at in [0x1000, 0x1ffb, 0xb_fffb, MEMORY_SIZE - 9] {
        bed.vm.write(at, b"123456789");
        assert_eq!(client.ask(&format!("qCRC:{at:x},9")), "C376e6e7");
    }
    // Leading zeros count.
    bed.vm.write(0x1000, b"\0\0\0\0");
    assert_eq!(client.ask("qCRC:1000,4"), "Cc704dd7b");
    let all = client.ask("qCRC:80000,80000");
    bed.vm.write(0xc_0000, &[0x55]);
    assert_ne!(client.ask("qCRC:80000,80000"), all);
}

#[test]
fn a_checksum_needs_ram_everywhere() {
    let bed = Bed::new();
    let mut client = bed.attach();
    client.ask("qSupported:error-message+");
    for (range, hole) in [
        ("fff,2", 0xfff),
        ("2fff,2", 0x3000),
        ("2000,ffffffffffffdfff", 0x3000),
        ("fffff,2", 0x10_0000),
        ("ffffffffffffffff,1", u64::MAX),
    ] {
        let refused = client.ask(&format!("qCRC:{range}"));
        let reason = format!("E.no RAM can be read at {hole:#x};");
        assert!(refused.starts_with(&reason), "{range}: {refused}");
    }
    client.ask("Qqemu.PhyMemMode:1");
    assert_eq!(client.ask("qCRC:3000,1"), client.ask("qCRC:3000,1"));
    assert!(client.ask("qCRC:3000,1").starts_with('C'));
}

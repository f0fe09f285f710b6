//! GDB's commands about long ranges of memory, which the server carries out beside the guest.

use crate::gdb_client::gdb;
use crate::gdb_client::guest;
use crate::gdb_client::in_order;

/// GDB keeps this software breakpoint in memory while the guest is stopped.
const BREAKPOINT: [&str; 3] = [
    "set breakpoint always-inserted on",
    "break *do_round",
    "monitor breakpoints",
];

#[test]
fn find_searches_in_the_server_and_sees_the_bytes_of_the_guest() {
    let Some(mut guest) = guest(&["--cpus", "1"]) else {
        return;
    };
    let mut commands = vec!["set $code = *(unsigned int *)do_round"];
    commands.extend(BREAKPOINT);
    commands.extend([
        "set debug remote 1",
        // The beginning of a range is no RAM, and neither is its end.
        "find /w1 do_round, +0xffffffff, $code",
        "set debug remote 0",
        "find /b do_round, +1, (char)0xcc",
        "find /w 0xf000000000000000, +0x0fffffffffffffff, 1",
        "detach",
    ]);
    let text = gdb(&mut guest, &commands);
    in_order(
        &text,
        &[
            "in memory, physical",
            "$qSearch:memory:",
            "<do_round>",
            "1 pattern found",
            "Pattern not found",
            "Pattern not found",
        ],
    );
    assert!(!text.contains("halting search"), "{text}");
}

#[test]
fn compare_sections_compares_in_the_server_and_sees_the_bytes_of_the_guest() {
    let Some(mut guest) = guest(&["--cpus", "1"]) else {
        return;
    };
    let mut commands = BREAKPOINT.to_vec();
    commands.extend([
        "set debug remote 1",
        "compare-sections .text",
        "set debug remote 0",
        "set var *(char *)do_round = 0x7b",
        "compare-sections .text",
        "detach",
    ]);
    let text = gdb(&mut guest, &commands);
    in_order(
        &text,
        &["in memory, physical", "$qCRC:", "matched.", "MIS-MATCHED!"],
    );
}

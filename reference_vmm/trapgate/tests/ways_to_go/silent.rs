//! A connection without a packet does not attach to the guest.

use crate::bed::Bed;
use test_machine::packets::Packets;
use vmm_core_defs::debug_rpc::DetachAction;

#[test]
fn a_connection_without_a_packet_never_stops_a_guest_that_runs() {
    let Some(bed) = Bed::new(DetachAction::Resume) else {
        return;
    };
    bed.assert_runs("by itself");
    let mut silent = Vec::new();
    for bytes in [&b""[..], b"+", b"\x03", b"$qSupported", b"$?#00"] {
        let mut client = Packets::connect(&bed.address);
        client.send_raw(bytes);
        silent.push(client);
    }
    bed.wait_silent(silent.len());
    bed.assert_runs("beside silent connections");
    // A debugger is served meanwhile, and the silent connections end without an effect.
    let mut debugger = Packets::connect(&bed.address);
    assert!(debugger.ask("?").starts_with('T'));
    assert_eq!(debugger.ask("D"), "OK");
    bed.assert_runs("after a debugger");
    drop(silent);
    bed.wait_silent(0);
    bed.wait_detached("in the end");
    bed.assert_untouched("in the end");
}

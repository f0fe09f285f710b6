//! Any bytes result in the same frames, whether they come together or one by one, and encoded packets are decoded
//! again.

#![no_main]

use gdb_frontend::fuzzing::Command;
use gdb_frontend::fuzzing::Decoder;
use gdb_frontend::fuzzing::Frame;
use gdb_frontend::fuzzing::PacketWriter;
use gdb_frontend::fuzzing::expand;
use libfuzzer_sys::fuzz_target;

fn drain(decoder: &mut Decoder, frames: &mut Vec<String>) {
    while let Some(frame) = decoder.next_frame() {
        if let Frame::Packet(payload) = frame {
            let _ = Command::parse(payload);
        }
        frames.push(format!("{frame:?}"));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut whole = Vec::new();
    let mut decoder = Decoder::default();
    decoder.push(bytes);
    drain(&mut decoder, &mut whole);

    let mut pieces = Vec::new();
    let mut decoder = Decoder::default();
    for byte in bytes {
        decoder.push(&[*byte]);
        drain(&mut decoder, &mut pieces);
    }
    assert_eq!(whole, pieces);

    let _ = Command::parse(bytes);
    let mut packet = PacketWriter::default();
    assert_eq!(packet.binary(bytes), bytes.len());
    let packet = packet.finish();
    let mut decoder = Decoder::default();
    decoder.push(&packet);
    let Some(Frame::Packet(payload)) = decoder.next_frame() else {
        panic!("what was written is no packet");
    };
    assert_eq!(expand(payload).as_deref(), Some(bytes));
});

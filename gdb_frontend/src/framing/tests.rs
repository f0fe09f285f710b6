use super::*;
use proptest::prelude::*;

/// A frame with its own copy of the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owned {
    Packet(Vec<u8>),
    Other(&'static str),
}

fn drain(decoder: &mut Decoder, into: &mut Vec<Owned>) {
    while let Some(frame) = decoder.next_frame() {
        into.push(match frame {
            Frame::Packet(payload) => Owned::Packet(payload.to_vec()),
            Frame::Ack => Owned::Other("ack"),
            Frame::Nack => Owned::Other("nack"),
            Frame::Interrupt => Owned::Other("interrupt"),
            Frame::BadChecksum => Owned::Other("bad"),
            Frame::Oversized => Owned::Other("oversized"),
            Frame::Foreign(_) => Owned::Other("foreign"),
        });
    }
}

fn frames(bytes: &[u8]) -> Vec<Owned> {
    let mut out = Vec::new();
    let mut decoder = Decoder::default();
    decoder.push(bytes);
    drain(&mut decoder, &mut out);
    out
}

fn packet(payload: &[u8]) -> Owned {
    Owned::Packet(payload.to_vec())
}

#[test]
fn packets_acks_and_interrupts_come_in_order() {
    assert_eq!(
        frames(b"+$g#67-\x03$?#3f"),
        [
            Owned::Other("ack"),
            packet(b"g"),
            Owned::Other("nack"),
            Owned::Other("interrupt"),
            packet(b"?"),
        ]
    );
}

#[test]
fn garbage_between_packets_is_skipped() {
    assert_eq!(frames(b"$?#3fnoise\r\n$g#67"), [packet(b"?"), packet(b"g")]);
}

#[test]
fn before_the_first_packet_any_other_byte_ends_the_stream() {
    let foreign = || Owned::Other("foreign");
    for byte in 0..=u8::MAX {
        let mut bytes = b"+-\x03".to_vec();
        bytes.push(byte);
        bytes.extend_from_slice(b"$g#67$?#3f");
        let frames = frames(&bytes);
        match byte {
            b'+' | b'-' | b'$' | 0x03 => {
                assert_eq!(frames[frames.len() - 2..], [packet(b"g"), packet(b"?")]);
            }
            _ => assert_eq!(frames[3..], [foreign()], "{byte:#x}"),
        }
    }
    // Only a complete packet opens the stream.
    for bad in [&b"$g#68"[..], b"$g#zz"] {
        let mut bytes = bad.to_vec();
        bytes.extend_from_slice(b"\r\n$g#67");
        assert_eq!(frames(&bytes), [Owned::Other("bad"), foreign()]);
    }
}

#[test]
fn ctrl_c_in_a_packet_is_data() {
    assert_eq!(frames(b"$X0,1:\x03#22"), [packet(b"X0,1:\x03")]);
}

#[test]
fn checksums_take_both_cases_and_must_be_right() {
    assert_eq!(frames(b"$Z#5A$Z#5a"), [packet(b"Z"), packet(b"Z")]);
    assert_eq!(frames(b"$g#68$g#67"), [Owned::Other("bad"), packet(b"g")]);
}

#[test]
fn a_checksum_that_is_no_number_does_not_eat_the_next_packet() {
    assert_eq!(
        frames(b"$g#$g#67$g#6$g#67"),
        [
            Owned::Other("bad"),
            packet(b"g"),
            Owned::Other("bad"),
            packet(b"g")
        ]
    );
    // The same applies before the first packet.
    assert_eq!(frames(b"$g#zz$g#67"), [Owned::Other("bad"), packet(b"g")]);
}

#[test]
fn a_dollar_in_a_packet_starts_over() {
    assert_eq!(frames(b"$m100$g#67"), [packet(b"g")]);
}

#[test]
fn the_longest_packet_passes_and_one_byte_more_does_not() {
    for (extra, expected) in [(0, None), (1, Some(Owned::Other("oversized")))] {
        let payload = vec![b'a'; PACKET_SIZE + extra];
        let mut bytes = b"$".to_vec();
        bytes.extend_from_slice(&payload);
        bytes.extend_from_slice(format!("#{:02x}", checksum(&payload)).as_bytes());
        bytes.extend_from_slice(b"$g#67");
        let expected = [expected.unwrap_or_else(|| packet(&payload)), packet(b"g")];
        assert_eq!(frames(&bytes), expected);
        // The same bytes in parts, none of which contains a whole packet.
        let mut decoder = Decoder::default();
        let mut out = Vec::new();
        for piece in bytes.chunks(1000) {
            decoder.push(piece);
            drain(&mut decoder, &mut out);
        }
        assert_eq!(out, expected);
    }
}

#[test]
fn an_endless_packet_is_not_kept() {
    let mut decoder = Decoder::default();
    decoder.push(b"$");
    for _ in 0..64 {
        decoder.push(&[b'a'; 0x1_0000]);
        assert_eq!(decoder.next_frame(), None);
    }
    assert!(decoder.buffered() <= PACKET_SIZE + 0x1_0000);
    decoder.push(b"$g#67");
    assert_eq!(decoder.next_frame(), Some(Frame::Oversized));
    assert_eq!(decoder.next_frame(), Some(Frame::Packet(b"g")));
}

#[test]
fn runs_avoid_the_counts_that_cannot_be_written() {
    for run in 1..300 {
        let text = "0".repeat(run) + "x";
        let mut writer = PacketWriter::default();
        writer.str(&text);
        writer.shorten_runs();
        let packet = writer.finish();
        let Some([Owned::Packet(payload)]) = frames(&packet).first_chunk().cloned() else {
            panic!("a run of {run} is not one packet: {packet:?}");
        };
        assert_eq!(expand(&payload).as_deref(), Some(text.as_bytes()));
        assert!(
            payload
                .iter()
                .all(|byte| (b' '..=b'~').contains(byte) && !b"#$+-".contains(byte))
        );
        assert!(
            run < 4 || payload.len() < text.len(),
            "{run} is not shortened"
        );
    }
}

#[test]
fn numbers_have_no_leading_zeros() {
    for number in [0, 1, 0xf, 0x10, 0xabc, u64::MAX] {
        let mut writer = PacketWriter::default();
        writer.number(number);
        let text = format!("{number:x}");
        assert_eq!(writer.finish(), PacketWriter::text(&text), "{text}");
    }
}

#[test]
fn words_never_need_an_escape() {
    let mut writer = PacketWriter::default();
    writer.message("100 % of $rip, #1 *p }\u{e9}\n");
    assert_eq!(
        frames(&writer.finish()),
        [packet(b"100 % of ?rip, ?1 ?p ???")]
    );
}

#[test]
fn binary_data_stops_at_the_packet_size() {
    for byte in [b'a', b'#'] {
        let mut writer = PacketWriter::default();
        writer.str("b");
        let taken = writer.binary(&vec![byte; 2 * PACKET_SIZE]);
        let packet = writer.finish();
        assert!(packet.len() <= PACKET_SIZE + 4);
        assert!(
            packet.len() >= PACKET_SIZE + 3,
            "{} is not full",
            packet.len()
        );
        let payload = expand(&packet[2..packet.len() - 3]).unwrap();
        assert_eq!(payload, vec![byte; taken]);
    }
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        3 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(|data| {
            let mut writer = PacketWriter::default();
            writer.binary(&data);
            writer.finish()
        }),
        2 => proptest::collection::vec(
            proptest::sample::select(b"$#+-\x03}*0aF".to_vec()), 0..12),
        1 => proptest::collection::vec(any::<u8>(), 0..12),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn pieces_decode_like_the_whole(
        stream in stream(),
        cuts in proptest::collection::vec(0..500_usize, 0..20),
    ) {
        let mut decoder = Decoder::default();
        let mut out = Vec::new();
        let mut rest = &stream[..];
        for cut in cuts {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            decoder.push(now);
            drain(&mut decoder, &mut out);
            rest = later;
        }
        decoder.push(rest);
        drain(&mut decoder, &mut out);
        prop_assert_eq!(out, frames(&stream));
    }

    #[test]
    fn binary_round_trips(data in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let mut writer = PacketWriter::default();
        prop_assert_eq!(writer.binary(&data), data.len());
        let packet = writer.finish();
        let got = frames(&packet);
        prop_assert_eq!(got.len(), 1);
        let Owned::Packet(payload) = &got[0] else { panic!("{got:?}") };
        prop_assert_eq!(expand(payload), Some(data));
    }

    #[test]
    fn hex_with_runs_round_trips(data in proptest::collection::vec(0..3_u8, 0..600)) {
        let mut writer = PacketWriter::default();
        writer.hex(&data);
        writer.shorten_runs();
        let packet = writer.finish();
        let got = frames(&packet);
        let Owned::Packet(payload) = &got[0] else { panic!("{got:?}") };
        let text = expand(payload).unwrap();
        let mut back = vec![0; data.len()];
        faster_hex::hex_decode(&text, &mut back).unwrap();
        prop_assert_eq!(back, data);
    }
}

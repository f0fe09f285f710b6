//! A connection before its first packet. The guest is not attached until the packet has come.

use super::Session;
use crate::framing::Decoder;
use crate::framing::Frame;
use crate::framing::PACKET_SIZE;
use crate::target::TargetInfo;
use thiserror::Error;

/// The maximum number of bytes up to the end of the first packet: one packet of the maximum size, and acknowledgements.
const MAX_BYTES: usize = PACKET_SIZE + 64;

/// Waits for the first packet of a client that has connected.
#[derive(Debug, Default)]
pub struct FirstPacket {
    decoder: Decoder,
    first: Option<Vec<u8>>,
    taken: usize,
    /// The number of packets with a wrong checksum that were not answered yet.
    bad: usize,
}

/// The state of a connection after its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// No packet has come yet.
    Waiting,
    /// A packet with a correct checksum has come. Attach, then call [`FirstPacket::into_session`].
    Received,
    /// Close the connection without an answer.
    NotADebugger(NotADebugger),
}

/// The reason why a client is not a debugger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotADebugger {
    /// The client sent this byte, which no debugger sends before its first packet.
    #[error("the client sent the byte {0:#04x}, which no debugger sends before its first packet")]
    Foreign(u8),
    /// The client sent too many bytes without a packet.
    #[error("the client sent {MAX_BYTES} bytes without a packet in them")]
    NoPacket,
}

impl FirstPacket {
    /// Takes bytes from the client, in parts of any length.
    pub fn push(&mut self, bytes: &[u8]) -> Progress {
        self.decoder.push(bytes);
        if self.first.is_some() {
            return Progress::Received;
        }
        self.taken = self.taken.saturating_add(bytes.len());
        while let Some(frame) = self.decoder.next_frame() {
            match frame {
                Frame::Packet(packet) => {
                    self.first = Some(packet.to_vec());
                    return Progress::Received;
                }
                Frame::BadChecksum => self.bad += 1,
                Frame::Foreign(byte) => return Progress::NotADebugger(NotADebugger::Foreign(byte)),
                Frame::Oversized => return Progress::NotADebugger(NotADebugger::NoPacket),
                // No packet was sent that the client could acknowledge, and no guest runs for it.
                Frame::Ack | Frame::Nack | Frame::Interrupt => {}
            }
        }
        match self.taken > MAX_BYTES {
            true => Progress::NotADebugger(NotADebugger::NoPacket),
            false => Progress::Waiting,
        }
    }

    /// The bytes to send while the first packet is awaited: a `-` for each packet with a wrong checksum.
    pub fn take_replies(&mut self) -> Vec<u8> {
        vec![b'-'; std::mem::take(&mut self.bad)]
    }

    /// Begins the session. The first packet is not answered yet. The guest has to be stopped.
    pub fn into_session(self, info: TargetInfo) -> Session {
        let mut session = Session::new(info);
        session.decoder = self.decoder;
        for _ in 0..self.bad {
            session.core.outbox.received(false);
        }
        if let Some(packet) = self.first {
            session.core.frame(Frame::Packet(&packet));
        }
        session
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regs::Layout;
    use crate::session::Action;
    use crate::target::Stop;
    use crate::target::StopReason;

    fn info() -> TargetInfo {
        let stop = Stop {
            thread: None,
            reason: StopReason::Interrupt,
        };
        TargetInfo {
            explanation: None,
            symbols: None,
            threads: Vec::new(),
            layout: Layout::X86_64 {
                avx: false,
                avx512: false,
                pkru: false,
            },
            stop,
        }
    }

    fn sent(session: &mut Session) -> String {
        let mut all = Vec::new();
        while let Some(action) = session.poll_action() {
            match action {
                Action::Send(bytes) => all.extend(bytes),
                other => panic!("{other:?}"),
            }
        }
        String::from_utf8(all).expect("text")
    }

    #[test]
    fn nothing_but_a_packet_with_a_good_checksum_opens_a_session() {
        let mut first = FirstPacket::default();
        for silent in ["", "+", "-", "\u{3}", "$qC", "#c5$"] {
            assert_eq!(first.push(silent.as_bytes()), Progress::Waiting);
        }
        assert_eq!(first.take_replies(), b"-");
        assert_eq!(first.push(b"qC#b"), Progress::Waiting);
        assert_eq!(first.push(b"4$qC#b4"), Progress::Received);
        let mut session = first.into_session(info());
        assert_eq!(sent(&mut session), "+$QC1#c5+$QC1#c5", "both packets");
    }

    #[test]
    fn another_protocol_opens_none() {
        for (bytes, foreign) in [("GET / HTTP/1.1", b'G'), ("+$?#00 $qC#b4", b' ')] {
            let progress = FirstPacket::default().push(bytes.as_bytes());
            assert_eq!(
                progress,
                Progress::NotADebugger(NotADebugger::Foreign(foreign))
            );
        }
    }

    #[test]
    fn a_bad_packet_right_before_the_first_good_one_is_told_of() {
        let mut first = FirstPacket::default();
        assert_eq!(first.push(b"$qC#00$qC#b4"), Progress::Received);
        assert_eq!(sent(&mut first.into_session(info())), "-+$QC1#c5");
    }

    #[test]
    fn what_comes_before_the_first_packet_is_bounded() {
        for piece in [&b"+"[..], b"$", b"$x#00", b"$xxxxxxxxxxxxxxxx"] {
            let mut first = FirstPacket::default();
            let mut taken = 0;
            while first.push(piece) == Progress::Waiting {
                first.take_replies();
                taken += piece.len();
                assert!(taken <= PACKET_SIZE + 64, "{piece:?}");
            }
        }
        let mut first = FirstPacket::default();
        let mut largest = vec![b'$'];
        largest.resize(1 + PACKET_SIZE, b'+');
        // The checksum is 0: a multiple of 256 equal bytes.
        largest.extend(b"#00");
        assert_eq!(first.push(&largest), Progress::Received);
        // The same bytes in parts.
        let mut first = FirstPacket::default();
        let (last, pieces) = largest.split_last().unwrap();
        for piece in pieces.chunks(1000) {
            assert_eq!(first.push(piece), Progress::Waiting);
        }
        assert_eq!(first.push(&[*last]), Progress::Received);
    }
}

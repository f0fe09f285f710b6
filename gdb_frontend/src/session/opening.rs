//! A connection before its first packet: the guest is left alone until there is one.

use super::Session;
use crate::framing::Decoder;
use crate::framing::Frame;
use crate::framing::PACKET_SIZE;
use crate::target::TargetInfo;
use thiserror::Error;

/// Bytes that may come before the end of the first packet: one packet of the largest size, and acknowledgements.
const MAX_BYTES: usize = PACKET_SIZE + 64;

/// A client that has connected and whose first packet is awaited.
#[derive(Debug, Default)]
pub struct Opening {
    decoder: Decoder,
    first: Option<Vec<u8>>,
    taken: usize,
    /// Packets with a wrong checksum that the client has not been told of.
    bad: usize,
}

/// What is known of a client by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// No packet yet.
    Waiting,
    /// A packet with a good checksum has come: attach, then call [`Opening::into_session`].
    Spoke,
    /// Close the connection, without an answer.
    NoDebugger(NoDebugger),
}

/// Why a client is no debugger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoDebugger {
    /// It sent this byte, which no debugger sends before its first packet.
    #[error("the client sent the byte {0:#04x}, which no debugger sends before its first packet")]
    Foreign(u8),
    /// It sent too much.
    #[error("the client sent {MAX_BYTES} bytes without a packet in them")]
    NoPacket,
}

impl Opening {
    /// Takes bytes from the client, in whatever pieces they come.
    pub fn push(&mut self, bytes: &[u8]) -> Progress {
        self.decoder.push(bytes);
        if self.first.is_some() {
            return Progress::Spoke;
        }
        self.taken = self.taken.saturating_add(bytes.len());
        while let Some(frame) = self.decoder.next_frame() {
            match frame {
                Frame::Packet(packet) => {
                    self.first = Some(packet.to_vec());
                    return Progress::Spoke;
                }
                Frame::BadChecksum => self.bad += 1,
                Frame::Foreign(byte) => return Progress::NoDebugger(NoDebugger::Foreign(byte)),
                Frame::Oversized => return Progress::NoDebugger(NoDebugger::NoPacket),
                // Nothing has been sent that it could acknowledge, and nothing runs for it.
                Frame::Ack | Frame::Nack | Frame::Interrupt => {}
            }
        }
        match self.taken > MAX_BYTES {
            true => Progress::NoDebugger(NoDebugger::NoPacket),
            false => Progress::Waiting,
        }
    }

    /// What to send to the client while its first packet is awaited: a `-` for each one that came with a wrong checksum.
    pub fn take_replies(&mut self) -> Vec<u8> {
        vec![b'-'; std::mem::take(&mut self.bad)]
    }

    /// The session of a client that has spoken, its first packet not yet answered. The guest is stopped.
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
            thread_count: 1,
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
        let mut opening = Opening::default();
        for silent in ["", "+", "-", "\u{3}", "$qC", "#c5$"] {
            assert_eq!(opening.push(silent.as_bytes()), Progress::Waiting);
        }
        assert_eq!(opening.take_replies(), b"-");
        assert_eq!(opening.push(b"qC#b"), Progress::Waiting);
        assert_eq!(opening.push(b"4$qC#b4"), Progress::Spoke);
        let mut session = opening.into_session(info());
        assert_eq!(sent(&mut session), "+$QC1#c5+$QC1#c5", "both packets");
    }

    #[test]
    fn another_protocol_opens_none() {
        for (bytes, foreign) in [("GET / HTTP/1.1", b'G'), ("+$?#00 $qC#b4", b' ')] {
            let progress = Opening::default().push(bytes.as_bytes());
            assert_eq!(progress, Progress::NoDebugger(NoDebugger::Foreign(foreign)));
        }
    }

    #[test]
    fn a_bad_packet_right_before_the_first_good_one_is_told_of() {
        let mut opening = Opening::default();
        assert_eq!(opening.push(b"$qC#00$qC#b4"), Progress::Spoke);
        assert_eq!(sent(&mut opening.into_session(info())), "-+$QC1#c5");
    }

    #[test]
    fn what_comes_before_the_first_packet_is_bounded() {
        for piece in [&b"+"[..], b"$", b"$x#00", b"$xxxxxxxxxxxxxxxx"] {
            let mut opening = Opening::default();
            let mut taken = 0;
            while opening.push(piece) == Progress::Waiting {
                opening.take_replies();
                taken += piece.len();
                assert!(taken <= PACKET_SIZE + 64, "{piece:?}");
            }
        }
        let mut opening = Opening::default();
        let mut largest = vec![b'$'];
        largest.resize(1 + PACKET_SIZE, b'+');
        // A multiple of 256 bytes of one kind.
        largest.extend(b"#00");
        assert_eq!(opening.push(&largest), Progress::Spoke);
        // However it comes.
        let mut opening = Opening::default();
        let (last, pieces) = largest.split_last().unwrap();
        for piece in pieces.chunks(1000) {
            assert_eq!(opening.push(piece), Progress::Waiting);
        }
        assert_eq!(opening.push(&[*last]), Progress::Spoke);
    }
}

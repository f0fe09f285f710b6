//! Decodes bytes to frames.
//!
//! ```text
//!              '$'                  '#' digits
//!   Between ---------> Packet -------------------> Between   Frame::Packet or Frame::BadChecksum
//!      ^                 | too long
//!      |  '#' digits     v
//!      +------------ Oversized                              Frame::Oversized
//! ```
//! A `$` inside a packet starts a new packet: payloads always escape `$`, so the end of the old packet was lost.
//!
//! Before the first packet with a correct checksum, a byte that no debugger sends between packets ends the stream: [`Frame::Foreign`]. A web
//! browser sends the headers of its request before any bytes that a page can choose, so the decoder never reaches a packet in the request of a page.

use super::PACKET_SIZE;
use super::checksum;

/// A decoded part of the client's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A packet with a correct checksum: the bytes between `$` and `#`, with escapes.
    Packet(&'a [u8]),
    /// `+`: the client has received a packet.
    Ack,
    /// `-`: the client asks for the last packet again.
    Nack,
    /// Ctrl-C outside a packet. Inside a packet the byte is data.
    Interrupt,
    /// A packet whose checksum is wrong or not a hex number.
    BadChecksum,
    /// A packet longer than [`PACKET_SIZE`]. Its contents are dropped.
    Oversized,
    /// A byte before the first packet that is none of `+`, `-`, `$` and Ctrl-C, so the client is no debugger. No frame
    /// follows.
    Foreign(u8),
}

/// Splits a stream of bytes into frames. The decoder holds at most one packet and the bytes that were pushed since the
/// last call of
/// [`next_frame`](Self::next_frame).
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// The bytes before this index have been decoded.
    start: usize,
    state: State,
    /// Whether a packet with a correct checksum was received.
    opened: bool,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Between,
    /// In a packet. `buffer[start]` is the first payload byte, and no byte before `scanned` ends the packet.
    Packet { scanned: usize },
    /// In a packet that is too long.
    Oversized,
    /// The client is no debugger. Its bytes are dropped.
    Foreign,
}

/// The two bytes after `#`.
enum Trailer {
    /// At least one byte is missing.
    Missing,
    /// The checksum.
    Sum(u8),
    /// The bytes are not a number. The value is the number of bytes that belong to the damaged packet: a byte that may
    /// stand between packets starts the next frame.
    Garbage(usize),
}

impl Decoder {
    /// Takes bytes, in parts of any length.
    pub fn push(&mut self, bytes: &[u8]) {
        if matches!(self.state, State::Foreign) {
            return;
        }
        if self.start > 0 {
            // Everything before `start` has been returned. Move the rest to the front.
            self.buffer.drain(..self.start);
            if let State::Packet { scanned } = &mut self.state {
                *scanned -= self.start;
            }
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next complete frame. `None` if more bytes are needed. After the first packet, unknown bytes between
    /// packets are skipped.
    pub fn next_frame(&mut self) -> Option<Frame<'_>> {
        loop {
            match self.state {
                State::Between => {
                    let &byte = self.buffer.get(self.start)?;
                    self.start += 1;
                    match byte {
                        b'$' => {
                            self.state = State::Packet {
                                scanned: self.start,
                            }
                        }
                        b'+' => return Some(Frame::Ack),
                        b'-' => return Some(Frame::Nack),
                        0x03 => return Some(Frame::Interrupt),
                        _ if self.opened => {}
                        foreign => {
                            self.state = State::Foreign;
                            self.buffer = Vec::new();
                            self.start = 0;
                            return Some(Frame::Foreign(foreign));
                        }
                    }
                }
                State::Foreign => return None,
                State::Packet { scanned } => match self.find_end(scanned) {
                    None if self.buffer.len() - self.start > PACKET_SIZE => {
                        self.state = State::Oversized;
                    }
                    None => {
                        self.state = State::Packet {
                            scanned: self.buffer.len(),
                        };
                        return None;
                    }
                    Some(end) if end - self.start > PACKET_SIZE => self.state = State::Oversized,
                    Some(end) if self.buffer[end] == b'$' => {
                        self.start = end + 1;
                        self.state = State::Packet { scanned: end + 1 };
                    }
                    Some(end) => {
                        let payload = self.start..end;
                        let (sum, trailer) = match self.trailer(end) {
                            Trailer::Missing => {
                                self.state = State::Packet { scanned: end };
                                return None;
                            }
                            Trailer::Sum(sum) => (Some(sum), 2),
                            Trailer::Garbage(bytes) => (None, bytes),
                        };
                        self.state = State::Between;
                        self.start = end + 1 + trailer;
                        let payload = &self.buffer[payload];
                        return Some(if sum == Some(checksum(payload)) {
                            self.opened = true;
                            Frame::Packet(payload)
                        } else {
                            Frame::BadChecksum
                        });
                    }
                },
                State::Oversized => match self.find_end(self.start) {
                    None => {
                        self.start = self.buffer.len();
                        return None;
                    }
                    Some(end) if self.buffer[end] == b'$' => {
                        // This `$` starts the next packet.
                        self.start = end;
                        self.state = State::Between;
                        return Some(Frame::Oversized);
                    }
                    Some(end) => {
                        self.start = end;
                        let trailer = match self.trailer(end) {
                            Trailer::Missing => return None,
                            Trailer::Sum(_) => 2,
                            Trailer::Garbage(bytes) => bytes,
                        };
                        self.start = end + 1 + trailer;
                        self.state = State::Between;
                        return Some(Frame::Oversized);
                    }
                },
            }
        }
    }

    /// The number of bytes that have not been decoded.
    pub(crate) fn buffered(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// The index of the next `#` or `$`.
    fn find_end(&self, from: usize) -> Option<usize> {
        memchr::memchr2(b'#', b'$', &self.buffer[from..]).map(|at| from + at)
    }

    /// Parses the two bytes after the `#` at `end`.
    fn trailer(&self, end: usize) -> Trailer {
        let digit = |at: usize| self.buffer.get(at).map(|&b| char::from(b).to_digit(16));
        match (digit(end + 1), digit(end + 2)) {
            (Some(None), _) | (_, Some(None)) => {
                let rest = self.buffer[end + 1..].iter().take(2);
                Trailer::Garbage(rest.take_while(|byte| !b"+-$\x03".contains(byte)).count())
            }
            (Some(Some(high)), Some(Some(low))) => {
                Trailer::Sum(u8::try_from(high << 4 | low).expect("two hex digits fit a byte"))
            }
            _ => Trailer::Missing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any number of any bytes in one session.
    #[test]
    fn nothing_that_is_done_with_is_kept() {
        for piece in [
            &b"+$m1000,40#89"[..],
            b"+",
            b"$x#00",
            b"\x03$m0",
            b"$qC#b4 ",
        ] {
            let mut decoder = Decoder::default();
            decoder.push(b"$qC#b4");
            assert_eq!(decoder.next_frame(), Some(Frame::Packet(b"qC")));
            for _ in 0..10_000 {
                decoder.push(piece);
                while decoder.next_frame().is_some() {}
                let held = decoder.buffer.len();
                assert!(held <= 2 * piece.len(), "{piece:?}: {held}");
            }
        }
        let mut decoder = Decoder::default();
        decoder.push(b"$");
        for _ in 0..100 {
            decoder.push(&[b'x'; 0x3fff]);
            assert_eq!(decoder.next_frame(), None);
            let held = decoder.buffer.len();
            assert!(held <= PACKET_SIZE + 2 * 0x4000, "{held}");
        }
    }

    /// The end of the packet is missing, and many bytes before it have not been decoded.
    #[test]
    fn the_largest_packet_may_come_in_pieces_and_behind_others() {
        let largest = vec![b'+'; PACKET_SIZE];
        for before in [0, 10, PACKET_SIZE] {
            let mut decoder = Decoder::default();
            let mut bytes = vec![b'+'; before];
            bytes.push(b'$');
            bytes.extend(&largest);
            decoder.push(&bytes);
            for _ in 0..before {
                assert_eq!(decoder.next_frame(), Some(Frame::Ack));
            }
            assert_eq!(decoder.next_frame(), None);
            // The checksum is 0: a multiple of 256 equal bytes.
            decoder.push(b"#00");
            assert_eq!(decoder.next_frame(), Some(Frame::Packet(&largest)));
        }
    }
}

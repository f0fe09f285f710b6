//! From bytes to frames.
//!
//! ```text
//!              '$'                  '#' digits
//!   Between ---------> Packet -------------------> Between   Frame::Packet or Frame::BadChecksum
//!      ^                 | too long
//!      |  '#' digits     v
//!      +------------ Oversized                              Frame::Oversized
//! ```
//! A `$` inside a packet starts a new one: it is always escaped in payloads, so the end of the old one got lost.
//!
//! Until the first packet with a good checksum, a byte that no debugger sends between packets ends the stream: [`Frame::Foreign`]. A web
//! browser puts the headers of its request before everything that a page can choose, so no packet in a page's request is ever reached.

use super::PACKET_SIZE;
use super::checksum;

/// What a client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A packet with a good checksum: what was between `$` and `#`, escapes untouched.
    Packet(&'a [u8]),
    /// `+`.
    Ack,
    /// `-`.
    Nack,
    /// Ctrl-C, outside a packet. Inside, the byte is data.
    Interrupt,
    /// A packet whose checksum is wrong or no hex number.
    BadChecksum,
    /// A packet longer than [`PACKET_SIZE`]; its contents are gone.
    Oversized,
    /// Before the first packet, this byte, which is none of `+`, `-`, `$` and Ctrl-C: the client is no debugger. Nothing comes after.
    Foreign(u8),
}

/// Cuts a stream of bytes into frames. Holds no more than one packet and what was pushed since the last call of
/// [`next_frame`](Self::next_frame).
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Everything before this is done with.
    start: usize,
    state: State,
    /// A packet with a good checksum has come.
    opened: bool,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Between,
    /// In a packet; `buffer[start]` is its first payload byte and nothing before `scanned` ends it.
    Packet { scanned: usize },
    /// In a packet that has grown too long.
    Oversized,
    /// The client is no debugger; nothing it sends is kept.
    Foreign,
}

/// What the two bytes after `#` say.
enum Trailer {
    /// They have not all come.
    Missing,
    /// A checksum.
    Sum(u8),
    /// Not a number. So many of the bytes are the damaged packet's: one that may stand between packets starts what comes next.
    Garbage(usize),
}

impl Decoder {
    /// Takes bytes, in whatever pieces they come.
    pub fn push(&mut self, bytes: &[u8]) {
        if matches!(self.state, State::Foreign) {
            return;
        }
        if self.start > 0 {
            // Everything up to `start` has been handed out; move what is left of the last packet to the front.
            self.buffer.drain(..self.start);
            if let State::Packet { scanned } = &mut self.state {
                *scanned -= self.start;
            }
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; `None` until more is pushed. Garbage between packets is skipped once there has been a packet.
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
                        // The `$` is looked at again: it starts the next packet.
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

    /// Bytes held that are not done with.
    pub(crate) fn buffered(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Where the next `#` or `$` is.
    fn find_end(&self, from: usize) -> Option<usize> {
        memchr::memchr2(b'#', b'$', &self.buffer[from..]).map(|at| from + at)
    }

    /// Reads what follows the `#` at `end`.
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

    /// However much a client sends in one session, and whatever it sends.
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

    /// Its end has not come, and much that came before it is not done with.
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
            // A multiple of 256 bytes of one kind.
            decoder.push(b"#00");
            assert_eq!(decoder.next_frame(), Some(Frame::Packet(&largest)));
        }
    }
}

//! From replies to bytes.

use super::PACKET_SIZE;
use super::checksum;

/// One packet in the making: `$`, payload, `#`, checksum.
#[derive(Debug)]
pub struct PacketWriter {
    bytes: Vec<u8>,
}

impl Default for PacketWriter {
    fn default() -> Self {
        Self::with_capacity(60)
    }
}

impl PacketWriter {
    /// An empty packet with room for this many payload bytes.
    pub fn with_capacity(payload: usize) -> Self {
        let mut bytes = Vec::with_capacity(payload + 4);
        bytes.push(b'$');
        Self { bytes }
    }

    /// An empty packet in a buffer that was used before, whose pages are there already.
    pub(crate) fn in_buffer(mut buffer: Vec<u8>, payload: usize) -> Self {
        buffer.clear();
        buffer.reserve(payload + 4);
        buffer.push(b'$');
        Self { bytes: buffer }
    }

    /// A packet with this payload, which has nothing in it that needs an escape.
    pub fn text(text: &str) -> Vec<u8> {
        let mut packet = Self::with_capacity(text.len());
        packet.str(text);
        packet.finish()
    }

    /// Adds text that has nothing in it that needs an escape.
    pub fn str(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// Adds a number in hex, without leading zeros.
    pub fn number(&mut self, number: u64) {
        let digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
        for digit in (0..digits).rev() {
            let nibble = (number >> (digit * 4)) & 0xf;
            self.bytes.push(b"0123456789abcdef"[nibble as usize]);
        }
    }

    /// Adds bytes in hex.
    pub fn hex(&mut self, data: &[u8]) {
        let start = self.bytes.len();
        self.bytes.resize(start + 2 * data.len(), 0);
        faster_hex::hex_encode(data, &mut self.bytes[start..])
            .expect("the room is twice the length of the data");
    }

    /// Adds bytes in hex, and `xx` for those of the given ranges.
    pub(crate) fn hex_except(
        &mut self,
        data: &[u8],
        unavailable: impl Iterator<Item = std::ops::Range<usize>>,
    ) {
        let start = self.bytes.len();
        self.hex(data);
        for range in unavailable {
            self.bytes[start + 2 * range.start..start + 2 * range.end].fill(b'x');
        }
    }

    /// Adds bytes in binary (GDB manual, node "Overview", "binary data"), as many as the longest packet holds. Says how many those
    /// were.
    pub fn binary(&mut self, data: &[u8]) -> usize {
        // The `$` at the front is not of the payload.
        let limit = PACKET_SIZE + 1;
        self.bytes
            .reserve(limit.min(data.len() + data.len() / 32) + 4);
        // Two searches by vector instructions side by side: there is none for four bytes at once.
        let mut markers = memchr::memchr3_iter(b'#', b'$', b'}', data).peekable();
        let mut stars = memchr::memchr_iter(b'*', data).peekable();
        let mut done = 0;
        loop {
            let escape = match (markers.peek(), stars.peek()) {
                (Some(marker), Some(star)) if star < marker => stars.next(),
                (Some(_), _) => markers.next(),
                (None, _) => stars.next(),
            };
            let plain = &data[done..escape.unwrap_or(data.len())];
            let room = limit.saturating_sub(self.bytes.len());
            if plain.len() > room {
                self.bytes.extend_from_slice(&plain[..room]);
                return done + room;
            }
            self.bytes.extend_from_slice(plain);
            done += plain.len();
            let Some(escape) = escape else {
                return done;
            };
            if self.bytes.len() + 2 > limit {
                return done;
            }
            self.bytes.extend_from_slice(&[b'}', data[escape] ^ 0x20]);
            done += 1;
        }
    }

    /// Adds words for people. What would need an escape, which clients do not look for here, becomes `?`.
    pub(crate) fn message(&mut self, text: &str) {
        self.bytes
            .extend(text.chars().map(|character| match u8::try_from(character) {
                Ok(byte) if (b' '..=b'~').contains(&byte) && !needs_escape(byte) => byte,
                _ => b'?',
            }));
    }

    /// Shortens runs of equal characters. Not for payloads in binary.
    pub fn shorten_runs(&mut self) {
        self.bytes = shorten_runs(&self.bytes);
    }

    /// Ends the packet: what is to be sent.
    pub fn finish(mut self) -> Vec<u8> {
        let sum = checksum(&self.bytes[1..]);
        self.bytes.push(b'#');
        self.hex(&[sum]);
        self.bytes
    }
}

/// Bytes that would end a packet, start one, start an escape or a run.
fn needs_escape(byte: u8) -> bool {
    matches!(byte, b'#' | b'$' | b'}' | b'*')
}

/// GDB manual, node "Overview": a character, `*`, and a character that is the number of further repeats plus 29. The count is at
/// least 3 and prints as a character up to `~`. Counts that would read `#`, `$`, `+` or `-` are one or two lower, and the run goes on
/// after them.
fn shorten_runs(bytes: &[u8]) -> Vec<u8> {
    const MAX_REPEATS: usize = 126 - 29;
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [byte, others @ ..] = rest {
        out.push(*byte);
        let repeats = match leading(&others[..others.len().min(MAX_REPEATS)], *byte) {
            6 | 7 => 5,
            14 => 13,
            16 => 15,
            repeats => repeats,
        };
        match u8::try_from(repeats) {
            Ok(count @ 3..) => {
                out.extend_from_slice(&[b'*', count + 29]);
                rest = &others[repeats..];
            }
            _ => rest = others,
        }
    }
    out
}

/// How many of the first bytes are `byte`. In words of eight, since most of a register file is zeros.
fn leading(bytes: &[u8], byte: u8) -> usize {
    let word = [byte; 8];
    let (words, _) = bytes.as_chunks::<8>();
    let whole = 8 * words.iter().take_while(|other| **other == word).count();
    let rest = bytes[whole..].iter();
    whole + rest.take_while(|other| **other == byte).count()
}

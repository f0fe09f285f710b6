//! Encodes replies to bytes.

use super::PACKET_SIZE;
use super::checksum;

/// A packet that is being written: `$`, payload, `#`, checksum.
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
    /// An empty packet with capacity for this number of payload bytes.
    pub fn with_capacity(payload: usize) -> Self {
        let mut bytes = Vec::with_capacity(payload + 4);
        bytes.push(b'$');
        Self { bytes }
    }

    /// An empty notification (GDB manual, node "Notification Packets"), which nobody acknowledges.
    pub(crate) fn notification() -> Self {
        Self { bytes: vec![b'%'] }
    }

    /// A packet with this payload. The payload must not contain bytes that need an escape.
    pub fn text(text: &str) -> Vec<u8> {
        let mut packet = Self::with_capacity(text.len());
        packet.str(text);
        packet.finish()
    }

    /// Adds text. The text must not contain bytes that need an escape.
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

    /// Adds bytes in binary (GDB manual, node "Overview", "binary data"), up to the maximum length of a packet. Returns
    /// the number of bytes that were added.
    pub fn binary(&mut self, data: &[u8]) -> usize {
        // The `$` at the front does not belong to the payload.
        let limit = PACKET_SIZE + 1;
        self.bytes
            .reserve(limit.min(data.len() + data.len() / 32) + 4);
        // Two vectorised searches in parallel, because `memchr` has no search for four bytes.
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

    /// Adds text for people. A character that would need an escape becomes `?`, because clients do not resolve escapes
    /// here.
    pub(crate) fn message(&mut self, text: &str) {
        self.bytes
            .extend(text.chars().map(|character| match u8::try_from(character) {
                Ok(byte) if (b' '..=b'~').contains(&byte) && !needs_escape(byte) => byte,
                _ => b'?',
            }));
    }

    /// Encodes runs of equal characters. Not for binary payloads.
    pub fn shorten_runs(&mut self) {
        self.bytes = shorten_runs(&self.bytes);
    }

    /// Completes the packet and returns its bytes.
    pub fn finish(mut self) -> Vec<u8> {
        let sum = checksum(&self.bytes[1..]);
        self.bytes.push(b'#');
        self.hex(&[sum]);
        self.bytes
    }
}

/// Whether the byte would end or start a packet, or start an escape or a run.
fn needs_escape(byte: u8) -> bool {
    matches!(byte, b'#' | b'$' | b'}' | b'*')
}

/// Run-length encoding (GDB manual, node "Overview"): a character, `*`, and a character whose code is the number of
/// further repeats plus 29. The count is at least 3, and the code is at most that of `~`. A count whose code is `#`,
/// `$`, `+` or `-` is reduced by one or two, and the run continues after it.
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

/// The number of leading bytes that equal `byte`. Compares eight bytes at a time, because most of a register file is
/// zero.
fn leading(bytes: &[u8], byte: u8) -> usize {
    let word = [byte; 8];
    let (words, _) = bytes.as_chunks::<8>();
    let whole = 8 * words.iter().take_while(|other| **other == word).count();
    let rest = bytes[whole..].iter();
    whole + rest.take_while(|other| **other == byte).count()
}

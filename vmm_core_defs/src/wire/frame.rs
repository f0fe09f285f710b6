//! Frames: a length of 4 bytes in little-endian order, then a message of this length.

use bytes::Bytes;
use bytes::BytesMut;

/// The size of the length field, in bytes.
const HEADER: usize = 4;

/// The space for the next bytes of a stream, if no long frame has begun.
const SPACE: usize = 16 << 10;

/// Less space than this is not worth a system call.
const MIN_SPACE: usize = 4 << 10;

/// The maximum space for the next bytes. A frame that only claims to be long does not make the receiver allocate more than this at once.
const MAX_SPACE: usize = 1 << 20;

/// A part of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A message.
    Message(Bytes),
    /// A message of more bytes than are permitted. Its bytes are skipped.
    TooLong {
        /// The length of the message in bytes.
        len: u64,
        /// The permitted length in bytes.
        limit: u64,
    },
}

/// Cuts the bytes of a stream into frames.
#[derive(Debug)]
pub struct Frames {
    /// The first `filled` bytes are of the stream. The others are zero.
    buffer: BytesMut,
    filled: usize,
    /// The bytes of a frame that is too long, as far as they have not come yet.
    skipped: usize,
    limit: usize,
}

impl Frames {
    /// Begins at the beginning of a stream, with frames of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            filled: 0,
            skipped: 0,
            limit,
        }
    }

    /// Permits frames of at most `limit` bytes from now on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The place for the next bytes of the stream. It is never empty.
    pub fn space(&mut self) -> &mut [u8] {
        let missing = match self.length() {
            Some(length) if length <= self.limit => (HEADER + length).saturating_sub(self.filled),
            _ => 0,
        };
        // Grows with what has come, and not with what is announced.
        let wanted = missing.min(self.filled.max(SPACE)).min(MAX_SPACE);
        let wanted = wanted.max(MIN_SPACE);
        if self.buffer.len() < self.filled + wanted {
            self.buffer.resize(self.filled + wanted.max(SPACE), 0);
        }
        &mut self.buffer[self.filled..]
    }

    /// The first `count` bytes of [`space`](Self::space) have come.
    pub fn filled(&mut self, count: usize) {
        self.filled = self.buffer.len().min(self.filled + count);
    }

    /// The next frame, if all of it has come.
    pub fn next_frame(&mut self) -> Option<Frame> {
        if self.skipped > 0 {
            let now = self.skipped.min(self.filled);
            self.take(now);
            self.skipped -= now;
        }
        let length = self.length()?;
        if length > self.limit {
            self.take(HEADER);
            self.skipped = length;
            let (len, limit) = (length as u64, self.limit as u64);
            return Some(Frame::TooLong { len, limit });
        }
        if self.filled < HEADER + length {
            return None;
        }
        self.take(HEADER);
        Some(Frame::Message(self.take(length).freeze()))
    }

    /// Whether a frame has begun and its end has not come, when [`next_frame`](Self::next_frame) finds none.
    pub fn is_partial(&self) -> bool {
        self.filled > 0 || self.skipped > 0
    }

    /// The length of the next frame, if its header has come.
    fn length(&self) -> Option<usize> {
        let header = self.buffer[..self.filled].first_chunk::<HEADER>()?;
        usize::try_from(u32::from_le_bytes(*header)).ok()
    }

    fn take(&mut self, count: usize) -> BytesMut {
        self.filled -= count;
        self.buffer.split_to(count)
    }
}

/// A frame to be sent: two parts, so that memory of a guest need not be copied to the rest of its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The first bytes.
    pub head: Bytes,
    /// The other bytes. May be empty.
    pub tail: Bytes,
}

impl Outgoing {
    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A frame with this message.
    pub(super) fn of(message: &impl prost::Message) -> Self {
        Self::new(Bytes::new(), message.encoded_len(), |head| {
            append(head, message);
        })
    }

    /// A frame with a message, whose last bytes are `tail`.
    pub(super) fn new(tail: Bytes, head_len: usize, write: impl FnOnce(&mut BytesMut)) -> Self {
        let mut head = BytesMut::with_capacity(HEADER + head_len);
        head.extend_from_slice(&[0; HEADER]);
        write(&mut head);
        // Callers keep to MAX_FRAME, which 32 bits can express.
        let length = u32::try_from(head.len() - HEADER + tail.len()).unwrap_or(u32::MAX);
        head[..HEADER].copy_from_slice(&length.to_le_bytes());
        let head = head.freeze();
        Self { head, tail }
    }
}

/// Appends a message.
pub(super) fn append(bytes: &mut BytesMut, message: &impl prost::Message) {
    // The only error is a lack of space, and this buffer grows.
    let encoded = message.encode(bytes);
    debug_assert!(encoded.is_ok());
}

/// Appends a length, or a tag: both are encoded as numbers are.
pub(super) fn append_length(bytes: &mut BytesMut, number: usize) {
    let encoded = prost::encode_length_delimiter(number, bytes);
    debug_assert!(encoded.is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn push(frames: &mut Frames, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = frames.space();
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            frames.filled(count);
            bytes = &bytes[count..];
        }
    }

    fn drain(frames: &mut Frames, found: &mut Vec<Frame>) {
        while let Some(frame) = frames.next_frame() {
            found.push(frame);
        }
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap();
        [&length.to_le_bytes()[..], message].concat()
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_the_stream_is_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..12),
            cuts in prop::collection::vec(1..400_usize, 1..40),
        ) {
            let limit = 200;
            let stream: Vec<u8> = messages.iter().flat_map(|message| framed(message)).collect();
            let expected: Vec<_> = messages.iter().map(|message| match message.len() <= limit {
                true => Frame::Message(message.clone().into()),
                false => Frame::TooLong { len: message.len() as u64, limit: limit as u64 },
            }).collect();
            let mut frames = Frames::new(limit);
            let mut found = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at(rest.len().min(*cut));
                push(&mut frames, now);
                drain(&mut frames, &mut found);
                rest = later;
            }
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn an_announced_length_allocates_nothing() {
        let limit = 64 << 20;
        let mut frames = Frames::new(limit);
        for length in [u32::MAX, 64 << 20] {
            push(&mut frames, &length.to_le_bytes());
            drain(&mut frames, &mut Vec::new());
            assert!(frames.space().len() <= SPACE);
            assert!(frames.buffer.capacity() < 4 * SPACE);
            frames = Frames::new(limit);
        }
    }

    #[test]
    fn a_long_frame_is_read_in_large_parts() {
        let message = vec![7; 4 << 20];
        let mut frames = Frames::new(message.len());
        push(&mut frames, &framed(&message)[..SPACE * 64]);
        assert!(frames.space().len() >= MAX_SPACE);
        push(&mut frames, &framed(&message)[SPACE * 64..]);
        assert_eq!(frames.next_frame(), Some(Frame::Message(message.into())));
    }
}

//! Documents that a client reads in parts (`qXfer`).

use crate::framing::PacketWriter;
use crate::target::Tid;

/// `m data` or `l data`: "The data is [...] the last" with `l`. An offset at or behind the end gets an empty last part.
pub(super) fn piece(document: &[u8], offset: u64, len: u64) -> Vec<u8> {
    let start = clamp(offset, document.len());
    let wanted = clamp(len, document.len() - start);
    let rest = &document[start..];
    // The length of the part is known only after escaping, so the letter is corrected afterwards.
    let mut packet = PacketWriter::with_capacity(1 + wanted);
    packet.str("m");
    let taken = packet.binary(&rest[..wanted]);
    if taken == rest.len() {
        packet = PacketWriter::with_capacity(1 + wanted);
        packet.str("l");
        packet.binary(rest);
    }
    packet.finish()
}

fn clamp(number: u64, max: usize) -> usize {
    usize::try_from(number).map_or(max, |number| number.min(max))
}

/// The beginning of the list of threads (GDB manual, node "Thread List Format").
pub(super) fn threads_head() -> Vec<u8> {
    b"<?xml version=\"1.0\"?>\n<threads>\n".to_vec()
}

/// A thread in the list. Its name contains the VP's index, which starts at 0.
pub(super) fn thread(list: &mut Vec<u8>, thread: Tid, info: &str) {
    let id = thread.get();
    let line = format!("<thread id=\"{id:x}\" name=\"vCPU {}\">", id - 1);
    list.extend_from_slice(line.as_bytes());
    escaped(list, info);
    list.extend_from_slice(b"</thread>\n");
}

/// Adds text to an XML document.
pub(super) fn escaped(list: &mut Vec<u8>, text: &str) {
    for character in text.chars() {
        match character {
            '<' => list.extend_from_slice(b"&lt;"),
            '>' => list.extend_from_slice(b"&gt;"),
            '&' => list.extend_from_slice(b"&amp;"),
            // XML cannot represent most control characters.
            control if control.is_control() => list.push(b' '),
            other => list.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// The end of the list.
pub(super) fn threads_tail(list: &mut Vec<u8>) {
    list.extend_from_slice(b"</threads>\n");
}

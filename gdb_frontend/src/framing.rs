//! The bytes between the parties (GDB manual, nodes "Overview" and "Packet Acknowledgment" of "Remote Protocol").

mod decode;
mod encode;
mod outbox;

pub use decode::Decoder;
pub use decode::Frame;
pub use encode::PacketWriter;
pub(crate) use outbox::Outbox;

/// The longest packet, in either direction, in bytes between `$` and `#`: what `PacketSize` announces. A quarter of a mebibyte holds
/// 128 KiB of memory in hex, or nearly twice that in binary.
pub const PACKET_SIZE: usize = 0x4_0000;

/// The sum of all bytes, modulo 256.
fn checksum(payload: &[u8]) -> u8 {
    payload
        .iter()
        .fold(0, |sum: u8, &byte| sum.wrapping_add(byte))
}

/// What a client makes of the payload of a reply: runs expanded and escapes resolved. For clients and tests; the server itself never
/// gets run-length encoding.
///
/// `None` where an escape or a run has no end, or a run no beginning.
pub fn expand(payload: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(payload.len());
    let mut bytes = payload.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'}' => out.push(bytes.next()? ^ 0x20),
            b'*' => {
                let repeats = bytes.next()?.checked_sub(29)?;
                let last = *out.last()?;
                out.extend(std::iter::repeat_n(last, usize::from(repeats)));
            }
            _ => out.push(byte),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests;

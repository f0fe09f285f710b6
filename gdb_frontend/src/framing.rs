//! Packets and acknowledgements as bytes (GDB manual, nodes "Overview" and "Packet Acknowledgment" of "Remote
//! Protocol").

mod decode;
mod encode;
mod outbox;

pub use decode::Decoder;
pub use decode::Frame;
pub use encode::PacketWriter;
pub(crate) use outbox::Outbox;
pub use outbox::PacketCounts;

/// The maximum number of bytes between `$` and `#` of a packet, in either direction. `PacketSize` announces it. 256 KiB
/// hold 128 KiB of memory in hex, or nearly 256 KiB in binary.
pub const PACKET_SIZE: usize = 0x4_0000;

/// The checksum of a packet: the sum of all bytes modulo 256.
fn checksum(payload: &[u8]) -> u8 {
    payload
        .iter()
        .fold(0, |sum: u8, &byte| sum.wrapping_add(byte))
}

/// Decodes the payload of a reply as a client does: expands runs and resolves escapes. For clients and tests. The
/// server itself never receives run-length encoding.
///
/// Returns `None` if an escape or a run is incomplete, or if a run has no byte to repeat.
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

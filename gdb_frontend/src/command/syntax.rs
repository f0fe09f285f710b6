//! The pieces that packets are made of.

/// A number in hex, most significant digit first, without a prefix. Leading zeros do not count; more than 64 bits is no number.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, &digit| {
        let nibble = char::from(digit).to_digit(16)?;
        (number >> 60 == 0).then_some(number << 4 | u64::from(nibble))
    })
}

/// Bytes in hex, two digits each.
pub(super) fn bytes(hex: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = vec![0; hex.len() / 2];
    faster_hex::hex_decode(hex, &mut bytes).ok()?;
    // An odd digit at the end is no byte; the decoder does not look at what does not fit.
    hex.len().is_multiple_of(2).then_some(bytes)
}

/// What is before the first `separator` and what is after it.
pub(super) fn split_once(packet: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(separator, packet)?;
    Some((&packet[..at], &packet[at + 1..]))
}

/// `ADDRESS,LENGTH`
pub(super) fn range(packet: &[u8]) -> Option<(u64, u64)> {
    let (address, len) = split_once(packet, b',')?;
    Some((number(address)?, number(len)?))
}

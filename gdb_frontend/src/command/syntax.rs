//! The parts of which packets consist.

/// Parses a hex number without a prefix, with the most significant digit first. Leading zeros are allowed. A number of
/// more than 64 bits is an error.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, &digit| {
        let nibble = char::from(digit).to_digit(16)?;
        (number >> 60 == 0).then_some(number << 4 | u64::from(nibble))
    })
}

/// Parses bytes in hex, with two digits each.
pub(super) fn bytes(hex: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = vec![0; hex.len() / 2];
    faster_hex::hex_decode(hex, &mut bytes).ok()?;
    // The decoder ignores an odd digit at the end, which is an error here.
    hex.len().is_multiple_of(2).then_some(bytes)
}

/// Splits at the first `separator`.
pub(super) fn split_once(packet: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(separator, packet)?;
    Some((&packet[..at], &packet[at + 1..]))
}

/// Parses `ADDRESS,LENGTH`.
pub(super) fn range(packet: &[u8]) -> Option<(u64, u64)> {
    let (address, len) = split_once(packet, b',')?;
    Some((number(address)?, number(len)?))
}

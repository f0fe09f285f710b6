//! The packets `m`, `M`, `x`, `X`, `qSearch:memory` and `qCRC`.

use super::Command;
use super::CommandError;
use super::syntax;
use crate::framing::PACKET_SIZE;
use std::borrow::Cow;

const READ: &str = "m addr,length, or x addr,length, both in hex";
const WRITE: &str = "M addr,length:XX..., or X addr,length:binary data";
const SEARCH: &str = "qSearch:memory:address;length;pattern, with address and length in hex, and the pattern of at least one byte in binary";
const CHECKSUM: &str = "qCRC:addr,length, both in hex, with a length of at least 1";

/// The encoding of memory in a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryFormat {
    /// `m`: two hex digits for each byte.
    Hex,
    /// `x`: `b`, then the bytes with escapes.
    Binary,
}

/// The maximum number of bytes that a reply can contain.
pub(crate) const fn max_read(format: MemoryFormat) -> usize {
    match format {
        MemoryFormat::Hex => PACKET_SIZE / 2,
        MemoryFormat::Binary => PACKET_SIZE - 1,
    }
}

/// `m addr,length`: "Read length addressable memory units starting at address addr. [...] The reply may contain fewer addressable
/// memory units than requested if the server was able to read only part of the region of memory."
///
/// `x addr,length`: the same, in binary; "Reply: `b XX...`".
pub(super) fn read(rest: &[u8], format: MemoryFormat) -> Result<Command<'_>, CommandError> {
    let (address, len) = syntax::range(rest).ok_or(CommandError::Syntax(READ))?;
    Ok(Command::ReadMemory {
        address,
        len,
        format,
    })
}

/// `M addr,length:XX...`: "Write length addressable memory units starting at address addr. The data is given by XX...; each byte is
/// transmitted as a two-digit hexadecimal number."
pub(super) fn write_hex(rest: &[u8]) -> Result<Command<'_>, CommandError> {
    let (range, data) = syntax::split_once(rest, b':').ok_or(CommandError::Syntax(WRITE))?;
    let data = syntax::bytes(data).ok_or(CommandError::Syntax(WRITE))?;
    write(range, Cow::Owned(data))
}

/// `X addr,length:XX...`: "Write data to memory, where the data is transmitted in binary."
pub(super) fn write_binary(rest: &[u8]) -> Result<Command<'_>, CommandError> {
    let (range, data) = syntax::split_once(rest, b':').ok_or(CommandError::Syntax(WRITE))?;
    let data = unescape(data).ok_or(CommandError::Syntax(WRITE))?;
    write(range, data)
}

fn write<'a>(range: &[u8], data: Cow<'a, [u8]>) -> Result<Command<'a>, CommandError> {
    let (address, len) = syntax::range(range).ok_or(CommandError::Syntax(WRITE))?;
    if len != data.len() as u64 {
        return Err(CommandError::Syntax(WRITE));
    }
    in_address_space(address, len)?;
    Ok(Command::WriteMemory { address, data })
}

/// The last byte of a range may be the last byte of the address space.
fn in_address_space(address: u64, len: u64) -> Result<(), CommandError> {
    match len > 0 && address.checked_add(len - 1).is_none() {
        true => Err(CommandError::Wraps),
        false => Ok(()),
    }
}

/// `qSearch:memory:address;length;search-pattern`: "Search length bytes at address for search-pattern. address and length are encoded in hex.
/// search-pattern is a sequence of bytes, also encoded in hex." GDB and gdbserver encode the pattern in binary, with escapes.
pub(super) fn search(arguments: &[u8]) -> Result<Command<'_>, CommandError> {
    let Some(rest) = arguments.strip_prefix(b":memory:") else {
        return Ok(Command::Unknown);
    };
    let syntax = CommandError::Syntax(SEARCH);
    let (address, rest) = syntax::split_once(rest, b';').ok_or(syntax)?;
    let (len, pattern) = syntax::split_once(rest, b';').ok_or(syntax)?;
    let address = syntax::number(address).ok_or(syntax)?;
    let len = syntax::number(len).filter(|len| *len > 0).ok_or(syntax)?;
    let pattern = unescape(pattern)
        .filter(|pattern| !pattern.is_empty())
        .ok_or(syntax)?;
    in_address_space(address, len)?;
    Ok(Command::SearchMemory {
        address,
        len,
        pattern,
    })
}

/// `qCRC:addr,length`: "Compute the CRC checksum of a block of memory using CRC-32 defined in IEEE 802.3."
pub(super) fn checksum(arguments: &[u8]) -> Result<Command<'_>, CommandError> {
    let (address, len) = arguments
        .strip_prefix(b":")
        .and_then(syntax::range)
        .filter(|(_, len)| *len > 0)
        .ok_or(CommandError::Syntax(CHECKSUM))?;
    in_address_space(address, len)?;
    Ok(Command::Checksum { address, len })
}

/// Resolves escapes (GDB manual, node "Overview"): `}` is followed by the byte with bit 5 inverted.
pub(super) fn unescape(data: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some(mut escape) = memchr::memchr(b'}', data) else {
        return Some(Cow::Borrowed(data));
    };
    let mut out = Vec::with_capacity(data.len());
    let mut rest = data;
    loop {
        out.extend_from_slice(&rest[..escape]);
        out.push(rest.get(escape + 1)? ^ 0x20);
        rest = &rest[escape + 2..];
        let Some(next) = memchr::memchr(b'}', rest) else {
            out.extend_from_slice(rest);
            return Some(Cow::Owned(out));
        };
        escape = next;
    }
}

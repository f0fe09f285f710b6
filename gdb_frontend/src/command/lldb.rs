//! Packets that LLDB has added to the protocol (LLDB's documentation, "GDB Remote Protocol Extensions").

use super::Command;
use super::CommandError;
use super::memory::unescape;
use super::syntax;
use crate::target::Tid;

const SUFFIX: &str = "g, G, p or P with ;thread:id; behind it, with id in hex";
const READS: &str =
    "MultiMemRead:ranges:addr,length[,addr,length...];, all in hex, with at most 1024 ranges";
const BREAKPOINTS: &str = "jMultiBreakpoint:{\"breakpoint_requests\":[\"request\"[,\"request\"...]]}, with a request as in Z and z";

/// The maximum number of ranges in `MultiMemRead`. The numbers of bytes, which are in front of the bytes in the reply, leave room for the bytes.
pub(crate) const MOST_RANGES: usize = 1024;

const REGION: &str = "qMemoryRegionInfo:addr, in hex";

/// `qMemoryRegionInfo:<addr>`. LLDB sends it without an address to find out whether the server supports the packet.
pub(super) fn memory_region(arguments: &[u8]) -> Result<Command<'_>, CommandError> {
    if arguments.is_empty() {
        return Ok(Command::HasMemoryRegions);
    }
    arguments
        .strip_prefix(b":")
        .and_then(syntax::number)
        .map(Command::MemoryRegion)
        .ok_or(CommandError::Syntax(REGION))
}

/// Whether `rest` is the rest of `_M<size>,<permissions>` or of `_m<addr>`.
pub(super) fn is_allocation(rest: &[u8]) -> bool {
    matches!(rest.first(), Some(b'M' | b'm'))
}

/// The reason why no memory can be allocated, for clients that show error texts.
pub(crate) const NO_ALLOCATION: &str = "no memory can be allocated in the guest, because all memory and page tables belong to the guest; \
     use GDB's `call`, which needs only the stack";

/// `;thread:ID;` behind `g`, `G`, `p` and `P` (`QThreadSuffixSupported`). Returns the packet without the suffix, and the thread.
pub(crate) fn thread_suffix(packet: &[u8]) -> Result<(&[u8], Option<Tid>), CommandError> {
    const KEY: &[u8] = b";thread:";
    if !matches!(packet.first(), Some(b'g' | b'G' | b'p' | b'P')) {
        return Ok((packet, None));
    }
    let Some(at) = packet.windows(KEY.len()).position(|part| part == KEY) else {
        return Ok((packet, None));
    };
    let (packet, id) = (&packet[..at], &packet[at + KEY.len()..]);
    let id = id.strip_suffix(b";").unwrap_or(id);
    let thread = syntax::number(id)
        .and_then(|id| u32::try_from(id).ok())
        .and_then(Tid::new)
        .ok_or(CommandError::Syntax(SUFFIX))?;
    Ok((packet, Some(thread)))
}

/// `MultiMemRead:ranges:<addr>,<length>[,<addr>,<length>...];`: "a list of pairs of numbers, formatted in base-16. [...] The list must end with a `;`."
pub(super) fn read_ranges(arguments: &[u8]) -> Result<Command<'_>, CommandError> {
    let syntax = CommandError::Syntax(READS);
    let numbers = arguments
        .strip_prefix(b":ranges:")
        .and_then(|list| list.strip_suffix(b";"))
        .ok_or(syntax)?
        .split(|&byte| byte == b',')
        .map(syntax::number)
        .collect::<Option<Vec<u64>>>()
        .ok_or(syntax)?;
    let (pairs, []) = numbers.as_chunks::<2>() else {
        return Err(syntax);
    };
    match pairs.len() {
        1..=MOST_RANGES => Ok(Command::ReadRanges(
            pairs.iter().map(|&[address, len]| (address, len)).collect(),
        )),
        _ => Err(syntax),
    }
}

/// `jMultiBreakpoint:{"breakpoint_requests":["request", ...]}`: each request is a `Z` or `z` packet. The JSON comes with or without the escapes of binary data.
pub(super) fn breakpoints(arguments: &[u8]) -> Result<Command<'_>, CommandError> {
    let requests = arguments
        .strip_prefix(b":")
        .and_then(|json| {
            // Without escapes the last byte is `}`, which begins an escape.
            requests(json).or_else(|| requests(&unescape(json)?))
        })
        .ok_or(CommandError::Syntax(BREAKPOINTS))?;
    Ok(Command::Breakpoints(requests))
}

/// The strings of the only array. No request contains a character that JSON escapes.
fn requests(json: &[u8]) -> Option<Vec<Vec<u8>>> {
    let json: Vec<u8> = json
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let list = json
        .strip_prefix(b"{\"breakpoint_requests\":[")?
        .strip_suffix(b"]}")?;
    if list.is_empty() {
        return Some(Vec::new());
    }
    let inner = list.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut requests = Vec::new();
    let mut rest = inner;
    loop {
        let end = rest.windows(3).position(|part| part == b"\",\"");
        let request = &rest[..end.unwrap_or(rest.len())];
        if request.contains(&b'"') || request.contains(&b'\\') {
            return None;
        }
        requests.push(request.to_vec());
        match end {
            Some(end) => rest = &rest[end + 3..],
            None => return Some(requests),
        }
    }
}

//! Packets about memory that LLDB has added to the protocol (LLDB's documentation, "GDB Remote Protocol Extensions").

use super::Command;
use super::CommandError;
use super::syntax;

const REGION: &str = "qMemoryRegionInfo:addr, in hex";

/// `qMemoryRegionInfo:<addr>`; without an address LLDB asks whether the packet is there.
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

/// Whether this is the rest of `_M<size>,<permissions>` or of `_m<addr>`.
pub(super) fn is_allocation(rest: &[u8]) -> bool {
    matches!(rest.first(), Some(b'M' | b'm'))
}

/// Why there is nothing to allocate, for clients that show words.
pub(crate) const NO_ALLOCATION: &str = "no memory can be allocated in the guest: all of its memory and its page tables are the guest's own; \
     GDB's `call`, which needs none, works";

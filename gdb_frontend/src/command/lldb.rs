//! Packets about memory that LLDB has added to the protocol (LLDB's documentation, "GDB Remote Protocol Extensions").

use super::Command;
use super::CommandError;
use super::syntax;

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

//! The packets `Z` and `z`.

use super::CommandError;
use super::syntax;
use crate::target::Breakpoint;
use crate::target::BreakpointKind;

/// Without these features GDB would decrement the program counter after a breakpoint.
pub(super) const FEATURES: &[&str] = &["swbreak+", "hwbreak+"];

const SYNTAX: &str =
    "Z type,addr,kind, or z type,addr,kind, with type 0 to 4, addr and kind in hex";

/// `Z type,addr,kind`, `z type,addr,kind`: "Insert (‘Z’) or remove (‘z’) a type breakpoint or watchpoint starting at address address
/// of kind kind." Types: 0 software, 1 hardware, 2 write, 3 read, 4 access.
pub(super) fn parse(rest: &[u8]) -> Result<Breakpoint, CommandError> {
    let syntax = CommandError::Syntax(SYNTAX);
    // `[;cond_list...][;cmds:persist,cmd_list...]`
    if memchr::memchr(b';', rest).is_some() {
        return Err(CommandError::BreakpointConditions);
    }
    let (kind, range) = syntax::split_once(rest, b',').ok_or(syntax)?;
    let kind = match kind {
        b"0" => BreakpointKind::Software,
        b"1" => BreakpointKind::Hardware,
        b"2" => BreakpointKind::Write,
        b"3" => BreakpointKind::Read,
        b"4" => BreakpointKind::Access,
        _ => return Err(syntax),
    };
    let (address, len) = syntax::range(range).ok_or(syntax)?;
    if len > 0 && address.checked_add(len - 1).is_none() {
        return Err(CommandError::Wraps);
    }
    Ok(Breakpoint { kind, address, len })
}

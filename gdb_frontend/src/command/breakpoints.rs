//! The packets `Z` and `z`.

use super::CommandError;
use super::syntax;
use crate::target::Breakpoint;
use crate::target::BreakpointKind;

/// Without the first two features GDB would decrement the program counter after a breakpoint.
pub(super) const FEATURES: &[&str] = &["swbreak+", "hwbreak+", "ConditionalBreakpoints+"];

const SYNTAX: &str = "Z type,addr,kind[;Xlen,code...], or z type,addr,kind, with type 0 to 4, addr, kind, len and code in hex";

const ERROR: CommandError = CommandError::Syntax(SYNTAX);

/// `Z type,addr,kind[;cond_list]`: "Insert (‘Z’) ... a type breakpoint or watchpoint starting at address address of kind kind." The list has conditions in
/// bytecode, `X len,expr` each.
pub(super) fn insert(rest: &[u8]) -> Result<(Breakpoint, Vec<Vec<u8>>), CommandError> {
    let (breakpoint, options) = match syntax::split_once(rest, b';') {
        Some((breakpoint, options)) => (breakpoint, options),
        None => (rest, &[][..]),
    };
    Ok((parse(breakpoint)?, conditions(options)?))
}

fn conditions(mut rest: &[u8]) -> Result<Vec<Vec<u8>>, CommandError> {
    let mut conditions = Vec::new();
    while let Some((first, behind)) = rest.split_first() {
        rest = match first {
            b';' => behind,
            b'X' => {
                let (len, code) = syntax::split_once(behind, b',').ok_or(ERROR)?;
                let len = syntax::number(len).and_then(|len| usize::try_from(len).ok());
                let digits = len.and_then(|len| len.checked_mul(2)).ok_or(ERROR)?;
                let (code, rest) = code.split_at_checked(digits).ok_or(ERROR)?;
                conditions.push(syntax::bytes(code).ok_or(ERROR)?);
                rest
            }
            // `cmds:persist,cmd_list`
            b'c' => return Err(CommandError::BreakpointCommands),
            _ => return Err(ERROR),
        };
    }
    Ok(conditions)
}

/// `type,addr,kind`. Types: 0 software, 1 hardware, 2 write, 3 read, 4 access.
pub(super) fn parse(rest: &[u8]) -> Result<Breakpoint, CommandError> {
    let (kind, range) = syntax::split_once(rest, b',').ok_or(ERROR)?;
    let kind = match kind {
        b"0" => BreakpointKind::Software,
        b"1" => BreakpointKind::Hardware,
        b"2" => BreakpointKind::Write,
        b"3" => BreakpointKind::Read,
        b"4" => BreakpointKind::Access,
        _ => return Err(ERROR),
    };
    let (address, len) = syntax::range(range).ok_or(ERROR)?;
    if len > 0 && address.checked_add(len - 1).is_none() {
        return Err(CommandError::Wraps);
    }
    Ok(Breakpoint { kind, address, len })
}

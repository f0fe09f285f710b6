//! The packets `p` and `P`. (`g` has nothing to parse, and `G` needs the register table.)

use super::Command;
use super::CommandError;
use super::syntax;

const READ: &str = "p n, with n the register's number in hex";
const WRITE: &str =
    "P n...=r..., with n in hex and r in hex digits, two for each byte of the register";

/// `p n`: "Read the value of register n; n is in hex."
pub(super) fn read_one(rest: &[u8]) -> Result<Command<'_>, CommandError> {
    let num = syntax::number(rest).ok_or(CommandError::Syntax(READ))?;
    Ok(Command::ReadRegister(num))
}

/// `P n...=r...`: "Write register n... with value r.... The register number n is in hexadecimal, and r... contains two hex digits for
/// each byte in the register (target byte order)."
pub(super) fn write_one(rest: &[u8]) -> Result<Command<'_>, CommandError> {
    let syntax = CommandError::Syntax(WRITE);
    let (num, value) = syntax::split_once(rest, b'=').ok_or(syntax)?;
    Ok(Command::WriteRegister {
        num: syntax::number(num).ok_or(syntax)?,
        value: syntax::bytes(value).ok_or(syntax)?,
    })
}

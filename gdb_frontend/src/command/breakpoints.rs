//! The packets `Z` and `z`.

use super::Command;
use super::CommandError;
use super::syntax;
use crate::target::Breakpoint;
use crate::target::BreakpointKind;

const SYNTAX: &str = "Z type,addr,kind[;Xlen,code...][;cmds:persist,Xlen,code...], or z type,addr,kind, with type 0 to 4, addr, kind, len and code in hex";

const ERROR: CommandError = CommandError::Syntax(SYNTAX);

/// `Z type,addr,kind[;cond_list][;cmds:persist,cmd_list]`: "Insert (‘Z’) ... a type breakpoint or watchpoint starting at address address of kind kind." The lists have
/// bytecode, `X len,expr` each. `persist` asks for commands that outlive the session: there are none.
pub(super) fn insert(rest: &[u8]) -> Result<Command<'static>, CommandError> {
    let (breakpoint, options) = match syntax::split_once(rest, b';') {
        Some((breakpoint, options)) => (breakpoint, options),
        None => (rest, &[][..]),
    };
    let mut lists = Lists::default();
    lists.parse(options)?;
    Ok(Command::InsertBreakpoint {
        breakpoint: parse(breakpoint)?,
        conditions: lists.conditions,
        commands: lists.commands.unwrap_or_default(),
    })
}

/// The bytecode of a breakpoint.
#[derive(Default)]
struct Lists {
    conditions: Vec<Vec<u8>>,
    /// `None` before `cmds`.
    commands: Option<Vec<Vec<u8>>>,
}

impl Lists {
    fn parse(&mut self, mut rest: &[u8]) -> Result<(), CommandError> {
        while let Some((first, behind)) = rest.split_first() {
            rest = match first {
                b';' => behind,
                b'X' => {
                    let (len, code) = syntax::split_once(behind, b',').ok_or(ERROR)?;
                    let len = syntax::number(len).and_then(|len| usize::try_from(len).ok());
                    let digits = len.and_then(|len| len.checked_mul(2)).ok_or(ERROR)?;
                    let (code, rest) = code.split_at_checked(digits).ok_or(ERROR)?;
                    let list = self.commands.as_mut().unwrap_or(&mut self.conditions);
                    list.push(syntax::bytes(code).ok_or(ERROR)?);
                    rest
                }
                b'c' if self.commands.is_none() => {
                    let persist = behind.strip_prefix(b"mds:").ok_or(ERROR)?;
                    let (persist, list) = syntax::split_once(persist, b',').ok_or(ERROR)?;
                    syntax::number(persist).ok_or(ERROR)?;
                    self.commands = Some(Vec::new());
                    list
                }
                _ => return Err(ERROR),
            };
        }
        Ok(())
    }
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

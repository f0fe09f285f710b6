//! The packets `qXfer` and `qRcmd`.

use super::Command;
use super::CommandError;
use super::syntax;

const TRANSFER: &str = "qXfer:object:read:annex:offset,length, with target.xml the only annex of features, none of threads and exec-file, and a table of osdata";
const MONITOR: &str = "qRcmd,command, with command in hex digits, two for each character";

/// The documents that `qXfer` reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferObject {
    /// `features`, annex `target.xml`: the target description.
    TargetDescription,
    /// `threads`: the list of threads.
    Threads,
    /// `traceframe-info`: what the selected frame has recorded.
    FrameInfo,
    /// `exec-file`: the name of the file with the symbols of the guest.
    SymbolFileName,
}

/// A table of `info os`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableName {
    /// The list of tables.
    List,
    /// The bytes of a name.
    Named(Vec<u8>),
}

/// `qXfer:object:read:annex:offset,length`: "Read uninterpreted bytes from the target's special data area identified by the keyword
/// object. Request length bytes starting at offset bytes into the data."
pub(super) fn transfer(arguments: &[u8]) -> Result<Command<'_>, CommandError> {
    let mut parts = arguments.splitn(5, |&byte| byte == b':').skip(1);
    let object = match (parts.next(), parts.next()) {
        (
            Some(
                object @ (b"features" | b"threads" | b"traceframe-info" | b"exec-file" | b"osdata"),
            ),
            Some(b"read"),
        ) => object,
        // "An empty reply indicates the object string was not recognized by the stub."
        _ => return Ok(Command::Unknown),
    };
    let syntax = CommandError::Syntax(TRANSFER);
    let (Some(annex), Some(range)) = (parts.next(), parts.next()) else {
        return Err(syntax);
    };
    let (offset, len) = syntax::range(range).ok_or(syntax)?;
    let object = match (object, annex) {
        (b"osdata", annex) => {
            let name = match annex.is_empty() {
                true => TableName::List,
                false => TableName::Named(annex.to_vec()),
            };
            return Ok(Command::Table { name, offset, len });
        }
        (b"features", b"target.xml") => TransferObject::TargetDescription,
        (b"threads", b"") => TransferObject::Threads,
        (b"traceframe-info", b"") => TransferObject::FrameInfo,
        // A client that knows the process names it.
        (b"exec-file", process) if process.is_empty() || syntax::number(process).is_some() => {
            TransferObject::SymbolFileName
        }
        _ => return Err(syntax),
    };
    Ok(Command::Transfer {
        object,
        offset,
        len,
    })
}

/// `qRcmd,command`: "command (hex encoded) is passed to the local interpreter for execution."
pub(super) fn monitor(arguments: &[u8]) -> Result<Command<'_>, CommandError> {
    arguments
        .strip_prefix(b",")
        .and_then(syntax::bytes)
        .map(|line| Command::Monitor(String::from_utf8_lossy(&line).into_owned()))
        .ok_or(CommandError::Syntax(MONITOR))
}

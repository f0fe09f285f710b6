//! The packets of extended mode (GDB manual, node "Packets"), in which GDB starts, attaches and kills programs over one connection. The one program is the machine.

use super::Command;
use super::CommandError;
use super::syntax;

const RUN: &str = "vRun;filename[;argument]..., with the file's name and each argument in hex";
const ATTACH: &str = "vAttach;1, as the guest is process 1";

/// `vRun;filename[;argument]...`: "Run the program filename, passing it each argument on its command line. The file and arguments are hex-encoded
/// strings. If filename is an empty string, the stub may use a default program."
pub(super) fn run(arguments: &[u8]) -> Result<Command<'_>, CommandError> {
    let mut parts = arguments.split(|byte| *byte == b';').skip(1);
    let syntax = CommandError::Syntax(RUN);
    let file = parts.next().and_then(syntax::bytes).ok_or(syntax)?;
    // GDB sends an empty argument where there is none.
    let has_arguments = parts.any(|argument| !argument.is_empty());
    Ok(Command::Run {
        file,
        has_arguments,
    })
}

/// `vAttach;pid`: "Attach to a new process with the specified process ID pid."
pub(super) fn attach(arguments: &[u8]) -> Result<Command<'_>, CommandError> {
    let process = arguments.strip_prefix(b";").and_then(syntax::number);
    match process {
        Some(1) => Ok(Command::Attach),
        _ => Err(CommandError::Syntax(ATTACH)),
    }
}

/// `R XX`: "Restart the program being debugged. The XX, while needed, is ignored."
pub(super) fn restart(rest: &[u8]) -> Command<'_> {
    match syntax::number(rest) {
        Some(_) => Command::Restart,
        None => Command::Unknown,
    }
}

//! The packets `H`, `T`, `qThreadExtraInfo` and `qThreadStopInfo`.

use super::Command;
use super::CommandError;
use super::syntax;
use crate::target::Tid;

const SELECT: &str = "H op thread-id, with op g or c and thread-id in hex, 0 for any, -1 for all";
const ALIVE: &str = "T thread-id, in hex";
const STOP_INFO: &str = "qThreadStopInfo thread-id, in hex";
const EXTRA_INFO: &str = "qThreadExtraInfo,thread-id, in hex";

/// A thread-id in a packet (GDB manual, node "Packets", "thread-id").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadSelector {
    /// `-1`: all threads.
    All,
    /// `0`: any thread.
    Any,
    /// One thread, which may not exist.
    One(Tid),
}

/// "A thread-id can also be a literal ‘-1’ to indicate all threads, or ‘0’ to pick any thread." The form with `p` is
/// for multiprocess servers, which this server is not.
pub(super) fn selector(id: &[u8]) -> Option<ThreadSelector> {
    match id {
        b"-1" => Some(ThreadSelector::All),
        id => match Tid::new(u32::try_from(syntax::number(id)?).ok()?) {
            Some(tid) => Some(ThreadSelector::One(tid)),
            None => Some(ThreadSelector::Any),
        },
    }
}

fn one(id: &[u8]) -> Option<Tid> {
    match selector(id)? {
        ThreadSelector::One(tid) => Some(tid),
        ThreadSelector::All | ThreadSelector::Any => None,
    }
}

/// `H op thread-id`: "Set thread for subsequent operations (‘m’, ‘M’, ‘g’, ‘G’, et.al.). [...] op should be ‘c’ for step and continue
/// operations [...] and ‘g’ for other operations."
pub(super) fn select(rest: &[u8]) -> Result<Command<'_>, CommandError> {
    let syntax = CommandError::Syntax(SELECT);
    let (op, id) = rest.split_first().ok_or(syntax)?;
    let selector = selector(id).ok_or(syntax)?;
    match op {
        b'g' => Ok(Command::SelectThread(selector)),
        b'c' => Ok(Command::SelectResumedThread(selector)),
        _ => Err(syntax),
    }
}

/// `T thread-id`: "Find out if the thread thread-id is alive."
pub(super) fn alive(rest: &[u8]) -> Result<Command<'_>, CommandError> {
    one(rest)
        .map(Command::ThreadAlive)
        .ok_or(CommandError::Syntax(ALIVE))
}

/// `qThreadExtraInfo,thread-id`: "Obtain from the target OS a printable string description of thread attributes for the thread
/// thread-id."
pub(super) fn extra_info(arguments: &[u8]) -> Result<Command<'_>, CommandError> {
    arguments
        .strip_prefix(b",")
        .and_then(one)
        .map(Command::ThreadExtraInfo)
        .ok_or(CommandError::Syntax(EXTRA_INFO))
}

/// `qThreadStopInfo<thread-id>` (LLDB's "GDB Remote Protocol Extensions"): the stop reply packet of one thread.
pub(super) fn stop_info(id: &[u8]) -> Result<Command<'_>, CommandError> {
    one(id)
        .map(Command::ThreadStopInfo)
        .ok_or(CommandError::Syntax(STOP_INFO))
}

//! The packets `c`, `C`, `s`, `S` and `vCont`.

use super::Command;
use super::CommandError;
use super::ThreadSelector;
use super::syntax;
use super::threads;
use crate::target::ResumeAction;

/// The reply to `vCont?`. Without `C` and `S` GDB assumes that stepping is not supported. `t` belongs to
/// non-stop mode, but GDB 18 asks before it turns that mode on.
pub(crate) const VCONT_ACTIONS: &str = "vCont;c;C;s;S;r;t";

const PLAIN: &str = "c [addr], or s [addr], with addr in hex";
const SIGNAL: &str = "C sig[;addr], or S sig[;addr], both in hex";
const VCONT: &str = "vCont;action[:thread-id]..., with action c, C sig, s, S sig, r start,end or t, and at most one action without a thread";

/// The actions of `vCont` in the packet's order. For each thread, the first action that names the thread applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VCont {
    /// The actions, at least one.
    pub actions: Vec<(VContAction, ThreadSelector)>,
}

/// An action of `vCont`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VContAction {
    /// The thread runs or steps.
    Resume(ResumeAction),
    /// `t`: the thread stops, in non-stop mode.
    Stop,
}

/// `c [addr]`: "Continue at addr, which is the address to resume. If addr is omitted, resume at current address." `s [addr]`:
/// "Single step, resuming at addr."
pub(super) fn plain(kind: u8, rest: &[u8]) -> Result<Command<'_>, CommandError> {
    let address = match rest {
        [] => None,
        digits => Some(syntax::number(digits).ok_or(CommandError::Syntax(PLAIN))?),
    };
    Ok(Command::Resume {
        action: action(kind),
        address,
    })
}

/// `C sig[;addr]`, `S sig[;addr]`: the same with a signal. A guest has no signals, so the signal is ignored.
pub(super) fn with_signal(kind: u8, rest: &[u8]) -> Result<Command<'_>, CommandError> {
    let syntax = CommandError::Syntax(SIGNAL);
    let (signal, address) = match syntax::split_once(rest, b';') {
        Some((signal, address)) => (signal, Some(syntax::number(address).ok_or(syntax)?)),
        None => (rest, None),
    };
    syntax::number(signal).ok_or(syntax)?;
    Ok(Command::Resume {
        action: action(kind),
        address,
    })
}

fn action(kind: u8) -> ResumeAction {
    match kind {
        b's' | b'S' => ResumeAction::Step,
        _ => ResumeAction::Continue,
    }
}

/// `vCont[;action[:thread-id]]...`: "For each inferior thread, the leftmost action with a matching thread-id is applied. Threads that
/// don't match any action remain in their current state. [...] An action with no thread-id matches all threads. Specifying multiple
/// default actions is an error; specifying no actions is also an error."
pub(super) fn vcont(arguments: &[u8]) -> Result<Command<'_>, CommandError> {
    let syntax = CommandError::Syntax(VCONT);
    let list = arguments.strip_prefix(b";").ok_or(syntax)?;
    let mut actions = Vec::new();
    let mut defaults = 0;
    for item in list.split(|&byte| byte == b';') {
        let (action, thread) = match syntax::split_once(item, b':') {
            Some((action, thread)) => (action, threads::selector(thread).ok_or(syntax)?),
            None => {
                defaults += 1;
                (item, ThreadSelector::All)
            }
        };
        actions.push((vcont_action(action).ok_or(syntax)?, thread));
    }
    if defaults > 1 {
        return Err(syntax);
    }
    Ok(Command::VCont(VCont { actions }))
}

/// `t`, and `c`, `C sig`, `s`, `S sig` (two digits), and `r start,end`: "Step once, and then keep stepping as long as the thread stops at
/// addresses between start (inclusive) and end (exclusive). [...] If the range is empty (start == end), then the action becomes
/// equivalent to the 's' action."
fn vcont_action(action: &[u8]) -> Option<VContAction> {
    let resume = match action {
        b"t" => return Some(VContAction::Stop),
        b"c" => Some(ResumeAction::Continue),
        b"s" => Some(ResumeAction::Step),
        [b'C', signal @ ..] => syntax::number(signal).map(|_| ResumeAction::Continue),
        [b'S', signal @ ..] => syntax::number(signal).map(|_| ResumeAction::Step),
        [b'r', range @ ..] => match syntax::range(range)? {
            (start, end) if start < end => Some(ResumeAction::StepRange { start, end }),
            (start, end) if start == end => Some(ResumeAction::Step),
            _ => None,
        },
        _ => None,
    };
    resume.map(VContAction::Resume)
}

//! What commands of breakpoints print, until the debugger takes the text. VPs print at the same time, each text of one hit in one piece.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use vmm_core_defs::condition::MOST_OUTPUT;
use vmm_core_defs::debug_rpc::DebugRpc;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct CommandOutput(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    text: Vec<u8>,
    /// The number of bytes that were not kept.
    lost: u64,
    /// The request that waits for text.
    asked: Option<DebugRpc<(), Vec<u8>>>,
}

impl CommandOutput {
    /// Takes the text of one hit.
    pub(crate) fn print(&self, text: &[u8]) {
        let mut state = self.state();
        match state.text.len() + text.len() <= MOST_OUTPUT && state.lost == 0 {
            true => state.text.extend(text),
            false => state.lost += text.len() as u64,
        }
        if let Some(asked) = state.asked.take() {
            asked.complete(Ok(state.take()));
        }
    }

    /// The debugger asks for text. The request is answered at once if there is text, or if the guest is stopped.
    pub(crate) fn ask(&self, request: DebugRpc<(), Vec<u8>>, is_stopped: bool) {
        let mut state = self.state();
        if let Some(earlier) = state.asked.take() {
            earlier.complete(Ok(Vec::new()));
        }
        match is_stopped || !state.text.is_empty() {
            true => request.complete(Ok(state.take())),
            false => state.asked = Some(request),
        }
    }

    /// The guest has stopped: answers the request that waits.
    pub(crate) fn stopped(&self) {
        let mut state = self.state();
        if let Some(asked) = state.asked.take() {
            asked.complete(Ok(state.take()));
        }
    }

    /// The session has ended.
    pub(crate) fn clear(&self) {
        *self.state() = State::default();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self) -> Vec<u8> {
        let mut text = std::mem::take(&mut self.text);
        match std::mem::take(&mut self.lost) {
            0 => {}
            lost => text.extend(format!("\n({lost} bytes of output were lost)\n").bytes()),
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::OneshotReceiver;
    use mesh::rpc::Rpc;
    use vmm_core_defs::debug_rpc::DebugError;

    type Answer = OneshotReceiver<Result<Vec<u8>, DebugError>>;

    fn ask(output: &CommandOutput, is_stopped: bool) -> Answer {
        let (reply, answer) = mesh::oneshot();
        output.ask(Rpc((), reply), is_stopped);
        answer
    }

    #[track_caller]
    fn text(mut answer: Answer) -> Option<String> {
        let answer = futures::FutureExt::now_or_never(&mut answer)?;
        Some(String::from_utf8(answer.unwrap().unwrap()).unwrap())
    }

    #[test]
    fn text_comes_once_and_when_it_is_there() {
        let output = CommandOutput::default();
        let waits = ask(&output, false);
        output.print(b"a");
        output.print(b"b");
        assert_eq!(text(waits).as_deref(), Some("a"));
        assert_eq!(text(ask(&output, false)).as_deref(), Some("b"));
        let (first, second) = (ask(&output, false), ask(&output, false));
        assert_eq!(text(first).as_deref(), Some(""));
        output.stopped();
        assert_eq!(text(second).as_deref(), Some(""));
        assert_eq!(text(ask(&output, true)).as_deref(), Some(""));
        assert_eq!(text(ask(&output, false)), None);
    }

    #[test]
    fn text_that_nobody_takes_has_a_limit_and_says_how_much_is_lost() {
        let output = CommandOutput::default();
        output.print(&vec![b'x'; MOST_OUTPUT - 1]);
        output.print(b"yy");
        // Behind a gap nothing is kept, so that the text is in order.
        output.print(b"z");
        let all = text(ask(&output, false)).unwrap();
        assert!(all.ends_with("x\n(3 bytes of output were lost)\n"));
        output.print(b"more");
        assert_eq!(text(ask(&output, true)).as_deref(), Some("more"));
    }
}

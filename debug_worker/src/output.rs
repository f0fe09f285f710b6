//! The output of commands of breakpoints, on its way from the VM to the client.
//!
//! ```text
//!            resumed, with commands        ask                     answered
//!      None -----------------------> NotAsked ----> Asked(before) ----------> NotAsked
//!       ^                                |             | a stop comes            |
//!       |                                v             v                        v
//!       +------ answered --------- Asked(behind) <- NotAsked { stop } <---------+
//! ```
//! The text of a request that was sent behind the stop is the last text before the stop. So the stop is held until that request is answered.

use crate::deadline::CallError;
use crate::vm::PendingOutput;
use std::future::pending;
use vmm_core_defs::stop::StopEvent;

type Stop = Result<StopEvent, CallError>;

/// See the module.
#[derive(Debug)]
pub(crate) enum Output {
    /// No breakpoint has commands, or the client has all text.
    None,
    /// The next request is to be sent.
    NotAsked {
        /// The stop that is held.
        stop: Option<Stop>,
    },
    /// A request waits.
    Asked {
        answer: PendingOutput,
        /// The stop that is held. If `is_behind`, it came before the request was sent.
        stop: Option<Stop>,
        is_behind: bool,
    },
}

impl Output {
    /// Sends the next request, if there is to be one.
    pub(crate) fn ask(&mut self, send: impl FnOnce() -> PendingOutput) {
        if let Self::NotAsked { stop } = self {
            let stop = stop.take();
            *self = Self::Asked {
                answer: send(),
                is_behind: stop.is_some(),
                stop,
            };
        }
    }

    /// Whether a stop is held.
    pub(crate) fn is_expected(&self) -> bool {
        matches!(
            self,
            Self::NotAsked { stop: Some(_) } | Self::Asked { stop: Some(_), .. }
        )
    }

    /// The answer to the request that waits, if one does. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Vec<u8>, CallError> {
        match self {
            Self::Asked { answer, .. } => Ok(answer.await?),
            Self::None | Self::NotAsked { .. } => pending().await,
        }
    }

    /// A stop has come. Returns the stop if it need not be held.
    pub(crate) fn hold(&mut self, came: Stop) -> Option<Stop> {
        match self {
            Self::None => Some(came),
            Self::NotAsked { stop } | Self::Asked { stop, .. } => {
                *stop = Some(came);
                None
            }
        }
    }

    /// The request that waited was answered. Returns the stop that was held, if the client has all text before it. A VM that answers with an error has no text.
    pub(crate) fn answered(&mut self, well: bool) -> Option<Stop> {
        let Self::Asked {
            stop, is_behind, ..
        } = self
        else {
            return None;
        };
        let (stop, is_last) = (stop.take(), *is_behind || !well);
        match is_last {
            true => {
                *self = Self::None;
                stop
            }
            false => {
                *self = Self::NotAsked { stop };
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use mesh::rpc::RpcSend;
    use vmm_core_defs::debug_rpc::DebugError;
    use vmm_core_defs::debug_rpc::DebugRpc;

    type Asked = DebugRpc<(), Vec<u8>>;

    /// The VM's side, which gets the requests.
    struct Vm(mesh::Sender<Asked>, mesh::Receiver<Asked>);

    impl Vm {
        fn new() -> Self {
            let (send, receive) = mesh::channel();
            Self(send, receive)
        }

        fn asked(&mut self, output: &mut Output) -> Option<Asked> {
            output.ask(|| self.0.call_failable(|rpc| rpc, ()));
            self.1.try_recv().ok()
        }
    }

    fn stop() -> Stop {
        Err(CallError::Gone)
    }

    fn text(output: &mut Output) -> Option<String> {
        let text = output.next().now_or_never()?.unwrap();
        Some(String::from_utf8(text).unwrap())
    }

    #[test]
    fn without_commands_a_stop_is_not_held() {
        let (mut vm, mut output) = (Vm::new(), Output::None);
        assert!(vm.asked(&mut output).is_none());
        assert!(output.hold(stop()).is_some());
        assert!(!output.is_expected());
    }

    #[test]
    fn a_stop_comes_behind_the_text_of_a_request_that_was_sent_behind_it() {
        let (mut vm, mut output) = (Vm::new(), Output::NotAsked { stop: None });
        let first = vm.asked(&mut output).unwrap();
        assert!(vm.asked(&mut output).is_none(), "one request at a time");
        assert_eq!(text(&mut output), None);
        first.complete(Ok(b"one".to_vec()));
        // The stop is seen before the text.
        assert!(output.hold(stop()).is_none());
        assert!(output.is_expected());
        assert_eq!(text(&mut output).as_deref(), Some("one"));
        assert!(output.answered(true).is_none());
        let second = vm.asked(&mut output).unwrap();
        second.complete(Ok(b"two".to_vec()));
        assert_eq!(text(&mut output).as_deref(), Some("two"));
        assert!(output.answered(true).is_some());
        assert!(vm.asked(&mut output).is_none());
    }

    #[test]
    fn a_guest_that_has_stopped_at_once_is_asked_once() {
        let (mut vm, mut output) = (Vm::new(), Output::NotAsked { stop: None });
        assert!(output.hold(stop()).is_none());
        vm.asked(&mut output).unwrap().complete(Ok(Vec::new()));
        assert_eq!(text(&mut output).as_deref(), Some(""));
        assert!(output.answered(true).is_some());
    }

    #[test]
    fn a_vm_that_knows_no_output_is_not_asked_again() {
        for stopped in [false, true] {
            let (mut vm, mut output) = (Vm::new(), Output::NotAsked { stop: None });
            let asked = vm.asked(&mut output).unwrap();
            asked.complete(Err(DebugError::NotAttached));
            assert_eq!(stopped, stopped && output.hold(stop()).is_none());
            assert!(output.next().now_or_never().unwrap().is_err());
            assert_eq!(output.answered(false).is_some(), stopped);
            assert!(vm.asked(&mut output).is_none());
        }
    }
}

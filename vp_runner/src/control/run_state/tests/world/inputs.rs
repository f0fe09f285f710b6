//! Everything that can happen next.

use super::*;

/// What can happen next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::control::run_state::tests) enum Input {
    Attach,
    Detach(DetachAction),
    Lost,
    Resume(Vec<VpAction>),
    Break,
    Change,
    Pause,
    Reset,
    StopOn(StopOn),
    Shutdown,
    Parked(VpIndex, Option<Cause>),
    /// Kicked before it had moved, or before it had gone over its byte.
    StillThere(VpIndex),
    /// The instruction under its byte could not be carried out.
    NotCarriedOut(VpIndex),
    Tell(VpIndex),
    /// As `Tell`, where the VP is about to meet the breakpoint.
    TellStanding(VpIndex),
    Redirect(VpIndex),
}

impl World {
    pub(in crate::control::run_state::tests) fn inputs(&self) -> Vec<Input> {
        let mut inputs = vec![
            Input::Attach,
            Input::Detach(DetachAction::Resume),
            Input::Detach(DetachAction::Stay),
            Input::Detach(DetachAction::Kill),
            Input::Detach(DetachAction::ResumeUnlessHeld),
            Input::Detach(DetachAction::KillUnlessHeld),
            Input::Detach(DetachAction::ResumeUnlessCrashed),
            Input::Lost,
            Input::Break,
            Input::Change,
            Input::Pause,
            Input::Reset,
            Input::Shutdown,
        ];
        if !self.breakpoints {
            inputs.retain(|input| !matches!(input, Input::Change | Input::Pause));
        }
        let count = self.places.len();
        let plan = |first, others| {
            let mut plan = vec![others; count];
            plan[0] = first;
            Input::Resume(plan)
        };
        inputs.push(plan(VpAction::Run, VpAction::Run));
        inputs.push(plan(VpAction::Step, VpAction::Stay));
        inputs.push(plan(VpAction::Stay, VpAction::Stay));
        if count > 1 {
            inputs.push(plan(VpAction::Step, VpAction::Run));
            inputs.push(plan(VpAction::Step, VpAction::Step));
        }
        if count >= 2 {
            inputs.push(plan(VpAction::Stay, VpAction::Run));
        }
        if count == 3 {
            inputs.push(Input::Redirect(vp_index(0)));
        }
        if self.tells() {
            for vp in (0..count).map(vp_index) {
                inputs.push(Input::Tell(vp));
                let elsewhere = self.standing.get(&vp) == Some(&ByteOf::OtherAddress);
                if self.table && !elsewhere && !self.unreported.contains(&vp) {
                    inputs.push(Input::TellStanding(vp));
                }
                inputs.push(Input::Redirect(vp));
            }
        }
        for (index, place) in self.places.iter().enumerate() {
            let vp = vp_index(index);
            let action = match place {
                RipAt::Parked => continue,
                RipAt::InGuest(action, _) => action,
                RipAt::Kicked(action, _) => {
                    if self.lifted != Some(vp) {
                        inputs.push(Input::Parked(vp, None));
                    }
                    if self.tells() || self.going_over.contains_key(&vp) || self.lifted == Some(vp)
                    {
                        inputs.push(Input::StillThere(vp));
                    }
                    action
                }
            };
            if self.going_over.contains_key(&vp) && self.alone != Some(vp) {
                inputs.push(Input::NotCarriedOut(vp));
            }
            // A byte of another address on its way, or the step over is done.
            let on_byte =
                self.programmed && !self.standing.contains_key(&vp) && (self.tells() || index == 0);
            if on_byte || (self.lifted == Some(vp) && *action == VpAction::Run) {
                inputs.push(Input::Parked(vp, Some(Cause::NotReported)));
            }
            if *action == VpAction::Step {
                let step = DebugStopReason::SingleStep { vp };
                inputs.push(Input::Parked(vp, Some(Cause::Debug(step))));
            }
            if self.programmed && self.lifted.is_none() {
                inputs.push(Input::Parked(vp, Some(Cause::Debug(hit(vp)))));
            }
            let event = match index {
                0 => GuestEvent::Reset { vp: Some(vp) },
                _ => GuestEvent::TripleFault {
                    vp,
                    registers: FaultRegisters::Kept,
                },
            };
            if self.tells() || index == 0 || !self.breakpoints {
                inputs.push(Input::Parked(vp, Some(Cause::Guest(event))));
            }
            if count == 1 && self.keeps != Keeps::Nothing {
                let event = GuestEvent::TripleFault {
                    vp,
                    registers: FaultRegisters::Kept,
                };
                inputs.push(Input::Parked(vp, Some(Cause::Guest(event))));
            }
            if count == 1 {
                let panic = GuestEvent::Panicked { vp };
                inputs.push(Input::Parked(vp, Some(Cause::Guest(panic))));
            }
        }
        if count < 3 && self.breakpoints {
            use GuestEventKind::*;
            for on in [&[][..], &[Reset, PowerOff, TripleFault, Panic]] {
                inputs.push(Input::StopOn(on.iter().copied().collect()));
            }
        }
        inputs
    }

    /// Whether a client asks for the reasons of single VPs, or sets their RIP, and VPs are kicked before they move at all: with three VPs there are too
    /// many states as it is.
    pub(super) fn tells(&self) -> bool {
        self.places.len() < 3 && self.breakpoints
    }
}

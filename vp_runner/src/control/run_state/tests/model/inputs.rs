//! The inputs that are possible in a state.

use super::*;

/// An input.
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
    /// The VP was kicked before it executed an instruction or passed its byte.
    StillThere(VpIndex),
    /// The instruction under the byte could not be emulated.
    EmulationFailed(VpIndex),
    ReportReason(VpIndex),
    /// As `ReportReason`, for a VP with the breakpoint at its RIP.
    ReportBreakpointAhead(VpIndex),
    WriteRip(VpIndex),
}

impl Model {
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
        let count = self.vps.len();
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
            inputs.push(Input::WriteRip(vp_index(0)));
        }
        if self.asks_for_reasons() {
            for vp in (0..count).map(vp_index) {
                inputs.push(Input::ReportReason(vp));
                let elsewhere = self.at_byte.get(&vp) == Some(&ByteOf::OtherAddress);
                if self.table && !elsewhere && !self.unreported.contains(&vp) {
                    inputs.push(Input::ReportBreakpointAhead(vp));
                }
                inputs.push(Input::WriteRip(vp));
            }
        }
        for (index, vp_is) in self.vps.iter().enumerate() {
            let vp = vp_index(index);
            let action = match vp_is {
                VpIs::Parked => continue,
                VpIs::InGuest(action, _) => action,
                VpIs::Kicked(action, _) => {
                    if self.lifted != Some(vp) {
                        inputs.push(Input::Parked(vp, None));
                    }
                    if self.asks_for_reasons()
                        || self.passing_byte.contains_key(&vp)
                        || self.lifted == Some(vp)
                    {
                        inputs.push(Input::StillThere(vp));
                    }
                    action
                }
            };
            if self.passing_byte.contains_key(&vp) && self.alone != Some(vp) {
                inputs.push(Input::EmulationFailed(vp));
            }
            // The VP hits a byte of another address, or has stepped over its byte.
            let on_byte = self.programmed
                && !self.at_byte.contains_key(&vp)
                && (self.asks_for_reasons() || index == 0);
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
            if self.asks_for_reasons() || index == 0 || !self.breakpoints {
                inputs.push(Input::Parked(vp, Some(Cause::Guest(event))));
            }
            if count == 1 && self.keep_stopped != KeepStopped::Nothing {
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

    /// Whether the walk includes three rare inputs: a client asks for the reasons of single VPs, a client writes their RIP, and a VP is kicked before it executes
    /// an instruction. With three VPs there would be too many states.
    pub(super) fn asks_for_reasons(&self) -> bool {
        self.vps.len() < 3 && self.breakpoints
    }
}

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
    /// With the number of steps that the VP has made since its entry.
    Parked(VpIndex, Option<Cause>, u64),
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
        let steps = |count: u64| VpAction::StepN {
            count: count.try_into().unwrap(),
        };
        match count {
            1 => inputs.push(plan(steps(3), VpAction::Stay)),
            2 if self.breakpoints => inputs.push(plan(steps(2), VpAction::Run)),
            _ => {}
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
            // The VP parks with each number of steps from 0 on that it may have made.
            let left = self.left.get(&vp).copied();
            let mut parks = |cause, most| {
                let steps = 0..=left.map_or(0, |left| left.min(most));
                inputs.extend(steps.map(|steps| Input::Parked(vp, cause, steps)));
            };
            let lifted = self.lifted == Some(vp);
            let all = match count {
                // Otherwise there would be too many states.
                3 => 0,
                _ => u64::MAX,
            };
            // Otherwise the last step would be the cause.
            let not_all = left.map_or(0, |left| left.saturating_sub(1));
            match vp_is {
                VpIs::Parked => continue,
                VpIs::Kicked(..) if !lifted => parks(None, not_all),
                VpIs::Kicked(..) | VpIs::InGuest(..) => {}
            }
            // The VP hits a byte of another address.
            let on_byte = self.programmed
                && !self.at_byte.contains_key(&vp)
                && (self.asks_for_reasons() || index == 0);
            if on_byte {
                parks(Some(Cause::NotReported), not_all);
            }
            if self.programmed && self.lifted.is_none() {
                // Some CPUs report a breakpoint together with the step that led to it.
                parks(Some(Cause::Debug(hit(vp))), all);
            }
            let event = match index {
                0 => GuestEvent::Reset { vp: Some(vp) },
                _ => GuestEvent::TripleFault {
                    vp,
                    registers: FaultRegisters::Kept,
                },
            };
            if self.asks_for_reasons() || index == 0 || !self.breakpoints {
                parks(Some(Cause::Guest(event)), all);
            }
            if count == 1 && self.keep_stopped != KeepStopped::Nothing {
                let event = GuestEvent::TripleFault {
                    vp,
                    registers: FaultRegisters::Kept,
                };
                parks(Some(Cause::Guest(event)), all);
            }
            if count == 1 {
                parks(Some(Cause::Guest(GuestEvent::Panicked { vp })), all);
            }
            // With the others stopped, the VP executes one instruction.
            match (lifted, left) {
                (true, None) => inputs.push(Input::Parked(vp, Some(Cause::NotReported), 0)),
                (true, Some(2..)) => inputs.push(Input::Parked(vp, Some(Cause::NotReported), 1)),
                (_, None) => {}
                (_, Some(left)) => {
                    let step = Cause::Debug(DebugStopReason::SingleStep { vp });
                    inputs.push(Input::Parked(vp, Some(step), left));
                }
            }
            if let VpIs::Kicked(..) = vp_is
                && (self.asks_for_reasons() || self.passing_byte.contains_key(&vp) || lifted)
            {
                inputs.push(Input::StillThere(vp));
            }
            if self.passing_byte.contains_key(&vp) && self.alone != Some(vp) {
                inputs.push(Input::EmulationFailed(vp));
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

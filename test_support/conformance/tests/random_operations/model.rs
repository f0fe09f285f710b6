//! The model: the possible positions of each VP, the armed breakpoints, and the allowed stop reasons.

use crate::guest::COUNTED;
use crate::guest::Program;
use crate::guest::UNMAPPED;
use crate::guest::counter;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::breakpoint::BreakpointStatus;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::stop::DebugStopReason;
use vp_runner::probe::Report;

/// The size of the physical memory behind both mappings of the program.
pub(crate) const MAPPED: u64 = 0x20_0000;
/// The number of debug registers on x86.
const REGISTERS: usize = 4;

pub(crate) struct Model {
    pub program: Program,
    pub vps: Vec<Vp>,
    pub set: Vec<Breakpoint>,
    watches: bool,
    traps: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Vp {
    /// The number of executed instructions.
    pub position: u64,
    due: Due,
    reported: Reported,
}

/// Whether a stop of the VP at its position was reported. Only then does the VP pass an execution breakpoint there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reported {
    Yes,
    No,
    /// The VP was resumed since and is at the same position. It may or may not have entered the guest.
    Unclear,
}

/// Whether the VP is at a breakpoint that it has hit, or is about to hit, and that was not reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    No,
    /// The VP does not move before the hit is reported.
    Must,
    /// The breakpoint was inserted or removed meanwhile.
    May,
}

/// A resume and the events that may have stopped it.
pub(crate) struct Run {
    pub plan: Vec<VpAction>,
    /// The breakpoints that were set from the beginning to the end.
    pub stable: Vec<Breakpoint>,
    /// The breakpoints that were set at the beginning or at the end.
    pub known: Vec<Breakpoint>,
    /// The breakpoints that were changed while the guest ran, and so were set for a part of the run.
    pub meanwhile: Vec<Breakpoint>,
    /// Whether the debugger sent a break.
    pub asked: bool,
}

impl Model {
    pub(crate) fn new(program: Program, vps: u32, report: &Report) -> Self {
        Self {
            program,
            vps: vec![Vp::seen_at(0); vps as usize],
            set: Vec::new(),
            watches: report.data_watchpoints.works,
            traps: report.int3_long.traps(),
        }
    }

    /// The reason why an insertion has to be refused, if there is one.
    pub(crate) fn may_insert(&self, breakpoint: Breakpoint) -> Result<(), &'static str> {
        if breakpoint.kind == BreakpointKind::Write && !self.watches {
            return Err("this host never reports a watchpoint");
        }
        let on_register = |other: &&Breakpoint| other.kind != BreakpointKind::Software;
        let mut registers: Vec<_> = self.set.iter().filter(on_register).collect();
        if registers.contains(&&breakpoint) || !on_register(&&breakpoint) {
            return Ok(());
        }
        registers.push(&breakpoint);
        match registers.len() > REGISTERS {
            true => Err("there are four debug registers"),
            false => Ok(()),
        }
    }

    pub(crate) fn inserted(&mut self, breakpoint: Breakpoint) {
        if !self.set.contains(&breakpoint) {
            self.set.push(breakpoint);
        }
    }

    /// A kept hit may be dropped with the breakpoint.
    pub(crate) fn removed(&mut self, breakpoint: Breakpoint) {
        self.set.retain(|other| *other != breakpoint);
        for index in 0..self.vps.len() {
            let vp = self.vps[index];
            if vp.due == Due::Must && self.stops(index, vp.position, &[breakpoint]) {
                self.vps[index].due = Due::May;
            }
        }
    }

    /// The armed breakpoints in the server's list. Asserts that each is armed where it has to be.
    pub(crate) fn armed(&self, list: Vec<BreakpointStatus>) -> Vec<Breakpoint> {
        use vmm_core_defs::breakpoint::Arming;
        let listed: Vec<_> = list.iter().map(|status| status.breakpoint).collect();
        assert_eq!(listed, self.set, "the list of breakpoints");
        for status in &list {
            let address = status.breakpoint.address.value();
            let byte = Arming::Memory {
                gpa: Gpa::new(address % MAPPED),
            };
            let software = status.breakpoint.kind == BreakpointKind::Software;
            let in_memory = software && address < UNMAPPED && self.traps;
            let right = match &status.arming {
                Arming::Memory { .. } => in_memory && status.arming == byte,
                Arming::DebugRegister { number, .. } => *number < REGISTERS && !in_memory,
                Arming::Pending { .. } => software && !in_memory,
                _ => false,
            };
            assert!(right, "{status:?}");
        }
        let armed = list
            .into_iter()
            .filter(|status| !matches!(status.arming, Arming::Pending { .. }));
        armed.map(|status| status.breakpoint).collect()
    }

    /// Whether one of these breakpoints stops the VP at this position.
    fn stops(&self, index: usize, position: u64, breakpoints: &[Breakpoint]) -> bool {
        let rip = self.program.rip(position);
        let vp = u32::try_from(index).unwrap();
        breakpoints.iter().any(|breakpoint| match breakpoint.kind {
            BreakpointKind::Write => rip == COUNTED && breakpoint.address.value() == counter(vp),
            _ => breakpoint.address.value() == rip,
        })
    }

    /// Whether a breakpoint stops the guest sooner or later.
    pub(crate) fn ends(&self, plan: &[VpAction], armed: &[Breakpoint]) -> bool {
        let comes_by = |index| (0..self.program.len()).any(|at| self.stops(index, at, armed));
        plan.iter().enumerate().any(|(index, action)| match action {
            VpAction::Stay => false,
            VpAction::Run => comes_by(index),
            VpAction::Step | VpAction::StepN { .. } | VpAction::StepRange { .. } => true,
            _ => unknown_action(),
        })
    }

    /// Checks a stop and the position of every VP.
    pub(crate) fn check(&mut self, run: &Run, reason: DebugStopReason, positions: &[u64]) {
        let mut moved = Vec::new();
        for (index, to) in positions.iter().enumerate() {
            let vp = self.vps[index];
            moved.push(to.checked_sub(vp.position).unwrap_or_else(|| {
                panic!("VP {index} went backwards, from {vp:?} to {to}");
            }));
            self.check_way(run, index, *to);
            self.vps[index] = Vp {
                position: *to,
                due: self.due(run, index, *to),
                reported: match (to > &vp.position, run.plan[index], vp.reported) {
                    (true, _, _) => Reported::No,
                    (false, VpAction::Stay, reported) => reported,
                    (false, _, Reported::No) => Reported::No,
                    (false, _, Reported::Yes | Reported::Unclear) => Reported::Unclear,
                },
            };
        }
        self.check_reason(run, reason, &moved);
    }

    /// Asserts that the VP passed no breakpoint, and executed nothing that it must not execute.
    fn check_way(&self, run: &Run, index: usize, to: u64) {
        let Vp {
            position: from,
            due,
            reported,
        } = self.vps[index];
        let context = format!("VP {index} from {from} to {to}, {due:?}");
        let between = from + 1..to.min(from + 2 * self.program.len());
        match run.plan[index] {
            VpAction::Stay => assert_eq!(from, to, "{context}"),
            VpAction::Step => assert!(to <= from + 1, "more than one step: {context}"),
            VpAction::StepN { count } => {
                assert!(to <= from + count.get(), "a step too many: {context}")
            }
            VpAction::StepRange { start, end } => assert!(
                between.clone().all(|at| self.is_inside(at, start, end)),
                "{context}"
            ),
            VpAction::Run => {}
            _ => unknown_action(),
        }
        let slipped = between
            .into_iter()
            .find(|at| self.stops(index, *at, &run.stable));
        assert_eq!(slipped, None, "slipped past a breakpoint: {context}");
        if due == Due::Must && self.stops(index, from, &run.stable) {
            assert_eq!(from, to, "a hit was lost: {context}");
        }
        let executes = run.stable.iter().copied();
        let executes: Vec<_> = executes
            .filter(|breakpoint| breakpoint.kind != BreakpointKind::Write)
            .collect();
        if reported == Reported::No && self.stops(index, from, &executes) {
            assert_eq!(from, to, "passed where no stop was reported: {context}");
        }
    }

    fn due(&self, run: &Run, index: usize, to: u64) -> Due {
        let Vp {
            position: from,
            due,
            ..
        } = self.vps[index];
        let stops = |breakpoints: &[Breakpoint]| self.stops(index, to, breakpoints);
        match to > from {
            true if !stops(&run.known) => Due::No,
            true if run.plan[index] == VpAction::Run && stops(&run.stable) => Due::Must,
            true => Due::May,
            false if stops(&run.meanwhile) => Due::May,
            false => due,
        }
    }

    fn is_inside(&self, at: u64, start: Gva, end: Gva) -> bool {
        (start.value()..end.value()).contains(&self.program.rip(at))
    }

    fn check_reason(&mut self, run: &Run, reason: DebugStopReason, moved: &[u64]) {
        match reason {
            DebugStopReason::Breakpoint { vp, breakpoint }
            | DebugStopReason::Watchpoint { vp, breakpoint, .. } => {
                let index = vp.index() as usize;
                let Vp {
                    position,
                    due,
                    reported,
                } = self.vps[index];
                assert!(run.known.contains(&breakpoint), "nobody set it");
                assert!(
                    self.stops(index, position, &[breakpoint]),
                    "it is elsewhere"
                );
                let executes = breakpoint.kind != BreakpointKind::Write;
                let unmet = executes && reported != Reported::Yes;
                assert!(moved[index] > 0 || due != Due::No || unmet, "told twice");
                self.told(index);
            }
            DebugStopReason::SingleStep { vp } => {
                let index = vp.index() as usize;
                let position = self.vps[index].position;
                let done = match run.plan[index] {
                    VpAction::Step => moved[index] == 1,
                    VpAction::StepN { count } => moved[index] == count.get(),
                    VpAction::StepRange { start, end } => {
                        moved[index] > 0 && !self.is_inside(position, start, end)
                    }
                    VpAction::Run | VpAction::Stay => false,
                    _ => unknown_action(),
                };
                assert!(done, "the step is not done");
                self.told(index);
            }
            DebugStopReason::Break => assert!(run.asked, "nobody asked"),
            _ => panic!("the guest does nothing of the kind"),
        }
    }

    fn told(&mut self, index: usize) {
        self.vps[index].due = Due::No;
        self.vps[index].reported = Reported::Yes;
    }
}

impl Vp {
    /// A VP at a position that the client has seen, without a hit to report.
    pub(crate) fn seen_at(position: u64) -> Self {
        Self {
            position,
            due: Due::No,
            reported: Reported::No,
        }
    }
}

fn unknown_action() -> ! {
    panic!("the model has no such action")
}

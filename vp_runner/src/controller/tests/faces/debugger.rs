//! A debugger that stops, inspects, steps and continues the guest, and leaves.

use super::super::client::answer;
use super::super::client::send;
use super::vmm::Vmm;
use super::world::CODE;
use super::world::INSTRUCTIONS;
use super::world::World;
use super::*;
use mesh::rpc::PendingFailableRpc;
use mesh::rpc::Rpc;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointChange;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::debug_rpc::ResumeRequest;
use vmm_core_defs::regs::DebuggerVpState;
use vmm_core_defs::session::Attached;
use vmm_core_defs::session::DebugSession;
use vmm_core_defs::stop::StopEvent;

/// See the module.
pub(super) struct Debugger {
    pub(super) world: Arc<World>,
    pub(super) debug: mesh::Sender<DebugMessage>,
    /// `None` if the vCPUs run on threads of this crate.
    pub(super) vmm: Option<Arc<Vmm>>,
}

struct Session<'a> {
    of: &'a Debugger,
    session: DebugSession,
    set: Vec<Breakpoint>,
    epoch: Epoch,
}

impl Debugger {
    pub(super) fn live(self) {
        for _ in 0..thread_rng().gen_range(1..4) {
            self.session();
            self.has_finished();
        }
        self.needs_guest(true);
    }

    fn has_finished(&self) {
        if let Some(vmm) = &self.vmm {
            vmm.debugger_has_finished();
        }
    }

    fn needs_guest(&self, needs_guest: bool) {
        if let Some(vmm) = &self.vmm {
            vmm.debugger_needs_guest(needs_guest);
        }
    }

    fn session(&self) {
        thread::yield_now();
        let attach = DebugSession::attach(&self.debug, DetachAction::Resume);
        thread::yield_now();
        let Attached { session, info } = match answer(attach) {
            Ok(attached) => attached,
            // The last session was lost, and its end is not complete.
            Err(DebugError::AlreadyAttached) => return,
            Err(err) => panic!("{err}"),
        };
        say(|| format!("attached: {:?}", info.stop));
        self.world.set_stopped(true);
        let mut session = Session {
            of: self,
            session,
            set: Vec::new(),
            epoch: info.stop.epoch,
        };
        for _ in 0..thread_rng().gen_range(1..8) {
            match thread_rng().gen_range(0..10) {
                0..4 => session.run(),
                4 | 5 => session.toggle(),
                6 => session.look(),
                7 => session.write(),
                8 => session.ask_status(),
                _ => session.hold(),
            }
            self.has_finished();
        }
        self.world.set_stopped(false);
        let before: Vec<_> = self.world.vps().map(|vp| self.world.record(vp)).collect();
        say(|| "the debugger leaves".into());
        match thread_rng().gen_bool(0.7) {
            true => {
                self.world.begin();
                let detach = session.send(DebugRequest::Detach, DetachAction::Resume);
                assert_eq!(answer(detach), Ok(()));
                self.world.check_memory("after detach");
            }
            false => drop(session),
        }
        if self.world.has_begun() && thread_rng().gen_bool(0.5) {
            self.needs_guest(true);
            wait_for_progress(&self.world, &before);
            self.needs_guest(false);
        }
    }
}

/// Waits until every vCPU has executed an instruction, or has gone.
pub(super) fn wait_for_progress(world: &World, before: &[world::Record]) {
    for (vp, before) in world.vps().zip(before) {
        loop {
            let now = world.record(vp);
            if now.executed > before.executed || !now.is_here || !before.is_here {
                break;
            }
            thread::yield_now();
        }
    }
}

impl Session<'_> {
    fn send<I, T>(
        &self,
        request: impl FnOnce(Rpc<I, Result<T, DebugError>>) -> DebugRequest,
        input: I,
    ) -> PendingFailableRpc<T, DebugError> {
        send(&self.session, request, input)
    }

    /// Checks an error of a request that needs a vCPU. Only a VMM has the threads at times, and takes vCPUs away.
    fn check_error(&self, err: &DebugError) {
        let is_vmms = matches!(
            err,
            DebugError::HeldByVmm { .. }
                | DebugError::NoSuchVp { .. }
                | DebugError::VpThreadEnded { .. }
        );
        assert!(is_vmms && self.of.vmm.is_some(), "{err}");
    }

    fn toggle(&mut self) {
        let index = thread_rng().gen_range(0..INSTRUCTIONS.len());
        let kind = match thread_rng().gen_bool(0.5) {
            true => BreakpointKind::Software,
            false => BreakpointKind::Execute,
        };
        let breakpoint = Breakpoint {
            kind,
            address: Gva::new(CODE + INSTRUCTIONS[index]),
            len: 1,
        };
        let known = self.set.iter().position(|other| *other == breakpoint);
        let registers = |set: &[Breakpoint]| {
            let registers = set.iter().filter(|set| set.kind == BreakpointKind::Execute);
            registers.count()
        };
        if known.is_none() && kind == BreakpointKind::Execute && registers(&self.set) == 3 {
            return;
        }
        let change = match known {
            Some(known) => BreakpointChange::Remove(self.set.swap_remove(known)),
            None => BreakpointChange::Insert(breakpoint),
        };
        say(|| format!("the debugger changes: {change:?}"));
        let change = self.send(DebugRequest::SetDebugState, vec![change]);
        match answer(change) {
            Ok(()) if known.is_none() => self.set.push(breakpoint),
            Ok(()) => {}
            // Without a vCPU, the runner cannot translate the address of the breakpoint.
            Err(err) => assert!(self.of.vmm.is_some(), "{err}"),
        }
    }

    fn look(&self) {
        for vp in self.of.world.vps() {
            let before = self.seen_by_vmm(vp);
            let state = self.send(DebugRequest::GetVpState, vp);
            match answer(state).map(|state| *state) {
                Ok(DebuggerVpState::X86_64(state)) => {
                    // The VMM may move the vCPU in the meantime.
                    if let Some((rip, moves)) = before
                        && self.seen_by_vmm(vp) == Some((rip, moves))
                    {
                        assert_eq!(state.rip, rip, "RIP of VP {vp}");
                    }
                }
                Ok(other) => panic!("{other:?}"),
                Err(err) => self.check_error(&err),
            }
        }
    }

    fn seen_by_vmm(&self, vp: VpIndex) -> Option<(u64, u32)> {
        let rip = self.of.vmm.as_ref()?.rip(vp)?;
        Some((rip, self.of.world.record(vp).moves))
    }

    /// Changes a vCPU. The change is refused while the VMM has the thread of the vCPU.
    fn write(&self) {
        for vp in self.of.world.vps() {
            let write = self.send(DebugRequest::WriteMsr, (vp, 0, 0));
            if let Err(err) = answer(write) {
                self.check_error(&err);
            }
        }
    }

    /// Asks which vCPUs the VMM has.
    fn ask_status(&self) {
        let records = || {
            let vps = self.of.world.vps();
            vps.map(|vp| self.of.world.record(vp)).collect::<Vec<_>>()
        };
        let before = records();
        let status = self.send(DebugRequest::Status, ());
        match answer(status) {
            Ok(status) => {
                for vp in status.vps {
                    let [before, after] =
                        [&before, &records()].map(|all| all[vp.vp.index() as usize]);
                    let is_same = before.visits == after.visits && after.is_here;
                    if is_same && before.is_with_vmm && after.is_with_vmm {
                        assert!(vp.held_by_vmm, "the VMM has {vp:?}");
                    }
                    assert!(!vp.held_by_vmm || self.of.vmm.is_some(), "{vp:?}");
                }
            }
            Err(err) => self.check_error(&err),
        }
    }

    /// Holds the guest until the VMM has paused it.
    fn hold(&self) {
        if let Some(vmm) = &self.of.vmm {
            vmm.wait_for_a_pause();
        }
    }

    fn resume(&self) -> PendingFailableRpc<StopEvent, DebugError> {
        self.of.world.set_stopped(false);
        self.of.world.begin();
        let action = |_| match thread_rng().gen_range(0..4) {
            0 => VpAction::Step,
            1 => VpAction::Stay,
            _ => VpAction::Run,
        };
        let mut actions: Vec<_> = self.of.world.vps().map(|vp| (vp, action(vp))).collect();
        actions[0].1 = VpAction::Run;
        actions.retain(|(vp, _)| self.of.world.record(*vp).is_here);
        self.send(
            DebugRequest::Resume,
            ResumeRequest::new(VpAction::Run, actions),
        )
    }

    /// Resumes the guest and waits for a stop: for a breakpoint or a step, or for the break that follows.
    fn run(&mut self) {
        let resume = self.resume();
        say(|| "the debugger has resumed".into());
        for _ in 0..thread_rng().gen_range(0..60) {
            thread::yield_now();
        }
        let change = thread_rng().gen_bool(0.3);
        if change {
            self.toggle();
        }
        let break_ = self.send(DebugRequest::Break, ());
        let stop = answer(resume);
        say(|| format!("the debugger has got {stop:?}"));
        match stop {
            Ok(stop) => {
                self.epoch = self.epoch.next();
                assert_eq!(stop.epoch, self.epoch, "I1");
                assert!(
                    matches!(
                        stop.reason,
                        DebugStopReason::Break
                            | DebugStopReason::Breakpoint { .. }
                            | DebugStopReason::SingleStep { .. }
                            | DebugStopReason::Reset { .. }
                    ),
                    "{:?}",
                    stop.reason
                );
            }
            Err(err) => self.check_error(&err),
        }
        assert_eq!(answer(break_), Ok(()));
        self.of.world.set_stopped(true);
    }
}

//! The debugger: its random operations, and the observations that the model checks.

use crate::guest::COUNTED;
use crate::guest::Program;
use crate::guest::UNMAPPED;
use crate::guest::counter;
use crate::model::MAPPED;
use crate::model::Model;
use crate::model::Run;
use crate::model::Vp;
use crate::random::Random;
use mesh::rpc::PendingFailableRpc;
use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;
use test_machine::machine::software::*;
use test_machine::machine::*;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::*;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::StopEvent;
use vp_runner::probe::Report;

/// A guest without a debugger makes some turns in this time, even on the slowest host.
const DEADLINE: Duration = Duration::from_secs(120);
/// The number of last operations that a failure shows.
const REMEMBERED: usize = 24;

pub(crate) struct Debugger {
    pub vm: TestVm,
    model: Model,
    history: VecDeque<String>,
}

impl Debugger {
    pub(crate) fn new(vm: TestVm, program: Program, vps: u32, report: &Report) -> Self {
        vm.attach();
        program.prepare(&vm, vps);
        Self {
            vm,
            model: Model::new(program, vps, report),
            history: VecDeque::new(),
        }
    }

    /// Makes one operation and checks its result.
    pub(crate) fn operation(&mut self, random: &mut Random) {
        match random.below(100) {
            0..28 => drop(self.change(random)),
            28..52 => {
                let plan = self.any_plan(random);
                self.go(random, plan);
            }
            52..60 => {
                let plan = vec![VpAction::Run; self.model.vps.len()];
                self.go(random, plan);
            }
            60..80 => {
                let mut plan = vec![VpAction::Stay; self.model.vps.len()];
                let vp = random.below(plan.len() as u64);
                plan[usize::try_from(vp).unwrap()] = VpAction::Step;
                self.go(random, plan);
            }
            80..92 => self.read(random),
            92..94 => self.vm.break_(),
            94..97 => self.reattach(random),
            97 | 98 => self.kill(random),
            _ => self.nonsense(),
        }
    }

    fn remember(&mut self, what: String) {
        self.history.push_back(what);
        if self.history.len() > REMEMBERED {
            self.history.pop_front();
        }
    }

    fn vps(&self) -> u32 {
        u32::try_from(self.model.vps.len()).unwrap()
    }

    fn any_breakpoint(&self, random: &mut Random) -> Breakpoint {
        let mut address = *random.one_of(&self.model.program.turn);
        if address == COUNTED {
            // A watchpoint stops there.
            address = ENTRY;
        }
        match random.below(10) {
            0..6 => software_at(address),
            6 | 7 => execute_at(address),
            8 => software_at(UNMAPPED + random.below(8)),
            _ => {
                let vp = random.below(self.vps().into());
                Breakpoint {
                    kind: BreakpointKind::Write,
                    address: Gva::new(counter(u32::try_from(vp).unwrap())),
                    len: 4,
                }
            }
        }
    }

    /// Inserts or removes a breakpoint, and checks the reply.
    fn change(&mut self, random: &mut Random) -> Breakpoint {
        let set = &self.model.set;
        let remove = !set.is_empty() && (random.once_in(2) || set.len() > 12);
        let breakpoint = match remove {
            true => *random.one_of(set),
            false => self.any_breakpoint(random),
        };
        let (change, wanted) = match remove {
            true => (BreakpointChange::Remove(breakpoint), Ok(())),
            false => (
                BreakpointChange::Insert(breakpoint),
                self.model.may_insert(breakpoint),
            ),
        };
        self.remember(format!("{change:?}"));
        let reply = self.vm.call(DebugRequest::SetDebugState, vec![change]);
        match wanted {
            Ok(()) => assert_eq!(reply, Ok(()), "{change:?} with {:?}", self.model.set),
            Err(why) => assert!(reply.is_err(), "{change:?}: {why}"),
        }
        match (remove, wanted) {
            (true, _) => self.model.removed(breakpoint),
            (false, Ok(())) => self.model.inserted(breakpoint),
            (false, Err(_)) => {}
        }
        breakpoint
    }

    fn armed(&self) -> Vec<Breakpoint> {
        let list = self.vm.call(DebugRequest::Breakpoints, ()).unwrap();
        self.model.armed(list)
    }

    fn any_plan(&self, random: &mut Random) -> Vec<VpAction> {
        let mut plan: Vec<_> = (0..self.vps())
            .map(|_| match random.below(9) {
                0..5 => VpAction::Run,
                5 => VpAction::Step,
                6 => VpAction::Stay,
                7 => VpAction::StepN {
                    count: (1 + random.below(20)).try_into().unwrap(),
                },
                _ => VpAction::StepRange {
                    start: Gva::new(ENTRY),
                    end: Gva::new(ENTRY + 1 + random.below(0x18)),
                },
            })
            .collect();
        if plan.iter().all(|action| *action == VpAction::Stay) {
            plan[0] = VpAction::Run;
        }
        plan
    }

    fn send(&self, plan: &[VpAction]) -> PendingFailableRpc<StopEvent, DebugError> {
        let actions = (0..).map(VpIndex::new).zip(plan.iter().copied());
        let request = ResumeRequest::new(VpAction::Stay, actions.collect());
        self.vm.send(DebugRequest::Resume, request)
    }

    /// Runs the guest, perhaps changes breakpoints meanwhile, and checks the stop.
    fn go(&mut self, random: &mut Random, plan: Vec<VpAction>) {
        let armed = self.armed();
        let before = self.model.set.clone();
        self.remember(format!("{plan:?} with {armed:?} armed"));
        let pending = self.send(&plan);
        let meanwhile: Vec<_> = random
            .once_in(6)
            .then(|| self.change(random))
            .into_iter()
            .collect();
        let ends = meanwhile.is_empty() && self.model.ends(&plan, &armed);
        let asked = !ends || random.once_in(4);
        if asked {
            self.remember("break".into());
            self.vm.break_();
        }
        let reason = stop(pending);
        let stable = armed.into_iter().filter(|one| !meanwhile.contains(one));
        let run = Run {
            plan,
            stable: stable.collect(),
            known: before.iter().chain(&self.model.set).copied().collect(),
            meanwhile,
            asked,
        };
        let positions: Vec<_> = (0..self.vps()).map(|vp| self.position(vp)).collect();
        self.remember(format!("{reason:?}, VPs at {positions:?}"));
        self.model.check(&run, reason, &positions);
    }

    /// The position of the VP. Its registers and its counter in memory have to agree.
    fn position(&self, vp: u32) -> u64 {
        let program = &self.model.program;
        let position = program.position(&self.vm.regs(vp));
        let counted = self.vm.read_gva(vp, counter(vp), 4).unwrap();
        let counted = u32::from_le_bytes(counted.try_into().unwrap());
        assert_eq!(u64::from(counted), program.counted(position), "VP {vp}");
        position
    }

    /// Reads the guest's own bytes by each kind of request.
    fn read(&self, random: &mut Random) {
        let code = &self.model.program.code;
        let len = 1 + random.below(code.len() as u64);
        let len = usize::try_from(len).unwrap();
        let own = code[..len].to_vec();
        assert_eq!(self.vm.read_gva(0, ENTRY, len).as_ref(), Ok(&own));
        assert_eq!(self.vm.read_gva(0, MAPPED + ENTRY, len).as_ref(), Ok(&own));
        let address = GuestAddress::Gpa(Gpa::new(ENTRY));
        let physical = self.vm.call(DebugRequest::ReadMemory, (address, len));
        assert_eq!(physical.as_ref(), Ok(&own));
        if random.once_in(4) {
            self.vm.write_gva(0, ENTRY, &own).unwrap();
        }
    }

    /// Makes requests that are not allowed. They are refused, and change nothing.
    fn nonsense(&self) {
        let nobody = VpIndex::new(999);
        assert!(self.vm.call(DebugRequest::GetVpState, nobody).is_err());
        let nothing = every(VpAction::Stay);
        assert!(self.vm.call(DebugRequest::Resume, nothing).is_err());
        assert!(answer(self.vm.send_attach()).is_err());
        assert!(self.vm.read_gva(0, UNMAPPED, 1).is_err());
        let missing = BreakpointChange::Remove(execute_at(0x7777));
        let remove = self.vm.call(DebugRequest::SetDebugState, vec![missing]);
        assert!(remove.is_err());
    }

    fn assert_code_untouched(&self) {
        let own = &self.model.program.code;
        let code = raw(&self.vm, ENTRY, own.len());
        assert_eq!(code, *own, "a byte of ours stays behind");
    }

    fn reattach(&mut self, random: &mut Random) {
        let running = random.once_in(2).then(|| self.vm.resume());
        let action = match random.once_in(2) {
            true => DetachAction::Resume,
            false => DetachAction::Stay,
        };
        let ran = running.is_some();
        self.remember(format!("detach, {action:?}, running: {ran}, and attach"));
        self.vm.detach(action);
        self.assert_code_untouched();
        drop(running);
        self.attach(!ran && action == DetachAction::Stay);
    }

    /// The client dies, and another one attaches. The pending reply is dropped.
    fn kill(&mut self, random: &mut Random) {
        let plan = self.any_plan(random);
        self.remember(format!("{plan:?}, detach, and attach"));
        drop(self.send(&plan));
        if random.once_in(2) {
            drop(self.vm.send(DebugRequest::Break, ()));
        }
        drop(self.vm.send(DebugRequest::Detach, DetachAction::Resume));
        self.attach(false);
    }

    fn attach(&mut self, still: bool) {
        let info = self.vm.attach();
        assert_eq!(info.stop.reason, DebugStopReason::Break);
        self.assert_code_untouched();
        self.model.set.clear();
        for vp in 0..self.vps() {
            let now = self.position(vp);
            let vp = &mut self.model.vps[vp as usize];
            let then = vp.position;
            assert!(
                now == then || (!still && now > then),
                "from {then} to {now}"
            );
            *vp = Vp::seen_at(now);
        }
        assert_eq!(self.armed(), []);
    }

    /// Removes all breakpoints, runs every VP to the top of its loop, and detaches.
    pub(crate) fn come_to_rest(&mut self) {
        let removes = self.model.set.drain(..).map(BreakpointChange::Remove);
        let removes = removes.collect();
        self.vm.call(DebugRequest::SetDebugState, removes).unwrap();
        let turned = |debugger: &Self| {
            let two = 2 * debugger.model.program.len();
            let mut vps = (0..).zip(&debugger.model.vps);
            vps.all(|(vp, before)| debugger.position(vp) > before.position + two)
        };
        while !turned(self) {
            let pending = self.vm.resume();
            interrupt(&self.vm, pending);
        }
        for vp in 0..self.vps() {
            while self.vm.regs(vp).rip != ENTRY {
                self.vm.step(vp);
            }
        }
        self.vm.detach(DetachAction::Stay);
    }

    /// The last client is lost in any state, and the guest runs on.
    pub(crate) fn die(mut self, random: &mut Random) {
        self.vm.attach();
        for _ in 0..random.below(6) {
            self.change(random);
        }
        let plan = self.any_plan(random);
        let pending = random.once_in(2).then(|| self.send(&plan));
        self.vm.drop_channel();
        drop(pending);
        let vps = self.vps();
        let counters =
            |vm: &TestVm| -> Vec<_> { (0..vps).map(|vp| raw(vm, counter(vp), 4)).collect() };
        let end = Instant::now() + DEADLINE;
        for _ in 0..3 {
            let before = counters(&self.vm);
            // Until the session has ended, a VP may be stopped for some time, but not for good.
            while counters(&self.vm)
                .iter()
                .zip(&before)
                .any(|(now, then)| now == then)
            {
                assert!(Instant::now() < end, "a VP does not run on");
                std::thread::yield_now();
            }
        }
        self.assert_code_untouched();
    }
}

impl Drop for Debugger {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for what in &self.history {
                println!("{what}");
            }
        }
    }
}

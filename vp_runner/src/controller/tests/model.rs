//! A model of the guest and its debugger, which checks the invariants in each session.

use super::fake_vp::CODE;
use super::fake_vp::PROGRAM;
use super::fake_vp::gpa;
use super::fake_vp::load_tables;
use super::*;
use crate::breakpoints::Breakpoints;
use crate::breakpoints::breakpoint_bytes::INT3;
use crate::control::at_breakpoint::FirstInstruction;
use crate::machine::DeviceOutcome;
use crate::machine::Machine;
use crate::machine::MachineError;
use crate::machine::MmioOutcome;
use crate::memory::slots::MemorySlots;
use kvm_ioctls::VcpuFd;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::RwLock;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;

pub(super) struct Model {
    pub(super) ram: Arc<MemorySlots>,
    pub(super) breakpoints: Arc<RwLock<Breakpoints>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    vps: Vec<Record>,
    breaks_sent: u64,
    breaks_answered: u64,
    /// Several resumes are open, so the client may not have seen the latest stop.
    lagging: bool,
    /// A debugger has resumed the guest, so the guest is not held any more.
    let_go: bool,
}

#[derive(Debug, Clone, Default)]
struct Record {
    activity: Activity,
    rip: u64,
    debugger: Option<Debugger>,
    /// The breakpoint that the VP has hit.
    hit: Reported,
    /// The step that the VP has finished.
    step: Reported,
    /// The guest has asked for a reset on this VP, and the reset has not been carried out.
    asked_reset: bool,
    /// The RIP at which a stop of the VP was reported, if the VP has executed nothing since. The VP passes a breakpoint at this RIP (I8).
    known: Option<u64>,
    /// `known` is uncertain, because several resumes were open.
    unclear: bool,
    /// The number of instructions in the present entry.
    executed_now: u64,
    /// The number of instructions since a debugger resumed the guest.
    executed_since: u64,
    stops: StopSet,
}

/// Whether a stop was reported to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Reported {
    /// Yes, every stop.
    #[default]
    Yes,
    NotYet,
    /// Uncertain, because several resumes were open.
    Unclear,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Activity {
    #[default]
    Parked,
    Entered,
    InGuest,
}

impl Model {
    pub(super) fn new(vps: u32) -> Arc<Self> {
        let ram = MemorySlots::zeroed(&[(0, 0x4000)]);
        let model = Self {
            ram: Arc::new(ram),
            breakpoints: Arc::default(),
            state: Mutex::new(State {
                vps: vec![Record::default(); vps as usize],
                ..State::default()
            }),
        };
        load_tables(&model.ram);
        let code = GuestAddress(CODE);
        model.ram.backing().write_slice(&PROGRAM, code).unwrap();
        Arc::new(model)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn vps(&self) -> u32 {
        self.state().vps.len().try_into().unwrap()
    }

    // Calls by the VPs.

    pub(super) fn entered(&self, vp: VpIndex, rip: u64, enter: &Enter) {
        let mut state = self.state();
        let others_parked = |(index, record): (usize, &Record)| {
            index == vp.index() as usize || record.activity == Activity::Parked
        };
        let first = enter.at.first();
        let alone = enter.at.is_byte_lifted();
        assert!(
            !alone || state.vps.iter().enumerate().all(others_parked),
            "a VP lifts its byte beside others (I5)"
        );
        let lagging = state.lagging;
        let record = &mut state.vps[vp.index() as usize];
        say(|| format!("VP {vp} enters at {rip:#x}: {enter:?}, {record:?}"));
        assert_eq!(record.activity, Activity::Parked, "entered twice");
        assert_ne!(enter.action, VpAction::Stay, "entered to stay");
        assert!(!record.asked_reset, "entered instead of reset");
        record.activity = Activity::Entered;
        record.executed_now = 0;
        record.step = Reported::Yes;
        record.debugger = Some(enter.debugger);
        let hit = std::mem::take(&mut record.hit);
        let breakpoints = self.breakpoints.try_read().expect("I3");
        let table = &breakpoints.table;
        let own = table.at_byte(Gva::new(rip), gpa(rip)).is_some();
        let here = own || table.has_register_at(Gva::new(rip));
        let may = enter.debugger == Debugger::Absent || first == FirstInstruction::Meets || lagging;
        assert!(
            may || !here || hit != Reported::NotYet,
            "VP {vp} continues from a hit that was not reported (I7)"
        );
        assert_eq!(
            enter.stops.slots,
            breakpoints.table.slots(),
            "VP {vp} enters with old debug registers (I5)"
        );
        let armed = breakpoints.bytes.is_armed(gpa(rip));
        let known = record.known == Some(rip);
        let absent = enter.debugger == Debugger::Absent;
        let unclear = lagging || record.unclear || absent;
        match first {
            FirstInstruction::Meets => assert!(
                !known || unclear,
                "VP {vp} is sent back to where its stop was reported (I8)"
            ),
            FirstInstruction::Disarmed => {
                assert!(known || unclear, "VP {vp} passes unreported (I8)");
                assert!(!armed, "VP {vp} would meet the same byte again (I8)");
            }
            FirstInstruction::Lifted
            | FirstInstruction::Emulated
            | FirstInstruction::OthersStopped => {
                assert!(armed, "VP {vp} goes over a byte that is not there");
                assert!(
                    known || !own || unclear,
                    "VP {vp} slips past a byte that it has not met (I7)"
                );
            }
        }
        if absent {
            record.known = None;
        }
    }

    pub(super) fn in_guest(&self, vp: VpIndex) {
        self.state().vps[vp.index() as usize].activity = Activity::InGuest;
    }

    pub(super) fn out_of_guest(&self, vp: VpIndex) {
        self.state().vps[vp.index() as usize].activity = Activity::Entered;
    }

    /// Before an instruction: checks that memory has the bytes of the table, and that nobody changes the table.
    pub(super) fn check_code(&self, vp: VpIndex, has_lifted: bool) {
        let breakpoints = self.breakpoints.try_read().expect("I3");
        let debugger = self.state().vps[vp.index() as usize].debugger;
        if debugger == Some(Debugger::Absent) {
            assert!(breakpoints.bytes.is_empty(), "I6");
        }
        for (rip, own) in (CODE..).zip(PROGRAM) {
            let gpa = gpa(rip);
            let has_byte = breakpoints.bytes.addresses_within(gpa, 1).next().is_some();
            let lifted = has_byte && !breakpoints.bytes.is_armed(gpa);
            assert!(!lifted || has_lifted, "a gap to run through");
            let wanted = match has_byte && !lifted {
                true => INT3,
                false => own,
            };
            let found: u8 = self
                .ram
                .backing()
                .read_obj(GuestAddress(gpa.value()))
                .unwrap();
            assert_eq!(found, wanted, "the byte at {gpa}");
        }
    }

    pub(super) fn executed(&self, vp: VpIndex) {
        let mut state = self.state();
        let record = &mut state.vps[vp.index() as usize];
        record.executed_now += 1;
        record.executed_since += 1;
        drop(state);
        self.may_have_moved(vp);
    }

    /// The VP enters the guest without a breakpoint to pass, or has executed an instruction.
    pub(super) fn may_have_moved(&self, vp: VpIndex) {
        let mut state = self.state();
        let record = &mut state.vps[vp.index() as usize];
        record.known = None;
        record.unclear = false;
    }

    /// The VP has hit a breakpoint of which no condition holds. It passes the breakpoint, as one whose stop was reported.
    pub(super) fn passes(&self, vp: VpIndex, rip: u64) {
        let mut state = self.state();
        let record = &mut state.vps[vp.index() as usize];
        record.known = Some(rip);
        say(|| format!("VP {vp} passes a false condition at {rip:#x}"));
    }

    pub(super) fn parks(&self, vp: VpIndex, rip: u64, cause: Option<Cause>) {
        let mut state = self.state();
        let record = &mut state.vps[vp.index() as usize];
        record.activity = Activity::Parked;
        record.rip = rip;
        say(|| format!("VP {vp} parks at {rip:#x}: {cause:?}, {record:?}"));
        match cause {
            Some(Cause::Debug(DebugStopReason::SingleStep { .. })) => {
                assert!(record.executed_now > 0, "a step over nothing (I8)");
                record.step = Reported::NotYet;
            }
            Some(Cause::Debug(_)) => {
                assert_ne!(
                    record.known,
                    Some(rip),
                    "VP {vp} met with nothing executed what it was to pass (I8)"
                );
                record.hit = Reported::NotYet;
            }
            Some(Cause::Guest(_)) => record.asked_reset = true,
            None | Some(Cause::NotReported) => {}
        }
    }

    /// Checks the value that a VP returns as it parks. The VP may pass a breakpoint only if it has executed nothing since the stop was reported.
    pub(super) fn has_moved(&self, vp: VpIndex, at: AtBreakpoint) {
        let record = &self.state().vps[vp.index() as usize];
        assert!(
            record.executed_now == 0 || record.known.is_some() || !at.may_pass(),
            "VP {vp} keeps its right to pass although it moved (I8)"
        );
    }

    pub(super) fn armed(&self, vp: VpIndex, stops: StopSet) {
        self.state().vps[vp.index() as usize].stops = stops;
    }

    pub(super) fn initialized(&self, vp: VpIndex, rip: u64) {
        let mut state = self.state();
        let record = &mut state.vps[vp.index() as usize];
        record.rip = rip;
        record.hit = Reported::Yes;
        record.known = None;
        record.unclear = false;
    }

    // Calls by the clients.

    pub(super) fn check_parked(&self, when: &str) {
        let state = self.state();
        let parked = |record: &Record| record.activity == Activity::Parked;
        assert!(state.vps.iter().all(parked), "a VP runs {when} (I2, I4)");
    }

    fn code(&self) -> [u8; PROGRAM.len()] {
        self.ram.backing().read_obj(GuestAddress(CODE)).unwrap()
    }

    pub(super) fn check_untouched(&self, when: &str) {
        assert_eq!(self.code(), PROGRAM, "{when} (I6)");
        for record in &self.state().vps {
            assert_eq!(record.stops, StopSet::default(), "{when} (I6)");
        }
    }

    /// Waits until the guest is stopped and has no trace of a debugger.
    pub(super) fn wait_until_untouched(&self) {
        let bare = |record: &Record| record.stops == StopSet::default();
        while self.code() != PROGRAM || !self.state().vps.iter().all(bare) {
            thread::yield_now();
        }
    }

    /// Waits until every VP has executed an instruction without a debugger.
    pub(super) fn wait_for_progress(&self) {
        for vp in 0..self.vps() as usize {
            loop {
                let record = self.state().vps[vp].clone();
                if record.debugger == Some(Debugger::Absent) && record.executed_now > 0 {
                    break;
                }
                thread::yield_now();
            }
        }
    }

    /// A debugger resumes the guest.
    pub(super) fn let_go(&self) {
        let mut state = self.state();
        state.let_go = true;
        for record in &mut state.vps {
            record.executed_since = 0;
        }
    }

    /// The number of instructions that the VP has executed since a debugger resumed the guest.
    pub(super) fn executed_since(&self, vp: VpIndex) -> u64 {
        self.state().vps[vp.index() as usize].executed_since
    }

    /// Whether the guest was ever resumed.
    pub(super) fn was_let_go(&self) -> bool {
        self.state().let_go
    }

    pub(super) fn break_sent(&self) {
        self.state().breaks_sent += 1;
    }

    pub(super) fn break_answered(&self) {
        self.state().breaks_answered += 1;
    }

    pub(super) fn breaks_answered(&self) -> u64 {
        self.state().breaks_answered
    }

    /// Several resumes are sent at once, so the guest may continue from a stop before the client gets the report.
    pub(super) fn lag(&self) {
        self.state().lagging = true;
    }

    /// All of these resumes are answered.
    pub(super) fn caught_up(&self) {
        let mut state = self.state();
        if std::mem::take(&mut state.lagging) {
            for record in &mut state.vps {
                record.hit = Reported::Unclear;
                record.step = Reported::Unclear;
                record.unclear = true;
            }
        }
    }

    /// A debugger is attached.
    pub(super) fn session_begins(&self) {
        for record in &mut self.state().vps {
            record.debugger = None;
        }
    }

    /// A stop is reported to the client. `breaks_before`: the breaks that were answered before the resume that this stop answers, if it answers one.
    pub(super) fn reported(&self, reason: DebugStopReason, breaks_before: Option<u64>) {
        let mut state = self.state();
        let lagging = state.lagging;
        say(|| format!("reported to the client: {reason:?}"));
        let report_once = |reported: &mut Reported, what: &str| {
            let was = std::mem::take(reported);
            assert!(
                was != Reported::Yes || lagging,
                "{what} is reported twice, or never happened: {reason:?}"
            );
        };
        match reason {
            DebugStopReason::Breakpoint { vp, breakpoint } => {
                let record = &mut state.vps[vp.index() as usize];
                report_once(&mut record.hit, "a hit");
                assert!(lagging || record.rip == breakpoint.address.value());
            }
            DebugStopReason::SingleStep { vp } => {
                report_once(&mut state.vps[vp.index() as usize].step, "a step");
            }
            DebugStopReason::Reset { .. } => {
                let asked = state.vps.iter().any(|vp| vp.asked_reset);
                assert!(asked, "a reset without a request");
            }
            DebugStopReason::Break => {
                let asked = breaks_before.is_none_or(|before| state.breaks_sent > before);
                assert!(asked, "a stop without a request");
            }
            other => panic!("{other:?}"),
        }
        if let Some(vp) = reason.vp() {
            let record = &mut state.vps[vp.index() as usize];
            record.known = (!lagging).then_some(record.rip);
        }
    }

    /// The session has ended. Stops that were not reported to it are not reported any more.
    pub(super) fn session_over(&self) {
        for record in &mut self.state().vps {
            record.hit = Reported::Yes;
            record.known = None;
            record.unclear = false;
        }
    }
}

impl Machine for Model {
    fn pio_read(&self, _: VpIndex, _: u16, _: &mut [u8]) {}

    fn pio_write(&self, _: VpIndex, _: u16, _: &[u8]) -> DeviceOutcome {
        DeviceOutcome::Done
    }

    fn mmio_read(&self, _: Option<VpIndex>, _: Gpa, _: &mut [u8]) -> MmioOutcome {
        MmioOutcome::Unclaimed
    }

    fn mmio_write(&self, _: Option<VpIndex>, _: Gpa, _: &[u8]) -> (MmioOutcome, DeviceOutcome) {
        (MmioOutcome::Unclaimed, DeviceOutcome::Done)
    }

    fn init_vp(&self, _: VpIndex, _: &VcpuFd) -> Result<(), MachineError> {
        Ok(())
    }

    fn reset(&self) -> Result<(), MachineError> {
        self.check_parked("in a reset");
        assert_eq!(self.code(), PROGRAM, "a reset finds a byte of ours");
        for record in &mut self.state().vps {
            record.asked_reset = false;
        }
        Ok(())
    }
}

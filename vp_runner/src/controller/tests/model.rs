//! What is true of the guest, and what must never be: the judge of a session.

use super::fake_vp::CODE;
use super::fake_vp::PROGRAM;
use super::fake_vp::gpa;
use super::fake_vp::load_tables;
use super::*;
use crate::breakpoints::Breakpoints;
use crate::breakpoints::breakpoint_bytes::INT3;
use crate::control::at_breakpoint::FirstInstruction;
use crate::machine::DeviceOutcome;
use crate::machine::MachineError;
use crate::machine::MmioOutcome;
use kvm_ioctls::VcpuFd;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::RwLock;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;

pub(super) struct Model {
    pub(super) ram: Arc<GuestMemoryMmap>,
    pub(super) breakpoints: Arc<RwLock<Breakpoints>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    vps: Vec<Record>,
    breaks_sent: u64,
    breaks_answered: u64,
    /// Several resumes are on their way: what the client has seen lags behind.
    lagging: bool,
    /// A debugger has resumed the guest, or left it to run: it is not held any more.
    let_go: bool,
}

#[derive(Debug, Clone, Default)]
struct Record {
    activity: Activity,
    rip: u64,
    debugger: Option<Debugger>,
    /// A breakpoint that it met.
    hit: Told,
    /// A step that it finished.
    step: Told,
    /// It asked for a reset that has not been made.
    asked_reset: bool,
    /// Where it stands, having executed nothing since a stop was reported that named it: what is there is to be passed (I8).
    known: Option<u64>,
    /// Whether it is `known` cannot be said: there were several resumes on their way.
    unclear: bool,
    /// Instructions in the present entry.
    executed_now: u64,
    stops: StopSet,
}

/// Whether the client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Told {
    /// Of all there is.
    #[default]
    Yes,
    NotYet,
    /// Maybe: there were several resumes on their way.
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
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap();
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
        model.ram.write_slice(&PROGRAM, code).unwrap();
        Arc::new(model)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn vps(&self) -> u32 {
        self.state().vps.len().try_into().unwrap()
    }

    // The VPs' side.

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
        record.step = Told::Yes;
        record.debugger = Some(enter.debugger);
        let hit = std::mem::take(&mut record.hit);
        let breakpoints = self.breakpoints.try_read().expect("I3");
        let table = &breakpoints.table;
        let own = table.at_byte(Gva::new(rip), gpa(rip)).is_some();
        let here = own || table.has_register_at(Gva::new(rip));
        let may = enter.debugger == Debugger::Absent || first == FirstInstruction::Meets || lagging;
        assert!(
            may || !here || hit != Told::NotYet,
            "VP {vp} goes on from a hit that nobody was told of (I7)"
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

    /// Before an instruction: memory is as the table says, and nobody changes it.
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
            let found: u8 = self.ram.read_obj(GuestAddress(gpa.value())).unwrap();
            assert_eq!(found, wanted, "the byte at {gpa}");
        }
    }

    pub(super) fn executed(&self, vp: VpIndex) {
        let mut state = self.state();
        let record = &mut state.vps[vp.index() as usize];
        record.executed_now += 1;
        drop(state);
        self.may_have_moved(vp);
    }

    /// The VP enters the guest with nothing to pass, or has executed something.
    pub(super) fn may_have_moved(&self, vp: VpIndex) {
        let mut state = self.state();
        let record = &mut state.vps[vp.index() as usize];
        record.known = None;
        record.unclear = false;
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
                record.step = Told::NotYet;
            }
            Some(Cause::Debug(_)) => {
                assert_ne!(
                    record.known,
                    Some(rip),
                    "VP {vp} met with nothing executed what it was to pass (I8)"
                );
                record.hit = Told::NotYet;
            }
            Some(Cause::Guest(_)) => record.asked_reset = true,
            None | Some(Cause::NotReported) => {}
        }
    }

    /// What a VP gives back as it parks: it may pass only where it stands since it was let pass.
    pub(super) fn has_moved(&self, vp: VpIndex, at: AtBreakpoint) {
        let record = &self.state().vps[vp.index() as usize];
        assert!(
            record.executed_now == 0 || !at.may_pass(),
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
        record.hit = Told::Yes;
        record.known = None;
        record.unclear = false;
    }

    // The clients' side.

    pub(super) fn check_parked(&self, when: &str) {
        let state = self.state();
        let parked = |record: &Record| record.activity == Activity::Parked;
        assert!(state.vps.iter().all(parked), "a VP runs {when} (I2, I4)");
    }

    fn code(&self) -> [u8; PROGRAM.len()] {
        self.ram.read_obj(GuestAddress(CODE)).unwrap()
    }

    pub(super) fn check_untouched(&self, when: &str) {
        assert_eq!(self.code(), PROGRAM, "{when} (I6)");
        for record in &self.state().vps {
            assert_eq!(record.stops, StopSet::default(), "{when} (I6)");
        }
    }

    /// Waits until nothing of a debugger is left in a guest that does not run.
    pub(super) fn wait_until_untouched(&self) {
        let bare = |record: &Record| record.stops == StopSet::default();
        while self.code() != PROGRAM || !self.state().vps.iter().all(bare) {
            thread::yield_now();
        }
    }

    /// Waits until every VP has executed something with nobody attached.
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

    /// A debugger lets the guest go.
    pub(super) fn let_go(&self) {
        self.state().let_go = true;
    }

    /// Whether the guest was ever let go.
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

    /// Several resumes are sent at once: from now on the client hears of stops later than the guest goes on from them.
    pub(super) fn lag(&self) {
        self.state().lagging = true;
    }

    /// All of them are answered.
    pub(super) fn caught_up(&self) {
        let mut state = self.state();
        if std::mem::take(&mut state.lagging) {
            for record in &mut state.vps {
                record.hit = Told::Unclear;
                record.step = Told::Unclear;
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

    /// The client is told of a stop. `breaks_before`: those answered before the resume that it answers, if it answers one.
    pub(super) fn reported(&self, reason: DebugStopReason, breaks_before: Option<u64>) {
        let mut state = self.state();
        let lagging = state.lagging;
        say(|| format!("the client is told {reason:?}"));
        let told = |told: &mut Told, what: &str| {
            let was = std::mem::take(told);
            assert!(
                was != Told::Yes || lagging,
                "{what} is told twice, or never was: {reason:?}"
            );
        };
        match reason {
            DebugStopReason::Breakpoint { vp, breakpoint } => {
                let record = &mut state.vps[vp.index() as usize];
                told(&mut record.hit, "a hit");
                assert!(lagging || record.rip == breakpoint.address.value());
            }
            DebugStopReason::SingleStep { vp } => {
                told(&mut state.vps[vp.index() as usize].step, "a step");
            }
            DebugStopReason::Reset { .. } => {
                let asked = state.vps.iter().any(|vp| vp.asked_reset);
                assert!(asked, "a reset nobody asked for");
            }
            DebugStopReason::Break => {
                let asked = breaks_before.is_none_or(|before| state.breaks_sent > before);
                assert!(asked, "a stop nobody asked for");
            }
            other => panic!("{other:?}"),
        }
        if let Some(vp) = reason.vp() {
            let record = &mut state.vps[vp.index() as usize];
            record.known = (!lagging).then_some(record.rip);
        }
    }

    /// The session is over: what it had not been told of, nobody will be.
    pub(super) fn session_over(&self) {
        for record in &mut self.state().vps {
            record.hit = Told::Yes;
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

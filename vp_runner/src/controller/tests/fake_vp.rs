//! A fake VP, which is a thread of the scheduler. Its guest has a few one-byte instructions in real guest memory.
//!
//! The fake VP has the properties of `vp_thread`: it runs only with its gate open, leaves the guest for a signal, parks once for each entry, serves calls while
//! parked, passes a breakpoint whose hit was reported, and hits every other breakpoint.

use super::model::Model;
use super::*;
use crate::arch::Access;
use crate::arch::CodeLocation;
use crate::arch::PagingState;
use crate::arch::SingleStepping;
use crate::arch::Snapshots;
use crate::breakpoints::Breakpoints;
use crate::breakpoints::Verdict;
use crate::breakpoints::breakpoint_bytes::INT3;
use crate::control::at_breakpoint::FirstInstruction;
use crate::control::entry::Entry;
use crate::control::run_gate::Kick;
use crate::control::run_gate::RunGate;
use crate::controller::vps::VpThread;
use crate::hook::Command;
use crate::hook::ParkedVp;
use crate::hook::link::NotTaken;
use crate::hook::link::VpLink;
use crate::kvm::x86_64::RegisterFile;
use crate::memory::slots::MemorySlots;
use agent_expr::Refused;
use shuttle::sync::atomic::AtomicBool;
use shuttle::sync::atomic::Ordering;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::debug_rpc::Unsupported;
use vmm_core_defs::debug_rpc::VpActivity;
use vmm_core_defs::regs::X86VpState;

/// The address of the guest's program, and its entry point.
pub(super) const CODE: u64 = 0x1000;
/// The second linear address at which the program is mapped.
const ALIAS: u64 = 0x4000;
/// The instructions, of one byte each: `nop`, which can be emulated, and `clc`, which cannot.
pub(super) const PROGRAM: [u8; 3] = [0x90, 0xf8, 0x90];
const LEN: u64 = PROGRAM.len() as u64;
/// The instructions of one turn: all instructions at their first address, then all at their second address.
pub(super) const TURN: u64 = 2 * LEN;
const NOP: u8 = PROGRAM[0];
/// The page tables: 32-bit paging, with 4 bytes for an entry.
const DIRECTORY: u64 = 0x2000;
const TABLE: u64 = 0x3000;
const PRESENT: u32 = 1;
const PG: u64 = 1 << 31;

/// The linear address of an instruction of the turn.
pub(super) fn address(index: u64) -> u64 {
    match index < LEN {
        true => CODE + index,
        false => ALIAS + index - LEN,
    }
}

/// The physical address of this instruction.
pub(super) fn gpa(rip: u64) -> Gpa {
    Gpa::new(CODE + rip % 0x1000)
}

/// The paging state of every VP.
pub(super) fn load_tables(ram: &MemorySlots) {
    let entry = |at: u64, to: u64| {
        let to = u32::try_from(to).unwrap() | PRESENT;
        ram.backing().write_obj(to, GuestAddress(at)).unwrap();
    };
    entry(DIRECTORY, TABLE);
    for page in [CODE, ALIAS] {
        entry(TABLE + 4 * (page >> 12), CODE);
    }
}

pub(super) struct FakeVp {
    vp: VpIndex,
    model: Arc<Model>,
    gate: Arc<RunGate>,
    immediate_exit: Arc<AtomicBool>,
    snapshot: Snapshots,
    /// Whether the guest causes exits. Otherwise only the signal brings the VP out of the guest.
    restless: bool,
    /// The instruction of the turn that comes next.
    index: u64,
    stops: StopSet,
    /// The bytes that are lifted for this VP.
    lifted: Vec<Gpa>,
}

/// The reason why the VP has left the guest.
enum Exit {
    /// A signal, or an exit that is no stop.
    OfItsOwn,
    Slot(usize),
    Int3,
    Executed,
    Reset,
}

struct Link {
    commands: shuttle::sync::mpsc::Sender<Command>,
    immediate_exit: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl VpLink for Link {
    fn command(&self, command: Command) -> Result<(), NotTaken> {
        let sent = self.commands.send(command).map_err(|_| NotTaken::Gone);
        // The thread may carry out the command before the sender continues.
        thread::yield_now();
        sent
    }

    /// The scheduler runs other threads only when this thread sleeps.
    fn wait_briefly(&self, _: &mut dyn FnMut() -> bool) {}

    fn kick(&self, kick: Kick) {
        // The kick is set at the gate. The VP may do anything before and after the signal arrives.
        thread::yield_now();
        if kick == Kick::Signal {
            self.immediate_exit.store(true, Ordering::SeqCst);
        }
        thread::yield_now();
    }

    fn join(&mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

impl FakeVp {
    pub(super) fn start(
        vp: VpIndex,
        model: &Arc<Model>,
        events: mesh::Sender<VpEvent>,
    ) -> VpThread {
        let gate = Arc::new(RunGate::new());
        let immediate_exit = Arc::new(AtomicBool::new(false));
        let snapshot = Snapshots::default();
        let (commands, receiver) = shuttle::sync::mpsc::channel();
        let fake = Self {
            vp,
            model: model.clone(),
            gate: gate.clone(),
            immediate_exit: immediate_exit.clone(),
            snapshot: snapshot.clone(),
            restless: thread_rng().gen_bool(0.5),
            index: 0,
            stops: StopSet::default(),
            lifted: Vec::new(),
        };
        let link = Link {
            commands,
            immediate_exit,
            thread: Some(thread::spawn(move || fake.serve(&receiver, &events))),
        };
        VpThread::new(gate, Box::new(link), snapshot)
    }

    fn serve(
        mut self,
        commands: &shuttle::sync::mpsc::Receiver<Command>,
        events: &mesh::Sender<VpEvent>,
    ) {
        while let Ok(command) = commands.recv() {
            match command {
                Command::Enter(enter) => {
                    self.forget_snapshot();
                    let (cause, entry) = self.go(&enter);
                    let at = entry.at();
                    self.model.has_moved(self.vp, at);
                    self.model.parks(self.vp, self.rip(), cause);
                    thread::yield_now();
                    events.send(VpEvent::Parked(VpParked {
                        vp: self.vp,
                        epoch: enter.epoch,
                        cause,
                        location: match enter.debugger {
                            Debugger::Present => Some(self.stands()),
                            Debugger::Absent => None,
                        },
                        guest_registers: Some(0),
                        at,
                        steps: entry.steps(),
                    }));
                    thread::yield_now();
                }
                Command::Call(call) | Command::Change(call) => call(&mut self),
                Command::Exit => return,
            }
        }
    }

    fn go(&mut self, enter: &Enter) -> (Option<Cause>, Entry) {
        self.stops = enter.stops;
        self.model.armed(self.vp, self.stops);
        self.model.entered(self.vp, self.rip(), enter);
        let here = self.slot_here().map_or(0, |slot| 1 << slot);
        let mut entry = Entry::new(self.vp, enter.action, enter.at, here);
        let cause = self.run(&mut entry);
        self.lower();
        (cause, entry)
    }

    fn run(&mut self, entry: &mut Entry) -> Option<Cause> {
        match entry.first() {
            FirstInstruction::Meets | FirstInstruction::Disarmed => {}
            FirstInstruction::Emulated => {
                thread::yield_now();
                if self.gate.is_kicked() {
                    return None;
                }
                let ends = match self.carries_out() {
                    true => entry.executed(self.rip()),
                    false => Some(entry.emulation_failed()),
                };
                if ends.is_some() {
                    return ends;
                }
            }
            FirstInstruction::Lifted | FirstInstruction::OthersStopped => self.lift(),
        }
        loop {
            if !entry.is_byte_lifted() {
                self.lower();
            }
            self.immediate_exit.store(false, Ordering::SeqCst);
            if self.gate.enter().is_err() {
                return None;
            }
            entry.enters_guest();
            if entry.passes_nothing() {
                self.model.may_have_moved(self.vp);
            }
            thread::yield_now();
            self.model.in_guest(self.vp);
            let exit = self.kvm_run(entry);
            self.model.out_of_guest(self.vp);
            thread::yield_now();
            self.gate.leave();
            thread::yield_now();
            let cause = match exit {
                Exit::OfItsOwn => None,
                Exit::Slot(slot) => self.after_slot(slot, entry),
                Exit::Int3 => self.met(entry),
                Exit::Executed => entry.executed(self.rip()),
                Exit::Reset => {
                    // The instruction that asked for it has executed.
                    entry.count_step();
                    entry.guest_event();
                    Some(Cause::Guest(GuestEvent::Reset { vp: Some(self.vp) }))
                }
            };
            if cause.is_some() {
                return cause;
            }
        }
    }

    /// Runs the guest until a signal, an exit of the guest, or a breakpoint. A step ends after its instruction.
    fn kvm_run(&mut self, entry: &Entry) -> Exit {
        loop {
            thread::yield_now();
            if self.immediate_exit.load(Ordering::SeqCst) || self.exits() {
                return Exit::OfItsOwn;
            }
            self.model.check_code(self.vp, !self.lifted.is_empty());
            if let Some(slot) = self
                .slot_here()
                .filter(|slot| entry.disarmed() & 1 << slot == 0)
            {
                return Exit::Slot(slot);
            }
            if self.model.byte(self.rip()) == INT3 {
                return Exit::Int3;
            }
            self.move_on();
            if self.restless && thread_rng().gen_bool(0.006) {
                return Exit::Reset;
            }
            if entry.stepping() == SingleStepping::On {
                return Exit::Executed;
            }
        }
    }

    fn move_on(&mut self) {
        self.index = (self.index + 1) % TURN;
        self.model.executed(self.vp);
    }

    /// Whether the guest causes an exit now.
    fn exits(&self) -> bool {
        self.restless && thread_rng().gen_bool(0.1)
    }

    /// The VP has hit a breakpoint byte. `None` if the byte belongs to another address and the VP has emulated the instruction under it.
    fn met(&mut self, entry: &mut Entry) -> Option<Cause> {
        let (address, gpa) = (Gva::new(self.rip()), gpa(self.rip()));
        let found = {
            let breakpoints = self.model.breakpoints.try_read();
            let breakpoints = breakpoints.expect("the table changes while a VP runs (I3)");
            assert!(
                breakpoints.bytes.is_armed(gpa),
                "an INT3 that belongs to no breakpoint"
            );
            breakpoints.table.at_byte(address, gpa)
        };
        let vp = self.vp;
        if found.is_some() {
            // A debug register may have fired here before, without a stop.
            if !entry.passes_at(address)
                && let Some(breakpoint) = self.stop_here()
            {
                return Some(Cause::Debug(DebugStopReason::Breakpoint { vp, breakpoint }));
            }
            self.passes(entry);
        }
        match self.carries_out() {
            true => entry.executed(self.rip()),
            false => Some(entry.emulation_failed()),
        }
    }

    fn after_slot(&mut self, slot: usize, entry: &mut Entry) -> Option<Cause> {
        let vp = self.vp;
        if let Some(breakpoint) = self.stop_here() {
            return Some(Cause::Debug(DebugStopReason::Breakpoint { vp, breakpoint }));
        }
        self.passes(entry);
        entry.disarm(1 << slot);
        None
    }

    /// The breakpoint at RIP whose hit is a stop: none if no condition holds.
    fn stop_here(&self) -> Option<Breakpoint> {
        let breakpoints = self.model.breakpoints.try_read();
        let breakpoints = breakpoints.expect("the table changes while a VP runs (I3)");
        let Breakpoints {
            table, conditions, ..
        } = &*breakpoints;
        let here = table.hit_together(&self.model.ram, &self.stands());
        assert!(!here.is_empty(), "a hit of no breakpoint (I5)");
        here.into_iter().find(|breakpoint| {
            let checked = conditions.of(breakpoint);
            checked.is_none_or(|checked| checked.evaluate(self.vp, &mut Nothing) == Verdict::Stops)
        })
    }

    fn passes(&self, entry: &mut Entry) {
        entry.condition_is_false(Gva::new(self.rip()));
        self.model.passes(self.vp, self.rip());
    }

    /// Emulates the instruction under a byte, if possible.
    fn carries_out(&mut self) -> bool {
        self.forget_snapshot();
        let index = usize::try_from(self.index % LEN).unwrap();
        let can = PROGRAM[index] == NOP && thread_rng().gen_bool(0.9);
        if can {
            self.move_on();
        }
        can
    }

    fn lift(&mut self) {
        let location = self.stands();
        let breakpoints = self.model.breakpoints.try_write();
        let mut breakpoints = breakpoints.expect("somebody looks while a VP lifts its byte");
        self.lifted = breakpoints.lift(&self.model.ram, &location);
    }

    fn lower(&mut self) {
        let breakpoints = self.model.breakpoints.try_write();
        let mut breakpoints = breakpoints.expect("somebody looks while a VP lowers its byte");
        breakpoints.lower(&self.model.ram, &self.lifted);
        self.lifted.clear();
    }

    fn rip(&self) -> u64 {
        address(self.index)
    }

    fn slot_here(&self) -> Option<usize> {
        self.stops.slots.iter().position(|slot| {
            slot.is_some_and(|slot| {
                slot.access() == Access::Execute && slot.address().value() == self.rip()
            })
        })
    }

    /// In 32-bit protected mode.
    fn stands(&self) -> CodeLocation {
        CodeLocation {
            rip: Gva::new(self.rip()),
            paging: PagingState {
                cr0: PG | 1,
                cr3: DIRECTORY,
                cr4: 0,
                efer: 0,
                limits: PagingLimits::new(36, false),
            },
            user: false,
        }
    }

    fn forget_snapshot(&self) {
        *self.snapshot.lock().unwrap() = None;
    }
}

/// What the conditions see, which are constants.
struct Nothing;

impl agent_expr::Context for Nothing {
    fn register(&mut self, _: u16) -> Result<u64, Refused> {
        Err(Refused)
    }

    fn read(&mut self, _: u64, _: &mut [u8]) -> Result<(), Refused> {
        Err(Refused)
    }
}

fn unheard_of() -> DebugError {
    let request = "a fake VP has no register but RIP".into();
    Unsupported::Request { request }.into()
}

impl ParkedVp for FakeVp {
    fn power_on(&mut self) -> Result<(), DebugError> {
        self.forget_snapshot();
        self.index = 0;
        self.model.initialized(self.vp, self.rip());
        Ok(())
    }

    fn set_stops(&mut self, stops: StopSet) -> Result<(), DebugError> {
        thread::yield_now();
        self.model.armed(self.vp, stops);
        self.stops = stops;
        Ok(())
    }

    fn location(&mut self) -> Result<CodeLocation, DebugError> {
        thread::yield_now();
        Ok(self.stands())
    }

    fn count_guest_registers(&mut self) -> Result<usize, DebugError> {
        Ok(0)
    }

    fn find_register_file(&mut self) -> Result<RegisterFile, DebugError> {
        Err(unheard_of())
    }

    fn set_register_file(&mut self, _: RegisterFile) {}

    fn read_registers(&mut self) -> Result<Arc<X86VpState>, DebugError> {
        let state = Arc::new(X86VpState {
            rip: self.rip(),
            ..X86VpState::default()
        });
        let mut snapshot = self.snapshot.lock().unwrap();
        *snapshot = Some(state.clone());
        Ok(state)
    }

    fn write_registers(&mut self, _: &X86VpState) -> Result<(), DebugError> {
        Err(unheard_of())
    }

    fn read_msr(&mut self, _: u32) -> Result<u64, DebugError> {
        Err(unheard_of())
    }

    fn write_msr(&mut self, _: u32, _: u64) -> Result<(), DebugError> {
        Err(unheard_of())
    }

    fn raise_nmi(&mut self) -> Result<(), DebugError> {
        Err(unheard_of())
    }

    fn restart_counter(&mut self) -> Result<(), DebugError> {
        Ok(())
    }

    fn activity(&mut self) -> Result<VpActivity, DebugError> {
        Ok(VpActivity::Stopped)
    }
}

impl Model {
    /// The stop of a VP that runs.
    fn byte(&self, rip: u64) -> u8 {
        self.ram
            .backing()
            .read_obj(GuestAddress(gpa(rip).value()))
            .unwrap()
    }
}

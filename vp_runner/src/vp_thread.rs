//! The thread of one VP: it owns the vCPU, waits for commands, and runs the guest.
//!
//! The loop is [`Vp::go`]: check the gate, run, decode, handle. While the VP is parked it answers the controller's calls, each of them on this
//! thread, since vCPU ioctls belong to it.

use crate::arch::x86_64::debug_registers::DebugRegisters;
use crate::arch::x86_64::debug_registers::GuestRegisters;
use crate::arch::x86_64::place::Place;
use crate::arch::x86_64::step_effects::TrapFlag;
use crate::arch::x86_64::stop_cause::Stepping;
use crate::breakpoints::Breakpoints;
use crate::control::at_breakpoint::AtBreakpoint;
use crate::control::at_breakpoint::FirstInstruction;
use crate::control::entry::Entry;
use crate::control::exit::Next;
use crate::control::exit::handle;
use crate::control::guest_event::GuestEvent;
use crate::control::run_gate::RunGate;
use crate::control::run_state::Cause;
use crate::kvm::timekeeper::Timekeeper;
use crate::kvm::vcpu::Bytes;
use crate::kvm::vcpu::DebugState;
use crate::kvm::vcpu::Interrupts;
use crate::kvm::vcpu::Vcpu;
use crate::kvm::x86_64::RegisterFile;
use crate::machine::Machine;
use crate::machine::MachineError;
use kvm_ioctls::VmFd;
use pal_async::awake::Busy;
use pal_async::awake::Expected;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::mpsc;
use vm_memory::GuestMemoryMmap;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::StepInterrupts;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::debug_rpc::VpActivity;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::RunnerFault;

mod before_guest;
mod byte;
mod guest_debug;
mod halt_step;
mod messages;
mod parked;
mod resume_flag;
mod step;
mod stride;
mod time;
mod view;

use guest_debug::OwnInt3;
use guest_debug::StepTrap;
pub(crate) use messages::Arms;
pub(crate) use messages::Command;
pub(crate) use messages::Debugger;
pub(crate) use messages::Enter;
pub(crate) use messages::Snapshot;
pub(crate) use messages::VpEvent;
pub(crate) use messages::VpParked;
pub(crate) use parked::Call;
pub(crate) use parked::ParkedVp;
use resume_flag::BlockingFlag;
use step::Events;
use step::Faults;
use step::Interrupted;
use step::Underway;
use stride::Stride;
use time::VpTime;

/// The register file of a parked VP, as far as it has been read. Empty when the VP runs.
pub(crate) type Snapshots = Arc<Mutex<Option<Arc<X86VpState>>>>;

/// What a VP thread needs from outside.
pub(crate) struct Surroundings {
    pub(crate) index: VpIndex,
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) gate: Arc<RunGate>,
    pub(crate) snapshot: Snapshots,
    pub(crate) ram: Arc<GuestMemoryMmap>,
    /// Changed only while every VP is parked (I3).
    pub(crate) breakpoints: Arc<RwLock<Breakpoints>>,
    pub(crate) time: Arc<Timekeeper>,
    /// For its interrupt controllers.
    pub(crate) vm: Arc<VmFd>,
}

/// A VP, on its thread.
pub(crate) struct Vp {
    vcpu: Vcpu,
    around: Surroundings,
    /// What every entry has, but for a debug register being passed (I5).
    arms: Arms,
    /// Ours and the guest's, as of the last look.
    debug_registers: DebugRegisters,
    kvm_gave_up: KvmGaveUp,
    life: Life,
    /// Breakpoint bytes that are out of memory for this VP to execute what is under them; none while it is parked.
    lifted: Vec<Gpa>,
    time: VpTime,
    /// The step that is planned or under way.
    underway: Option<Underway>,
    /// The next instruction is that of a handler which the step waits for.
    interrupted: Option<Interrupted>,
    /// RFLAGS.RF that is out of guest memory for one entry.
    hidden: Vec<BlockingFlag>,
    events: Events,
    faults: Option<Faults>,
    /// The guest's own debug registers, if they were looked at and it cannot have written them since: while it is parked, and over most steps.
    guests: Option<GuestRegisters>,
    /// An `INT3` of the guest's own that came to us: the next entry gives it its `#BP`.
    own_int3: Option<OwnInt3>,
    step_trap: StepTrap,
    /// Set once the controller knows the VPs' registers.
    registers: Option<RegisterFile>,
    /// The next command. `None`: the VP was stopped for another's sake; there may be many of that kind, and the client looks at the other.
    next: Option<Expected>,
}

/// Whether KVM gave up on the VP at its last stop, which the client was told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KvmGaveUp {
    Yes,
    No,
}

/// What is known of the guest's use of this VP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// It has run nothing since power-on: it may be waiting for its start-up message.
    Untouched,
    /// It has run.
    Started,
    /// It executed `hlt`, and there is no interrupt controller in KVM that would wake it.
    Halted,
}

impl Vp {
    pub(crate) fn new(vcpu: Vcpu, around: Surroundings) -> Self {
        Self {
            vcpu,
            around,
            arms: Arms::default(),
            debug_registers: DebugRegisters::default(),
            kvm_gave_up: KvmGaveUp::No,
            life: Life::Untouched,
            lifted: Vec::new(),
            time: VpTime::default(),
            underway: None,
            interrupted: None,
            hidden: Vec::new(),
            events: Events::Unknown,
            faults: None,
            guests: None,
            own_int3: None,
            step_trap: StepTrap::Taken,
            registers: None,
            next: None,
        }
    }

    /// Serves commands until told to exit.
    pub(crate) fn serve(
        mut self,
        commands: &mpsc::Receiver<Command>,
        events: &mesh::Sender<VpEvent>,
    ) {
        let mut next = self.next_command(commands);
        while let Some(command) = next {
            next = match command {
                Command::Enter(enter) => {
                    let vp = self.around.index;
                    self.forget_snapshot();
                    self.time_goes_on(&enter);
                    let busy = Busy::new();
                    let (cause, at) = self.go(&enter);
                    drop(busy);
                    self.time_stands();
                    let place = match enter.debugger {
                        Debugger::Present => self.place().ok(),
                        Debugger::Absent => None,
                    };
                    events.send(VpEvent::Parked(VpParked {
                        vp,
                        epoch: enter.epoch,
                        cause,
                        place,
                        guest_registers: self.guest_registers_at_stop(),
                        at,
                    }));
                    self.next = cause.map(|_| self.next.unwrap_or_default());
                    self.after_stop(&enter, commands)
                }
                Command::Call(call) => {
                    call(&mut self);
                    self.next_command(commands)
                }
                Command::Exit => return,
            };
        }
    }

    /// Runs the guest until it is kicked (`None`) or something stops it. Gives back what the VP was entered with.
    fn go(&mut self, enter: &Enter) -> (Option<Cause>, AtBreakpoint) {
        self.kvm_gave_up = KvmGaveUp::No;
        if let Err(err) = self.arm(enter.arms) {
            return (Some(self.crashed(&err)), enter.at);
        }
        self.vcpu.want_registers(self.will_stop(enter));
        self.underway = None;
        self.interrupted = None;
        self.faults = None;
        self.own_int3 = None;
        let mut entry = match self.plan_entry(enter) {
            Ok(entry) => entry,
            Err(err) => return (Some(self.crashed(&err)), enter.at),
        };
        let ended = self.before_guest(&mut entry);
        let cause = match ended {
            ControlFlow::Break(cause) => cause,
            ControlFlow::Continue(()) => {
                let cause = self.run_until_stop(&mut entry);
                self.lower();
                cause
            }
        };
        (cause, entry.at())
    }

    /// Whether exits are likely to be stops. Registers come with every exit then, which a guest that only runs would pay for at each of its I/O
    /// instructions.
    fn will_stop(&self, enter: &Enter) -> bool {
        let steps =
            enter.action != VpAction::Run || enter.at.first() == FirstInstruction::OthersStopped;
        enter.debugger == Debugger::Present && (steps || self.arms != Arms::default())
    }

    fn run_until_stop(&mut self, entry: &mut Entry) -> Option<Cause> {
        let mut pending_exit = false;
        let mut stride = Stride::Over;
        loop {
            if stride == Stride::Over {
                if !entry.is_byte_lifted() {
                    self.lower();
                }
                if let Err(cause) = self.share_registers(entry) {
                    let later = self.complete(pending_exit, entry);
                    return later.or(Some(cause));
                }
                if let Err(err) = self.prepare(entry) {
                    return Some(self.crashed(&err));
                }
            }
            if stride == Stride::Over && !pending_exit {
                match self.step_over_hlt(entry) {
                    Ok(None) => {}
                    Ok(Some(rip)) => match entry.executed(rip) {
                        Some(cause) => return Some(cause),
                        None => continue,
                    },
                    Err(err) => return Some(self.crashed(&err)),
                }
            }
            let from = match entry.stepping() {
                Stepping::On => self.underway.as_ref().map(Underway::from),
                Stepping::Off => None,
            };
            self.vcpu.set_immediate_exit(false);
            if self.around.gate.enter().is_err() {
                let taken_back = self.take_back_int3();
                let shown = self.show_resume_flags();
                let cause = self.complete(pending_exit, entry);
                self.events = Events::Unknown;
                return cause.or(taken_back.and(shown).err());
            }
            entry.enters_guest();
            let exit = self.vcpu.run();
            self.around.gate.leave();
            pending_exit = exit.is_pending();
            let next = handle(exit, self.around.index, &*self.around.machine);
            stride = self.stride(&next, entry);
            if stride == Stride::GoesOn {
                continue;
            }
            let owed = match self.take_back_int3().and(self.show_resume_flags()) {
                Ok(owed) => owed,
                Err(cause) => return Some(cause),
            };
            let mut cause = self.after_exit(next, entry);
            if cause.is_none() && from.is_some() {
                cause = match pending_exit {
                    true => self.end_io_step(from, entry),
                    false => self.landed(entry),
                };
                pending_exit = false;
            }
            if let Err(failed) = self.pay(owed) {
                cause = Some(failed);
            }
            if let Some(cause) = cause {
                let later = self.complete(pending_exit, entry);
                let cause = first(cause, later);
                if let Cause::Guest(_) = cause {
                    entry.guest_event();
                }
                if let Cause::Guest(GuestEvent::Crashed { .. }) = cause {
                    self.events = Events::Unknown;
                    self.kvm_gave_up = KvmGaveUp::Yes;
                }
                return Some(cause);
            }
        }
    }

    /// Lets KVM finish the instruction behind an I/O exit, without running any other (I2).
    fn complete(&mut self, mut pending_exit: bool, entry: &mut Entry) -> Option<Cause> {
        let mut cause = None;
        while pending_exit {
            self.vcpu.set_immediate_exit(true);
            let exit = self.vcpu.run();
            pending_exit = exit.is_pending();
            let next = handle(exit, self.around.index, &*self.around.machine);
            cause = cause.or(self.after_exit(next, entry));
        }
        cause
    }

    /// A step met an I/O exit. Some KVMs forget the step on that path and would execute the next instruction too, so what the exit leaves
    /// undone is completed here, and RIP tells whether the instruction is over (a repeated string instruction may not be).
    fn end_io_step(&mut self, from: Option<Gva>, entry: &mut Entry) -> Option<Cause> {
        self.complete(true, entry).or_else(|| {
            let pc = self.vcpu.linear_rip().ok()?;
            match Some(Gva::new(pc)) == from {
                true => None,
                false => entry.executed(pc),
            }
        })
    }

    fn after_exit(&mut self, next: Next, entry: &mut Entry) -> Option<Cause> {
        match next {
            Next::Enter => None,
            Next::Halt => self.halt(entry),
            Next::Debug(exit) => self.after_debug_exit(&exit, entry),
            Next::Stop(event) => self.after_failure(event, entry),
        }
    }

    /// The guest halted and no interrupt will come. Only a kick ends that; a step over `hlt` is done, though.
    fn halt(&mut self, entry: &mut Entry) -> Option<Cause> {
        self.life = Life::Halted;
        let cause = entry.halted();
        self.lower();
        if cause.is_none() {
            self.around.gate.wait_for_kick();
        }
        cause
    }

    fn crashed(&self, err: &DebugError) -> Cause {
        let vp = self.around.index;
        tracing::error!(%vp, error = %err, "a VP cannot run under the debugger");
        let cause = CrashCause::Runner(RunnerFault::DebugState);
        Cause::Guest(GuestEvent::Crashed { vp, cause })
    }

    /// Reads the registers that will most likely be asked for, once the stop is on its way and unless another command is. Returns the next command.
    fn after_stop(&mut self, enter: &Enter, commands: &mpsc::Receiver<Command>) -> Option<Command> {
        if enter.snapshot == Snapshot::Ahead {
            match commands.try_recv() {
                Ok(command) => return Some(command),
                Err(mpsc::TryRecvError::Disconnected) => return None,
                Err(mpsc::TryRecvError::Empty) => {
                    if let Err(err) = self.read_registers() {
                        tracing::debug!(error = %err, "registers could not be read ahead");
                    }
                }
            }
        }
        self.next_command(commands)
    }
}

impl Vp {
    fn arm(&mut self, arms: Arms) -> Result<(), DebugError> {
        if arms != self.arms {
            self.arms = arms;
            self.debug_registers = self.shared()?.unwrap_or_default();
        }
        Ok(())
    }

    fn register_file(&self) -> Result<RegisterFile, DebugError> {
        self.registers.ok_or_else(|| DebugError::Hypervisor {
            what: "read registers".into(),
            why: "the runner has not been started".into(),
        })
    }

    fn forget_snapshot(&mut self) {
        *self
            .around
            .snapshot
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A breakpoint or step that was met first stands, unless completing the exit brought a guest event, which weighs more.
fn first(cause: Cause, later: Option<Cause>) -> Cause {
    match (cause, later) {
        (Cause::Guest(_), _) | (_, None) => cause,
        (_, Some(later @ Cause::Guest(_))) => later,
        (_, Some(_)) => cause,
    }
}

//! Making one instruction execute, and nothing of ours show in what it leaves (I8, I9).
//!
//! KVM steps with RFLAGS.TF, which instructions and exceptions store where the guest can see it. So:
//! - an instruction that stores RFLAGS, and an event that is about to be delivered, is let go without TF, with an execution breakpoint
//!   where it leads;
//! - a guest that has set TF itself is let go with its own, whose trap is kept from it, ends the step, and is given back when the VP goes on;
//! - everything else is stepped with TF, and execution breakpoints wait at the handlers of the likeliest exceptions, since TF is cleared on the way
//!   there and the handler would run unseen; what they find on the stack is corrected.
//!
//! The breakpoints are put on debug registers that are free. One of the client's for another instruction counts as free for the time of the step,
//! which does not get there.

use super::resume_flag::BlockingFlag;
use super::stride::CodePage;
use super::stride::Sequel;
use super::view::Syscall;
use super::*;
use crate::arch::x86_64::dr7::DebugPayload;
use crate::arch::x86_64::dr7::Dr6;
use crate::arch::x86_64::page_walk::PagingState;
use crate::arch::x86_64::step_effects::Aftermath;
use crate::arch::x86_64::step_effects::Correction;
use crate::arch::x86_64::step_effects::LIKELY_FAULTS;
use crate::arch::x86_64::step_effects::Landing;
use crate::arch::x86_64::step_effects::Owed;
use crate::arch::x86_64::step_effects::Place as Stored;
use crate::arch::x86_64::step_effects::Step;
use crate::arch::x86_64::step_effects::TrapFlag;
use crate::arch::x86_64::step_effects::handler;
use crate::arch::x86_64::step_effects::opcode;
use crate::arch::x86_64::step_effects::opcode::Opcode;
use crate::arch::x86_64::stop_cause::DB_VECTOR;
use crate::arch::x86_64::stop_cause::DebugExit;
use crate::kvm::vcpu::Interrupts;
use crate::kvm::vcpu::Undelivered;
use crate::kvm::vcpu::is_64_bit;
use crate::kvm::vcpu::place_of;
use crate::kvm::x86_64::read_general;
use crate::kvm::x86_64::read_msr;
use crate::kvm::x86_64::read_system;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_sregs;
use vmm_core_defs::regs::x86_64::bits::MAX_INSTRUCTION_LEN;
use vmm_core_defs::regs::x86_64::bits::msr;
use vmm_core_defs::regs::x86_64::bits::rflags;

const BP_VECTOR: u8 = 3;
/// The smallest that a page can be.
pub(super) const PAGE: u64 = 4096;
/// The opcode and its prefixes. An instruction with more of them gets the closer look.
pub(super) const PEEKED: usize = 4;

/// A step that is planned or under way.
#[derive(Debug)]
pub(super) struct Underway {
    stepping: Stepping,
    interrupts: Interrupts,
    /// The client's, the guest's and the step's own.
    registers: DebugRegisters,
    end: End,
    before: (kvm_regs, kvm_sregs),
    place: Place,
    opcode: Opcode,
    /// Present if the instruction was looked at closely.
    step: Option<Box<Step>>,
    pub(super) sequel: Sequel,
    /// RFLAGS.RF in memory, where it would keep the step's breakpoints from being met.
    pub(super) blocking: Vec<BlockingFlag>,
}

/// What it means to meet one of the traps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The step is done.
    Step,
    /// The handler of an interrupt that comes before the instruction is about to run. Only now can be seen whether it will return with RFLAGS.RF set, and meet no
    /// breakpoint: kvm-amd was seen to save RF set though it was clear, where an exit had cut the delivery short.
    Delivery,
    /// The handler of an interrupt that came before the instruction has returned to it.
    Return,
}

/// An instruction that an interrupt came before. The VP is at the first instruction of the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interrupted {
    rip: Gva,
    /// Where the delivery saved RF, if that is known: bit 0 of the byte.
    saved: Option<Gva>,
}

/// What KVM is about to deliver before the next instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Events {
    /// Nothing.
    None,
    /// It has to be asked.
    Unknown,
}

/// The handlers of the likeliest exceptions. The table is read again for each entry, since a range may take a million steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Faults {
    table: (u64, u16, bool),
    handlers: [Option<Landing>; LIKELY_FAULTS.len()],
}

impl Underway {
    /// The linear address of the instruction.
    pub(super) fn from(&self) -> Gva {
        self.place.rip
    }

    /// Whether the step ends by the trap of our trap flag.
    pub(super) fn is_by_trap_flag(&self) -> bool {
        self.stepping == Stepping::On
    }

    /// Whether the step is over a `hlt` that the VP may execute, with no event before the instruction.
    pub(super) fn halts(&self) -> bool {
        let (regs, sregs) = &self.before;
        let supervisor = sregs.ss.dpl == 0 && regs.rflags & rflags::VM == 0;
        let eventless = self.end == End::Step && self.step.is_none();
        self.opcode == Opcode::Halt && self.is_by_trap_flag() && eventless && supervisor
    }

    /// By which tables it is fetched.
    pub(super) fn paging(&self) -> PagingState {
        self.place.paging
    }

    /// The next instruction is stepped in the same way.
    pub(super) fn stride_to(&mut self, rip: Gva, page: CodePage) {
        self.place.rip = rip;
        self.sequel = Sequel::Stride(Some(page));
    }

    /// What KVM is told of it on top of what the client wants.
    pub(super) fn apply(&self, state: &mut DebugState) {
        state.stepping = self.stepping;
        state.interrupts = self.interrupts;
        state.registers = self.registers;
    }
}

impl Vp {
    /// Finds out how the next instruction is to be stepped.
    pub(super) fn plan(&mut self, entry: &Entry) -> Result<(), DebugError> {
        let undelivered = self.undelivered(entry)?;
        let interrupted = self.interrupted.take();
        let (regs, sregs) = self.vcpu.registers()?;
        let limits = self.register_file()?.paging_limits();
        let place = place_of(&regs, &sregs, limits);
        let mut bytes = [0; PEEKED];
        let read = self.view(place.paging).read_some(place.rip, &mut bytes);
        let opcode = opcode::of(&bytes[..read], is_64_bit(&sregs));
        let own = TrapFlag::of(regs.rflags);
        let usual = matches!(
            opcode,
            Opcode::Plain | Opcode::Faultless | Opcode::DebugRegister | Opcode::Halt
        );
        let eventless = undelivered.is_none() && interrupted.is_none();
        let plain = usual && eventless && own == TrapFlag::Clear;
        let faultless = plain && opcode == Opcode::Faultless && is_within_page(place.rip);
        let mut underway = Underway {
            stepping: Stepping::On,
            interrupts: Interrupts::Held,
            registers: match faultless {
                true => self.debug_registers.without(entry.disarmed()),
                false => self.registers_alone(entry, place.rip, regs.rflags)?,
            },
            end: End::Step,
            before: (regs, sregs),
            place,
            opcode,
            step: None,
            sequel: match faultless {
                true => self.sequel(entry),
                false => Sequel::Planned,
            },
            blocking: Vec::new(),
        };
        // TF must not be on when one is taken: its handler would run unseen, and find TF in its frame.
        if let Some(Undelivered::Deliverable(_)) = undelivered {
            underway.interrupts = Interrupts::Free;
        }
        let mut wanted = [None; 3];
        if let Some(Interrupted { rip, saved }) = interrupted {
            underway.end = End::Return;
            let resume_flag = saved;
            let back = Landing {
                first: rip,
                resume_flag,
            };
            wanted[0] = Some(back);
        } else if !plain {
            wanted = self.look_closely(&mut underway, entry, undelivered, opcode);
        }
        let faults = match underway.end {
            End::Step if !faultless => self.faults(&underway)?,
            // What befalls the handler is none of the step's.
            End::Step | End::Delivery | End::Return => [None; LIKELY_FAULTS.len()],
        };
        let landing = wanted[0].map(|landing| landing.first);
        if let Some(landing) = landing.filter(|_| self.own_int3.is_some()) {
            underway.registers = underway.registers.with_trap_at_any_rate(place.rip, landing);
        }
        let here = |at: &Gva| underway.end == End::Step && *at == place.rip;
        // One at RIP would be met before the instruction.
        let all = wanted.into_iter().chain(faults).flatten();
        let firsts = all.clone().map(|landing| landing.first);
        let registers = underway
            .registers
            .with_traps(place.rip, firsts.filter(|at| !here(at)));
        underway.registers = registers;
        let lands = |at: Gva| registers.executes_at(at);
        let stores = match &underway.step {
            Some(step) => step.stores_flags(),
            None => !eventless,
        };
        let noticed = own == TrapFlag::Set || (stores && landing.is_some_and(lands));
        underway.stepping = match noticed {
            true => Stepping::Off,
            // Off for a guest that runs and is only given its `#BP`.
            false => entry.stepping(),
        };
        if !noticed {
            underway.end = End::Step;
            underway.interrupts = Interrupts::Held;
        }
        let blocking = all.filter(|landing| registers.is_trap_at(landing.first));
        underway.blocking = blocking
            .filter_map(|landing| BlockingFlag::new(&landing, place.paging))
            .collect();
        if !plain || opcode == Opcode::DebugRegister {
            // It may write what was looked at, or a handler may that runs unseen.
            self.guests = None;
        }
        self.underway = Some(underway);
        Ok(())
    }

    /// Where it leads, first, and where else it may.
    fn look_closely(
        &mut self,
        underway: &mut Underway,
        entry: &Entry,
        undelivered: Option<Undelivered>,
        opcode: Opcode,
    ) -> [Option<Landing>; 3] {
        let state = general(&underway.before);
        let Place { rip, paging, .. } = underway.place;
        match undelivered {
            Some(Undelivered::Exception(vector) | Undelivered::Deliverable(vector)) => {
                return [handler(&state, vector, &self.view(paging)), None, None];
            }
            Some(Undelivered::Interrupt(vector)) if self.takes_interrupts(entry) => {
                return [handler(&state, vector, &self.view(paging)), None, None];
            }
            Some(Undelivered::Interrupt(vector)) => {
                let begin = handler(&state, vector, &self.view(paging));
                underway.end = match begin {
                    Some(_) => End::Delivery,
                    None => End::Return,
                };
                return [begin.or(Some(Landing::at(rip))), None, None];
            }
            None => {}
        }
        let syscall = match opcode {
            Opcode::SystemCall => self.syscall(&underway.before.1),
            _ => Syscall::default(),
        };
        let mut view = self.view(paging);
        view.syscall = syscall;
        let own = TrapFlag::of(state.rflags);
        let step = Step::new(&state, own, &view.code_at(rip), &view);
        // A shadow ends with the instruction: an interrupt would be taken before a breakpoint behind it is met, but not before TF's trap.
        let landing = match step.goes_on() && !self.vcpu.holds_interrupts() {
            true => None,
            false => step.landing(&state, &view),
        };
        underway.step = Some(Box::new(step));
        match own {
            // Where KVM carries an instruction out itself, it queues the trap without an exit.
            TrapFlag::Set => [landing, handler(&state, DB_VECTOR, &view), None],
            TrapFlag::Clear => [landing, None, None],
        }
    }

    /// What comes before the instruction: of the guest's own breakpoint there, this is where it gets its `#DB`.
    fn undelivered(&mut self, entry: &Entry) -> Result<Option<Undelivered>, DebugError> {
        if self.own_int3.is_some() {
            return Ok(Some(Undelivered::Exception(BP_VECTOR)));
        }
        if self.events == Events::Unknown {
            if let Some(found) = self.vcpu.undelivered()? {
                return Ok(Some(found));
            }
            let (regs, _) = self.vcpu.registers()?;
            // One that steps itself may find a trap queued after each.
            if TrapFlag::of(regs.rflags) == TrapFlag::Clear {
                self.events = Events::None;
            }
        }
        if self.takes_interrupts(entry) {
            let vm = Arc::clone(&self.around.vm);
            if let Some(vector) = self.vcpu.deliverable(&vm)? {
                return Ok(Some(Undelivered::Deliverable(vector)));
            }
        }
        // Where KVM carries the instruction out itself, it delivers this one without an exit.
        let hits = self.guests_breakpoint_here()?;
        if hits == 0 {
            return Ok(None);
        }
        self.inject(DebugPayload(hits), &self.debug_state(entry))?;
        Ok(Some(Undelivered::Exception(DB_VECTOR)))
    }

    /// Whether a step of this entry is to deliver an interrupt that waits.
    pub(super) fn takes_interrupts(&self, entry: &Entry) -> bool {
        self.arms.step_interrupts == StepInterrupts::Taken && entry.is_clients_step()
    }

    fn faults(
        &mut self,
        underway: &Underway,
    ) -> Result<[Option<Landing>; LIKELY_FAULTS.len()], DebugError> {
        let (_, sregs) = &underway.before;
        let table = (sregs.idt.base, sregs.idt.limit, is_64_bit(sregs));
        if let Some(faults) = self.faults.filter(|faults| faults.table == table) {
            return Ok(faults.handlers);
        }
        let state = general(&underway.before);
        let view = self.view(underway.place.paging);
        let tables = view.read_ahead(Gva::new(sregs.idt.base));
        let handlers = LIKELY_FAULTS.map(|vector| handler(&state, vector, &tables));
        self.faults = Some(Faults { table, handlers });
        Ok(handlers)
    }

    fn syscall(&mut self, sregs: &kvm_sregs) -> Syscall {
        let entry = match is_64_bit(sregs) {
            true => msr::LSTAR,
            false => msr::CSTAR,
        };
        let vcpu = self.vcpu.for_reading();
        Syscall {
            entry: read_msr(vcpu, entry).unwrap_or(0),
            mask: read_msr(vcpu, msr::FMASK).unwrap_or(0),
        }
    }

    /// What is in the debug registers without the step's own.
    fn registers_alone(
        &mut self,
        entry: &Entry,
        rip: Gva,
        rflags: u64,
    ) -> Result<DebugRegisters, DebugError> {
        let shared = self.debug_registers.without(entry.disarmed());
        if !shared.is_guests() {
            return Ok(shared);
        }
        // KVM is not left to the guest's for this step.
        let guests = DebugRegisters::of_guest(&self.guest_registers()?);
        Ok(match rflags & rflags::RF {
            0 => guests,
            // Some KVMs ignore RF, and would meet the guest's own breakpoint at each attempt.
            _ => guests.without_execution_at(rip),
        })
    }

    /// One of the traps was met.
    pub(super) fn trapped(&mut self, exit: &DebugExit, entry: &mut Entry) -> Option<Cause> {
        let end = self.underway.as_ref().map(|underway| underway.end);
        if end == Some(End::Delivery) {
            self.interrupted = self.find_saved_resume_flag();
        }
        let guest = self.settle(exit);
        let done = match end {
            Some(End::Step) => entry.executed(exit.pc),
            Some(End::Delivery | End::Return) | None => {
                self.events = Events::Unknown;
                None
            }
        };
        let state = self.debug_state(entry);
        let failed = guest.and_then(|payload| self.give_back(payload, &state).err());
        failed.or(done)
    }

    /// The interrupt was delivered, and its handler is about to run.
    fn find_saved_resume_flag(&mut self) -> Option<Interrupted> {
        let underway = self.underway.as_ref()?;
        let Place { rip, paging, .. } = underway.place;
        let before = general(&underway.before);
        let after = general(&self.vcpu.registers().ok()?);
        // The frame is read by the tables that the delivery went by, and there is no other yet.
        let view = self.view(paging);
        let step = Step::new(&before, TrapFlag::Clear, &view.code_at(rip), &view);
        let saved = step.saved_resume_flag(&after, &view);
        Some(Interrupted { rip, saved })
    }

    /// A signal that comes when an instruction has led to where a trap waits is served before the trap is met: the step is done all the same, and the next
    /// instruction none of it.
    pub(super) fn landed(&mut self, entry: &mut Entry) -> Option<Cause> {
        // Present: nothing has ended the step.
        let from = self.underway.as_ref()?.place.rip.value();
        let pc = self.vcpu.linear_rip().ok()?;
        let underway = self.underway.as_ref()?;
        if pc == from || !underway.registers.is_trap_at(Gva::new(pc)) {
            return None;
        }
        let met = DebugExit {
            vector: DB_VECTOR.into(),
            pc,
            dr6: Dr6(0),
        };
        self.trapped(&met, entry)
    }

    /// A debug exit of a step: puts right what the step left behind. Returns what the guest is to get for it.
    pub(super) fn settle(&mut self, exit: &DebugExit) -> Option<DebugPayload> {
        let underway = self.underway.take()?;
        if underway.opcode == Opcode::Faultless && exit.dr6.single_step() {
            self.vcpu.kept_trap_flag();
        }
        let moved = exit.dr6.single_step() || underway.place.rip.value() != exit.pc;
        let in_handler = underway.registers.is_trap_at(Gva::new(exit.pc));
        if underway.stepping == Stepping::Off || !moved || (underway.step.is_none() && !in_handler)
        {
            return None;
        }
        let corrected = self.vcpu.registers().and_then(|after| {
            let aftermath = self.aftermath(&underway, &after);
            self.correct(aftermath, &after)
        });
        match corrected {
            Ok(Owed::SingleStepTrap) => Some(DebugPayload::SINGLE_STEP),
            Ok(Owed::Nothing) => None,
            Err(err) => {
                tracing::warn!(error = %err, "the trap flag of a step may show in the guest");
                None
            }
        }
    }

    fn aftermath(
        &mut self,
        underway: &Underway,
        after: &(kvm_regs, kvm_sregs),
    ) -> (Aftermath, PagingState) {
        let limits = underway.place.paging.limits;
        let paging = place_of(&after.0, &after.1, limits).paging;
        let syscall = self.syscall(&underway.before.1);
        let mut view = self.view(paging);
        view.syscall = syscall;
        let after = general(after);
        let aftermath = match &underway.step {
            Some(step) => step.after(&after, &view),
            None => {
                let before = general(&underway.before);
                let bytes = self.view(underway.place.paging).code_at(underway.place.rip);
                Step::new(&before, TrapFlag::Clear, &bytes, &view).after(&after, &view)
            }
        };
        (aftermath, paging)
    }

    fn correct(
        &mut self,
        (aftermath, paging): (Aftermath, PagingState),
        after: &(kvm_regs, kvm_sregs),
    ) -> Result<Owed, DebugError> {
        self.vcpu.set_own_trap_flag(aftermath.own);
        let Some(Correction { place, flag }) = aftermath.correction else {
            return Ok(aftermath.owed);
        };
        let fix = |image: u64| match flag {
            TrapFlag::Set => image | rflags::TF,
            TrapFlag::Clear => image & !rflags::TF,
        };
        match place {
            Stored::Memory(gva) => {
                let fix = |byte: u8| {
                    let [_, byte, ..] = fix(u64::from(byte) << 8).to_le_bytes();
                    byte
                };
                let changed = self.view(paging).change_byte(gva, fix);
                changed.ok_or_else(|| DebugError::Hypervisor {
                    what: "take the trap flag out of what a step stored".into(),
                    why: format!("no RAM is at {gva}"),
                })?;
            }
            Stored::Register(_) => {
                let mut regs = after.0;
                regs.r11 = fix(regs.r11);
                self.vcpu.write_general(&regs)?;
            }
        }
        Ok(aftermath.owed)
    }
}

/// Whether an instruction there is on one page, however long it is.
pub(super) fn is_within_page(rip: Gva) -> bool {
    rip.value() % PAGE <= PAGE - MAX_INSTRUCTION_LEN as u64
}

/// General and system registers as a register file.
pub(super) fn general((regs, sregs): &(kvm_regs, kvm_sregs)) -> X86VpState {
    let mut state = X86VpState::default();
    read_general(regs, &mut state);
    read_system(sregs, &mut state);
    state
}

//! The debug registers of one VP, shared by the debugger and the guest, and the guest's own `INT3`.
//!
//! While the debugger uses a debug register, some KVMs do not report the guest's writes to its own debug registers: DR7.GD in the debugger's set stops no write there. So the VP reads
//! the guest's registers before each entry, and the controller brings the VP out of the guest from time to time. On the other KVMs DR7.GD is in the set. It stops each access, and the
//! VP then makes the access in one step with DR7.GD off.

use super::cpu::Cpu;
use super::debug_state::DebugState;
use super::debug_state::Interrupts;
use super::vcpu::Vcpu;
use crate::arch::x86_64::debug_registers::DebugRegisters;
use crate::arch::x86_64::debug_registers::Hits;
use crate::arch::x86_64::debug_registers::NoRoom;
use crate::arch::x86_64::dr7::Access;
use crate::arch::x86_64::dr7::Dr6;
use crate::arch::x86_64::dr7::Slot;
use crate::arch::x86_64::stop_cause::DebugExit;
use crate::arch::x86_64::stop_cause::SingleStepping;
use crate::control::enter::StopSet;
use crate::control::entry::Entry;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::StepInterrupts;

/// The stop set of this VP, and the debug registers that result from it.
#[derive(Debug, Default)]
pub(super) struct Debugging {
    /// The same for every VP (I5).
    stops: StopSet,
    /// The debugger's registers and the guest's in one set. The guest's registers are those of the last read.
    shared: DebugRegisters,
    /// An `INT3` of the guest's own that was an exit. The next entry injects the guest's `#BP`.
    own_int3: Option<OwnInt3>,
}

/// An `INT3` of the guest's own, at the VP's RIP.
///
/// The `#BP` is injected for one entry only. KVM holds interrupts for this entry, and a trap at the handler ends it at once. If
/// a VP leaves KVM between injection and delivery, kvm-amd forgets the exception as it injects it anew, and delivers an interrupt that has
/// become pending instead, with RIP behind the `INT3` (Linux 6.12, on a CPU without NRIPS and after an exit that gives no next RIP).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OwnInt3 {
    at: Gva,
}

/// Why the debugger's debug registers and the guest's are not in one set.
#[derive(Debug)]
pub(super) enum NotShared {
    /// They are more than four.
    NoRoom,
    /// The guest's cannot be read.
    NotRead(DebugError),
}

impl Debugging {
    pub(super) fn stops(&self) -> &StopSet {
        &self.stops
    }

    /// What stops the VP from now on.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(super) fn set_stops<V: Vcpu>(
        &mut self,
        stops: StopSet,
        cpu: &mut Cpu<V>,
    ) -> Result<(), DebugError> {
        if stops != self.stops {
            self.stops = stops;
            self.shared = match self.share(cpu) {
                Ok(shared) => shared,
                // The VP reports the lack of room when it enters.
                Err(NotShared::NoRoom) => DebugRegisters::default(),
                Err(NotShared::NotRead(err)) => return Err(err),
            };
        }
        Ok(())
    }

    /// The VP is about to be entered for a new action.
    pub(super) fn begin(&mut self) {
        self.own_int3 = None;
    }

    /// The debug state of the next entry, without a step.
    pub(super) fn state(&self, entry: &Entry) -> DebugState {
        self.state_with(self.registers(entry))
    }

    /// The debug state of a parked VP.
    pub(super) fn parked_state(&self) -> DebugState {
        self.state_with(self.shared)
    }

    fn state_with(&self, registers: DebugRegisters) -> DebugState {
        DebugState {
            registers,
            int3_exits: self.stops.int3_exits,
            stepping: SingleStepping::Off,
            interrupts: Interrupts::Free,
        }
    }

    /// The debug registers of the next entry, without a step.
    pub(super) fn registers(&self, entry: &Entry) -> DebugRegisters {
        self.shared.without(entry.disarmed())
    }

    /// Whether a step of this entry delivers the interrupts that are pending.
    pub(super) fn takes_interrupts(&self, entry: &Entry) -> bool {
        self.stops.step_interrupts == StepInterrupts::Taken && entry.is_clients_step()
    }

    /// Whether the debugger uses a debug register.
    fn uses_registers(&self) -> bool {
        self.stops.slots.iter().any(Option::is_some)
    }

    /// The debugger's debug registers that wait for the execution of the instruction at RIP.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(super) fn slots_here<V: Vcpu>(&self, cpu: &mut Cpu<V>) -> Result<Hits, DebugError> {
        let executes = |slot: &Slot| slot.access() == Access::Execute;
        if !self.stops.slots.iter().flatten().any(executes) {
            return Ok(0);
        }
        Ok(self.slots_at(cpu.linear_rip()?))
    }

    fn slots_at(&self, rip: Gva) -> Hits {
        let slots = self.stops.slots.iter().enumerate();
        let here = slots.filter(|(_, slot)| {
            slot.is_some_and(|slot| slot.access() == Access::Execute && slot.address() == rip)
        });
        here.fold(0, |hits, (index, _)| hits | 1 << index)
    }

    /// Whether a debug register of the debugger's waits for the instruction at this RIP and is not disarmed for it.
    pub(super) fn waits_at(&self, rip: Gva, entry: &Entry) -> bool {
        self.slots_at(rip) & !entry.disarmed() != 0
    }

    /// Reads the guest's debug registers, and makes one set of them and the debugger's.
    ///
    /// # Errors
    /// [`NotShared`].
    pub(super) fn refresh<V: Vcpu>(
        &mut self,
        entry: &Entry,
        cpu: &mut Cpu<V>,
    ) -> Result<(), NotShared> {
        self.shared = match self.share(cpu) {
            // The debugger's registers are missing for this one instruction. The VP reports the lack of room when it enters next.
            Err(NotShared::NoRoom) if entry.is_byte_lifted() => DebugRegisters::default(),
            shared => shared?,
        };
        Ok(())
    }

    fn share<V: Vcpu>(&self, cpu: &mut Cpu<V>) -> Result<DebugRegisters, NotShared> {
        if !self.uses_registers() {
            return Ok(DebugRegisters::default());
        }
        let guest = cpu.guest_registers().map_err(NotShared::NotRead)?;
        DebugRegisters::share(&self.stops.slots, &guest).map_err(|NoRoom| NotShared::NoRoom)
    }

    /// How many debug registers the guest has enabled, where the debugger shares them or the number is known already.
    pub(super) fn guest_registers_at_stop<V: Vcpu>(&self, cpu: &mut Cpu<V>) -> Option<usize> {
        let registers = match self.uses_registers() {
            true => cpu.guest_registers().ok(),
            false => cpu.known_guest_registers(),
        };
        registers.map(|guest| guest.count())
    }

    /// The registers that DR6 speaks of.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(super) fn in_force<V: Vcpu>(
        exit: &DebugExit,
        state: &DebugState,
        cpu: &mut Cpu<V>,
    ) -> Result<DebugRegisters, DebugError> {
        let registers = state.registers;
        let left_to_guest = registers.is_guests() && exit.dr6.breakpoints();
        if !left_to_guest && registers.guests(exit.dr6) == 0 {
            return Ok(registers);
        }
        let guest = cpu.guest_registers()?;
        Ok(match left_to_guest {
            true => DebugRegisters::of_guest(&guest),
            false => registers.as_of(&guest),
        })
    }

    /// An access of the guest's to its debug registers was stopped by DR7.GD. If only our DR7.GD stopped it, the access is let through for one step.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(super) fn lets_access_through<V: Vcpu>(
        entry: &mut Entry,
        cpu: &mut Cpu<V>,
    ) -> Result<bool, DebugError> {
        cpu.forget_guest_registers();
        let ours = !cpu.guest_registers()?.detects_access();
        if ours {
            entry.disarm(Dr6::ACCESS);
        }
        Ok(ours)
    }

    /// The guest's handler sets RFLAGS.RF to get past its own breakpoint, and RF lets the instruction pass ours as well. Some KVMs ignore RF. There
    /// the registers that fired are disarmed for one instruction. Says whether that was so.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(super) fn heeds_resume_flag<V: Vcpu>(
        registers: &DebugRegisters,
        exit: &DebugExit,
        entry: &mut Entry,
        cpu: &mut Cpu<V>,
    ) -> Result<bool, DebugError> {
        let Some(passed) = registers.unheeded_rf(exit.dr6) else {
            return Ok(false);
        };
        let resumes = cpu.vcpu.registers()?.resume_flag();
        if resumes {
            entry.disarm(passed);
        }
        Ok(resumes)
    }

    /// The VP is at an `INT3` of the guest's own.
    pub(super) fn met_own_int3(&mut self, at: Gva) {
        self.own_int3 = Some(OwnInt3 { at });
    }

    /// Whether the next entry gives the guest its `#BP`.
    pub(super) fn gives_breakpoint(&self) -> bool {
        self.own_int3.is_some()
    }

    /// An entry is over that gave the guest a `#BP`, or the entry did not take place. A `#BP` that was not delivered is not left with KVM, where registers or memory may
    /// change under it: RIP is still at the `INT3`, and the VP meets it again.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(super) fn take_back_breakpoint<V: Vcpu>(
        &mut self,
        cpu: &mut Cpu<V>,
    ) -> Result<(), DebugError> {
        let Some(int3) = self.own_int3.take() else {
            return Ok(());
        };
        cpu.forget_events();
        match cpu.linear_rip()? == int3.at {
            true => cpu.vcpu.drop_soft_exception(),
            false => Ok(()),
        }
    }
}

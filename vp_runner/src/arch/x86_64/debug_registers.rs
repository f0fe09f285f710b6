//! The four debug registers of a VP, shared between the debugger and the guest.
//!
//! KVM replaces the guest's debug registers by the debugger's (`KVM_GUESTDBG_USE_HW_BP`, api.rst, `KVM_SET_GUEST_DEBUG`). The guest reads back the values that
//! it wrote, but its breakpoints do not fire. So while the debugger uses a register, both sets are merged into one. The debugger's breakpoints keep
//! their numbers, which are the same on every VP. Each breakpoint of the guest keeps its number if that register is free, and goes to another register
//! otherwise. The DR6 that the guest gets has the guest's numbers. While the debugger uses no register, KVM uses the guest's own set.

use crate::arch::x86_64::dr7;
use crate::arch::x86_64::dr7::Access;
use crate::arch::x86_64::dr7::Dr6;
use crate::arch::x86_64::dr7::SLOTS;
use crate::arch::x86_64::dr7::Slot;
use crate::arch::x86_64::dr7::Slots;
use vmm_core_defs::addr::Gva;

/// The guest's own DR0-3 and DR7, as the guest reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GuestRegisters {
    /// DR0-3.
    pub db: [u64; SLOTS],
    /// DR7.
    pub dr7: u64,
}

impl GuestRegisters {
    /// How many breakpoints the guest has enabled.
    pub(crate) fn count(&self) -> usize {
        self.slots().iter().flatten().count()
    }

    /// Whether the guest has enabled any breakpoint.
    pub(crate) fn is_any_enabled(&self) -> bool {
        self.dr7 & dr7::ENABLED != 0
    }

    /// DR7.GD.
    pub(crate) fn detects_access(&self) -> bool {
        self.dr7 & dr7::GENERAL_DETECT != 0
    }

    fn slots(&self) -> Slots {
        dr7::decode(&self.db, self.dr7)
    }
}

/// The breakpoints of the debugger and of the guest do not fit into four registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoRoom;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Debugger,
    /// The runner, for one step.
    Step,
    /// The guest, with this number of its own register.
    Guest(usize),
}

/// The debug registers of one VP. The default leaves all registers to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct DebugRegisters {
    used: [Option<(Owner, Slot)>; SLOTS],
    access: RegisterAccess,
}

/// The effect of the guest's next access to its debug registers, while the debugger uses a register and if this KVM reports accesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum RegisterAccess {
    /// The access is an exit, with DR6.BD.
    #[default]
    Reported,
    /// KVM emulates the access.
    Emulated,
}

/// A set of registers, with the bits of DR6.B0-3. The bit of DR6.BD means accesses to the registers.
pub(crate) type Hits = u64;

impl DebugRegisters {
    /// Merges both sets.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub(crate) fn share(ours: &Slots, guest: &GuestRegisters) -> Result<Self, NoRoom> {
        if ours.iter().all(Option::is_none) {
            return Ok(Self::default());
        }
        let mut used = ours.map(|slot| slot.map(|slot| (Owner::Debugger, slot)));
        for (number, slot) in guest.slots().into_iter().enumerate() {
            let Some(slot) = slot else { continue };
            let free = |index: &usize| used[*index].is_none();
            let mut indexes = std::iter::once(number).chain(0..SLOTS);
            let index = indexes.find(free).ok_or(NoRoom)?;
            used[index] = Some((Owner::Guest(number), slot));
        }
        Ok(Self {
            used,
            access: RegisterAccess::Reported,
        })
    }

    /// The guest's breakpoints alone, each in its own register, to decode a DR6 while KVM uses the guest's set.
    pub(crate) fn of_guest(guest: &GuestRegisters) -> Self {
        let mut used = [None; SLOTS];
        for (number, slot) in guest.slots().into_iter().enumerate() {
            used[number] = slot.map(|slot| (Owner::Guest(number), slot));
        }
        Self {
            used,
            access: RegisterAccess::Reported,
        }
    }

    /// This set without the breakpoints that the guest has disabled or changed since the merge.
    pub(crate) fn as_of(mut self, guest: &GuestRegisters) -> Self {
        let now = guest.slots();
        for used in &mut self.used {
            if let Some((Owner::Guest(number), slot)) = *used
                && now[number] != Some(slot)
            {
                *used = None;
            }
        }
        self
    }

    /// Whether the debugger uses no register, so that KVM uses the guest's set.
    pub(crate) fn is_guests(&self) -> bool {
        let mut used = self.used.iter().flatten();
        used.all(|(owner, _)| matches!(owner, Owner::Guest(_)))
    }

    /// This set without the registers `passed`.
    pub(crate) fn without(mut self, passed: Hits) -> Self {
        for (index, used) in self.used.iter_mut().enumerate() {
            if passed >> index & 1 != 0 {
                *used = None;
            }
        }
        if Dr6(passed).debug_register_access() {
            self.access = RegisterAccess::Emulated;
        }
        if self.is_guests() {
            self.used = [None; SLOTS];
        }
        self
    }

    /// This set, which has no breakpoint of the debugger, with the guest's breakpoints. Each of them keeps its register.
    pub(crate) fn with_guest(self, guest: &GuestRegisters) -> Self {
        Self {
            access: self.access,
            ..Self::of_guest(guest)
        }
    }

    /// This set without the registers `ignored`, to decode a DR6.
    pub(crate) fn without_hits(mut self, ignored: Hits) -> Self {
        for (index, used) in self.used.iter_mut().enumerate() {
            if ignored >> index & 1 != 0 {
                *used = None;
            }
        }
        self
    }

    /// Those of these registers that wait for the execution of an instruction.
    pub(crate) fn executing(&self, among: Hits) -> Hits {
        let used = self.used.iter().enumerate();
        let executes = used.filter(|(index, used)| {
            among >> index & 1 != 0
                && used.is_some_and(|(_, slot)| slot.access() == Access::Execute)
        });
        executes.fold(0, |hits, (index, _)| hits | 1 << index)
    }

    /// This set without execution breakpoints at one address.
    pub(crate) fn without_execution_at(mut self, address: Gva) -> Self {
        for used in &mut self.used {
            let here = |slot: Slot| slot.access() == Access::Execute && slot.address() == address;
            if used.is_some_and(|(_, slot)| here(slot)) {
                *used = None;
            }
        }
        self
    }

    /// This set with execution breakpoints at as many of these addresses as possible, in their order. They may replace the debugger's execution breakpoints
    /// at other addresses than `rip`, which a single step cannot hit. A breakpoint of the debugger at one of these addresses stays.
    pub(crate) fn with_traps(mut self, rip: Gva, wanted: impl Iterator<Item = Gva>) -> Self {
        let mut stays = [false; SLOTS];
        for address in wanted {
            if let Some(index) = self.execution_at(address) {
                stays[index] = true;
                continue;
            }
            let replaceable = |used: &(Owner, Slot)| {
                let (owner, slot) = used;
                let elsewhere = slot.access() == Access::Execute && slot.address() != rip;
                *owner == Owner::Debugger && elsewhere
            };
            let free = self.used.iter().position(Option::is_none);
            let other = || {
                let mut used = self.used.iter().zip(stays);
                used.position(|(used, stays)| !stays && used.as_ref().is_some_and(replaceable))
            };
            let Some(index) = free.or_else(other) else {
                break;
            };
            self.used[index] = Some((Owner::Step, Slot::execute(address)));
        }
        self
    }

    /// This set with an execution breakpoint at the address. If no register is free, the breakpoint replaces a breakpoint of the debugger, preferably an
    /// execution breakpoint at another address, or else a breakpoint of the guest.
    pub(crate) fn with_forced_trap(self, rip: Gva, address: Gva) -> Self {
        let mut with = self.with_traps(rip, std::iter::once(address));
        if !with.executes_at(address) {
            let debuggers =
                |used: &Option<(Owner, Slot)>| matches!(used, Some((Owner::Debugger, _)));
            let index = with.used.iter().position(debuggers).unwrap_or(0);
            with.used[index] = Some((Owner::Step, Slot::execute(address)));
        }
        with
    }

    /// Whether the debugger or a step has an execution breakpoint at the address.
    pub(crate) fn executes_at(&self, address: Gva) -> bool {
        self.execution_at(address).is_some()
    }

    /// The register with an execution breakpoint of the debugger or of a step at the address.
    fn execution_at(&self, address: Gva) -> Option<usize> {
        let here = |(owner, slot): &(Owner, Slot)| {
            !matches!(owner, Owner::Guest(_))
                && slot.access() == Access::Execute
                && slot.address() == address
        };
        let mut used = self.used.iter();
        used.position(|used| used.as_ref().is_some_and(here))
    }

    /// Whether a step has a breakpoint at the address.
    pub(crate) fn is_trap_at(&self, address: Gva) -> bool {
        let mut used = self.used.iter().flatten();
        used.any(|(owner, slot)| *owner == Owner::Step && slot.address() == address)
    }

    /// Whether the breakpoint of a step fired.
    pub(crate) fn trapped(&self, dr6: Dr6) -> bool {
        self.hits(dr6).any(|(_, owner, _)| owner == Owner::Step)
    }

    /// The effect of the guest's next access to its debug registers.
    pub(crate) fn access(&self) -> RegisterAccess {
        self.access
    }

    /// DR0-3 and DR7 for KVM. `None` if KVM uses the guest's set.
    pub(crate) fn programmed(&self) -> Option<([u64; SLOTS], u64)> {
        if self.is_guests() {
            return None;
        }
        let slots = self.used.map(|used| used.map(|(_, slot)| slot));
        let db = slots.map(|slot| slot.map_or(0, |slot| slot.address().value()));
        Some((db, dr7::encode(&slots)))
    }

    /// The register of the debugger's breakpoint that fired, the lowest of several.
    pub(crate) fn ours(&self, dr6: Dr6) -> Option<usize> {
        let mut hits = self.hits(dr6);
        hits.find_map(|(index, owner, _)| (owner == Owner::Debugger).then_some(index))
    }

    /// The guest's breakpoints that fired, by the guest's numbers.
    pub(crate) fn guests(&self, dr6: Dr6) -> Hits {
        self.of_guest_where(dr6, |_| true)
    }

    /// The guest's breakpoints that fired after the access, by the guest's numbers. Execution breakpoints fire again when the instruction is retried.
    pub(crate) fn guests_done(&self, dr6: Dr6) -> Hits {
        self.of_guest_where(dr6, |slot| slot.access() != Access::Execute)
    }

    fn of_guest_where(&self, dr6: Dr6, wanted: impl Fn(Slot) -> bool) -> Hits {
        self.hits(dr6)
            .fold(0, |hits, (_, owner, slot)| match owner {
                Owner::Guest(number) if wanted(slot) => hits | 1 << number,
                _ => hits,
            })
    }

    /// The guest's execution breakpoints at this address, by the guest's numbers.
    pub(crate) fn guests_at(&self, address: u64) -> Hits {
        let mut at = 0;
        for (owner, slot) in self.used.iter().flatten() {
            match owner {
                Owner::Guest(number)
                    if slot.access() == Access::Execute && slot.address().value() == address =>
                {
                    at |= 1 << number;
                }
                _ => {}
            }
        }
        at
    }

    /// The registers to disarm after an exit in spite of RFLAGS.RF, which some KVMs ignore: all registers that fired. `None` if anything but execution
    /// breakpoints caused the exit.
    pub(crate) fn unheeded_rf(&self, dr6: Dr6) -> Option<Hits> {
        let mut hits = self.hits(dr6).peekable();
        hits.peek()?;
        if dr6.single_step() || dr6.debug_register_access() {
            return None;
        }
        hits.try_fold(0, |passed, (index, _, slot)| {
            (slot.access() == Access::Execute).then_some(passed | 1 << index)
        })
    }

    /// The registers that fired. Hardware may set Bn for a register that is not enabled, so only registers in `used` count (SDM volume 3, "Debug Status Register
    /// (DR6)"). One emulated CPU reported only one of two data breakpoints that the same access hits. The other is added if the access must have hit it.
    fn hits(&self, dr6: Dr6) -> impl Iterator<Item = (usize, Owner, Slot)> {
        let used = self.used;
        let reported = move |index: usize| dr6.0 >> index & 1 != 0;
        let implied = move |slot: Slot| {
            let mut others = used.iter().enumerate();
            others.any(|(other, used)| match used {
                Some((_, met)) => reported(other) && slot.is_met_with(met),
                None => false,
            })
        };
        let all = used.into_iter().enumerate();
        all.filter_map(|(index, used)| used.map(|(owner, slot)| (index, owner, slot)))
            .filter(move |(index, _, slot)| reported(*index) || implied(*slot))
    }
}

#[cfg(test)]
mod tests;

//! Who has which of a VP's four debug registers.
//!
//! KVM puts the debugger's set in the place of the guest's (`KVM_GUESTDBG_USE_HW_BP`, api.rst, `KVM_SET_GUEST_DEBUG`): the guest reads back what
//! it wrote, and nothing of it fires. So while the debugger has a register, both sets are put into one: the debugger's breakpoints keep
//! their numbers, which are the same on every VP; each of this VP's guest goes to its own number where that is free and to another where not, and
//! is translated back in the DR6 that the guest gets. With none of the debugger's KVM is left to the guest's own set.

use crate::arch::x86_64::dr7;
use crate::arch::x86_64::dr7::Access;
use crate::arch::x86_64::dr7::Dr6;
use crate::arch::x86_64::dr7::SLOTS;
use crate::arch::x86_64::dr7::Slot;
use crate::arch::x86_64::dr7::Slots;
use vmm_core_defs::addr::Gva;

/// The guest's own DR0-3 and DR7, as it reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GuestRegisters {
    /// DR0-3.
    pub db: [u64; SLOTS],
    /// DR7.
    pub dr7: u64,
}

impl GuestRegisters {
    /// How many it has enabled.
    pub(crate) fn count(&self) -> usize {
        self.slots().iter().flatten().count()
    }

    /// Whether it has enabled any.
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

/// The debugger's breakpoints and the guest's are more than there are registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoRoom;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    Debugger,
    /// A step's: not the client's, and the same for one instruction only.
    Trap,
    /// With its number of the guest's.
    Guest(usize),
}

/// The debug registers of one VP. The default leaves them to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct DebugRegisters {
    held: [Option<(Holder, Slot)>; SLOTS],
    access: RegisterAccess,
}

/// What becomes of the guest's next access to its debug registers, where the debugger has one and this KVM reports accesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum RegisterAccess {
    /// It is an exit, with DR6.BD.
    #[default]
    Reported,
    /// KVM carries it out.
    CarriedOut,
}

/// Registers by their bits, as in DR6.B0-3; and accesses to them all, as in DR6.BD.
pub(crate) type Hits = u64;

impl DebugRegisters {
    /// Both sets in one.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub(crate) fn share(ours: &Slots, guest: &GuestRegisters) -> Result<Self, NoRoom> {
        if ours.iter().all(Option::is_none) {
            return Ok(Self::default());
        }
        let mut held = ours.map(|slot| slot.map(|slot| (Holder::Debugger, slot)));
        for (number, slot) in guest.slots().into_iter().enumerate() {
            let Some(slot) = slot else { continue };
            let free = |index: &usize| held[*index].is_none();
            let mut places = std::iter::once(number).chain(0..SLOTS);
            let place = places.find(free).ok_or(NoRoom)?;
            held[place] = Some((Holder::Guest(number), slot));
        }
        Ok(Self {
            held,
            access: RegisterAccess::Reported,
        })
    }

    /// The guest's alone, each in its place: to tell what fired while KVM was left to it.
    pub(crate) fn of_guest(guest: &GuestRegisters) -> Self {
        let mut held = [None; SLOTS];
        for (number, slot) in guest.slots().into_iter().enumerate() {
            held[number] = slot.map(|slot| (Holder::Guest(number), slot));
        }
        Self {
            held,
            access: RegisterAccess::Reported,
        }
    }

    /// These without what the guest has let go or changed since they were put together.
    pub(crate) fn as_of(mut self, guest: &GuestRegisters) -> Self {
        let now = guest.slots();
        for held in &mut self.held {
            if let Some((Holder::Guest(number), slot)) = *held
                && now[number] != Some(slot)
            {
                *held = None;
            }
        }
        self
    }

    /// Whether the debugger has none of them, so that KVM is left to the guest's.
    pub(crate) fn is_guests(&self) -> bool {
        let mut held = self.held.iter().flatten();
        held.all(|(holder, _)| matches!(holder, Holder::Guest(_)))
    }

    /// These but for some.
    pub(crate) fn without(mut self, passed: Hits) -> Self {
        for (index, held) in self.held.iter_mut().enumerate() {
            if passed >> index & 1 != 0 {
                *held = None;
            }
        }
        if Dr6(passed).debug_register_access() {
            self.access = RegisterAccess::CarriedOut;
        }
        match self.is_guests() {
            true => Self::default(),
            false => self,
        }
    }

    /// These but for the execution breakpoints at one address.
    pub(crate) fn without_execution_at(mut self, address: Gva) -> Self {
        for held in &mut self.held {
            let here = |slot: Slot| slot.access() == Access::Execute && slot.address() == address;
            if held.is_some_and(|(_, slot)| here(slot)) {
                *held = None;
            }
        }
        self
    }

    /// These and execution breakpoints at as many of the addresses as there is room for, the first ones first. One of the debugger's for another
    /// instruction than that at `rip` makes room: a step does not get there.
    pub(crate) fn with_traps(mut self, rip: Gva, wanted: impl Iterator<Item = Gva>) -> Self {
        for address in wanted {
            if self.executes_at(address) {
                continue;
            }
            let gives_way = |held: &(Holder, Slot)| {
                let (holder, slot) = held;
                let elsewhere = slot.access() == Access::Execute && slot.address() != rip;
                *holder == Holder::Debugger && elsewhere
            };
            let free = self.held.iter().position(Option::is_none);
            let other = || {
                self.held
                    .iter()
                    .position(|held| held.as_ref().is_some_and(gives_way))
            };
            let Some(place) = free.or_else(other) else {
                break;
            };
            self.held[place] = Some((Holder::Trap, Slot::execute(address)));
        }
        self
    }

    /// These and an execution breakpoint at the address, for which any other gives way if it has to: one of the debugger's, first one that waits for
    /// execution elsewhere, before one of the guest's.
    pub(crate) fn with_trap_at_any_rate(self, rip: Gva, address: Gva) -> Self {
        let mut with = self.with_traps(rip, std::iter::once(address));
        if !with.executes_at(address) {
            let debuggers =
                |held: &Option<(Holder, Slot)>| matches!(held, Some((Holder::Debugger, _)));
            let place = with.held.iter().position(debuggers).unwrap_or(0);
            with.held[place] = Some((Holder::Trap, Slot::execute(address)));
        }
        with
    }

    /// Whether an execution breakpoint of the debugger's or a step's is there.
    pub(crate) fn executes_at(&self, address: Gva) -> bool {
        let mut held = self.held.iter().flatten();
        held.any(|(holder, slot)| {
            !matches!(holder, Holder::Guest(_))
                && slot.access() == Access::Execute
                && slot.address() == address
        })
    }

    /// Whether a step's breakpoint is there.
    pub(crate) fn is_trap_at(&self, address: Gva) -> bool {
        let mut held = self.held.iter().flatten();
        held.any(|(holder, slot)| *holder == Holder::Trap && slot.address() == address)
    }

    /// Whether a step's breakpoint fired.
    pub(crate) fn trapped(&self, dr6: Dr6) -> bool {
        self.hits(dr6).any(|(_, holder, _)| holder == Holder::Trap)
    }

    /// What becomes of the guest's next access to its debug registers.
    pub(crate) fn access(&self) -> RegisterAccess {
        self.access
    }

    /// DR0-3 and DR7 for KVM; `None` to leave it to the guest's.
    pub(crate) fn programmed(&self) -> Option<([u64; SLOTS], u64)> {
        if self.is_guests() {
            return None;
        }
        let slots = self.held.map(|held| held.map(|(_, slot)| slot));
        let db = slots.map(|slot| slot.map_or(0, |slot| slot.address().value()));
        Some((db, dr7::encode(&slots)))
    }

    /// The debugger's breakpoint that fired; of several the lowest.
    pub(crate) fn ours(&self, dr6: Dr6) -> Option<usize> {
        let mut hits = self.hits(dr6);
        hits.find_map(|(index, holder, _)| (holder == Holder::Debugger).then_some(index))
    }

    /// The guest's that fired, by its numbers.
    pub(crate) fn guests(&self, dr6: Dr6) -> Hits {
        self.of_guest_where(dr6, |_| true)
    }

    /// The guest's that fired after what they waited for, by its numbers. Others fire again when the instruction is tried again.
    pub(crate) fn guests_done(&self, dr6: Dr6) -> Hits {
        self.of_guest_where(dr6, |slot| slot.access() != Access::Execute)
    }

    fn of_guest_where(&self, dr6: Dr6, wanted: impl Fn(Slot) -> bool) -> Hits {
        self.hits(dr6)
            .fold(0, |hits, (_, holder, slot)| match holder {
                Holder::Guest(number) if wanted(slot) => hits | 1 << number,
                _ => hits,
            })
    }

    /// The guest's that wait for execution at this address, by its numbers.
    pub(crate) fn guests_at(&self, address: u64) -> Hits {
        let mut at = 0;
        for (holder, slot) in self.held.iter().flatten() {
            match holder {
                Holder::Guest(number)
                    if slot.access() == Access::Execute && slot.address().value() == address =>
                {
                    at |= 1 << number;
                }
                _ => {}
            }
        }
        at
    }

    /// The registers to pass where the guest has RFLAGS.RF set, which is not to meet an execution breakpoint and does on some KVMs: all that
    /// fired, or none where something else did.
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

    /// Hardware may set Bn for a register that is not enabled at all, which is why `held` decides (SDM volume 3, "Debug Status Register (DR6)").
    /// An emulated CPU was seen to report one alone of two data breakpoints that one access meets: the other is added where it must have been met.
    fn hits(&self, dr6: Dr6) -> impl Iterator<Item = (usize, Holder, Slot)> {
        let held = self.held;
        let reported = move |index: usize| dr6.0 >> index & 1 != 0;
        let implied = move |slot: Slot| {
            let mut others = held.iter().enumerate();
            others.any(|(other, held)| match held {
                Some((_, met)) => reported(other) && slot.is_met_with(met),
                None => false,
            })
        };
        let all = held.into_iter().enumerate();
        all.filter_map(|(index, held)| held.map(|(holder, slot)| (index, holder, slot)))
            .filter(move |(index, _, slot)| reported(*index) || implied(*slot))
    }
}

#[cfg(test)]
mod tests;

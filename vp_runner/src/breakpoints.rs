//! The breakpoint table: what the client asked for, and how each is armed. Pure but for guest RAM.
//!
//! A software breakpoint is a byte in memory wherever that can be, and otherwise *pending*: on a debug register while one is free (those match
//! linear addresses, mapped or not), else not armed at all. [`BreakpointTable::reconcile`] looks at each again:
//!
//! ```text
//!             mapped, and INT3 traps there                a register came free
//!      Byte <----------------------------- Register <----------------------------- Nothing
//!        |                                   ^   |                                   ^
//!        +-----------------------------------+   +-----------------------------------+
//!          the mapping is gone, guest reset        a hardware breakpoint needs the register
//! ```
//!
//! A byte on a page that the VP may not execute would never be met, since the fetch faults first, and a debug register is: code breakpoints come before the
//! fetch. So a register holds such a breakpoint like a hardware one, and without a free one it is refused. Where user mode may execute the page and the VP, in
//! another ring, may not (SMEP, or a root of the kernel's own), a register is taken if there is one, else the byte serves the process.
//!
//! Which tables decide. An address of the upper half, or one set while paging was off, is looked up in the tables of the VP that stopped last, then in any
//! other VP's: it is the kernel's. (While none of them maps it, it stays as it is until the tables that led to its byte are loaded again.) Any other belongs to the process whose root was loaded on the VP that stopped last; while no VP runs it, the
//! breakpoint stays as it is. Only tables that are loaded on a VP are walked: those of a process that has ended may be anything by now.

pub(crate) mod breakpoint_bytes;
mod changes;
mod guest_bytes;
mod guest_code;

pub(crate) use changes::Changes;
pub(crate) use guest_code::GuestCode;
pub(crate) use guest_code::Int3Traps;
pub(crate) use guest_code::Walks;

use crate::arch::Access;
use crate::arch::CodeLocation;
use crate::arch::SLOTS;
use crate::arch::Slot;
use crate::arch::Slots;
use crate::breakpoints::breakpoint_bytes::BreakpointBytes;
use crate::breakpoints::breakpoint_bytes::PatchError;
use changes::Undo;
use guest_code::Owner;
use guest_code::Placement;
use std::collections::HashMap;
use vm_memory::GuestMemoryMmap;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::breakpoint::Arming;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::breakpoint::BreakpointStatus;
use vmm_core_defs::breakpoint::Pending;
use vmm_core_defs::debug_rpc::DebugError;

/// What VP threads look at when they meet an `INT3`. Changed only while every VP is parked (I3), but for the bytes that a debugger writes
/// under a patch.
#[derive(Debug, Default)]
pub(crate) struct Breakpoints {
    /// What the client asked for.
    pub table: BreakpointTable,
    /// The bytes in memory.
    pub patches: BreakpointBytes,
}

/// How a breakpoint is made to stop the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Armed {
    Byte(Gpa),
    Register(usize),
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// Counts insertions.
    order: u64,
    owner: Owner,
    armed: Armed,
    /// The root of the tables that led to its byte.
    via: Option<u64>,
    pending: Option<Pending>,
}

/// How many breakpoints a session may have where the VMM sets no other limit.
pub const DEFAULT_LIMIT: u32 = 65_536;

/// All breakpoints of the session. A change of one costs the same however many there are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BreakpointTable {
    /// How many there may be.
    limit: u32,
    entries: HashMap<Breakpoint, Entry>,
    /// The ones at each address, in the order of insertion.
    at: HashMap<Gva, Vec<Breakpoint>>,
    slots: Slots,
    /// Who shares each debug register, in the order of insertion.
    owners: [Vec<Breakpoint>; SLOTS],
    inserted: u64,
    /// How many of the debug registers the guest uses, on the VP where it uses most.
    guests: usize,
}

impl Default for BreakpointTable {
    fn default() -> Self {
        Self::new(DEFAULT_LIMIT)
    }
}

impl BreakpointTable {
    /// An empty table for at most so many breakpoints.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            limit,
            entries: HashMap::new(),
            at: HashMap::new(),
            slots: Slots::default(),
            owners: <[Vec<Breakpoint>; SLOTS]>::default(),
            inserted: 0,
            guests: 0,
        }
    }

    /// Forgets all breakpoints, which are off the guest.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.limit);
    }

    fn add(&mut self, breakpoint: Breakpoint, entry: Entry) {
        let armed = Armed::Nothing;
        self.entries.insert(breakpoint, Entry { armed, ..entry });
        self.at
            .entry(breakpoint.address)
            .or_default()
            .push(breakpoint);
    }

    fn delete(&mut self, guest: &mut GuestCode<'_>, breakpoint: &Breakpoint) {
        self.disarm(guest, breakpoint);
        self.entries.remove(breakpoint);
        if let Some(here) = self.at.get_mut(&breakpoint.address) {
            here.retain(|other| other != breakpoint);
            if here.is_empty() {
                self.at.remove(&breakpoint.address);
            }
        }
    }

    /// A debug register that holds this already, or a free one that the guest leaves.
    fn register_for(&self, wanted: Slot) -> Option<usize> {
        let shared = self.slots.iter().position(|slot| *slot == Some(wanted));
        let free = || self.slots.iter().position(Option::is_none);
        shared.or_else(|| free().filter(|_| self.used() + self.guests < SLOTS))
    }

    fn used(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    fn no_register(&self) -> DebugError {
        let number = |count| u32::try_from(count).expect("a handful");
        match self.guests {
            0 => DebugError::NoFreeSlot {
                slots: number(SLOTS),
            },
            guest => DebugError::GuestUsesSlots {
                slots: number(SLOTS),
                guest: number(guest),
                yours: number(self.used()),
            },
        }
    }

    /// Whether it is a software breakpoint that nothing but a debug register can be, and has none.
    fn needs_register(&self, breakpoint: &Breakpoint) -> bool {
        let entry = self.entries.get(breakpoint);
        entry.is_some_and(|entry| {
            entry.armed == Armed::Nothing && entry.pending == Some(Pending::NotExecutable)
        })
    }

    /// Frees a debug register that only pending software breakpoints hold: a hardware breakpoint was asked for as such.
    fn evict(&mut self, undo: &mut Vec<Undo>) -> Option<usize> {
        let all_pending = |index: &usize| self.slots[*index].is_some() && self.is_pending(*index);
        let index = (0..SLOTS).find(all_pending)?;
        for owner in std::mem::take(&mut self.owners[index]) {
            if let Some(entry) = self.entries.get_mut(&owner) {
                entry.armed = Armed::Nothing;
            }
            undo.push(Undo::Evicted(owner, index));
        }
        self.slots[index] = None;
        Some(index)
    }

    fn is_pending(&self, index: usize) -> bool {
        let pending = |owner: &Breakpoint| {
            let entry = self.entries.get(owner);
            entry.is_some_and(|entry| {
                // A guest that returned past it would fault.
                entry.pending.is_some() && entry.pending != Some(Pending::NotExecutable)
            })
        };
        self.owners[index].iter().all(pending)
    }

    /// Looks where a software breakpoint belongs now, and puts it there.
    fn aim(&mut self, guest: &mut GuestCode<'_>, breakpoint: &Breakpoint) {
        let Some(entry) = self.entries.get(breakpoint).copied() else {
            return;
        };
        let target = match (
            guest.placement(breakpoint.address, entry.owner),
            entry.armed,
        ) {
            (Placement::UserByte(gpa, via), Armed::Byte(armed)) if gpa == armed => {
                Placement::Byte(gpa, via)
            }
            (Placement::UserByte(gpa, via), armed) => {
                let slot = Slot::new(breakpoint).ok();
                let free = || slot.and_then(|slot| self.register_for(slot)).is_some();
                match matches!(armed, Armed::Register(_)) || free() {
                    true => Placement::Pending(Pending::UserOnly),
                    false => Placement::Byte(gpa, via),
                }
            }
            (target, _) => target,
        };
        let pending = match (target, entry.armed) {
            (Placement::Byte(gpa, via), Armed::Byte(armed)) if gpa == armed => {
                // Written over by the guest, or not.
                guest.patches.verify_within(guest.ram, gpa..=gpa);
                self.note_via(breakpoint, via);
                return;
            }
            (Placement::Byte(gpa, via), _) => {
                self.disarm(guest, breakpoint);
                match self.arm(guest, breakpoint, Armed::Byte(gpa)) {
                    Armed::Byte(_) => return self.note_via(breakpoint, via),
                    _ => Pending::NoRam,
                }
            }
            // A kernel that hides itself while a process runs has two roots for each.
            (Placement::Unknown | Placement::Pending(Pending::Unmapped(_)), Armed::Byte(gpa))
                if entry.via.is_some_and(|root| !guest.is_loaded(root)) =>
            {
                match guest.patches.is_intact(guest.ram, gpa) {
                    true => return,
                    false => Pending::Overwritten,
                }
            }
            (Placement::Unknown | Placement::UserByte(..), _) => return,
            (Placement::Pending(pending), _) => pending,
        };
        let armed = self.entries.get(breakpoint).map(|entry| entry.armed);
        if !matches!(armed, Some(Armed::Register(_))) {
            self.disarm(guest, breakpoint);
            let slot = Slot::new(breakpoint).ok();
            if let Some(index) = slot.and_then(|slot| self.register_for(slot)) {
                self.arm(guest, breakpoint, Armed::Register(index));
            }
        }
        if let Some(entry) = self.entries.get_mut(breakpoint) {
            entry.pending = Some(pending);
        }
    }

    fn note_via(&mut self, breakpoint: &Breakpoint, via: Option<u64>) {
        if let Some(entry) = self.entries.get_mut(breakpoint) {
            entry.via = via;
        }
    }

    /// StopSet what is not armed. Returns how it is then: not at all where memory does not take the byte.
    fn arm(&mut self, guest: &mut GuestCode<'_>, breakpoint: &Breakpoint, wanted: Armed) -> Armed {
        let armed = match wanted {
            Armed::Byte(gpa) => match guest.patches.insert(guest.ram, gpa) {
                Ok(()) => wanted,
                Err(PatchError::NoMemory { .. } | PatchError::NotPatched { .. }) => Armed::Nothing,
            },
            Armed::Register(index) => {
                self.slots[index] = Slot::new(breakpoint).ok();
                let entries = &self.entries;
                let order = |owner: &Breakpoint| entries.get(owner).map(|entry| entry.order);
                self.owners[index].push(*breakpoint);
                self.owners[index].sort_by_key(order);
                wanted
            }
            Armed::Nothing => wanted,
        };
        if let Some(entry) = self.entries.get_mut(breakpoint) {
            entry.armed = armed;
            entry.pending = match (armed, entry.pending) {
                (Armed::Byte(_), _) | (Armed::Register(_), Some(Pending::GuestHasRegisters)) => {
                    None
                }
                (_, pending) => pending,
            };
        }
        armed
    }

    fn disarm(&mut self, guest: &mut GuestCode<'_>, breakpoint: &Breakpoint) {
        let Some(entry) = self.entries.get_mut(breakpoint) else {
            return;
        };
        match std::mem::replace(&mut entry.armed, Armed::Nothing) {
            Armed::Byte(gpa) => {
                if let Err(err) = guest.patches.remove(guest.ram, gpa) {
                    tracing::error!(error = %err, "a breakpoint byte was not there to remove");
                }
            }
            Armed::Register(index) => {
                self.owners[index].retain(|other| other != breakpoint);
                if self.owners[index].is_empty() {
                    self.slots[index] = None;
                }
            }
            Armed::Nothing => {}
        }
    }

    /// Looks at some software breakpoints again; see the module. Pending ones get free registers in the order of `breakpoints`.
    pub(crate) fn reconcile(&mut self, guest: &mut GuestCode<'_>, breakpoints: &[Breakpoint]) {
        if !guest.int3.anywhere() {
            return;
        }
        for breakpoint in breakpoints {
            self.aim(guest, breakpoint);
        }
    }

    /// Leaves this many debug registers to the guest, which is never refused one of its own: what does not fit beside them is not armed until the
    /// guest lets go, pending software breakpoints first, then the latest hardware breakpoint.
    pub(crate) fn leave_to_guest(&mut self, guest: &mut GuestCode<'_>, registers: usize) {
        self.guests = registers.min(SLOTS);
        while self.used() + self.guests > SLOTS {
            let order = |index: &usize| {
                let first = self.owners[*index].first();
                let entry = first.and_then(|owner| self.entries.get(owner));
                (self.is_pending(*index), entry.map(|entry| entry.order))
            };
            let used = (0..SLOTS).filter(|index| self.slots[*index].is_some());
            let Some(index) = used.max_by_key(order) else {
                break;
            };
            for owner in std::mem::take(&mut self.owners[index]) {
                tracing::warn!(address = %owner.address, "the guest took the debug register of a breakpoint");
                if let Some(entry) = self.entries.get_mut(&owner) {
                    entry.armed = Armed::Nothing;
                    entry.pending = entry.pending.or(Some(Pending::GuestHasRegisters));
                }
            }
            self.slots[index] = None;
        }
        let evicted = |entry: &Entry| entry.pending == Some(Pending::GuestHasRegisters);
        for breakpoint in self.ordered(|_, entry| evicted(entry)) {
            let slot = Slot::new(&breakpoint).ok();
            if let Some(index) = slot.and_then(|slot| self.register_for(slot)) {
                self.arm(guest, &breakpoint, Armed::Register(index));
            }
        }
    }

    /// Whether a debug register is in use, or would be if the guest left one.
    pub(crate) fn wants_registers(&self) -> bool {
        self.used() > 0 || self.has_unarmed()
    }

    /// Takes all bytes out of memory before the guest is reset. They come back with [`reconcile`](Self::reconcile), and the processes they belonged
    /// to are forgotten.
    pub(crate) fn before_reset(&mut self, guest: &mut GuestCode<'_>) {
        for breakpoint in self.software() {
            if let Some(Armed::Byte(_)) = self.entries.get(&breakpoint).map(|entry| entry.armed) {
                self.disarm(guest, &breakpoint);
            }
            if let Some(entry) = self.entries.get_mut(&breakpoint) {
                entry.owner = Owner::Any;
                entry.pending = Some(Pending::Reset);
            }
        }
    }

    /// Every software breakpoint, in the order of insertion.
    pub(crate) fn software(&self) -> Vec<Breakpoint> {
        self.ordered(|breakpoint, _| breakpoint.kind == BreakpointKind::Software)
    }

    /// Some of them, in the order of insertion.
    fn ordered(&self, wanted: impl Fn(&Breakpoint, &Entry) -> bool) -> Vec<Breakpoint> {
        let entries = self.entries.iter();
        let mut found: Vec<_> = entries
            .filter(|(breakpoint, entry)| wanted(breakpoint, entry))
            .map(|(breakpoint, entry)| (entry.order, *breakpoint))
            .collect();
        found.sort_unstable_by_key(|(order, _)| *order);
        found
            .into_iter()
            .map(|(_, breakpoint)| breakpoint)
            .collect()
    }

    /// Whether this very breakpoint is set.
    pub(crate) fn contains(&self, breakpoint: &Breakpoint) -> bool {
        self.entries.contains_key(breakpoint)
    }

    /// Whether there is a software breakpoint.
    pub(crate) fn has_software(&self) -> bool {
        // Others are as many as debug registers, or share them.
        let mut set = self.entries.keys();
        set.any(|breakpoint| breakpoint.kind == BreakpointKind::Software)
    }

    /// How many are set.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether a breakpoint is not armed at all.
    pub(crate) fn has_unarmed(&self) -> bool {
        let mut entries = self.entries.values();
        entries.any(|entry| entry.armed == Armed::Nothing)
    }

    /// The breakpoint that a debug register stands for; of several that share it the oldest.
    pub(crate) fn on(&self, index: usize) -> Option<Breakpoint> {
        self.owners.get(index)?.first().copied()
    }

    /// Whether a debug register that waits for execution was met at `place` by a process that none of its breakpoints is for: they are software
    /// breakpoints of another process, which has a byte of its own at that address.
    pub(crate) fn is_anothers(
        &self,
        index: usize,
        ram: &GuestMemoryMmap,
        place: &CodeLocation,
    ) -> bool {
        let Some(owners) = self.owners.get(index).filter(|owners| !owners.is_empty()) else {
            return false;
        };
        owners.iter().all(|owner| {
            let entry = self.entries.get(owner);
            owner.kind == BreakpointKind::Software
                && entry.is_some_and(|entry| entry.owner.has_another_byte(ram, place))
        })
    }

    /// The breakpoint whose byte a VP met: one at this linear address that is this byte. `None` where the VP came to the byte by
    /// another address, which nobody asked to be told of.
    pub(crate) fn at_byte(&self, address: Gva, gpa: Gpa) -> Option<Breakpoint> {
        self.at.get(&address)?.iter().copied().find(|breakpoint| {
            let entry = self.entries.get(breakpoint);
            entry.is_some_and(|entry| entry.armed == Armed::Byte(gpa))
        })
    }

    /// What a hit of `breakpoint` stands for now (I7): the same while it is set, else another that is armed for the same, else nothing.
    pub(crate) fn still_hit(&self, breakpoint: &Breakpoint) -> Option<Breakpoint> {
        if self.contains(breakpoint) {
            return Some(*breakpoint);
        }
        let slot = Slot::new(breakpoint).ok()?;
        let same = |other: &&Breakpoint| Slot::new(other).is_ok_and(|other| other == slot);
        let here = self.at.get(&breakpoint.address)?;
        here.iter().find(same).copied()
    }

    /// Whether a debug register waits for execution at the address.
    pub(crate) fn register_at(&self, address: Gva) -> bool {
        self.register_index(address).is_some()
    }

    fn register_index(&self, address: Gva) -> Option<usize> {
        self.slots.iter().position(|slot| {
            slot.is_some_and(|slot| slot.access() == Access::Execute && slot.address() == address)
        })
    }

    /// The breakpoint whose debug register a VP at `place` meets.
    pub(crate) fn at_register(
        &self,
        ram: &GuestMemoryMmap,
        place: &CodeLocation,
    ) -> Option<Breakpoint> {
        let index = self.register_index(place.rip)?;
        let others = self.is_anothers(index, ram, place);
        self.on(index).filter(|_| !others)
    }

    /// What the debug registers are to hold.
    pub(crate) fn slots(&self) -> Slots {
        self.slots
    }

    /// Every breakpoint, in the order of insertion, and how it is armed.
    pub(crate) fn list(&self) -> Vec<BreakpointStatus> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_unstable_by_key(|(_, entry)| entry.order);
        let status = |(breakpoint, entry): (&Breakpoint, &Entry)| BreakpointStatus {
            breakpoint: *breakpoint,
            arming: entry.arming(),
        };
        entries.into_iter().map(status).collect()
    }
}

impl Entry {
    fn arming(&self) -> Arming {
        let why = self.pending;
        match self.armed {
            Armed::Byte(gpa) => Arming::Memory { gpa },
            Armed::Register(number) => Arming::DebugRegister { number, why },
            Armed::Nothing => Arming::Pending { why },
        }
    }
}

#[cfg(test)]
mod tests;

//! The breakpoint table: the breakpoints that the client has set, and how each is armed. The table uses guest RAM, and no KVM.
//!
//! A software breakpoint is armed by a byte in memory if possible. Otherwise it is *pending*: armed by a debug register if one is free (a debug register
//! matches a linear address whether or not it is mapped), and not armed otherwise. [`BreakpointTable::reconcile`] decides this again for each breakpoint:
//!
//! ```text
//!             mapped, and INT3 traps there                a register came free
//!      Byte <----------------------------- Register <----------------------------- Nothing
//!        |                                   ^   |                                   ^
//!        +-----------------------------------+   +-----------------------------------+
//!          the mapping is gone, guest reset        a hardware breakpoint needs the register
//! ```
//!
//! On a page that the VP may not execute, a byte would never be executed, because the fetch faults first. A debug register fires before the fetch. So a
//! register arms such a breakpoint like a hardware breakpoint, and the breakpoint is refused if no register is free. If user mode may execute the page, and the
//! VP in another ring may not (SMEP, or page tables of the kernel's own), the breakpoint takes a register if one is free, and a byte otherwise.
//!
//! # Which page tables translate a breakpoint
//! - A kernel address: an address in the upper half, or one that was set while paging was off. The tables of any VP translate it, those of the VP that stopped
//!   last come first. If no loaded tables map the address, an armed byte stays until the tables that led to this byte are loaded again.
//! - Any other address belongs to the process whose CR3 was loaded, on the VP that stopped last, when the breakpoint was set. While no VP runs this process,
//!   the breakpoint stays as it is.
//!
//! Only tables that are loaded on a VP are walked. The tables of a process that has ended may have been overwritten.

pub(crate) mod breakpoint_bytes;
mod changes;
mod command_output;
mod conditions;
mod guest_bytes;
mod guest_code;
mod hit_counts;
mod passing;
mod trace;

pub(crate) use changes::Changes;
pub(crate) use command_output::CommandOutput;
pub(crate) use conditions::Checked;
pub(crate) use conditions::Conditions;
pub(crate) use conditions::Verdict;
pub(crate) use guest_bytes::CodeBytes;
pub(crate) use guest_code::GuestCode;
pub(crate) use guest_code::Int3Traps;
pub(crate) use guest_code::Walks;
pub(crate) use hit_counts::HitCounts;
pub(crate) use trace::Trace;

use crate::arch::Access;
use crate::arch::CodeLocation;
use crate::arch::SLOTS;
use crate::arch::Slot;
use crate::arch::Slots;
use crate::breakpoints::breakpoint_bytes::BreakpointBytes;
use crate::breakpoints::breakpoint_bytes::ByteError;
use crate::memory::slots::MemorySlots;
use changes::Undo;
use guest_code::Owner;
use guest_code::Placement;
use std::collections::BTreeMap;
use std::sync::Arc;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::breakpoint::Arming;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::breakpoint::BreakpointStatus;
use vmm_core_defs::breakpoint::Pending;
use vmm_core_defs::debug_rpc::DebugError;

/// The breakpoints that VP threads look up when they hit an `INT3`. They change only while every VP is parked (I3), except that a debugger may write the
/// guest's byte under a breakpoint byte at any time.
#[derive(Debug, Default)]
pub(crate) struct Breakpoints {
    /// The breakpoints that the client has set.
    pub table: BreakpointTable,
    /// The bytes in memory.
    pub bytes: BreakpointBytes,
    /// The conditions that decide whether a hit is a stop.
    pub conditions: Conditions,
    /// How often the breakpoints were hit, also those that were removed.
    pub counts: HitCounts,
    /// What commands have printed.
    pub output: Arc<CommandOutput>,
    /// What tracepoints record.
    pub trace: Arc<Trace>,
}

/// How a breakpoint stops the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ArmedBy {
    Byte(Gpa),
    Register(usize),
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// The number of the insertion.
    order: u64,
    owner: Owner,
    armed: ArmedBy,
    /// The root of the page tables that led to the byte.
    byte_root: Option<u64>,
    pending: Option<Pending>,
    /// The instruction there is not carried out in place of a VP, and VPs pass the breakpoint often. A software breakpoint takes a debug register, if one is free.
    is_passed_by_executing: bool,
}

/// The most breakpoints of a session, unless the VMM sets another limit.
pub const DEFAULT_LIMIT: u32 = 65_536;

/// All breakpoints of the session. The cost of a change does not depend on the number of breakpoints.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BreakpointTable {
    /// The most breakpoints.
    limit: u32,
    entries: BTreeMap<Breakpoint, Entry>,
    /// The breakpoints at each address, in the order of insertion.
    at: BTreeMap<Gva, Vec<Breakpoint>>,
    slots: Slots,
    /// The breakpoints that share each debug register, in the order of insertion.
    owners: [Vec<Breakpoint>; SLOTS],
    inserted: u64,
    /// How many debug registers the guest uses, on the VP on which the guest uses most.
    guest_registers: usize,
}

impl Default for BreakpointTable {
    fn default() -> Self {
        Self::new(DEFAULT_LIMIT)
    }
}

impl BreakpointTable {
    /// An empty table for at most `limit` breakpoints.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            limit,
            entries: BTreeMap::new(),
            at: BTreeMap::new(),
            slots: Slots::default(),
            owners: <[Vec<Breakpoint>; SLOTS]>::default(),
            inserted: 0,
            guest_registers: 0,
        }
    }

    /// Empties the table. No breakpoint is in the guest any more.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.limit);
    }

    fn add(&mut self, breakpoint: Breakpoint, entry: Entry) {
        let armed = ArmedBy::Nothing;
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

    /// A debug register that holds `wanted` already, or a free register that the guest does not use.
    fn register_for(&self, wanted: Slot) -> Option<usize> {
        let shared = self.slots.iter().position(|slot| *slot == Some(wanted));
        let free = || self.slots.iter().position(Option::is_none);
        shared.or_else(|| free().filter(|_| self.used() + self.guest_registers < SLOTS))
    }

    fn used(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    fn no_register(&self) -> DebugError {
        let number = |count| u32::try_from(count).expect("a handful");
        match self.guest_registers {
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

    /// Whether this is a software breakpoint that only a debug register can arm, and that has none.
    fn needs_register(&self, breakpoint: &Breakpoint) -> bool {
        let entry = self.entries.get(breakpoint);
        entry.is_some_and(|entry| {
            entry.armed == ArmedBy::Nothing && entry.pending == Some(Pending::NotExecutable)
        })
    }

    /// Frees a debug register that only pending software breakpoints use, for a breakpoint that needs a register.
    fn evict(&mut self, undo: &mut Vec<Undo>) -> Option<usize> {
        let all_pending = |index: &usize| self.slots[*index].is_some() && self.is_pending(*index);
        let index = (0..SLOTS).find(all_pending)?;
        for owner in std::mem::take(&mut self.owners[index]) {
            if let Some(entry) = self.entries.get_mut(&owner) {
                entry.armed = ArmedBy::Nothing;
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
                // Without the register, the guest would fault when it returns to this address.
                entry.pending.is_some() && entry.pending != Some(Pending::NotExecutable)
            })
        };
        self.owners[index].iter().all(pending)
    }

    /// Decides how a software breakpoint is armed now, and arms it so.
    fn arm_software(&mut self, guest: &mut GuestCode<'_>, breakpoint: &Breakpoint) {
        let Some(entry) = self.entries.get(breakpoint).copied() else {
            return;
        };
        let target = match (
            guest.placement(breakpoint.address, entry.owner),
            entry.armed,
        ) {
            (Placement::UserByte(gpa, root), ArmedBy::Byte(armed)) if gpa == armed => {
                Placement::Byte(gpa, root)
            }
            (Placement::UserByte(gpa, root), armed) => {
                match self.has_or_gets_register(breakpoint, armed) {
                    true => Placement::Pending(Pending::UserOnly),
                    false => Placement::Byte(gpa, root),
                }
            }
            (Placement::Byte(..), armed)
                if entry.is_passed_by_executing && self.has_or_gets_register(breakpoint, armed) =>
            {
                Placement::Pending(Pending::Conditional)
            }
            (target, _) => target,
        };
        let pending = match (target, entry.armed) {
            (Placement::Byte(gpa, root), ArmedBy::Byte(armed)) if gpa == armed => {
                // Writes the byte again if the guest has overwritten it.
                guest.bytes.verify_within(guest.ram, gpa..=gpa);
                self.set_byte_root(breakpoint, root);
                return;
            }
            (Placement::Byte(gpa, root), _) => {
                self.disarm(guest, breakpoint);
                match self.arm(guest, breakpoint, ArmedBy::Byte(gpa)) {
                    ArmedBy::Byte(_) => return self.set_byte_root(breakpoint, root),
                    _ => Pending::NoRam,
                }
            }
            // A kernel with page-table isolation has two roots for each process.
            (Placement::Unknown | Placement::Pending(Pending::Unmapped(_)), ArmedBy::Byte(gpa))
                if entry.byte_root.is_some_and(|root| !guest.is_loaded(root)) =>
            {
                match guest.bytes.is_intact(guest.ram, gpa) {
                    true => return,
                    false => Pending::Overwritten,
                }
            }
            (Placement::Unknown | Placement::UserByte(..), _) => return,
            (Placement::Pending(pending), _) => pending,
        };
        let armed = self.entries.get(breakpoint).map(|entry| entry.armed);
        if !matches!(armed, Some(ArmedBy::Register(_))) {
            self.disarm(guest, breakpoint);
            let slot = Slot::new(breakpoint).ok();
            if let Some(index) = slot.and_then(|slot| self.register_for(slot)) {
                self.arm(guest, breakpoint, ArmedBy::Register(index));
            }
        }
        if let Some(entry) = self.entries.get_mut(breakpoint) {
            entry.pending = Some(pending);
        }
    }

    fn has_or_gets_register(&self, breakpoint: &Breakpoint, armed: ArmedBy) -> bool {
        let slot = Slot::new(breakpoint).ok();
        let free = || slot.and_then(|slot| self.register_for(slot)).is_some();
        matches!(armed, ArmedBy::Register(_)) || free()
    }

    fn set_byte_root(&mut self, breakpoint: &Breakpoint, byte_root: Option<u64>) {
        if let Some(entry) = self.entries.get_mut(breakpoint) {
            entry.byte_root = byte_root;
        }
    }

    /// Arms a breakpoint that is not armed. Returns how the breakpoint is armed then: [`ArmedBy::Nothing`] if the byte cannot be written.
    fn arm(
        &mut self,
        guest: &mut GuestCode<'_>,
        breakpoint: &Breakpoint,
        wanted: ArmedBy,
    ) -> ArmedBy {
        let armed = match wanted {
            ArmedBy::Byte(gpa) => match guest.bytes.insert(guest.ram, gpa) {
                Ok(()) => wanted,
                Err(ByteError::NoMemory { .. } | ByteError::NoByte { .. }) => ArmedBy::Nothing,
            },
            ArmedBy::Register(index) => {
                self.slots[index] = Slot::new(breakpoint).ok();
                let entries = &self.entries;
                let order = |owner: &Breakpoint| entries.get(owner).map(|entry| entry.order);
                self.owners[index].push(*breakpoint);
                self.owners[index].sort_by_key(order);
                wanted
            }
            ArmedBy::Nothing => wanted,
        };
        if let Some(entry) = self.entries.get_mut(breakpoint) {
            entry.armed = armed;
            entry.pending = match (armed, entry.pending) {
                (ArmedBy::Byte(_), _)
                | (ArmedBy::Register(_), Some(Pending::GuestHasRegisters)) => None,
                (_, pending) => pending,
            };
        }
        armed
    }

    fn disarm(&mut self, guest: &mut GuestCode<'_>, breakpoint: &Breakpoint) {
        let Some(entry) = self.entries.get_mut(breakpoint) else {
            return;
        };
        match std::mem::replace(&mut entry.armed, ArmedBy::Nothing) {
            ArmedBy::Byte(gpa) => {
                if let Err(err) = guest.bytes.remove(guest.ram, gpa) {
                    tracing::error!(error = %err, "a breakpoint byte was not there to remove");
                }
            }
            ArmedBy::Register(index) => {
                self.owners[index].retain(|other| other != breakpoint);
                if self.owners[index].is_empty() {
                    self.slots[index] = None;
                }
            }
            ArmedBy::Nothing => {}
        }
    }

    /// Decides again how these software breakpoints are armed; see the module. Pending breakpoints get free registers in the order of `breakpoints`.
    pub(crate) fn reconcile(&mut self, guest: &mut GuestCode<'_>, breakpoints: &[Breakpoint]) {
        if !guest.int3.anywhere() {
            return;
        }
        for breakpoint in breakpoints {
            self.arm_software(guest, breakpoint);
        }
    }

    /// Leaves this many debug registers to the guest, which gets every register that it enables. Breakpoints for which too few registers remain are not armed
    /// until the guest disables its own: first pending software breakpoints, then the latest hardware breakpoint.
    pub(crate) fn leave_to_guest(&mut self, guest: &mut GuestCode<'_>, registers: usize) {
        self.guest_registers = registers.min(SLOTS);
        while self.used() + self.guest_registers > SLOTS {
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
                    entry.armed = ArmedBy::Nothing;
                    entry.pending = entry.pending.or(Some(Pending::GuestHasRegisters));
                }
            }
            self.slots[index] = None;
        }
        let evicted = |entry: &Entry| entry.pending == Some(Pending::GuestHasRegisters);
        for breakpoint in self.ordered(|_, entry| evicted(entry)) {
            let slot = Slot::new(&breakpoint).ok();
            if let Some(index) = slot.and_then(|slot| self.register_for(slot)) {
                self.arm(guest, &breakpoint, ArmedBy::Register(index));
            }
        }
    }

    /// Whether a breakpoint uses a debug register, or would use one if the guest disabled its own.
    pub(crate) fn wants_registers(&self) -> bool {
        self.used() > 0 || self.has_unarmed()
    }

    /// Removes all bytes from memory before the guest is reset. [`reconcile`](Self::reconcile) writes them again after the reset. The breakpoints belong to no
    /// process any more.
    pub(crate) fn before_reset(&mut self, guest: &mut GuestCode<'_>) {
        for breakpoint in self.software() {
            if let Some(ArmedBy::Byte(_)) = self.entries.get(&breakpoint).map(|entry| entry.armed) {
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
        self.ordered(|breakpoint, _| breakpoint.kind.is_software())
    }

    /// Every tracepoint.
    pub(crate) fn traced(&self) -> Vec<Breakpoint> {
        self.ordered(|breakpoint, _| breakpoint.kind == BreakpointKind::Trace)
    }

    /// The breakpoints that `wanted` selects, in the order of insertion.
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

    /// Whether this breakpoint is set, with the same kind and length.
    pub(crate) fn contains(&self, breakpoint: &Breakpoint) -> bool {
        self.entries.contains_key(breakpoint)
    }

    /// Whether there is a software breakpoint.
    pub(crate) fn has_software(&self) -> bool {
        // This is fast: there are few other breakpoints, unless they share debug registers.
        let mut set = self.entries.keys();
        set.any(|breakpoint| breakpoint.kind.is_software())
    }

    /// The number of breakpoints.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether any breakpoint is not armed.
    pub(crate) fn has_unarmed(&self) -> bool {
        let mut entries = self.entries.values();
        entries.any(|entry| entry.armed == ArmedBy::Nothing)
    }

    /// The breakpoint of a debug register: the oldest one of those that share the register.
    pub(crate) fn on_register(&self, index: usize) -> Option<Breakpoint> {
        self.owners.get(index)?.first().copied()
    }

    /// The breakpoints that share a debug register, in the order of insertion.
    pub(crate) fn sharing_register(&self, index: usize) -> Vec<Breakpoint> {
        self.owners.get(index).cloned().unwrap_or_default()
    }

    /// Whether all breakpoints of this debug register belong to another process than the one at `location`: they are software breakpoints, and their process
    /// has another physical byte at that address.
    pub(crate) fn belongs_to_other_process(
        &self,
        index: usize,
        ram: &MemorySlots,
        location: &CodeLocation,
    ) -> bool {
        let Some(owners) = self.owners.get(index).filter(|owners| !owners.is_empty()) else {
            return false;
        };
        owners.iter().all(|owner| {
            let entry = self.entries.get(owner);
            owner.kind.is_software()
                && entry.is_some_and(|entry| entry.owner.has_another_byte(ram, location))
        })
    }

    /// The breakpoint whose byte a VP has hit: a breakpoint at this linear address that is armed by this byte. `None` if the VP executed the byte at another
    /// linear address, where no breakpoint is set.
    pub(crate) fn at_byte(&self, address: Gva, gpa: Gpa) -> Option<Breakpoint> {
        self.at.get(&address)?.iter().copied().find(|breakpoint| {
            let entry = self.entries.get(breakpoint);
            entry.is_some_and(|entry| entry.armed == ArmedBy::Byte(gpa))
        })
    }

    /// The breakpoint that a hit of `breakpoint` is reported with now (I7): `breakpoint` if it is still set, otherwise another breakpoint with the same address,
    /// access and length, otherwise `None`.
    pub(crate) fn still_hit(&self, breakpoint: &Breakpoint) -> Option<Breakpoint> {
        if self.contains(breakpoint) {
            return Some(*breakpoint);
        }
        let slot = Slot::new(breakpoint).ok()?;
        let same = |other: &&Breakpoint| Slot::new(other).is_ok_and(|other| other == slot);
        let here = self.at.get(&breakpoint.address)?;
        here.iter().find(same).copied()
    }

    /// Whether a debug register has an execution breakpoint at the address.
    pub(crate) fn has_register_at(&self, address: Gva) -> bool {
        self.register_index(address).is_some()
    }

    fn register_index(&self, address: Gva) -> Option<usize> {
        self.slots.iter().position(|slot| {
            slot.is_some_and(|slot| slot.access() == Access::Execute && slot.address() == address)
        })
    }

    /// The execution breakpoint on a debug register that a VP at `location` hits.
    pub(crate) fn on_register_at(
        &self,
        ram: &MemorySlots,
        location: &CodeLocation,
    ) -> Option<Breakpoint> {
        let index = self.register_index(location.rip)?;
        let others = self.belongs_to_other_process(index, ram, location);
        self.on_register(index).filter(|_| !others)
    }

    /// The contents of the debug registers.
    pub(crate) fn slots(&self) -> Slots {
        self.slots
    }

    /// Every breakpoint, in the order of insertion, and how it is armed.
    pub(crate) fn list(&self) -> Vec<BreakpointStatus> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_unstable_by_key(|(_, entry)| entry.order);
        let status = |(breakpoint, entry): (&Breakpoint, &Entry)| {
            BreakpointStatus::new(*breakpoint, entry.arming())
        };
        entries.into_iter().map(status).collect()
    }
}

impl Entry {
    fn arming(&self) -> Arming {
        let why = self.pending;
        match self.armed {
            ArmedBy::Byte(gpa) => Arming::Memory { gpa },
            ArmedBy::Register(number) => Arming::DebugRegister { number, why },
            ArmedBy::Nothing => Arming::Pending { why },
        }
    }
}

#[cfg(test)]
mod tests;

//! The breakpoint table: what the client asked for, and how each is armed. Pure.
//!
//! In this version every breakpoint is armed on a debug register, software breakpoints included; the client never sees the difference, for a stop
//! names the breakpoint as it was inserted. Two breakpoints that need the same debug register contents share one.

use crate::dr7::SLOTS;
use crate::dr7::Slot;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointChange;
use vmm_core_defs::debug_rpc::DebugError;

/// The contents of the debug registers, as every VP has them (I5).
pub type Slots = [Option<Slot>; SLOTS];

/// How a breakpoint is made to stop the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Armed {
    /// By the debug register of this number.
    DebugRegister(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    breakpoint: Breakpoint,
    armed: Armed,
}

/// All breakpoints of the session, in the order of their insertion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BreakpointTable {
    entries: Vec<Entry>,
    slots: Slots,
}

impl BreakpointTable {
    /// Makes all changes in order, or none.
    ///
    /// # Errors
    /// [`DebugError::BadBreakpoint`], [`DebugError::NoFreeSlot`], [`DebugError::NoSuchBreakpoint`]: the first change that cannot be made.
    pub fn apply(&mut self, changes: &[BreakpointChange]) -> Result<(), DebugError> {
        let mut changed = self.clone();
        for change in changes {
            match change {
                BreakpointChange::Insert(breakpoint) => changed.insert(*breakpoint)?,
                BreakpointChange::Remove(breakpoint) => changed.remove(breakpoint)?,
            }
        }
        *self = changed;
        Ok(())
    }

    fn insert(&mut self, breakpoint: Breakpoint) -> Result<(), DebugError> {
        if self.contains(&breakpoint) {
            return Ok(());
        }
        let wanted = Slot::new(&breakpoint)?;
        let shared = self.slots.iter().position(|slot| *slot == Some(wanted));
        let free = || self.slots.iter().position(Option::is_none);
        let index = shared.or_else(free).ok_or(DebugError::NoFreeSlot {
            slots: u32::try_from(SLOTS).expect("a handful"),
        })?;
        self.slots[index] = Some(wanted);
        self.entries.push(Entry {
            breakpoint,
            armed: Armed::DebugRegister(index),
        });
        Ok(())
    }

    fn remove(&mut self, breakpoint: &Breakpoint) -> Result<(), DebugError> {
        let position = self
            .entries
            .iter()
            .position(|entry| entry.breakpoint == *breakpoint)
            .ok_or(DebugError::NoSuchBreakpoint {
                address: breakpoint.address,
            })?;
        let Armed::DebugRegister(index) = self.entries.remove(position).armed;
        if self.on(index).is_none() {
            self.slots[index] = None;
        }
        Ok(())
    }

    /// Whether this very breakpoint is set.
    pub fn contains(&self, breakpoint: &Breakpoint) -> bool {
        self.iter().any(|entry| entry == breakpoint)
    }

    /// The breakpoint that a debug register stands for; of several that share it the oldest.
    pub fn on(&self, index: usize) -> Option<Breakpoint> {
        self.entries
            .iter()
            .find(|entry| entry.armed == Armed::DebugRegister(index))
            .map(|entry| entry.breakpoint)
    }

    /// What a hit of `breakpoint` stands for now (I7): the same while it is set, else another that is armed the same way, else nothing.
    pub fn still_hit(&self, breakpoint: &Breakpoint) -> Option<Breakpoint> {
        if self.contains(breakpoint) {
            return Some(*breakpoint);
        }
        let slot = Slot::new(breakpoint).ok()?;
        let index = self.slots.iter().position(|other| *other == Some(slot))?;
        self.on(index)
    }

    /// What the debug registers are to hold.
    pub fn slots(&self) -> Slots {
        self.slots
    }

    /// Every breakpoint that is set, in the order of insertion.
    pub fn iter(&self) -> impl Iterator<Item = &Breakpoint> {
        self.entries.iter().map(|entry| &entry.breakpoint)
    }
}

#[cfg(test)]
mod tests;

//! The changes of one request: all are made, or none.

use super::Armed;
use super::BreakpointTable;
use super::Entry;
use super::GuestCode;
use crate::arch::Slot;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointChange;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::debug_rpc::DebugError;

/// What takes a change back.
#[derive(Debug)]
pub(super) enum Undo {
    Inserted(Breakpoint),
    Removed(Breakpoint, Entry),
    Evicted(Breakpoint, usize),
}

/// What takes the changes of one request back, where a later one of them cannot be made.
#[derive(Debug, Default)]
pub(crate) struct Changes(Vec<Undo>);

impl Changes {
    /// Whether all are taken back.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl BreakpointTable {
    /// Makes these changes in order, up to the first that cannot be made, and notes them in `made`. One request makes all of its changes or, with
    /// [`take_back`](Self::take_back), none.
    ///
    /// # Errors
    /// [`DebugError::BadBreakpoint`], [`DebugError::TooManyBreakpoints`], [`DebugError::NoFreeSlot`], [`DebugError::GuestUsesSlots`],
    /// [`DebugError::NotExecutable`], [`DebugError::NoSuchBreakpoint`].
    pub(crate) fn apply(
        &mut self,
        guest: &mut GuestCode<'_>,
        changes: &[BreakpointChange],
        made: &mut Changes,
    ) -> Result<(), DebugError> {
        let undo = &mut made.0;
        changes.iter().try_for_each(|change| match change {
            BreakpointChange::Insert(breakpoint) => self.insert(guest, *breakpoint, undo),
            BreakpointChange::Remove(breakpoint) => self.remove(guest, breakpoint, undo),
        })
    }

    fn insert(
        &mut self,
        guest: &mut GuestCode<'_>,
        breakpoint: Breakpoint,
        undo: &mut Vec<Undo>,
    ) -> Result<(), DebugError> {
        if self.contains(&breakpoint) {
            return Ok(());
        }
        let wanted = Slot::new(&breakpoint)?;
        if self.len() >= self.limit as usize {
            return Err(DebugError::TooManyBreakpoints { limit: self.limit });
        }
        let software = breakpoint.kind == BreakpointKind::Software && guest.int3.anywhere();
        let owner = guest.owner(breakpoint.address);
        self.inserted += 1;
        let entry = Entry {
            order: self.inserted,
            owner,
            armed: Armed::Nothing,
            via: None,
            pending: None,
        };
        if software {
            self.add(breakpoint, entry);
            undo.push(Undo::Inserted(breakpoint));
            self.aim(guest, &breakpoint);
            return match self.needs_register(&breakpoint) {
                true => {
                    let index = self.evict(undo).ok_or(DebugError::NotExecutable {
                        address: breakpoint.address,
                    })?;
                    self.arm(guest, &breakpoint, Armed::Register(index));
                    Ok(())
                }
                false => Ok(()),
            };
        }
        let index = self
            .register_for(wanted)
            .or_else(|| self.evict(undo))
            .ok_or_else(|| self.no_register())?;
        self.add(breakpoint, entry);
        undo.push(Undo::Inserted(breakpoint));
        self.arm(guest, &breakpoint, Armed::Register(index));
        Ok(())
    }

    fn remove(
        &mut self,
        guest: &mut GuestCode<'_>,
        breakpoint: &Breakpoint,
        undo: &mut Vec<Undo>,
    ) -> Result<(), DebugError> {
        let address = breakpoint.address;
        let missing = DebugError::NoSuchBreakpoint { address };
        let entry = *self.entries.get(breakpoint).ok_or(missing)?;
        self.delete(guest, breakpoint);
        undo.push(Undo::Removed(*breakpoint, entry));
        Ok(())
    }

    /// Takes the last changes back, at most `count` of them.
    pub(crate) fn take_back(
        &mut self,
        guest: &mut GuestCode<'_>,
        made: &mut Changes,
        count: usize,
    ) {
        let rest = made.0.len().saturating_sub(count);
        for change in made.0.drain(rest..).rev() {
            match change {
                Undo::Inserted(breakpoint) => self.delete(guest, &breakpoint),
                Undo::Removed(breakpoint, entry) => {
                    let armed = entry.armed;
                    self.add(breakpoint, entry);
                    self.arm(guest, &breakpoint, armed);
                }
                Undo::Evicted(breakpoint, index) => {
                    self.arm(guest, &breakpoint, Armed::Register(index));
                }
            }
        }
    }
}

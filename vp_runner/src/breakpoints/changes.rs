//! The changes of one request: either all are made, or none.

use super::ArmedBy;
use super::BreakpointTable;
use super::Entry;
use super::GuestCode;
use crate::arch::Slot;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointChange;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::Unsupported;

/// How to undo one change.
#[derive(Debug)]
pub(super) enum Undo {
    Inserted(Breakpoint),
    Removed(Breakpoint, Entry),
    Evicted(Breakpoint, usize),
}

/// The changes of one request so far, to undo them if a later change fails.
#[derive(Debug, Default)]
pub(crate) struct Changes(Vec<Undo>);

impl Changes {
    /// Whether all changes are undone.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl BreakpointTable {
    /// Makes these changes in order, up to the first that fails, and adds them to `made`. After an error the caller undoes them with [`undo`](Self::undo), so
    /// that a request makes all of its changes or none.
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
            // A change of a newer vmm_core_defs.
            unknown => {
                let request = format!("{unknown:?}");
                Err(Unsupported::Request { request }.into())
            }
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
        let software = breakpoint.kind.is_software() && guest.int3.anywhere();
        let owner = guest.owner(breakpoint.address);
        self.inserted += 1;
        let entry = Entry {
            order: self.inserted,
            owner,
            armed: ArmedBy::Nothing,
            byte_root: None,
            pending: None,
            is_passed_by_executing: false,
        };
        if software {
            self.add(breakpoint, entry);
            undo.push(Undo::Inserted(breakpoint));
            self.arm_software(guest, &breakpoint);
            return match self.needs_register(&breakpoint) {
                true => {
                    let index = self.evict(undo).ok_or(DebugError::NotExecutable {
                        address: breakpoint.address,
                    })?;
                    self.arm(guest, &breakpoint, ArmedBy::Register(index));
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
        self.arm(guest, &breakpoint, ArmedBy::Register(index));
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

    /// Undoes the last changes, at most `count` of them.
    pub(crate) fn undo(&mut self, guest: &mut GuestCode<'_>, made: &mut Changes, count: usize) {
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
                    self.arm(guest, &breakpoint, ArmedBy::Register(index));
                }
            }
        }
    }
}

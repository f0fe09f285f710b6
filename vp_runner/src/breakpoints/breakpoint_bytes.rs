//! Breakpoint bytes in guest memory: where they are, what was there, and how to hide them. Pure, over anything that reads and writes a byte.
//!
//! A patch is one guest-physical byte that holds `INT3` (CCh) in place of the guest's own, the *saved* byte. What the guest or the debugger
//! would see without us is the *true* byte: the saved one, unless the guest has written over the patch since, in which case it is what
//! the guest wrote.
//!
//! ```text
//!                 insert                    lift
//!     (nothing) ----------> Armed (CCh) ------------> Lifted (the true byte is in memory)
//!         ^                 |  ^     ^                 |
//!         +-----------------+  |     +-----------------+
//!           last remove        | verify: CCh again,      lower: saves what is there, CCh again
//!                              | the guest's new byte saved
//! ```
//!
//! One thing cannot be noticed: a guest that writes CCh itself over an armed patch. Its byte is then taken for ours, and what was saved comes back
//! when the patch goes.
//!
//! Patches change only while no VP is in the guest (I3). Every byte is written by itself, so that a VP's own writes beside it stay.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::RangeInclusive;
use thiserror::Error;
use vmm_core_defs::addr::Gpa;

/// The one-byte `INT3` (SDM volume 2, "INT n/INTO/INT3/INT1").
pub(crate) const INT3: u8 = 0xcc;

/// Guest RAM, a byte at a time.
pub(crate) trait CodeMemory {
    /// The byte at `gpa`, or `None` where no RAM is.
    fn read_byte(&self, gpa: Gpa) -> Option<u8>;
    /// Writes the byte at `gpa`. `None` where nothing takes it.
    fn write_byte(&self, gpa: Gpa, byte: u8) -> Option<()>;
}

/// Why a patch was not made or changed; nothing has happened then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum PatchError {
    /// There is no RAM to hold it.
    #[error(
        "no writable RAM is at guest-physical {gpa}, so no software breakpoint can be put there"
    )]
    NoMemory {
        /// Where.
        gpa: Gpa,
    },
    /// There is none at this address.
    #[error("no breakpoint byte is at guest-physical {gpa}")]
    NotPatched {
        /// Where.
        gpa: Gpa,
    },
}

/// What removing one reference did to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removed {
    /// Nothing: others still want the patch.
    StillWanted,
    /// The saved byte is back, or was already as the patch was lifted.
    Restored,
    /// Nothing: the guest has written over it, and its byte stays.
    Overwritten,
    /// Nothing: no RAM is there any more.
    Gone,
}

/// A patch that the guest had written over, armed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rearmed {
    /// Where.
    pub gpa: Gpa,
    /// The byte saved until now.
    pub before: u8,
    /// The guest's new byte, saved now. It equals `before` where the same code was loaded again.
    pub now: u8,
}

/// What [`BreakpointBytes::verify_within`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Verified {
    /// Armed again, in the order of their addresses.
    pub rearmed: Vec<Rearmed>,
    /// No RAM takes the byte any more, in the order of their addresses.
    pub gone: Vec<Gpa>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Armed,
    Lifted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Patch {
    saved: u8,
    /// How many want it, at least one. Each of them is in memory somewhere, so it cannot overflow.
    wanted: usize,
    state: State,
}

impl Patch {
    fn hides(&self, in_memory: u8) -> bool {
        self.state == State::Armed && in_memory == INT3
    }
}

/// All patches of a guest.
#[derive(Debug, Default)]
pub(crate) struct BreakpointBytes {
    patches: BTreeMap<Gpa, Patch>,
}

impl BreakpointBytes {
    /// Puts a breakpoint byte at `gpa`, or adds a reference to the one that is there.
    ///
    /// # Errors
    /// [`PatchError::NoMemory`].
    pub(crate) fn insert(&mut self, memory: &impl CodeMemory, gpa: Gpa) -> Result<(), PatchError> {
        match self.patches.entry(gpa) {
            Entry::Occupied(mut patch) => patch.get_mut().wanted += 1,
            Entry::Vacant(free) => {
                let no_memory = PatchError::NoMemory { gpa };
                let saved = memory.read_byte(gpa).ok_or(no_memory)?;
                memory.write_byte(gpa, INT3).ok_or(no_memory)?;
                free.insert(Patch {
                    saved,
                    wanted: 1,
                    state: State::Armed,
                });
            }
        }
        Ok(())
    }

    /// Takes one reference away, and with the last one the patch.
    ///
    /// # Errors
    /// [`PatchError::NotPatched`].
    pub(crate) fn remove(
        &mut self,
        memory: &impl CodeMemory,
        gpa: Gpa,
    ) -> Result<Removed, PatchError> {
        let Entry::Occupied(mut entry) = self.patches.entry(gpa) else {
            return Err(PatchError::NotPatched { gpa });
        };
        if entry.get().wanted > 1 {
            entry.get_mut().wanted -= 1;
            return Ok(Removed::StillWanted);
        }
        Ok(restore(memory, gpa, &entry.remove()))
    }

    /// Takes every patch away, whoever wants it (I6). Returns how many there were.
    pub(crate) fn clear(&mut self, memory: &impl CodeMemory) -> usize {
        let patches = std::mem::take(&mut self.patches);
        for (gpa, patch) in &patches {
            restore(memory, *gpa, patch);
        }
        patches.len()
    }

    /// Puts the true byte back for a VP to execute it. Nothing happens to a patch that is lifted already.
    ///
    /// # Errors
    /// [`PatchError::NotPatched`]; [`PatchError::NoMemory`].
    pub(crate) fn lift(&mut self, memory: &impl CodeMemory, gpa: Gpa) -> Result<(), PatchError> {
        let patch = self.patch(gpa)?;
        let no_memory = PatchError::NoMemory { gpa };
        if patch.hides(memory.read_byte(gpa).ok_or(no_memory)?) {
            memory.write_byte(gpa, patch.saved).ok_or(no_memory)?;
        }
        patch.state = State::Lifted;
        Ok(())
    }

    /// StopSet a lifted patch again. What is in memory is saved: the instruction may have changed itself. Nothing happens to a patch that is armed.
    ///
    /// # Errors
    /// [`PatchError::NotPatched`]; [`PatchError::NoMemory`].
    pub(crate) fn lower(&mut self, memory: &impl CodeMemory, gpa: Gpa) -> Result<(), PatchError> {
        let patch = self.patch(gpa)?;
        if patch.state == State::Lifted {
            let no_memory = PatchError::NoMemory { gpa };
            let saved = memory.read_byte(gpa).ok_or(no_memory)?;
            memory.write_byte(gpa, INT3).ok_or(no_memory)?;
            patch.saved = saved;
            patch.state = State::Armed;
        }
        Ok(())
    }

    /// Looks at every armed patch of this range, and arms those again that the guest has written over. One read for each patch.
    pub(crate) fn verify_within(
        &mut self,
        memory: &impl CodeMemory,
        range: RangeInclusive<Gpa>,
    ) -> Verified {
        let mut verified = Verified::default();
        if range.is_empty() {
            return verified;
        }
        for (&gpa, patch) in self.patches.range_mut(range) {
            if patch.state == State::Lifted {
                continue;
            }
            let before = patch.saved;
            match memory.read_byte(gpa) {
                Some(INT3) => {}
                Some(now) if memory.write_byte(gpa, INT3).is_some() => {
                    patch.saved = now;
                    verified.rearmed.push(Rearmed { gpa, before, now });
                }
                Some(_) | None => verified.gone.push(gpa),
            }
        }
        verified
    }

    /// Makes what was read from memory at `gpa` show true bytes.
    ///
    /// The bytes have to follow each other in physical memory: a range of virtual addresses is given run by run.
    pub(crate) fn overlay_read(&self, gpa: Gpa, data: &mut [u8]) {
        for (index, patch) in self.within(gpa, data.len()) {
            if patch.hides(data[index]) {
                data[index] = patch.saved;
            }
        }
    }

    /// A debugger's write at `gpa`: `write` is given what is to go to memory, with breakpoint bytes in place, and says how many bytes got
    /// there. Those of them that lie under a patch are saved. Returns what `write` returned.
    pub(crate) fn overlay_write(
        &mut self,
        gpa: Gpa,
        data: &[u8],
        write: impl FnOnce(&[u8]) -> usize,
    ) -> usize {
        let mut masked = Cow::Borrowed(data);
        for (index, patch) in self.within(gpa, data.len()) {
            if patch.state == State::Armed {
                masked.to_mut()[index] = INT3;
            }
        }
        let written = write(&masked).min(data.len());
        if let Some(range) = range(gpa, written) {
            for (at, patch) in self.patches.range_mut(range) {
                patch.saved = data[index(gpa, *at)];
            }
        }
        written
    }

    /// Whether an `INT3` executed at `gpa` is ours. A lifted patch is not: the byte executed was the guest's.
    pub(crate) fn is_armed(&self, gpa: Gpa) -> bool {
        self.patches
            .get(&gpa)
            .is_some_and(|patch| patch.state == State::Armed)
    }

    /// Whether the patch at `gpa` is armed and the guest has not written over it.
    pub(crate) fn is_intact(&self, memory: &impl CodeMemory, gpa: Gpa) -> bool {
        self.is_armed(gpa) && memory.read_byte(gpa) == Some(INT3)
    }

    /// Whether the guest has written over any armed patch. Reads only, so VPs may run.
    pub(crate) fn is_any_overwritten(&self, memory: &impl CodeMemory) -> bool {
        let mut patches = self.patches.iter();
        patches.any(|(gpa, patch)| {
            patch.state == State::Armed && memory.read_byte(*gpa).is_some_and(|byte| byte != INT3)
        })
    }

    /// The patches among `len` bytes from `gpa`: those that have to be lifted for an instruction there to be executed as the guest wrote it.
    pub(crate) fn patched(&self, gpa: Gpa, len: usize) -> impl Iterator<Item = Gpa> {
        range(gpa, len)
            .into_iter()
            .flat_map(|range| self.patches.range(range))
            .map(|(gpa, _)| *gpa)
    }

    /// Whether no byte is patched.
    pub(crate) fn is_empty(&self) -> bool {
        self.patches.is_empty()
    }

    fn patch(&mut self, gpa: Gpa) -> Result<&mut Patch, PatchError> {
        self.patches
            .get_mut(&gpa)
            .ok_or(PatchError::NotPatched { gpa })
    }

    /// The patches among `len` bytes from `gpa`, with their distance from it.
    fn within(&self, gpa: Gpa, len: usize) -> impl Iterator<Item = (usize, &Patch)> {
        range(gpa, len)
            .into_iter()
            .flat_map(|range| self.patches.range(range))
            .map(move |(at, patch)| (index(gpa, *at), patch))
    }
}

fn restore(memory: &impl CodeMemory, gpa: Gpa, patch: &Patch) -> Removed {
    match memory.read_byte(gpa) {
        None => Removed::Gone,
        Some(_) if patch.state == State::Lifted => Removed::Restored,
        Some(INT3) => match memory.write_byte(gpa, patch.saved) {
            Some(()) => Removed::Restored,
            None => Removed::Gone,
        },
        Some(_) => Removed::Overwritten,
    }
}

/// `len` bytes from `gpa`, up to the end of the address space.
fn range(gpa: Gpa, len: usize) -> Option<RangeInclusive<Gpa>> {
    let last = (len as u64).checked_sub(1)?;
    Some(gpa..=Gpa::new(gpa.value().saturating_add(last)))
}

/// The distance of `at` from `start` in a slice.
fn index(start: Gpa, at: Gpa) -> usize {
    usize::try_from(at.value() - start.value()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;

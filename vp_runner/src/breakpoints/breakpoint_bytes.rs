//! Breakpoint bytes in guest memory: their addresses, the bytes that they replace, and how to hide them. Uses memory only through [`CodeMemory`].
//!
//! A breakpoint byte is an `INT3` (CCh) at a guest-physical address. It replaces a byte of the guest, the *saved* byte. The *true* byte is the byte that
//! memory would hold without the breakpoint: the byte in memory if the guest has overwritten the breakpoint byte, and the saved byte otherwise.
//!
//! ```text
//!                 insert                    lift
//!     (nothing) ----------> Armed (CCh) ------------> Lifted (the true byte is in memory)
//!         ^                 |  ^     ^                 |
//!         +-----------------+  |     +-----------------+
//!           last remove        | verify: CCh again,      lower: saves what is there, CCh again
//!                              | the guest's new byte is saved
//! ```
//!
//! If the guest itself writes CCh over an armed breakpoint byte, the write cannot be detected. The guest's CCh then counts as the breakpoint byte, and the
//! saved byte replaces it when the breakpoint byte is removed.
//!
//! Breakpoint bytes change only while no VP is in the guest (I3), but for those in memory that the VMM takes away. Each is written as a single byte, so that the
//! guest's writes beside it stay.

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
    /// The byte at `gpa`, or `None` if there is no RAM.
    fn read_byte(&self, gpa: Gpa) -> Option<u8>;
    /// Writes the byte at `gpa`. `None` if it cannot be written.
    fn write_byte(&self, gpa: Gpa, byte: u8) -> Option<()>;
}

/// Why a breakpoint byte was not inserted or changed. Nothing has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum ByteError {
    /// There is no writable RAM at this address.
    #[error(
        "no writable RAM is at guest-physical {gpa}, so no software breakpoint can be put there"
    )]
    NoMemory {
        /// The guest-physical address of the byte.
        gpa: Gpa,
    },
    /// There is no breakpoint byte at this address.
    #[error("no breakpoint byte is at guest-physical {gpa}")]
    NoByte {
        /// The guest-physical address of the byte.
        gpa: Gpa,
    },
}

/// The effect on memory when a reference is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removed {
    /// None: there are other references.
    StillReferenced,
    /// The saved byte is in memory again. If the breakpoint byte was lifted, it was there already.
    Restored,
    /// None: the guest has overwritten the breakpoint byte, and the guest's byte stays.
    Overwritten,
    /// None: there is no RAM any more.
    Gone,
}

/// A breakpoint byte that the guest had overwritten, and that is armed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rearmed {
    /// The guest-physical address of the byte.
    pub gpa: Gpa,
    /// The byte saved until now.
    pub before: u8,
    /// The guest's new byte, saved now. It equals `before` if the guest has loaded the same code again.
    pub now: u8,
}

/// The result of [`BreakpointBytes::verify_within`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Verified {
    /// The bytes that were armed again, by address.
    pub rearmed: Vec<Rearmed>,
    /// The addresses that are not writable RAM any more, in order.
    pub gone: Vec<Gpa>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Armed,
    Lifted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BreakpointByte {
    saved: u8,
    /// The number of references, at least one. The count cannot overflow, because each reference takes memory.
    references: usize,
    state: State,
}

/// Whether breakpoint bytes are in memory at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InMemory {
    Yes,
    /// The VMM takes a snapshot.
    Quiesced,
}

impl BreakpointByte {
    fn hides(&self, in_memory: u8, bytes: InMemory) -> bool {
        self.state == State::Armed && in_memory == INT3 && bytes == InMemory::Yes
    }
}

/// All breakpoint bytes of a guest.
#[derive(Debug, Default)]
pub(crate) struct BreakpointBytes {
    bytes: BTreeMap<Gpa, BreakpointByte>,
    /// How many holders want the guest's memory without breakpoint bytes. While there is one, no method writes a breakpoint byte to memory.
    quiesced: usize,
}

impl BreakpointBytes {
    /// Takes every breakpoint byte out of memory until [`unquiesce`](Self::unquiesce), without a change of the set. No VP may be in the guest.
    pub(crate) fn quiesce(&mut self, memory: &impl CodeMemory) {
        self.quiesced += 1;
        if self.quiesced > 1 {
            return;
        }
        for (gpa, byte) in &self.bytes {
            if let Some(now) = memory.read_byte(*gpa)
                && byte.hides(now, InMemory::Yes)
            {
                // Memory that cannot be written has no breakpoint byte.
                let _ = memory.write_byte(*gpa, byte.saved);
            }
        }
    }

    /// Ends one [`quiesce`](Self::quiesce). The last one writes the breakpoint bytes to memory again.
    pub(crate) fn unquiesce(&mut self, memory: &impl CodeMemory) {
        self.quiesced = self.quiesced.saturating_sub(1);
        if self.quiesced > 0 {
            return;
        }
        for (gpa, byte) in &mut self.bytes {
            // The next verification finds a byte whose memory has gone.
            if byte.state == State::Armed
                && let Some(now) = memory.read_byte(*gpa)
                && memory.write_byte(*gpa, INT3).is_some()
            {
                byte.saved = now;
            }
        }
    }

    /// Takes the breakpoint bytes of this range out of memory, because the VMM takes the memory away. The breakpoint bytes stay armed: if the memory comes back, the
    /// next verification writes them again. VPs may run, because the VMM does not ask before it takes memory away.
    pub(crate) fn withdraw_within(&mut self, memory: &impl CodeMemory, range: RangeInclusive<Gpa>) {
        if range.is_empty() {
            return;
        }
        for (gpa, byte) in self.bytes.range(range) {
            if let Some(now) = memory.read_byte(*gpa)
                && byte.hides(now, self.in_memory())
            {
                // Memory that cannot be written has no breakpoint byte.
                let _ = memory.write_byte(*gpa, byte.saved);
            }
        }
    }

    fn in_memory(&self) -> InMemory {
        match self.quiesced {
            0 => InMemory::Yes,
            _ => InMemory::Quiesced,
        }
    }

    /// Writes a breakpoint byte to `gpa`, or adds a reference to the one that is there.
    ///
    /// # Errors
    /// [`ByteError::NoMemory`].
    pub(crate) fn insert(&mut self, memory: &impl CodeMemory, gpa: Gpa) -> Result<(), ByteError> {
        let in_memory = self.in_memory();
        match self.bytes.entry(gpa) {
            Entry::Occupied(mut byte) => byte.get_mut().references += 1,
            Entry::Vacant(free) => {
                let no_memory = ByteError::NoMemory { gpa };
                let saved = memory.read_byte(gpa).ok_or(no_memory)?;
                let now = match in_memory {
                    InMemory::Yes => INT3,
                    // Written back, to see whether the memory can be written.
                    InMemory::Quiesced => saved,
                };
                memory.write_byte(gpa, now).ok_or(no_memory)?;
                free.insert(BreakpointByte {
                    saved,
                    references: 1,
                    state: State::Armed,
                });
            }
        }
        Ok(())
    }

    /// Removes one reference. Removes the breakpoint byte with the last reference.
    ///
    /// # Errors
    /// [`ByteError::NoByte`].
    pub(crate) fn remove(
        &mut self,
        memory: &impl CodeMemory,
        gpa: Gpa,
    ) -> Result<Removed, ByteError> {
        let in_memory = self.in_memory();
        let Entry::Occupied(mut entry) = self.bytes.entry(gpa) else {
            return Err(ByteError::NoByte { gpa });
        };
        if entry.get().references > 1 {
            entry.get_mut().references -= 1;
            return Ok(Removed::StillReferenced);
        }
        Ok(restore(memory, gpa, &entry.remove(), in_memory))
    }

    /// Removes every breakpoint byte with all references (I6). Returns the number of bytes.
    pub(crate) fn clear(&mut self, memory: &impl CodeMemory) -> usize {
        let bytes = std::mem::take(&mut self.bytes);
        for (gpa, byte) in &bytes {
            restore(memory, *gpa, byte, self.in_memory());
        }
        bytes.len()
    }

    /// Writes the true byte to memory, so that a VP can execute it. Does nothing if the breakpoint byte is lifted already.
    ///
    /// # Errors
    /// [`ByteError::NoByte`]; [`ByteError::NoMemory`].
    pub(crate) fn lift(&mut self, memory: &impl CodeMemory, gpa: Gpa) -> Result<(), ByteError> {
        let in_memory = self.in_memory();
        let byte = self.byte_mut(gpa)?;
        let no_memory = ByteError::NoMemory { gpa };
        if byte.hides(memory.read_byte(gpa).ok_or(no_memory)?, in_memory) {
            memory.write_byte(gpa, byte.saved).ok_or(no_memory)?;
        }
        byte.state = State::Lifted;
        Ok(())
    }

    /// Arms a lifted breakpoint byte again. Saves the byte that is in memory now, since the instruction may have changed itself. Does nothing if the breakpoint
    /// byte is armed.
    ///
    /// # Errors
    /// [`ByteError::NoByte`]; [`ByteError::NoMemory`], after which the byte counts as armed: the next verification arms it, or finds that it has gone.
    pub(crate) fn lower(&mut self, memory: &impl CodeMemory, gpa: Gpa) -> Result<(), ByteError> {
        let in_memory = self.in_memory();
        let byte = self.byte_mut(gpa)?;
        if byte.state == State::Lifted {
            byte.state = State::Armed;
            let no_memory = ByteError::NoMemory { gpa };
            let saved = memory.read_byte(gpa).ok_or(no_memory)?;
            if in_memory == InMemory::Yes {
                memory.write_byte(gpa, INT3).ok_or(no_memory)?;
            }
            byte.saved = saved;
        }
        Ok(())
    }

    /// Arms the breakpoint bytes of this range again that the guest has overwritten. Reads each armed byte once.
    pub(crate) fn verify_within(
        &mut self,
        memory: &impl CodeMemory,
        range: RangeInclusive<Gpa>,
    ) -> Verified {
        let mut verified = Verified::default();
        if range.is_empty() || self.in_memory() == InMemory::Quiesced {
            return verified;
        }
        for (&gpa, byte) in self.bytes.range_mut(range) {
            if byte.state == State::Lifted {
                continue;
            }
            let before = byte.saved;
            match memory.read_byte(gpa) {
                Some(INT3) => {}
                Some(now) if memory.write_byte(gpa, INT3).is_some() => {
                    byte.saved = now;
                    verified.rearmed.push(Rearmed { gpa, before, now });
                }
                Some(_) | None => verified.gone.push(gpa),
            }
        }
        verified
    }

    /// Replaces breakpoint bytes by true bytes in `data`, which was read from memory at `gpa`.
    ///
    /// `data` is one contiguous physical range. For a range of linear addresses the caller calls this method for each such range.
    pub(crate) fn overlay_read(&self, gpa: Gpa, data: &mut [u8]) {
        for (index, byte) in self.within(gpa, data.len()) {
            if byte.hides(data[index], self.in_memory()) {
                data[index] = byte.saved;
            }
        }
    }

    /// A debugger's write to `gpa`. `write` gets the bytes for memory, which include the breakpoint bytes, and returns how many bytes were written. The written
    /// bytes under breakpoint bytes are saved. Returns the number of written bytes.
    pub(crate) fn overlay_write(
        &mut self,
        gpa: Gpa,
        data: &[u8],
        write: impl FnOnce(&[u8]) -> usize,
    ) -> usize {
        let mut masked = Cow::Borrowed(data);
        for (index, byte) in self.within(gpa, data.len()) {
            if byte.state == State::Armed && self.in_memory() == InMemory::Yes {
                masked.to_mut()[index] = INT3;
            }
        }
        let written = write(&masked).min(data.len());
        if let Some(range) = range(gpa, written) {
            for (at, byte) in self.bytes.range_mut(range) {
                byte.saved = data[index(gpa, *at)];
            }
        }
        written
    }

    /// Whether an `INT3` that was executed at `gpa` is a breakpoint byte. While the breakpoint byte is lifted, an executed `INT3` is the guest's.
    pub(crate) fn is_armed(&self, gpa: Gpa) -> bool {
        self.bytes
            .get(&gpa)
            .is_some_and(|byte| byte.state == State::Armed)
    }

    /// Whether the breakpoint byte at `gpa` is armed and the guest has not overwritten it.
    pub(crate) fn is_intact(&self, memory: &impl CodeMemory, gpa: Gpa) -> bool {
        self.is_armed(gpa) && memory.read_byte(gpa) == Some(INT3)
    }

    /// Whether the guest has overwritten any armed breakpoint byte. Only reads memory, so VPs may run.
    pub(crate) fn is_any_overwritten(&self, memory: &impl CodeMemory) -> bool {
        if self.in_memory() == InMemory::Quiesced {
            return false;
        }
        let mut bytes = self.bytes.iter();
        bytes.any(|(gpa, byte)| {
            byte.state == State::Armed && memory.read_byte(*gpa).is_some_and(|byte| byte != INT3)
        })
    }

    /// The addresses of the breakpoint bytes in the `len` bytes from `gpa`.
    pub(crate) fn addresses_within(&self, gpa: Gpa, len: usize) -> impl Iterator<Item = Gpa> {
        range(gpa, len)
            .into_iter()
            .flat_map(|range| self.bytes.range(range))
            .map(|(gpa, _)| *gpa)
    }

    /// Whether there is no breakpoint byte.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn byte_mut(&mut self, gpa: Gpa) -> Result<&mut BreakpointByte, ByteError> {
        self.bytes.get_mut(&gpa).ok_or(ByteError::NoByte { gpa })
    }

    /// The breakpoint bytes in the `len` bytes from `gpa`, with their distance from `gpa`.
    fn within(&self, gpa: Gpa, len: usize) -> impl Iterator<Item = (usize, &BreakpointByte)> {
        range(gpa, len)
            .into_iter()
            .flat_map(|range| self.bytes.range(range))
            .map(move |(at, byte)| (index(gpa, *at), byte))
    }
}

fn restore(
    memory: &impl CodeMemory,
    gpa: Gpa,
    byte: &BreakpointByte,
    in_memory: InMemory,
) -> Removed {
    match memory.read_byte(gpa) {
        None => Removed::Gone,
        Some(_) if byte.state == State::Lifted || in_memory == InMemory::Quiesced => {
            Removed::Restored
        }
        Some(INT3) => match memory.write_byte(gpa, byte.saved) {
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

//! The VMM's memory behind the guest's.

use crate::tracker::Slot;
use vp_runner::embed::MemorySlot;

/// The slot for the debugger. `None` if its address is none of this process, which KVM refuses too.
pub(crate) fn slot_of(slot: Slot) -> Option<MemorySlot> {
    let host = usize::try_from(slot.host).ok()?;
    // SAFETY: the VMM has just given these addresses to KVM as the guest's memory, and KVM writes to them whenever the guest does. The slot is taken from the
    // debugger before KVM is told to forget it.
    Some(unsafe { MemorySlot::new(slot.gpa, slot.size, host, slot.writable) })
}

//! The handler of an exception or interrupt, from the guest's own tables.

use super::GuestState;
use super::Landing;
use super::task;
use crate::arch::x86_64::cpu_mode::cpu_mode;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::CpuMode;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::regs::x86_64::bits::efer;

/// The selector's index into its table, and the bit that says which table (SDM volume 3, "Segment Selectors").
const SELECTOR_INDEX: u16 = !7;
const SELECTOR_LOCAL: u16 = 1 << 2;

/// The first instruction that executes when this vector is delivered, if the delivery does not fault. `None` in virtual-8086 mode, and if the tables cannot be
/// read or have no gate for the vector.
pub(crate) fn handler(state: &X86VpState, vector: u8, guest: &impl GuestState) -> Option<Landing> {
    let mode = cpu_mode(state);
    let long = state.efer & efer::LMA != 0;
    let entry_len = match mode {
        CpuMode::Virtual8086 => return None,
        CpuMode::Real => 4_usize,
        _ if long => 16,
        _ => 8,
    };
    let offset = usize::from(vector) * entry_len;
    if offset + entry_len - 1 > usize::from(state.idtr.limit) {
        return None;
    }
    let mut entry = [0; 16];
    let at = state.idtr.base.checked_add(offset as u64)?;
    if !guest.read(Gva::new(at), &mut entry[..entry_len]) {
        return None;
    }
    const PRESENT_TASK_GATE: u8 = 0x85;
    if entry_len == 8 && entry[5] & 0x9f == PRESENT_TASK_GATE {
        return task::entry(state, u16::from_le_bytes([entry[2], entry[3]]), guest);
    }
    let (offset, selector, _) = decode(&entry[..entry_len])?;
    let base = match mode {
        CpuMode::Real => u64::from(selector) << 4,
        _ if long => return Some(Landing::at(Gva::new(offset))),
        _ => segment(state.gdtr.base, state.ldtr.base, selector, guest)?.base,
    };
    let first = Gva::new(base.wrapping_add(offset) & u64::from(u32::MAX));
    Some(Landing::at(first))
}

/// The segment of a selector.
pub(super) struct Found {
    /// Its descriptor.
    pub(super) descriptor: [u8; 8],
    /// The base in it.
    pub(super) base: u64,
    /// Its type, with the S and P bits.
    pub(super) kind: u8,
}

/// The descriptor of a selector in the given tables (SDM volume 3, "Segment Descriptors").
pub(super) fn segment(gdt: u64, ldt: u64, selector: u16, guest: &impl GuestState) -> Option<Found> {
    let table = match selector & SELECTOR_LOCAL {
        0 => gdt,
        _ => ldt,
    };
    let mut descriptor = [0; 8];
    let at = table.checked_add((selector & SELECTOR_INDEX).into())?;
    if !guest.read(Gva::new(at), &mut descriptor) {
        return None;
    }
    let [_, _, low, middle, high, access, _, top] = descriptor;
    Some(Found {
        descriptor,
        base: u32::from_le_bytes([low, middle, high, top]).into(),
        kind: access & 0x9f,
    })
}

/// Offset, selector and slot size of an entry, whose length depends on the mode. `None` for a task gate, and if the entry is not present.
pub(super) fn decode(entry: &[u8]) -> Option<(u64, u16, usize)> {
    let word = |at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
    if let [a, b, c, d] = *entry {
        let offset = u16::from_le_bytes([a, b]);
        return Some((offset.into(), u16::from_le_bytes([c, d]), 2));
    }
    const PRESENT_TRAP32: u8 = 0x8f;
    const PRESENT_INTERRUPT32: u8 = 0x8e;
    const PRESENT_TRAP16: u8 = 0x87;
    const PRESENT_INTERRUPT16: u8 = 0x86;
    let (low, selector) = (u64::from(word(0)), word(2));
    let wide = low | u64::from(word(6)) << 16;
    // The privilege level that may call the gate has no effect here.
    match (entry[5] & 0x9f, entry.len()) {
        (PRESENT_INTERRUPT16 | PRESENT_TRAP16, 8) => Some((low, selector, 2)),
        (PRESENT_INTERRUPT32 | PRESENT_TRAP32, 8) => Some((wide, selector, 4)),
        (PRESENT_INTERRUPT32 | PRESENT_TRAP32, _) => {
            let high = u64::from(word(8)) << 32 | u64::from(word(10)) << 48;
            Some((wide | high, selector, 8))
        }
        _ => None,
    }
}

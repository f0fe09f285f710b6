//! Recognises the delivery of an exception or interrupt during a step: RIP is at the handler of a gate in the IDT, and the stack holds a frame
//! that returns to the stepped instruction or to the next one.
//!
//! The frame is at the top of the stack after the step, so a switch of stacks (privilege, IST) has no effect. Above an
//! error code, if the vector has one, are the return address, CS and the flags, each in a slot as wide as the gate (SDM volume 3, "Exception- and
//! Interrupt-Handler Procedures", "64-Bit Mode Stack Frame"; real mode: volume 3, "Interrupt and Exception Handling" of "8086 Emulation").
//! A delivery is not recognised if the step ended after the first instruction of the handler.

use super::Flow;
use super::GuestState;
use super::Kind;
use super::Step;
use super::gate::decode;
use super::stack_at;
use crate::arch::x86_64::cpu_mode::cpu_mode;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::CpuMode;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::regs::x86_64::bits::efer;

/// Bits of FLAGS that are the same in every image: bit 1 is set, 3, 5 and 15 are clear.
const FIXED_FLAGS: u64 = 0x802a;
const FIXED_VALUE: u64 = 2;

/// An interrupt or trap gate, or an entry of the real-mode vector table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gate {
    /// Whether exceptions of this vector push an error code. `int n` with the same vector pushes none.
    error_code: bool,
    /// The size of each slot of the frame.
    slot: usize,
}

/// The image of RFLAGS in the frame of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SavedFlags {
    /// The second byte of the image: bit 0 is TF.
    pub(super) trap_flag: Gva,
    /// The third byte: bit 0 is RF. An image of 16 bits has none.
    pub(super) resume_flag: Option<Gva>,
}

/// The flags in the frame of a delivery, if an exception or interrupt was delivered.
pub(super) fn frame(
    step: &Step,
    after: &X86VpState,
    guest: &impl GuestState,
) -> Option<SavedFlags> {
    let at = |gate: &Gate| {
        let plain = lead_back(step, after, gate.slot, 0, guest);
        let with_code = || lead_back(step, after, gate.slot, 1, guest);
        match gate.error_code {
            true => plain.or_else(with_code),
            false => plain,
        }
    };
    let slots: &[usize] = match cpu_mode(after) {
        CpuMode::Real | CpuMode::Virtual8086 => &[2],
        _ if after.efer & efer::LMA != 0 => &[8],
        _ => &[4, 2],
    };
    // Reading the whole table after every step would be slow, so first check whether the stack may hold a frame.
    let conceivable = slots
        .iter()
        .any(|slot| (0..=1).any(|code| lead_back(step, after, *slot, code, guest).is_some()));
    match conceivable {
        true => gates_to(after, guest).iter().find_map(at),
        false => None,
    }
}

/// The flags in a frame `skip` slots below the top of the stack, if the slots there can be a frame that returns to the step.
fn lead_back(
    step: &Step,
    after: &X86VpState,
    slot: usize,
    skip: usize,
    guest: &impl GuestState,
) -> Option<SavedFlags> {
    let displacement = |index: usize| i64::try_from((skip + index) * slot).ok();
    let read = |index: usize| {
        let mut bytes = [0; 8];
        let at = stack_at(after, displacement(index)?);
        guest
            .read(at, &mut bytes[..slot])
            .then(|| u64::from_le_bytes(bytes))
    };
    let flags = read(2)?;
    let (rip, cs) = (read(0)?, read(1)?);
    let mask = u64::MAX >> (64 - 8 * slot);
    let is = |address: u64| rip == address & mask;
    let same_code = cs & 0xffff == u64::from(step.cs);
    let leads_back = match step.flow {
        Flow::Sequential => same_code && (is(step.rip) || is(step.next_rip)),
        Flow::Near => same_code,
        // The guest can push an equal frame itself, by `pushf; push cs; call`.
        Flow::Call => !is(step.next_rip),
        // For faults, and for interrupts after the instruction. CS may have changed.
        Flow::Far => step.kind != Kind::FarTransfer || !is(step.next_rip),
    };
    let plausible = flags & FIXED_FLAGS == FIXED_VALUE && flags >> 22 == 0;
    let at = displacement(2)?;
    let saved = SavedFlags {
        trap_flag: stack_at(after, at + 1),
        resume_flag: (slot > 2).then(|| stack_at(after, at + 2)),
    };
    (leads_back && plausible).then_some(saved)
}

/// The gates whose handler begins at RIP. Several vectors may share one.
fn gates_to(after: &X86VpState, guest: &impl GuestState) -> Vec<Gate> {
    let mode = cpu_mode(after);
    // In virtual-8086 mode, interrupts are handled in this mode only through the table at 0 (CR4.VME).
    let (base, bytes) = match mode {
        CpuMode::Virtual8086 => (0, 0x400),
        _ => (after.idtr.base, usize::from(after.idtr.limit) + 1),
    };
    let entry_len = match mode {
        CpuMode::Real | CpuMode::Virtual8086 => 4,
        _ if after.efer & efer::LMA != 0 => 16,
        _ => 8,
    };
    let mut table = vec![0; bytes.min(256 * entry_len)];
    if !guest.read(Gva::new(base), &mut table) {
        return Vec::new();
    }
    let gate = |(vector, entry): (usize, &[u8])| {
        let (offset, selector, slot) = decode(entry)?;
        // In protected mode the low bits of CS are the privilege level, which the gate does not contain.
        let privilege = if entry_len == 4 { 0 } else { 3 };
        let here = offset == after.rip && selector | privilege == after.cs.selector | privilege;
        let error_code = entry_len != 4 && has_error_code(vector);
        here.then_some(Gate { error_code, slot })
    };
    let entries = table.chunks_exact(entry_len).enumerate();
    entries.filter_map(gate).collect()
}

/// Whether the exception pushes an error code outside real mode (SDM volume 3, "Protected-Mode Exceptions and Interrupts"; 29 and 30 are AMD's).
fn has_error_code(vector: usize) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30)
}

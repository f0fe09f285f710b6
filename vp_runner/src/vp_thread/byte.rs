//! A VP on an `INT3`: whose byte it is, and how to pass one of ours.
//!
//! Where other VPs run, it is passed by carrying the instruction out here, if that can be done with certainty; else every VP is stopped for one to
//! execute it with the byte lifted. So it is for a breakpoint that the VP has met and goes on from, and for one that is not its own: one physical
//! byte may be mapped at several linear addresses, and a VP that comes by another than the breakpoint's passes in silence.

use super::before_guest::BeforeGuest;
use super::*;
use crate::arch::x86_64::emulate::InterruptShadow;
use crate::arch::x86_64::emulate::Store;
use crate::arch::x86_64::emulate::emulate;
use crate::arch::x86_64::page_walk::walk;
use crate::kvm::guest_ram;
use kvm_bindings::KVM_INTERNAL_ERROR_EMULATION;
use std::sync::RwLockReadGuard;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::regs::x86_64::bits::cr4;
use vmm_core_defs::stop::DebugStopReason;

/// Bits of page-table entries (SDM volume 3, "Paging").
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// PKE and PKS: keys that are not looked at here may forbid a write.
const PROTECTION_KEYS: u64 = cr4::PKE | cr4::PKS;
const USER: u8 = 3;

/// A breakpoint byte of ours that the VP stands on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Byte {
    /// With a breakpoint at this address.
    Breakpoint(Breakpoint),
    /// With none.
    Alias(Place),
}

impl Vp {
    /// Going by the VP's own page tables.
    pub(super) fn byte_here(&mut self) -> Option<Byte> {
        if self.arms.bytes == Bytes::None {
            return None;
        }
        let place = self.place().ok()?;
        let gpa = place.rip_gpa(&self.around.ram)?;
        let address = place.rip;
        let breakpoints = self.breakpoints();
        if !breakpoints.patches.is_armed(gpa) {
            return None;
        }
        Some(match breakpoints.table.at_byte(address, gpa) {
            Some(breakpoint) => Byte::Breakpoint(breakpoint),
            None => Byte::Alias(place),
        })
    }

    /// What becomes of a VP that met a byte of ours. `None`: it goes on.
    pub(super) fn met(&mut self, byte: Byte, entry: &mut Entry) -> Option<Cause> {
        match byte {
            Byte::Breakpoint(breakpoint) => {
                let vp = self.around.index;
                Some(Cause::Debug(DebugStopReason::Breakpoint { vp, breakpoint }))
            }
            Byte::Alias(place) => match self.carry_out(&place) {
                Some(rip) => entry.executed(rip),
                None => Some(entry.not_carried_out()),
            },
        }
    }

    /// KVMs that carry out guest code by emulation give up on an `INT3`, with nothing executed: one like any other where the byte is ours.
    pub(super) fn after_failure(&mut self, event: GuestEvent, entry: &mut Entry) -> Option<Cause> {
        let failed = CrashCause::Internal {
            suberror: KVM_INTERNAL_ERROR_EMULATION,
        };
        let byte = match event {
            GuestEvent::Crashed { cause, .. } if cause == failed => self.byte_here(),
            _ => None,
        };
        let Some(byte) = byte else {
            return Some(Cause::Guest(event));
        };
        match self.vcpu.drop_exception() {
            Ok(()) => self.met(byte, entry),
            Err(err) => Some(self.crashed(&err)),
        }
    }

    /// Passes the byte that the VP stands on by carrying the instruction out, while the other VPs run.
    pub(super) fn pass_beside_others(&mut self, entry: &mut Entry) -> BeforeGuest {
        if self.around.gate.is_kicked() {
            return ControlFlow::Break(None);
        }
        let place = match self.place() {
            Ok(place) => place,
            Err(err) => return ControlFlow::Break(Some(self.crashed(&err))),
        };
        let ended = match self.carry_out(&place) {
            Some(rip) => entry.executed(rip),
            None => Some(entry.not_carried_out()),
        };
        match ended {
            Some(cause) => ControlFlow::Break(Some(cause)),
            None => ControlFlow::Continue(()),
        }
    }

    /// Puts the guest's own bytes under the instruction at RIP, for this VP to execute it. No other VP is in the guest.
    pub(super) fn lift(&mut self) -> Result<(), DebugError> {
        let place = self.place()?;
        let breakpoints = self.around.breakpoints.write();
        let mut breakpoints = breakpoints.unwrap_or_else(PoisonError::into_inner);
        self.lifted = breakpoints.lift(&self.around.ram, &place);
        Ok(())
    }

    /// Arms again what was lifted, if anything was.
    pub(super) fn lower(&mut self) {
        if self.lifted.is_empty() {
            return;
        }
        let breakpoints = self.around.breakpoints.write();
        let mut breakpoints = breakpoints.unwrap_or_else(PoisonError::into_inner);
        breakpoints.lower(&self.around.ram, &self.lifted);
        self.lifted.clear();
    }

    pub(super) fn breakpoints(&self) -> RwLockReadGuard<'_, Breakpoints> {
        let breakpoints = self.around.breakpoints.read();
        breakpoints.unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out the instruction under the byte. Returns the linear address of the next one, or `None` with nothing changed.
    fn carry_out(&mut self, place: &Place) -> Option<u64> {
        let state = self.read_registers().ok()?;
        // Whatever comes of it, the registers are not asked for as they are now.
        self.forget_snapshot();
        let shadow = match self.vcpu.has_interrupt_shadow().ok()? {
            true => InterruptShadow::Active,
            false => InterruptShadow::None,
        };
        let code = self.breakpoints().code_at(&self.around.ram, place);
        let after = emulate(&state, &code, shadow).ok()?;
        if let Some(store) = &after.store {
            self.store(&state, place, store)?;
        }
        self.vcpu
            .move_on(after.gp, after.rip, after.rflags)
            .ok()
            .and_then(|()| self.vcpu.linear_rip().ok())
    }

    /// Makes the write where the VP itself could, with nothing to mark in its tables. `None`: nothing is written.
    fn store(&self, state: &X86VpState, place: &Place, store: &Store) -> Option<()> {
        let page = walk(&*self.around.ram, &place.paging, store.gva).ok()?;
        let bytes = store.bytes();
        let user = crate::arch::x86_64::cpu_mode::privilege(state) == USER;
        let mut entries = page.path.entries();
        let marked = entries.all(|entry| entry.value & ACCESSED != 0)
            && page
                .path
                .entries()
                .last()
                .is_none_or(|leaf| leaf.value & DIRTY != 0);
        let permitted = page.page_size.is_none() || (page.writable && page.user == user);
        let breakpoints = self.breakpoints();
        let patches = &breakpoints.patches;
        let plain = permitted
            && marked
            && bytes.len() as u64 <= page.bytes_left()
            && state.cr4 & PROTECTION_KEYS == 0
            && patches.patched(page.gpa, bytes.len()).next().is_none();
        if !plain {
            return None;
        }
        let written = guest_ram::write(&self.around.ram, page.gpa, bytes);
        (written == bytes.len()).then_some(())
    }
}

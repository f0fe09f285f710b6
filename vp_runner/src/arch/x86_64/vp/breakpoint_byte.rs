//! A VP at a breakpoint byte of ours: whose breakpoint it is, and how the VP passes it.
//!
//! Where other VPs run, the runner carries the instruction out in place of the VP, if it can do so exactly. Otherwise every other VP stays stopped while the VP executes
//! the instruction with the byte lifted. This is done for a breakpoint that was reported, and for a breakpoint of another address: one physical
//! byte may be mapped at several linear addresses, and a VP that comes by another address than the breakpoint's passes without a report.

use super::Vp;
use super::vcpu::Vcpu;
use crate::arch::x86_64::code_location::CodeLocation;
use crate::arch::x86_64::cpu_mode::privilege;
use crate::arch::x86_64::emulate::InterruptShadow;
use crate::arch::x86_64::emulate::Store;
use crate::arch::x86_64::emulate::emulate;
use crate::arch::x86_64::emulate::is_known;
use crate::arch::x86_64::page_walk::format::ACCESSED;
use crate::arch::x86_64::page_walk::format::DIRTY;
use crate::arch::x86_64::page_walk::walk;
use crate::control::enter::Int3Exits;
use crate::memory::GuestRam as _;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::regs::x86_64::bits::cr4;

/// PKE and PKS. The protection keys may forbid a write, and the runner does not look at them.
const PROTECTION_KEYS: u64 = cr4::PKE | cr4::PKS;
const USER: u8 = 3;

/// A breakpoint byte of ours at the VP's RIP.
#[derive(Debug, Clone, Copy)]
pub(super) enum ByteHere {
    /// It belongs to this breakpoint, which is at the address of RIP.
    Breakpoint(Breakpoint),
    /// It belongs to a breakpoint at another linear address.
    OtherAddress(CodeLocation),
}

impl<V: Vcpu> Vp<V> {
    /// The breakpoint byte at RIP, by the VP's own page tables.
    pub(super) fn byte_here(&mut self) -> Option<ByteHere> {
        if self.debugging.stops().int3_exits == Int3Exits::Off {
            return None;
        }
        let location = self.cpu.location().ok()?;
        let gpa = location.rip_gpa(&*self.memory.ram)?;
        let breakpoints = self.memory.breakpoints();
        if !breakpoints.bytes.is_armed(gpa) {
            return None;
        }
        Some(match breakpoints.table.at_byte(location.rip, gpa) {
            Some(breakpoint) => ByteHere::Breakpoint(breakpoint),
            None => ByteHere::OtherAddress(location),
        })
    }

    /// Puts the guest's own bytes into memory under the instruction at RIP, for this VP to execute it. No other VP is in the guest.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(super) fn lift(&mut self) -> Result<(), DebugError> {
        let location = self.cpu.location()?;
        let mut breakpoints = self.memory.change_breakpoints();
        self.lifted = breakpoints.lift(&self.memory.ram, &location);
        Ok(())
    }

    /// Puts the breakpoint bytes back that are lifted, if any are.
    pub(super) fn lower(&mut self) {
        if self.lifted.is_empty() {
            return;
        }
        let mut breakpoints = self.memory.change_breakpoints();
        breakpoints.lower(&self.memory.ram, &self.lifted);
        self.lifted.clear();
    }

    /// Carries out the instruction at the breakpoint. Returns the linear address of the next instruction, or `None` with nothing changed.
    pub(super) fn carry_out(&mut self, location: &CodeLocation) -> Option<Gva> {
        let code = self.memory.code_at(location);
        if !is_known(location.mode(), code.bytes()) {
            return None;
        }
        // All registers that the emulation reads. The whole register file would take more calls of the hypervisor.
        let mut state = self.cpu.vcpu.registers().ok()?.state();
        state.debug.dr7 = self.cpu.guest_registers().ok()?.dr7;
        // The registers are about to change, whatever comes of the attempt.
        self.forget_snapshot();
        let shadow = match self.cpu.vcpu.has_interrupt_shadow().ok()? {
            true => InterruptShadow::Active,
            false => InterruptShadow::None,
        };
        let outcome = emulate(&state, code.bytes(), shadow).ok()?;
        if let Some(store) = &outcome.store {
            self.store(&state, location, store)?;
        }
        self.cpu.vcpu.write_outcome(&outcome).ok()?;
        state.rip = outcome.rip;
        Some(state.linear_rip())
    }

    /// Writes to memory where the VP itself could write without marking an entry of its page tables. `None`: nothing is written.
    fn store(&self, state: &X86VpState, location: &CodeLocation, store: &Store) -> Option<()> {
        let ram = &self.memory.ram;
        let page = walk(&**ram, &location.paging, store.gva).ok()?;
        let bytes = store.bytes();
        let user = privilege(state) == USER;
        let mut entries = page.path.entries();
        let marked = entries.all(|entry| entry.value & ACCESSED != 0)
            && page
                .path
                .entries()
                .last()
                .is_none_or(|leaf| leaf.value & DIRTY != 0);
        let permitted = page.page_size.is_none() || (page.writable && page.user == user);
        let breakpoints = self.memory.breakpoints();
        let mut armed = breakpoints.bytes.addresses_within(page.gpa, bytes.len());
        let plain = permitted
            && marked
            && bytes.len() as u64 <= page.bytes_left()
            && state.cr4 & PROTECTION_KEYS == 0
            && armed.next().is_none();
        if !plain {
            return None;
        }
        let written = ram.write_some(page.gpa, bytes);
        (written == bytes.len()).then_some(())
    }
}

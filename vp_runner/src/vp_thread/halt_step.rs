//! Stepping over `hlt`.
//!
//! KVMs that carry guest code out by emulation note a halt, end the step, and apply the halt one instruction later: the VP halts in the interrupt's handler,
//! with interrupts off, for ever. So the step halts the VP itself, as other KVMs do.

use super::Life;
use super::Vp;
use crate::entry::Entry;
use vmm_core_defs::debug_rpc::DebugError;

const HLT: u8 = 0xf4;

impl Vp {
    /// Carries the planned step out where its instruction is `hlt`. Returns the linear address of RIP then, or `None` with nothing done.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(super) fn step_over_hlt(&mut self, entry: &Entry) -> Result<Option<u64>, DebugError> {
        let Some(underway) = &self.underway else {
            return Ok(None);
        };
        let rip = underway.from();
        let mut opcode = [0];
        let read = self.view(underway.paging()).read_some(rip, &mut opcode);
        // A breakpoint on the `hlt` comes first, and user mode may not halt.
        let plain = underway.is_plain_supervisor_step() && !self.waits_to_be_met(rip, entry);
        if read == 0 || opcode != [HLT] || !plain || self.around.gate.is_kicked() {
            return Ok(None);
        }
        let (regs, _) = self.vcpu.registers()?;
        if !self.vcpu.halt_at(regs.rip.wrapping_add(1))? {
            return Ok(None);
        }
        self.life = Life::Started;
        self.underway = None;
        Ok(Some(self.vcpu.linear_rip()?))
    }
}

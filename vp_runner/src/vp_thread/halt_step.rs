//! Stepping over `hlt`.
//!
//! A KVM that emulates guest code was seen to end the step, and to apply the halt one instruction later: the VP then halts in the handler of the next interrupt,
//! with interrupts off, and nothing wakes the VP. So the runner halts the VP itself. The VP is then as any KVM leaves a VP that has stepped over `hlt`:
//! halted, with RIP behind the instruction.

use super::Life;
use super::Vp;
use crate::control::entry::Entry;
use vmm_core_defs::debug_rpc::DebugError;

/// The length of `hlt` without prefixes, in bytes.
const HLT_LEN: u64 = 1;

impl Vp {
    /// Carries the planned step out where its instruction is `hlt`. Returns the linear address of RIP behind the `hlt`, or `None` with nothing done.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(super) fn step_over_hlt(&mut self, entry: &Entry) -> Result<Option<u64>, DebugError> {
        let Some(underway) = self.underway.as_ref().filter(|step| step.halts()) else {
            return Ok(None);
        };
        // A breakpoint of ours on the `hlt` comes first.
        let to_meet = self.waits_to_be_met(underway.from(), entry);
        if to_meet || self.around.gate.is_kicked() {
            return Ok(None);
        }
        let (regs, _) = self.vcpu.registers()?;
        if !self.vcpu.halt_at(regs.rip.wrapping_add(HLT_LEN))? {
            return Ok(None);
        }
        self.life = Life::Started;
        self.underway = None;
        Ok(Some(self.vcpu.linear_rip()?))
    }
}

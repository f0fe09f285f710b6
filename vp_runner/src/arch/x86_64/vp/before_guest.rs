//! What an entry does before the VP is in the guest: where it starts, the guest's own breakpoint there, and the byte that the VP passes.

use super::Progress;
use super::Vp;
use super::guest_run::Next;
use super::vcpu::Vcpu;
use crate::arch::x86_64::dr7::DebugPayload;
use crate::control::at_breakpoint::FirstInstruction;
use crate::control::enter::Enter;
use crate::control::entry::Entry;
use crate::control::run_state::Cause;
use std::ops::ControlFlow;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::VpActivity;

/// Whether the VP enters the guest, or what comes instead.
type BeforeGuest = ControlFlow<Next>;

impl<V: Vcpu> Vp<V> {
    /// What the entry has to do.
    pub(super) fn plan_entry(&mut self, enter: &Enter) -> Result<Entry, DebugError> {
        let here = match enter.at.first() {
            FirstInstruction::Meets => 0,
            FirstInstruction::Disarmed
            | FirstInstruction::Lifted
            | FirstInstruction::Emulated
            | FirstInstruction::OthersStopped => self.debugging.slots_here(&mut self.cpu)?,
        };
        Ok(Entry::new(self.index, enter.action, enter.at, here))
    }

    /// Everything that comes before the first stay in the guest.
    pub(super) fn before_guest(&mut self, entry: &mut Entry) -> BeforeGuest {
        self.wait_in_halt(entry)?;
        self.deliver_guests_breakpoint(entry)?;
        match entry.first() {
            FirstInstruction::Meets | FirstInstruction::Disarmed => ControlFlow::Continue(()),
            FirstInstruction::Emulated => self.pass_beside_others(entry),
            FirstInstruction::Lifted | FirstInstruction::OthersStopped => self.lift_byte(entry),
        }
    }

    /// A VP that waits for an event may have nothing to execute.
    fn wait_in_halt(&mut self, entry: &mut Entry) -> BeforeGuest {
        if self.progress == Progress::Halted {
            if entry.is_stepping() {
                return park(entry.nothing_to_execute());
            }
            return ControlFlow::Break(Next::WaitForKick);
        }
        if entry.is_stepping() && self.waits_for_start() {
            // There is no instruction to step, and perhaps no other VP that would start this one.
            return park(entry.nothing_to_execute());
        }
        if entry.first() == FirstInstruction::OthersStopped && self.waits() {
            return park(entry.vp_waits());
        }
        ControlFlow::Continue(())
    }

    /// The VP passes a breakpoint of the debugger's, and the guest has a breakpoint of its own on the same instruction. The guest gets its `#DB` first. Its
    /// handler returns with RFLAGS.RF set, and the instruction then meets neither breakpoint.
    fn deliver_guests_breakpoint(&mut self, entry: &mut Entry) -> BeforeGuest {
        if entry.disarmed() == 0 {
            return ControlFlow::Continue(());
        }
        let given = self
            .cpu
            .guests_breakpoints_here()
            .and_then(|hits| match hits {
                0 => Ok(()),
                hits => {
                    entry.guest_exception_first();
                    let state = self.debug_state(entry);
                    self.cpu.inject(DebugPayload(hits), state)
                }
            });
        match given {
            Ok(()) => ControlFlow::Continue(()),
            Err(err) => park(Some(self.crashed(&err))),
        }
    }

    /// Passes the byte at RIP by carrying the instruction out, while the other VPs run.
    fn pass_beside_others(&mut self, entry: &mut Entry) -> BeforeGuest {
        if self.gate.is_kicked() {
            return park(None);
        }
        let location = match self.cpu.location() {
            Ok(location) => location,
            Err(err) => return park(Some(self.crashed(&err))),
        };
        let ended = match self.carry_out(&location) {
            Some(rip) => entry.executed(rip.value()),
            None => Some(entry.emulation_failed()),
        };
        match ended {
            Some(cause) => park(Some(cause)),
            None => ControlFlow::Continue(()),
        }
    }

    fn lift_byte(&mut self, entry: &mut Entry) -> BeforeGuest {
        // A VP that waits meets the byte when it goes on, which may take long.
        if self.waits() {
            entry.leave_byte_in_place();
            return ControlFlow::Continue(());
        }
        match self.lift() {
            Ok(()) => ControlFlow::Continue(()),
            Err(err) => park(Some(self.crashed(&err))),
        }
    }

    fn waits_for_start(&mut self) -> bool {
        self.progress == Progress::NotStarted
            && matches!(self.cpu.vcpu.activity(), Ok(VpActivity::WaitingForStart))
    }

    fn waits(&mut self) -> bool {
        let activity = self.cpu.vcpu.activity();
        matches!(
            activity,
            Ok(VpActivity::WaitingForStart | VpActivity::Halted)
        )
    }
}

fn park(cause: Option<Cause>) -> BeforeGuest {
    ControlFlow::Break(Next::Park(cause))
}

//! The run loop of one VP: runs the vCPU when the VP core says so, and serves the guest's device accesses.

use crate::arch::Turn;
use crate::arch::VpContext;
use crate::control::enter::Enter;
use crate::control::enter::VpParked;
use crate::control::exit::Exit;
use crate::control::guest_event::GuestEvent;
use crate::control::run_gate::RunGate;
use crate::kvm::vcpu::KvmVcpu;
use crate::kvm::vcpu::KvmVp;
use crate::machine::Machine;
use std::sync::Arc;
use vmm_core_defs::addr::VpIndex;

/// See the module.
pub(crate) struct RunLoop {
    pub(super) vp: KvmVp,
    pub(super) index: VpIndex,
    pub(super) machine: Arc<dyn Machine>,
    gate: Arc<RunGate>,
}

impl RunLoop {
    pub(crate) fn new(vcpu: KvmVcpu, context: VpContext, machine: Arc<dyn Machine>) -> Self {
        Self {
            index: context.index,
            gate: context.gate.clone(),
            vp: KvmVp::new(vcpu, context),
            machine,
        }
    }

    /// Runs the guest until the VP parks.
    pub(super) fn run(&mut self, enter: &Enter) -> VpParked {
        let mut run = self.vp.begin(enter);
        loop {
            match self.vp.before_run(&mut run) {
                Turn::Run => {
                    let exit = self.vp.vcpu().run();
                    self.vp.after_run(exit, &mut run);
                    if exit == Exit::Device
                        && let Some(event) = self.serve_device()
                    {
                        self.vp.guest_event(event, &mut run);
                    }
                }
                Turn::WaitForKick => self.gate.wait_for_kick(),
                Turn::Parked(parked) => return parked,
            }
        }
    }

    fn serve_device(&mut self) -> Option<GuestEvent> {
        let access = self.vp.vcpu().device_access()?;
        let outcome = access.serve(self.index, &*self.machine);
        GuestEvent::of_device(outcome, self.index)
    }
}

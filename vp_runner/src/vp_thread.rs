//! The ready-made thread of a VP: a run loop around the hook of the VP that passes the guest's device accesses to the VMM's [`Machine`].

use crate::control::guest_event::GuestEvent;
use crate::hook::After;
use crate::hook::Before;
use crate::hook::HookedVp;
use crate::kvm::hooked_vcpu::HookedVcpu;
use crate::machine::Machine;
use vmm_core_defs::addr::VpIndex;

/// Runs the VP until the controller ends.
pub(crate) fn serve<V: HookedVcpu>(mut vp: HookedVp<V>, index: VpIndex, machine: &dyn Machine) {
    loop {
        match vp.before_entry() {
            _ if vp.is_released() => return,
            Before::Enter => {}
            Before::Interrupted | Before::Deliver => continue,
        }
        let result = vp.vcpu().run();
        if vp.after_exit(result) == After::Handle
            && let Some(access) = vp.vcpu().device_access().filter(|_| result.is_ok())
            && let Some(event) = GuestEvent::of_device(access.serve(index, machine), index)
        {
            vp.guest_event(event);
        }
    }
}

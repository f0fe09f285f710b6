//! The controller's calls to a parked VP, which are made on the VP's thread. The unit tests of the controller use fake VPs.

use super::HookedVp;
use crate::arch::CodeLocation;
use crate::arch::VpState;
use crate::control::enter::StopSet;
use crate::kvm::RegisterFile;
use crate::kvm::hooked_vcpu::HookedVcpu;
use std::sync::Arc;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::MachineCall;
use vmm_core_defs::debug_rpc::VpActivity;

/// A call with a parked VP.
pub(crate) type Call = Box<dyn FnOnce(&mut dyn ParkedVp) + Send>;

/// A VP in user space, with its last exit completed (I2). Each method calls the method of the same name in the VP core.
pub(crate) trait ParkedVp {
    /// Has no effect if the VMM runs the vCPU on a thread of its own, because the VMM powers the vCPU on then.
    fn power_on(&mut self) -> Result<(), DebugError>;

    fn set_stops(&mut self, stops: StopSet) -> Result<(), DebugError>;

    fn location(&mut self) -> Result<CodeLocation, DebugError>;

    fn count_guest_registers(&mut self) -> Result<usize, DebugError>;

    /// Finds out which registers a VP of this VM has. The VP is in its power-on state.
    fn find_register_file(&mut self) -> Result<RegisterFile, DebugError>;

    /// Sets the register file, which is the same for every VP of the VM.
    fn set_register_file(&mut self, registers: RegisterFile);

    fn read_registers(&mut self) -> Result<Arc<VpState>, DebugError>;

    fn write_registers(&mut self, new: &VpState) -> Result<(), DebugError>;

    fn read_msr(&mut self, msr: u32) -> Result<u64, DebugError>;

    fn write_msr(&mut self, msr: u32, value: u64) -> Result<(), DebugError>;

    fn raise_nmi(&mut self) -> Result<(), DebugError>;

    fn activity(&mut self) -> Result<VpActivity, DebugError>;

    fn restart_counter(&mut self) -> Result<(), DebugError>;
}

impl<V: HookedVcpu> ParkedVp for HookedVp<V> {
    fn power_on(&mut self) -> Result<(), DebugError> {
        let Some(machine) = &self.machine else {
            return Ok(());
        };
        let vp = self.index;
        let powered_on = self.vp.power_on(|vcpu| vcpu.power_on(vp, &**machine));
        powered_on.map_err(|err| err.of_call(MachineCall::InitVp { vp }))
    }

    fn set_stops(&mut self, stops: StopSet) -> Result<(), DebugError> {
        self.vp.set_stops(stops)
    }

    fn location(&mut self) -> Result<CodeLocation, DebugError> {
        self.vp.location()
    }

    fn count_guest_registers(&mut self) -> Result<usize, DebugError> {
        self.vp.count_guest_registers()
    }

    fn find_register_file(&mut self) -> Result<RegisterFile, DebugError> {
        self.vp.vcpu().find_register_file()
    }

    fn set_register_file(&mut self, registers: RegisterFile) {
        self.vp.vcpu().set_register_file(registers);
    }

    fn read_registers(&mut self) -> Result<Arc<VpState>, DebugError> {
        self.vp.read_registers()
    }

    fn write_registers(&mut self, new: &VpState) -> Result<(), DebugError> {
        self.vp.write_registers(new)
    }

    fn read_msr(&mut self, msr: u32) -> Result<u64, DebugError> {
        self.vp.read_msr(msr)
    }

    fn write_msr(&mut self, msr: u32, value: u64) -> Result<(), DebugError> {
        self.vp.write_msr(msr, value)
    }

    fn raise_nmi(&mut self) -> Result<(), DebugError> {
        self.vp.raise_nmi()
    }

    fn activity(&mut self) -> Result<VpActivity, DebugError> {
        self.vp.activity()
    }

    fn restart_counter(&mut self) -> Result<(), DebugError> {
        self.vp.restart_counter()
    }
}

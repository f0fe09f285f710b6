//! What the hook needs of a vCPU besides the core of its VP. KVM implements it, and so does a vCPU of the unit tests.

use super::exit_decode::Exits;
use super::immediate_exit::BoundFlag;
use super::x86_64::RegisterFile;
use crate::arch::Vcpu;
use crate::control::exit::Exit;
use crate::machine::Machine;
use crate::machine::MachineError;
use crate::machine::device_access::DeviceAccess;
use std::io;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugError;

/// See the module. Every method is called on the vCPU's thread, or while the vCPU's thread is known to be in the VMM's code.
pub(crate) trait HookedVcpu: Vcpu + Send + 'static {
    /// Finds out which registers a VP of this VM has. The vCPU is in its power-on state.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    fn find_register_file(&mut self) -> Result<RegisterFile, DebugError>;

    /// Sets how registers are read and written.
    fn set_register_file(&mut self, registers: RegisterFile);

    /// Has the machine put the vCPU into its power-on state.
    ///
    /// # Errors
    /// [`MachineError`].
    fn power_on(&mut self, vp: VpIndex, machine: &dyn Machine) -> Result<(), MachineError>;

    /// Runs the vCPU. The result is for [`left`](Self::left).
    ///
    /// # Errors
    /// The error number of `KVM_RUN`.
    fn run(&mut self) -> Result<(), i32>;

    /// The vCPU is about to run.
    fn enters(&mut self);

    /// `KVM_RUN` has returned 0 or this error number. `exits`: who handles what this crate does not know.
    fn left(&mut self, result: Result<(), i32>, exits: Exits) -> Exit;

    /// Whether the last exit may be a stop for a debugger.
    fn may_be_stop(&mut self) -> bool;

    /// The VMM has had the vCPU, and may have changed registers.
    fn vmm_had_vcpu(&mut self);

    /// Whether KVM has nothing left to do for the last exit, so that the registers are up to date.
    fn is_complete(&mut self) -> bool;

    /// Makes the calling thread the vCPU's.
    ///
    /// # Errors
    /// The error of the host.
    fn bind(&self) -> io::Result<BoundFlag>;

    /// The device access of an [`Exit::Device`].
    fn device_access(&mut self) -> Option<DeviceAccess<'_>>;
}

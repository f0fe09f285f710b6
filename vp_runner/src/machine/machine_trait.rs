//! The trait that a VMM implements which leaves its vCPUs to the runner.

use super::DeviceOutcome;
use super::MachineError;
use super::MmioOutcome;
use kvm_ioctls::VcpuFd;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::VpIndex;

/// The VMM's part of the machine. The methods are called on vCPU threads, several at the same time, and (memory-mapped I/O and resets) on a thread of the controller.
///
/// No method may wait for a VP or for the controller, because the caller is one of them, or one of them waits for the call.
///
/// # What may block
/// No method should block for longer than a few milliseconds. If a method does:
/// - Port I/O, and memory-mapped I/O with a VP: the VP cannot stop, so a debugger's `Attach`, `Break` and changes of breakpoints wait for the call. The call is
///   logged after 200 ms, and again whenever this time has doubled.
/// - Memory-mapped I/O for a debugger, and [`reset`](Self::reset): each call has its own thread, and there is one call at a time. A call that has not returned after
///   2 s is logged, and again whenever this time has doubled. The request that waits for the call gets
///   [`DebugError::Overdue`](vmm_core_defs::debug_rpc::DebugError::Overdue), and so does each further request that needs a device. All other requests are served. A guest
///   whose reset is overdue stays stopped, and can run when the reset has returned.
/// - [`init_vp`](Self::init_vp): the controller waits for the method, so it must not block. It is meant for ioctls on `vcpu`.
pub trait Machine: Send + Sync + 'static {
    /// Reads `data.len()` bytes (1, 2 or 4) from an I/O port. If no device answers, fill `data` with ones, as a PC does.
    fn pio_read(&self, vp: VpIndex, port: u16, data: &mut [u8]);

    /// Writes 1, 2 or 4 bytes to an I/O port.
    fn pio_write(&self, vp: VpIndex, port: u16, data: &[u8]) -> DeviceOutcome;

    /// Reads 1, 2, 4 or 8 bytes at an address without RAM. `vp` is `None` if a debugger reads.
    fn mmio_read(&self, vp: Option<VpIndex>, gpa: Gpa, data: &mut [u8]) -> MmioOutcome;

    /// Writes 1, 2, 4 or 8 bytes at an address without RAM. `vp` is `None` if a debugger writes.
    fn mmio_write(
        &self,
        vp: Option<VpIndex>,
        gpa: Gpa,
        data: &[u8],
    ) -> (MmioOutcome, DeviceOutcome);

    /// Puts one VP into its power-on state (general and system registers, CPUID-dependent MSRs, local APIC, run state). Called on the VP's thread before
    /// it first runs and again after each reset, with every VP parked.
    fn init_vp(&self, vp: VpIndex, vcpu: &VcpuFd) -> Result<(), MachineError>;

    /// Puts memory and devices into their power-on state. Called with every VP parked, before `init_vp` of each.
    fn reset(&self) -> Result<(), MachineError>;
}

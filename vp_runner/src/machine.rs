//! The trait that the embedding VMM implements: devices, and the power-on state.

pub(crate) mod device_access;
pub(crate) mod for_debugger;

use kvm_ioctls::VcpuFd;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::MachineCall;
use vmm_core_defs::debug_rpc::MachineFailure;

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
///   [`DebugError::Overdue`], and so does each further request that needs a device. All other requests are served. A guest
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

/// The effect of a device access on the whole machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceOutcome {
    /// No effect.
    Done,
    /// The guest asked for a reset.
    Reset,
    /// The guest asked to be switched off.
    PowerOff,
    /// The guest's kernel reports a panic. The runner only reports it to a debugger that asked for this event.
    Panicked,
}

/// Whether a device claims an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MmioOutcome {
    /// A device answered.
    Handled,
    /// No device claims the address. A read by the guest returns ones. A read by a debugger is an error.
    Unclaimed,
}

/// The VMM could not bring its side into the power-on state.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {why}")]
#[non_exhaustive]
pub struct MachineError {
    /// The action that failed, to complete the sentence "cannot ...".
    pub what: &'static str,
    /// The cause of the failure, for the log.
    pub why: String,
}

impl MachineError {
    /// An action, to complete the sentence "cannot ...", and the cause of its failure.
    pub fn new(what: &'static str, why: impl std::fmt::Display) -> Self {
        let why = why.to_string();
        Self { what, why }
    }

    /// The error for the debugger whose request needed the call.
    pub(crate) fn of_call(&self, call: MachineCall) -> DebugError {
        let how = MachineFailure::Returned(self.to_string());
        DebugError::MachineFailed { call, how }
    }
}

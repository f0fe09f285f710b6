//! What the runner needs of the machine around the vCPUs.

use kvm_ioctls::VcpuFd;
use small_pc::Request;
use small_pc::SmallPc;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::VpIndex;
use vp_runner::machine::DeviceOutcome;
use vp_runner::machine::Machine;
use vp_runner::machine::MachineError;
use vp_runner::machine::MmioOutcome;

/// The devices around the vCPUs.
pub(crate) struct Pc(pub(crate) SmallPc);

impl Machine for Pc {
    fn pio_read(&self, _: VpIndex, port: u16, data: &mut [u8]) {
        self.0.devices.read(port, data);
    }

    fn pio_write(&self, _: VpIndex, port: u16, data: &[u8]) -> DeviceOutcome {
        match self.0.devices.write(port, data) {
            Some(Request::PowerOff) => DeviceOutcome::PowerOff,
            Some(Request::Reset) => DeviceOutcome::Reset,
            None => DeviceOutcome::Done,
        }
    }

    fn mmio_read(&self, _: Option<VpIndex>, _: Gpa, _: &mut [u8]) -> MmioOutcome {
        MmioOutcome::Unclaimed
    }

    fn mmio_write(&self, _: Option<VpIndex>, _: Gpa, _: &[u8]) -> (MmioOutcome, DeviceOutcome) {
        (MmioOutcome::Unclaimed, DeviceOutcome::Done)
    }

    fn init_vp(&self, vp: VpIndex, vcpu: &VcpuFd) -> Result<(), MachineError> {
        let index = u8::try_from(vp.index()).map_err(|why| MachineError::new("find a VP", why))?;
        let powered_on = self.0.power_on(index, vcpu);
        powered_on.map_err(|why| MachineError::new("power a VP on", why))
    }

    fn reset(&self) -> Result<(), MachineError> {
        Err(MachineError::new("reset", "this VMM ends at a reset"))
    }
}

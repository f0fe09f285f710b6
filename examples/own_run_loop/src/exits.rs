//! The exits of the guest, as any VMM handles them.

use kvm_ioctls::VcpuExit;
use small_pc::Devices;
use small_pc::Request;
use vmm_core_defs::stop::GuestEventKind;

/// What an exit asks of the VMM, beyond an access to a device.
#[derive(Debug)]
pub enum Asked {
    /// A device wants the VM to end or to be reset.
    Device(GuestEventKind),
    /// The vCPU cannot go on. The text says why.
    End(String),
}

/// Serves an exit. An exit of the debugger asks for nothing.
pub fn serve(exit: VcpuExit<'_>, devices: &Devices) -> Option<Asked> {
    match exit {
        VcpuExit::IoIn(port, data) => devices.read(port, data),
        VcpuExit::MmioRead(_, data) => data.fill(0xff),
        VcpuExit::MmioWrite(..) | VcpuExit::Debug(_) => {}
        VcpuExit::IoOut(port, data) => {
            return devices.write(port, data).map(|request| match request {
                Request::PowerOff => Asked::Device(GuestEventKind::PowerOff),
                Request::Reset => Asked::Device(GuestEventKind::Reset),
            });
        }
        exit => return Some(Asked::End(format!("the guest ended with {exit:?}"))),
    }
    None
}

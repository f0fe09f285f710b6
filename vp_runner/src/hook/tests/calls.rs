//! The controller's calls to a parked VP reach the vCPU.

use super::*;
use crate::kvm::RegisterFile;
use crate::machine::DeviceOutcome;
use crate::machine::MachineError;
use crate::machine::MmioOutcome;
use kvm_ioctls::VcpuFd;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::regs::x86_64::bits::msr;

type Try = fn(&mut dyn ParkedVp) -> Result<(), DebugError>;

#[test]
fn a_call_returns_the_error_of_the_vcpu() {
    check(|| {
        let calls: [(&str, Try); 9] = [
            ("program", |vp| vp.set_stops(StopSet::default())),
            ("registers", |vp| vp.location().map(drop)),
            ("guest_debug_registers", |vp| {
                vp.count_guest_registers().map(drop)
            }),
            ("read_state", |vp| vp.read_registers().map(drop)),
            ("read_state", |vp| {
                vp.write_registers(&X86VpState::default())
            }),
            ("read_msr", |vp| vp.read_msr(msr::TSC).map(drop)),
            ("write_clock_msr", |vp| vp.write_msr(msr::TSC, 1)),
            ("raise_nmi", |vp| vp.raise_nmi()),
            ("activity", |vp| vp.activity().map(drop)),
        ];
        for (name, call) in calls {
            let mut bed = Bed::new(Exits::GoToVmm, Guest::Plain);
            bed.vp.vcpu().fails_at = Some(0);
            assert!(call(&mut bed.vp).is_err(), "{name}");
            assert_eq!(bed.vp.vcpu().failed, Some(name));
            assert_eq!(call(&mut bed.vp), Ok(()), "{name}");
        }
    });
}

#[test]
fn the_register_file_is_the_vcpus() {
    check(|| {
        let mut bed = Bed::new(Exits::AreFailures, Guest::Plain);
        assert!(bed.vp.find_register_file().is_err());
        bed.vp.set_register_file(RegisterFile::of_test());
        assert_eq!(bed.count(Told::RegisterFile), 1);
    });
}

#[test]
fn a_vp_is_powered_on_unless_the_vmm_does_this_itself() {
    check(|| {
        let mut bed = Bed::new(Exits::GoToVmm, Guest::Plain);
        assert_eq!(bed.vp.power_on(), Ok(()));
        assert_eq!(bed.count(Told::PowerOn), 0);
        bed.vp.machine = Some(Arc::new(NoDevices));
        assert_eq!(bed.vp.power_on(), Ok(()));
        assert_eq!(bed.count(Told::PowerOn), 1);
    });
}

struct NoDevices;

impl Machine for NoDevices {
    fn pio_read(&self, _: VpIndex, _: u16, _: &mut [u8]) {}

    fn pio_write(&self, _: VpIndex, _: u16, _: &[u8]) -> DeviceOutcome {
        DeviceOutcome::Done
    }

    fn mmio_read(&self, _: Option<VpIndex>, _: Gpa, _: &mut [u8]) -> MmioOutcome {
        MmioOutcome::Unclaimed
    }

    fn mmio_write(&self, _: Option<VpIndex>, _: Gpa, _: &[u8]) -> (MmioOutcome, DeviceOutcome) {
        (MmioOutcome::Unclaimed, DeviceOutcome::Done)
    }

    fn init_vp(&self, _: VpIndex, _: &VcpuFd) -> Result<(), MachineError> {
        Ok(())
    }

    fn reset(&self) -> Result<(), MachineError> {
        Ok(())
    }
}

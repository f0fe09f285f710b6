//! The scripted vCPU as the hook sees it.

use crate::arch::x86_64::vp::tests::fake_vcpu::FakeVcpu;
use crate::arch::x86_64::vp::tests::fake_vcpu::Told;
use crate::control::exit::Exit;
use crate::kvm::RegisterFile;
use crate::kvm::exit_decode::Exits;
use crate::kvm::hooked_vcpu::HookedVcpu;
use crate::kvm::immediate_exit::BoundFlag;
use crate::machine::Machine;
use crate::machine::MachineError;
use crate::machine::device_access::DeviceAccess;
use std::io;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::Unsupported;
use vmm_core_defs::stop::CrashCause;

impl HookedVcpu for FakeVcpu {
    fn find_register_file(&mut self) -> Result<RegisterFile, DebugError> {
        let request = "the script has no register file".into();
        Err(Unsupported::Request { request }.into())
    }

    fn set_register_file(&mut self, _: RegisterFile) {
        self.told.push(Told::RegisterFile);
    }

    fn power_on(&mut self, _: VpIndex, _: &dyn Machine) -> Result<(), MachineError> {
        self.told.push(Told::PowerOn);
        Ok(())
    }

    fn run(&mut self) -> Result<(), i32> {
        self.exit = Self::run(self);
        match self.exit {
            Exit::Interrupted => Err(libc::EINTR),
            _ => Ok(()),
        }
    }

    fn enters(&mut self) {}

    fn left(&mut self, result: Result<(), i32>, _: Exits) -> Exit {
        self.told.push(Told::Left);
        match result {
            Ok(()) => self.exit,
            Err(libc::EINTR) => Exit::Interrupted,
            Err(libc::EAGAIN) => Exit::Nothing,
            Err(errno) => Exit::Failed(CrashCause::Run { errno }),
        }
    }

    fn may_be_stop(&mut self) -> bool {
        !matches!(self.exit, Exit::Device | Exit::Interrupted | Exit::Nothing)
    }

    fn vmm_had_vcpu(&mut self) {
        self.told.push(Told::HadByVmm);
    }

    fn is_complete(&mut self) -> bool {
        self.exit != Exit::Device
    }

    fn bind(&self) -> io::Result<BoundFlag> {
        Ok(BoundFlag::of_test(self.flag))
    }

    fn device_access(&mut self) -> Option<DeviceAccess<'_>> {
        None
    }
}

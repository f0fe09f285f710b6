//! `KVM_RUN`, its exit, and the device access that came with it.

use super::KvmVcpu;
use super::Programmed;
use super::Synced;
use crate::arch::x86_64::registers::CpuRegisters;
use crate::arch::x86_64::vp::vcpu::Vcpu as _;
use crate::control::exit::Exit;
use crate::kvm::exit_decode::decode;
use crate::kvm::exit_decode::device_access;
use crate::machine::Machine;
use crate::machine::MachineError;
use crate::machine::device_access::DeviceAccess;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::FaultRegisters;

impl KvmVcpu {
    /// Runs the vCPU.
    pub(crate) fn run(&mut self) -> Exit {
        if let Programmed::Fresh(state) = self.programmed {
            self.programmed = Programmed::Used(state);
        }
        let fd = self.vcpu.fd();
        let result = fd.run().map(drop);
        let run = fd.get_kvm_run();
        self.synced = match run.kvm_valid_regs {
            0 => Synced::No,
            _ => Synced::Yes,
        };
        match result.map_err(|err| err.errno()) {
            Ok(()) => match decode(run) {
                Exit::Shutdown(_) => Exit::Shutdown(self.registers_after_shutdown()),
                exit => exit,
            },
            Err(libc::EINTR) => Exit::Interrupted,
            Err(libc::EAGAIN) => Exit::Nothing,
            Err(errno) => Exit::Failed(CrashCause::Run { errno }),
        }
    }

    /// The device access of an [`Exit::Device`].
    pub(crate) fn device_access(&mut self) -> Option<DeviceAccess<'_>> {
        device_access(self.vcpu.fd().get_kvm_run())
    }

    /// Has the machine put the vCPU into its power-on state.
    ///
    /// # Errors
    /// [`MachineError`].
    pub(crate) fn power_on(
        &mut self,
        vp: VpIndex,
        machine: &dyn Machine,
    ) -> Result<(), MachineError> {
        machine.init_vp(vp, self.raw())
    }

    /// Whether KVM has reset this VP on its triple fault: then the VP is where INIT puts it (SDM volume 3, "Processor State After Reset").
    fn registers_after_shutdown(&mut self) -> FaultRegisters {
        match self.registers() {
            Ok(CpuRegisters { general, system })
                if general.rip == 0xfff0
                    && general.rflags == 2
                    && system.cs.base == 0xffff_0000
                    && system.cr3 == 0 =>
            {
                FaultRegisters::ResetByHypervisor
            }
            _ => FaultRegisters::Kept,
        }
    }
}

//! `KVM_RUN`, its exit, and the device access that came with it.

use super::KvmVcpu;
use super::Programmed;
use super::Synced;
use crate::arch::x86_64::registers::CpuRegisters;
use crate::arch::x86_64::vp::vcpu::Vcpu as _;
use crate::control::exit::Exit;
use crate::kvm::exit_decode::Exits;
use crate::kvm::exit_decode::decode;
use crate::kvm::exit_decode::device_access;
use crate::kvm::exit_decode::may_be_stop;
use crate::machine::Machine;
use crate::machine::MachineError;
use crate::machine::device_access::DeviceAccess;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::FaultRegisters;

impl KvmVcpu {
    /// Runs the vCPU. The result is for [`left`](Self::left).
    pub(crate) fn run(&mut self) -> Result<(), i32> {
        let result = self.vcpu.fd().run().map(drop);
        result.map_err(|err| err.errno())
    }

    /// The vCPU is about to run. Nobody may look at an exit that only a device or the VMM handles, so the registers in `kvm_run` count only after
    /// [`left`](Self::left).
    pub(crate) fn enters(&mut self) {
        self.synced = Synced::No;
        if let Programmed::Fresh(state) = self.programmed {
            self.programmed = Programmed::Used(state);
        }
    }

    /// `KVM_RUN` has returned 0 or this error number. `exits`: who handles what this crate does not know.
    pub(crate) fn left(&mut self, result: Result<(), i32>, exits: Exits) -> Exit {
        let run = self.vcpu.fd().get_kvm_run();
        self.synced = match run.kvm_valid_regs {
            0 => Synced::No,
            _ => Synced::Yes,
        };
        match result {
            Ok(()) => match decode(run, exits) {
                Exit::Shutdown(_) => Exit::Shutdown(self.registers_after_shutdown()),
                exit => exit,
            },
            Err(libc::EINTR) => Exit::Interrupted,
            Err(libc::EAGAIN) => Exit::Nothing,
            Err(errno) => Exit::Failed(CrashCause::Run { errno }),
        }
    }

    /// Whether the exit in `kvm_run` may be a stop for a debugger.
    pub(crate) fn may_be_stop(&mut self) -> bool {
        may_be_stop(self.vcpu.fd().get_kvm_run().exit_reason)
    }

    /// The VMM has had the vCPU, and may have changed registers.
    pub(crate) fn vmm_had_vcpu(&mut self) {
        self.synced = Synced::No;
    }

    /// See [`ThreadVcpu::clear_immediate_exit`].
    pub(crate) fn clear_immediate_exit(&self) -> bool {
        self.vcpu.clear_immediate_exit()
    }

    /// See [`ThreadVcpu::is_wanted_by_vmm`].
    pub(crate) fn is_wanted_by_vmm(&self) -> bool {
        self.vcpu.is_wanted_by_vmm()
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

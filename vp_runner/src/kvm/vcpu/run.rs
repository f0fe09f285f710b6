//! `KVM_RUN`, its exit, and the device access that came with it.

use super::KvmVcpu;
use super::Programmed;
use super::RegistersIn;
use crate::arch::x86_64::registers::CpuRegisters;
use crate::arch::x86_64::vp::vcpu::Vcpu as _;
use crate::control::exit::Exit;
use crate::kvm::exit_decode::Exits;
use crate::kvm::exit_decode::decode;
use crate::kvm::exit_decode::device_access;
use crate::kvm::exit_decode::is_complete;
use crate::kvm::exit_decode::may_be_stop;
use crate::kvm::hooked_vcpu::HookedVcpu;
use crate::kvm::immediate_exit::BoundFlag;
use crate::kvm::x86_64::RegisterFile;
use crate::machine::Machine;
use crate::machine::MachineError;
use crate::machine::device_access::DeviceAccess;
use std::io;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::FaultRegisters;

impl HookedVcpu for KvmVcpu {
    fn find_register_file(&mut self) -> Result<RegisterFile, DebugError> {
        RegisterFile::new(&self.vm, &self.fd)
    }

    fn set_register_file(&mut self, registers: RegisterFile) {
        self.registers = Some(registers);
    }

    fn power_on(&mut self, vp: VpIndex, machine: &dyn Machine) -> Result<(), MachineError> {
        machine.init_vp(vp, self.raw())
    }

    fn run(&mut self) -> Result<(), i32> {
        let result = self.fd.run().map(drop);
        result.map_err(|err| err.errno())
    }

    /// Nobody may look at an exit that only a device or the VMM handles, so the registers in `kvm_run` count only after [`left`](HookedVcpu::left).
    fn enters(&mut self) {
        self.registers_in = RegistersIn::Kvm;
        if let Programmed::Fresh(state) = self.programmed {
            self.programmed = Programmed::Used(state);
        }
    }

    fn left(&mut self, result: Result<(), i32>, exits: Exits) -> Exit {
        let run = self.fd.get_kvm_run();
        self.registers_in = match run.kvm_valid_regs {
            0 => RegistersIn::Kvm,
            _ => RegistersIn::KvmRun,
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

    fn may_be_stop(&mut self) -> bool {
        may_be_stop(self.fd.get_kvm_run().exit_reason)
    }

    fn vmm_had_vcpu(&mut self) {
        self.registers_in = RegistersIn::Kvm;
    }

    fn is_complete(&mut self) -> bool {
        is_complete(self.fd.get_kvm_run().exit_reason)
    }

    fn bind(&self) -> io::Result<BoundFlag> {
        BoundFlag::bind(&self.fd)
    }

    fn device_access(&mut self) -> Option<DeviceAccess<'_>> {
        device_access(self.fd.get_kvm_run())
    }
}

impl KvmVcpu {
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

//! One vCPU in KVM.
//!
//! An ioctl on a vCPU takes microseconds, so no ioctl is made twice. This module caches the debug state, and gets general and system registers
//! with every exit if KVM has `KVM_CAP_SYNC_REGS`.

mod clocks;
mod core_trait;
mod debug;
pub(crate) mod features;
mod run;

use super::x86_64::RegisterFile;
use crate::arch::x86_64::registers::CpuRegisters;
use crate::arch::x86_64::step_effects::TrapFlag;
use crate::arch::x86_64::stop_cause::SingleStepping;
use crate::arch::x86_64::vp::debug_state::DebugState;
use features::KvmFeatures;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_sregs;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use std::sync::Arc;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::RunnerBug;

/// The interrupt shadow of `sti` (api.rst, `KVM_GET_VCPU_EVENTS`).
pub(crate) const SHADOW_STI: u8 = 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct KvmVcpu {
    fd: VcpuFd,
    /// For the VM's interrupt controllers.
    vm: Arc<VmFd>,
    features: KvmFeatures,
    /// Set once the controller knows the registers of this VM's VPs.
    registers: Option<RegisterFile>,
    programmed: Programmed,
    registers_in: RegistersIn,
    /// General and system registers as they were last read. They are the vCPU's while `registers_in` says so.
    last_read: CpuRegisters,
    /// Whether KVM steps. KVM then hides RFLAGS.TF, including a TF that the guest has set.
    hides: SingleStepping,
    /// The guest's own trap flag while KVM hides it.
    own: TrapFlag,
}

/// The last debug state that was set in KVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Programmed {
    /// No state is known to be in effect.
    Unknown,
    /// This state, and the vCPU has run since.
    Used(DebugState),
    /// This state, and the vCPU has not run since, or has run without an effect on it.
    Fresh(DebugState),
}

/// Where the vCPU's general and system registers can be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RegistersIn {
    /// Nowhere but in KVM.
    Kvm,
    /// In `kvm_run`, where they came with the last exit.
    KvmRun,
    /// In [`KvmVcpu::last_read`].
    LastRead,
}

impl KvmVcpu {
    pub(crate) fn new(fd: VcpuFd, vm: Arc<VmFd>, features: KvmFeatures) -> Self {
        Self {
            fd,
            vm,
            features,
            registers: None,
            programmed: Programmed::Unknown,
            registers_in: RegistersIn::Kvm,
            last_read: CpuRegisters {
                general: kvm_regs::default(),
                system: kvm_sregs::default(),
            },
            hides: SingleStepping::Off,
            own: TrapFlag::Clear,
        }
    }

    fn register_file(&self) -> Result<RegisterFile, DebugError> {
        self.registers
            .ok_or(DebugError::RunnerBug(RunnerBug::NotStarted))
    }

    /// Clears the cache, because the caller makes an ioctl that changes the vCPU without this type.
    fn raw(&mut self) -> &mut VcpuFd {
        self.programmed = Programmed::Unknown;
        self.registers_in = RegistersIn::Kvm;
        &mut self.fd
    }

    /// Called before general registers are written. KVM sets its trap flag only if RIP is the same as when stepping was turned on.
    fn registers_change(&mut self) {
        self.registers_in = RegistersIn::Kvm;
        if let Programmed::Fresh(state) = self.programmed {
            self.programmed = Programmed::Used(state);
        }
    }
}

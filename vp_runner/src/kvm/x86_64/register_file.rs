//! The whole register file of a vCPU, read and written through KVM.
//!
//! The functions make vCPU ioctls. Call them on the VP's own thread, with the VP parked and its last exit completed (invariants I2 and I3), and
//! after the VP's CPUID is set.

use super::msr;
use super::validate;
use super::validate::Limits;
use super::xsave_area::XsaveArea;
use super::xsave_area::XsaveSize;
use crate::arch::x86_64::convert;
use crate::arch::x86_64::page_walk::PagingLimits;
use crate::arch::x86_64::registers::CpuRegisters;
use crate::arch::x86_64::xsave;
use crate::arch::x86_64::xsave::VectorState;
use crate::arch::x86_64::xsave::XsaveLayout;
use crate::kvm::hypervisor_error;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_bindings::kvm_debugregs;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_sregs;
use kvm_bindings::kvm_vcpu_events;
use kvm_bindings::kvm_xcrs;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use vmm_core_defs::debug_rpc::BadRegisterReason;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::HypervisorCall;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::regs::XFeatures;
use vmm_core_defs::regs::x86_64::bits;

const CPUID_1_ECX_XSAVE: u32 = 1 << 26;

/// The registers that a VM's vCPUs have, and their layout in KVM's structures. The same value serves all vCPUs of the VM.
#[derive(Debug, Clone, Copy)]
pub struct RegisterFile {
    size: XsaveSize,
    layout: XsaveLayout,
    limits: Limits,
    has_xcr0: bool,
}

impl RegisterFile {
    /// Reads the registers that one vCPU has. Its CPUID is set.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub fn new(vm: &VmFd, vcpu: &VcpuFd) -> Result<Self, DebugError> {
        let cpuid = vcpu
            .get_cpuid2(KVM_MAX_CPUID_ENTRIES)
            .map_err(|err| hypervisor_error(HypervisorCall::ReadCpuid, err))?;
        let entries = cpuid.as_slice();
        let size = XsaveSize::of(vm);
        let has_xcr0 = entries
            .iter()
            .any(|e| e.function == 1 && e.ecx & CPUID_1_ECX_XSAVE != 0);
        let layout = if has_xcr0 {
            XsaveLayout::from_cpuid(entries, size.len())
        } else {
            XsaveLayout::default()
        };
        Ok(Self {
            size,
            layout,
            limits: Limits::from_cpuid(entries, layout.features()),
            has_xcr0,
        })
    }

    /// Of vCPUs without optional registers, for unit tests.
    #[cfg(test)]
    pub(crate) fn of_test() -> Self {
        let layout = XsaveLayout::default();
        Self {
            size: XsaveSize::plain(),
            layout,
            limits: Limits::from_cpuid(&[], layout.features()),
            has_xcr0: false,
        }
    }

    /// Which optional register sets the vCPUs have.
    pub const fn xfeatures(&self) -> XFeatures {
        self.layout.features()
    }

    /// The properties of physical addresses and pages in the guest's CPUID, for the page walk.
    pub const fn paging_limits(&self) -> PagingLimits {
        self.limits.paging
    }

    /// Reads every register.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub fn read(&self, vcpu: &VcpuFd) -> Result<X86VpState, DebugError> {
        let registers = CpuRegisters {
            general: get_regs(vcpu)?,
            system: get_sregs(vcpu)?,
        };
        self.read_with(vcpu, &registers)
    }

    /// Reads every register, except that general and system registers are known already (`KVM_CAP_SYNC_REGS`).
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn read_with(
        &self,
        vcpu: &VcpuFd,
        registers: &CpuRegisters,
    ) -> Result<X86VpState, DebugError> {
        let mut state = registers.state();
        let debug = get_debug_regs(vcpu)?;
        state.debug.db = debug.db;
        state.debug.dr6 = debug.dr6;
        state.debug.dr7 = debug.dr7;
        if self.has_xcr0 {
            state.xcr0 = xcr0(&get_xcrs(vcpu)?);
        }
        let vectors = self.layout.read(self.size.get(vcpu)?.bytes());
        state.x87 = vectors.x87;
        state.sse = vectors.sse;
        state.avx = vectors.avx;
        state.avx512 = vectors.avx512;
        state.pkru = vectors.pkru;
        // A guest without long mode does not have this MSR. Its value counts as zero.
        state.kernel_gs_base = msr::read_msr(vcpu, bits::msr::KERNEL_GS_BASE).unwrap_or(0);
        Ok(state)
    }

    /// Writes the registers in which `new` differs from `old`, the VP's present state as `read` returned it. If a write fails, nothing is changed.
    ///
    /// The registers of `KVM_CAP_SYNC_REGS` in the `kvm_run` page are outdated afterwards. A pending interrupt or exception stays pending.
    ///
    /// # Errors
    /// [`DebugError::BadRegister`] for a value the VP refuses or a register it has not; [`DebugError::Hypervisor`] for any other failure.
    pub fn write(
        &self,
        vcpu: &mut VcpuFd,
        old: &X86VpState,
        new: &X86VpState,
    ) -> Result<(), DebugError> {
        self.limits.check(old, new)?;
        let mut undo = Vec::new();
        let result = self.write_groups(vcpu, old, new, &mut undo);
        if let Err(err) = result {
            // Undo in reverse order. The old values are legal, so an error here is an error of KVM, and the first error is more useful.
            for group in undo.into_iter().rev() {
                if let Err(undo_err) = group.restore(vcpu) {
                    tracing::error!(error = %undo_err, "a register write was not undone");
                }
            }
            return Err(err);
        }
        if old.cr8 != new.cr8 {
            // Without an in-kernel APIC, KVM_RUN takes CR8 from here.
            vcpu.get_kvm_run().cr8 = new.cr8;
        }
        Ok(())
    }

    fn write_groups(
        &self,
        vcpu: &VcpuFd,
        old: &X86VpState,
        new: &X86VpState,
        undo: &mut Vec<Group>,
    ) -> Result<(), DebugError> {
        // XCR0 comes first, because KVM checks the vector state against it. The mode follows, and then the registers that depend on the mode.
        if old.xcr0 != new.xcr0
            && let Some(value) = new.xcr0
        {
            let before = get_xcrs(vcpu)?;
            let mut after = before;
            set_xcr0(&mut after, value);
            vcpu.set_xcrs(&after)
                .map_err(|_| validate::bad("xcr0", BadRegisterReason::Xcr0Refused { value }))?;
            undo.push(Group::Xcrs(before));
        }
        let before = get_sregs(vcpu)?;
        let mut after = before;
        if convert::apply_system(&mut after, old, new) {
            undo.push(Group::Sregs(Box::new(before)));
            let bad_register = || {
                validate::bad(
                    &validate::changed_system(old, new),
                    BadRegisterReason::SystemRefused,
                )
            };
            vcpu.set_sregs(&after).map_err(|_| bad_register())?;
            // Some KVMs accept a value and keep another. One KVM cleared CR0.PG outside long mode without an error.
            let kept = get_sregs(vcpu)?;
            let control = |s: &kvm_sregs| [s.cr0, s.cr2, s.cr3, s.cr4, s.cr8, s.efer, s.apic_base];
            if control(&kept) != control(&after) {
                return Err(bad_register());
            }
        }
        let before = get_regs(vcpu)?;
        let mut after = before;
        if convert::apply_general(&mut after, old, new) {
            let events = get_events(vcpu)?;
            undo.push(Group::Regs(before, events));
            Group::Regs(after, events).restore(vcpu)?;
        }
        if old.debug != new.debug {
            let before = get_debug_regs(vcpu)?;
            let mut after = before;
            after.db = new.debug.db;
            after.dr6 = new.debug.dr6;
            after.dr7 = new.debug.dr7;
            undo.push(Group::Debug(before));
            Group::Debug(after).restore(vcpu)?;
        }
        if old.kernel_gs_base != new.kernel_gs_base {
            undo.push(Group::KernelGsBase(old.kernel_gs_base));
            msr::write_msr(vcpu, bits::msr::KERNEL_GS_BASE, new.kernel_gs_base)?;
        }
        let (old, new) = (vectors(old), vectors(new));
        if old != new {
            let mut area = self.size.get(vcpu)?;
            if old.sse.mxcsr != new.sse.mxcsr {
                let reserved = !u64::from(xsave::mxcsr_mask(area.bytes()));
                validate::no_bits("mxcsr", new.sse.mxcsr.into(), reserved)?;
            }
            undo.push(Group::Xsave(Box::new(self.size.get(vcpu)?)));
            self.layout.write(area.bytes_mut(), &old, &new);
            Group::Xsave(Box::new(area)).restore(vcpu)?;
        }
        Ok(())
    }
}

/// The registers of one ioctl.
enum Group {
    Xcrs(kvm_xcrs),
    Sregs(Box<kvm_sregs>),
    /// KVM_SET_REGS drops a pending exception, so the exception is set again afterwards.
    Regs(kvm_regs, kvm_vcpu_events),
    Debug(kvm_debugregs),
    KernelGsBase(u64),
    Xsave(Box<XsaveArea>),
}

impl Group {
    fn restore(self, vcpu: &VcpuFd) -> Result<(), DebugError> {
        let call = match self {
            Self::Xcrs(_) | Self::Sregs(_) | Self::Regs(..) => HypervisorCall::WriteRegisters,
            Self::Debug(_) => HypervisorCall::WriteDebugRegisters,
            Self::KernelGsBase(_) => HypervisorCall::WriteMsr {
                index: bits::msr::KERNEL_GS_BASE,
            },
            Self::Xsave(_) => HypervisorCall::WriteVectorRegisters,
        };
        match self {
            Self::Xcrs(xcrs) => vcpu.set_xcrs(&xcrs),
            Self::Sregs(sregs) => vcpu.set_sregs(&sregs),
            Self::Regs(regs, events) => vcpu.set_regs(&regs).and_then(|()| {
                if events.exception.pending != 0 || events.exception.injected != 0 {
                    vcpu.set_vcpu_events(&events)
                } else {
                    Ok(())
                }
            }),
            Self::Debug(debug) => vcpu.set_debug_regs(&debug),
            Self::KernelGsBase(value) => {
                return msr::write_msr(vcpu, bits::msr::KERNEL_GS_BASE, value);
            }
            Self::Xsave(mut area) => area.set(vcpu),
        }
        .map_err(|err| hypervisor_error(call, err))
    }
}

fn vectors(state: &X86VpState) -> VectorState {
    VectorState {
        x87: state.x87,
        sse: state.sse,
        avx: state.avx,
        avx512: state.avx512.clone(),
        pkru: state.pkru,
    }
}

fn xcr0(xcrs: &kvm_xcrs) -> Option<u64> {
    let count = usize::try_from(xcrs.nr_xcrs).unwrap_or(0);
    xcrs.xcrs
        .iter()
        .take(count)
        .find(|xcr| xcr.xcr == 0)
        .map(|xcr| xcr.value)
}

fn set_xcr0(xcrs: &mut kvm_xcrs, value: u64) {
    if let Some(xcr) = xcrs.xcrs.iter_mut().find(|xcr| xcr.xcr == 0) {
        xcr.value = value;
    }
}

fn get_regs(vcpu: &VcpuFd) -> Result<kvm_regs, DebugError> {
    vcpu.get_regs()
        .map_err(|err| hypervisor_error(HypervisorCall::ReadRegisters, err))
}

fn get_sregs(vcpu: &VcpuFd) -> Result<kvm_sregs, DebugError> {
    vcpu.get_sregs()
        .map_err(|err| hypervisor_error(HypervisorCall::ReadRegisters, err))
}

fn get_debug_regs(vcpu: &VcpuFd) -> Result<kvm_debugregs, DebugError> {
    vcpu.get_debug_regs()
        .map_err(|err| hypervisor_error(HypervisorCall::ReadDebugRegisters, err))
}

fn get_xcrs(vcpu: &VcpuFd) -> Result<kvm_xcrs, DebugError> {
    vcpu.get_xcrs()
        .map_err(|err| hypervisor_error(HypervisorCall::ReadRegisters, err))
}

fn get_events(vcpu: &VcpuFd) -> Result<kvm_vcpu_events, DebugError> {
    vcpu.get_vcpu_events()
        .map_err(|err| hypervisor_error(HypervisorCall::ReadEvents, err))
}

#[cfg(test)]
mod tests;

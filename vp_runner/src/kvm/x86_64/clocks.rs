//! The guest's clocks in KVM: the offset of each vCPU's time-stamp counter, its local timer, and the VM's kvmclock and PIT.
//!
//! Sources: KVM api.rst, `KVM_GET_CLOCK`, `KVM_GET_PIT2`, `KVM_GET_LAPIC`; Documentation/virt/kvm/devices/vcpu.rst, `KVM_VCPU_TSC_OFFSET` (Linux 5.16).
//! Writing `IA32_TSC` cannot replace `KVM_VCPU_TSC_OFFSET`: KVM treats a value within a second of the expected one as an attempt to synchronise vCPUs, and does
//! not change the counter.
#![expect(
    unsafe_code,
    reason = "kvm-ioctls has no device attributes of vCPUs on x86, and reading the time-stamp counter is an intrinsic"
)]

use super::msr::read_msr;
use crate::arch::x86_64::guest_time::Moment;
use crate::arch::x86_64::guest_time::TscRate;
use crate::arch::x86_64::guest_time::timekeeper::VmClocks;
use kvm_bindings::KVM_CLOCK_HOST_TSC;
use kvm_bindings::KVM_VCPU_TSC_CTRL;
use kvm_bindings::KVM_VCPU_TSC_OFFSET;
use kvm_bindings::KVMIO;
use kvm_bindings::kvm_clock_data;
use kvm_bindings::kvm_device_attr;
use kvm_bindings::kvm_pit_state2;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use std::io;
use std::sync::Arc;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::Unsupported;
use vmm_core_defs::regs::x86_64::bits::msr;
use vmm_sys_util::errno;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);
ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, KVMIO, 0xe2, kvm_device_attr);
ioctl_iow_nr!(KVM_HAS_DEVICE_ATTR, KVMIO, 0xe3, kvm_device_attr);

/// The host's time-stamp counter.
pub(crate) fn host_tsc() -> u64 {
    // SAFETY: `rdtsc` reads a counter and accesses no memory. Every x86-64 processor has it, and if its use is forbidden, Linux raises SIGSEGV.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// The guest's kvmclock and the host's time-stamp counter at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BothClocks {
    /// In ns.
    pub(crate) kvmclock: u64,
    pub(crate) host_tsc: u64,
}

impl BothClocks {
    /// In ticks: longer than a read that is not interrupted. On an AMD EPYC with an emulating KVM, which does not return the moment of the read, a read took 1,000
    /// ticks, 99.9 % of the reads less than 3,500, and 3 of 20,000 between 50,000 and 20 million ticks, which is an error of up to 4 ms. Three reads each time would
    /// take 2,000 ticks more at each stop and each resume.
    const SHORT: u64 = 50_000;
    const LOOKS: u32 = 3;

    /// Reads both. `None` if KVM has no kvmclock.
    ///
    /// KVM returns the moment of the read (`KVM_CLOCK_HOST_TSC`) if the counters of all vCPUs are equal and the host's clock source is its time-stamp counter.
    /// Otherwise this function reads several times, since this thread may be preempted, and takes the middle of the shortest read.
    pub(crate) fn look(vm: &VmFd) -> Option<Self> {
        let mut shortest: Option<(u64, Self)> = None;
        for _ in 0..Self::LOOKS {
            let before = host_tsc();
            let data = vm.get_clock().ok()?;
            let took = host_tsc().wrapping_sub(before);
            let exact = data.flags & KVM_CLOCK_HOST_TSC != 0;
            let host_tsc = match exact {
                true => data.host_tsc,
                false => before.wrapping_add(took / 2),
            };
            let both = Self {
                kvmclock: data.clock,
                host_tsc,
            };
            if exact {
                return Some(both);
            }
            if shortest.is_none_or(|(least, _)| took < least) {
                shortest = Some((took, both));
            }
            if took < Self::SHORT {
                break;
            }
        }
        shortest.map(|(_, both)| both)
    }
}

/// Sets the guest's kvmclock, in ns.
pub(crate) fn set_kvmclock(vm: &VmFd, ns: u64) -> Result<(), kvm_ioctls::Error> {
    // No flag is set. With KVM_CLOCK_REALTIME, KVM would add the time since a given moment, but not exactly.
    vm.set_clock(&kvm_clock_data {
        clock: ns,
        ..Default::default()
    })
}

/// The PIT's interrupt line.
const PIT_LINE: u32 = 0;

/// The clocks of a VM, in KVM.
#[derive(Debug)]
pub(crate) struct KvmClocks(pub(crate) Arc<VmFd>);

impl VmClocks for KvmClocks {
    fn host_tsc(&self) -> u64 {
        host_tsc()
    }

    fn now(&self) -> Moment {
        BothClocks::look(&self.0).map_or_else(
            || Moment {
                tsc: host_tsc(),
                kvmclock: None,
            },
            |both| Moment {
                tsc: both.host_tsc,
                kvmclock: Some(both.kvmclock),
            },
        )
    }

    fn set_kvmclock(&self, ns: u64) -> io::Result<()> {
        Ok(set_kvmclock(&self.0, ns)?)
    }

    fn pit(&self) -> Option<kvm_pit_state2> {
        self.0.get_pit2().ok()
    }

    fn set_pit(&self, state: &kvm_pit_state2) -> io::Result<()> {
        Ok(self.0.set_pit2(state)?)
    }

    fn tick_pit(&self) -> io::Result<()> {
        self.0.set_irq_line(PIT_LINE, true)?;
        Ok(self.0.set_irq_line(PIT_LINE, false)?)
    }
}

/// The rate of the guest's time-stamp counter, or why the counter cannot be set back. `vcpu` is any vCPU of the VM.
pub(crate) fn tsc_rate(vcpu: &VcpuFd) -> Result<TscRate, DebugError> {
    if TscOffsets::of(vcpu) != TscOffsets::Settable {
        return Err(Unsupported::ClockRateSet.into());
    }
    let khz = vcpu.get_tsc_khz().unwrap_or_default();
    let rate = TscRate::from_khz(khz).ok_or(Unsupported::ClockRateUnknown)?;
    Ok(rate)
}

/// Whether a vCPU's counter is the host's counter plus an offset that can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TscOffsets {
    Settable,
    /// KVM has no such attribute (Linux before 5.16).
    Missing {
        errno: i32,
    },
    /// The guest's counter runs at another rate than the host's.
    Scaled,
}

impl TscOffsets {
    /// Tests this on a vCPU that does not run.
    pub(crate) fn of(vcpu: &VcpuFd) -> Self {
        let offset = match has_tsc_offset(vcpu).and_then(|()| tsc_offset(vcpu)) {
            Ok(offset) => offset,
            Err(err) => return Self::Missing { errno: err.errno() },
        };
        let before = host_tsc();
        let guest = read_msr(vcpu, msr::TSC).unwrap_or_default();
        let after = host_tsc();
        match guest.wrapping_sub(before.wrapping_add(offset)) <= after.wrapping_sub(before) {
            true => Self::Settable,
            false => Self::Scaled,
        }
    }
}

fn has_tsc_offset(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    let attribute = offset_attribute(std::ptr::null_mut());
    // SAFETY: the kernel reads the struct that is referred to, and does not look at its address field.
    result(unsafe { ioctl_with_ref(vcpu, KVM_HAS_DEVICE_ATTR(), &attribute) })
}

/// The offset that KVM adds to the host's counter for the guest.
pub(crate) fn tsc_offset(vcpu: &VcpuFd) -> Result<u64, kvm_ioctls::Error> {
    let mut offset = 0_u64;
    let attribute = offset_attribute(&raw mut offset);
    // SAFETY: the kernel reads the struct and writes eight bytes to its address field, which is `offset`, valid until the end of this function.
    result(unsafe { ioctl_with_ref(vcpu, KVM_GET_DEVICE_ATTR(), &attribute) })?;
    Ok(offset)
}

/// Sets the offset.
pub(crate) fn set_tsc_offset(vcpu: &VcpuFd, mut offset: u64) -> Result<(), kvm_ioctls::Error> {
    let attribute = offset_attribute(&raw mut offset);
    // SAFETY: the kernel reads the struct and eight bytes at its address field, which is `offset`, valid until the end of this function.
    result(unsafe { ioctl_with_ref(vcpu, KVM_SET_DEVICE_ATTR(), &attribute) })
}

fn offset_attribute(value: *mut u64) -> kvm_device_attr {
    kvm_device_attr {
        group: KVM_VCPU_TSC_CTRL,
        attr: KVM_VCPU_TSC_OFFSET.into(),
        addr: value as u64,
        flags: 0,
    }
}

fn result(returned: libc::c_int) -> Result<(), kvm_ioctls::Error> {
    match returned {
        0 => Ok(()),
        _ => Err(errno::Error::last()),
    }
}

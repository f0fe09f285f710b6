//! alioth's vCPU with the hook around its `run`, which makes the `KVM_RUN`.

use alioth::arch::cpuid::CpuidIn;
use alioth::arch::reg::DtReg;
use alioth::arch::reg::DtRegVal;
use alioth::arch::reg::Reg;
use alioth::arch::reg::SReg;
use alioth::arch::reg::SegReg;
use alioth::arch::reg::SegRegVal;
use alioth::hv::Error;
use alioth::hv::Hypervisor;
use alioth::hv::Kvm;
use alioth::hv::Vcpu;
use alioth::hv::Vm;
use alioth::hv::VmEntry;
use alioth::hv::VmExit;
use small_pc::Devices;
use small_pc::Request;
use std::arch::x86_64::CpuidResult;
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use vmm_core_defs::stop::GuestEventKind;
use vp_runner::embed::Proceed;
use vp_runner::embed::VmHandle;
use vp_runner::embed::VpHook;

pub(crate) struct DebuggedVcpu {
    pub(crate) inner: <<Kvm as Hypervisor>::Vm as Vm>::Vcpu,
    /// alioth's index.
    pub(crate) id: u32,
    pub(crate) fd: OwnedFd,
    /// Made before the first entry: the vCPU has its CPUID by then.
    pub(crate) hook: Option<VpHook>,
    pub(crate) debugger: VmHandle,
    /// Of the demo guest, if it is the guest.
    pub(crate) devices: Option<Arc<Devices>>,
    /// A debugger has seen that the guest switches itself off, and goes on.
    pub(crate) power_off: Arc<AtomicBool>,
    /// The board's answer to the last exit, which `KVM_RUN` has not had yet.
    pub(crate) unanswered: Option<VmEntry>,
}

impl DebuggedVcpu {
    /// Enters the guest, and parks in here while a debugger holds the guest.
    fn enter(&mut self, entry: VmEntry) -> Result<VmExit, Error> {
        let hook = self.hook.get_or_insert_with(|| {
            let hook = self.debugger.register_vp(self.id, self.fd.as_fd());
            // Nobody outside alioth can make a value of its error type.
            hook.expect("the vCPU is registered once")
        });
        if entry != VmEntry::None {
            self.unanswered = Some(entry);
        }
        let mut exit = Ok(VmExit::Interrupted);
        let result = hook.run(|| {
            if self.power_off.load(Ordering::SeqCst) {
                return Err(io::Error::from_raw_os_error(libc::EINTR));
            }
            // The first `KVM_RUN` completes the last exit with the board's answer.
            exit = self
                .inner
                .run(self.unanswered.take().unwrap_or(VmEntry::None));
            match &exit {
                Ok(VmExit::Interrupted) => Err(io::Error::from_raw_os_error(libc::EINTR)),
                Err(Error::RunVcpu { error, .. }) => Err(io::Error::from_raw_os_error(
                    error.raw_os_error().unwrap_or(libc::EIO),
                )),
                // alioth knows no debug exit, and calls it an error. The hook looks at `kvm_run` itself.
                Ok(_) | Err(_) => Ok(()),
            }
        });
        match result {
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => Ok(VmExit::Interrupted),
            Ok(()) | Err(_) => exit,
        }
    }
}

impl Vcpu for DebuggedVcpu {
    fn run(&mut self, mut entry: VmEntry) -> Result<VmExit, Error> {
        // alioth wants its thread: a `KVM_RUN` with `immediate_exit`, in which the guest executes nothing.
        if matches!(entry, VmEntry::Pause | VmEntry::Shutdown | VmEntry::Reboot) {
            return self.inner.run(entry);
        }
        loop {
            let exit = self.enter(entry)?;
            if self.power_off.load(Ordering::SeqCst) {
                return Ok(VmExit::Shutdown);
            }
            let Some(devices) = &self.devices else {
                return Ok(exit);
            };
            entry = match exit {
                VmExit::Io {
                    port,
                    write: Some(value),
                    size,
                } if is_of_demo_guest(port) => {
                    let bytes = value.to_le_bytes();
                    let asked = devices.write(port, &bytes[..usize::from(size)]);
                    if asked == Some(Request::PowerOff)
                        && self
                            .debugger
                            .guest_event(GuestEventKind::PowerOff, Some(self.id))
                            == Proceed::Now
                    {
                        return Ok(VmExit::Shutdown);
                    }
                    VmEntry::Io { data: None }
                }
                VmExit::Io {
                    port,
                    write: None,
                    size,
                } if is_of_demo_guest(port) => {
                    let mut bytes = [0; 4];
                    devices.read(port, &mut bytes[..usize::from(size)]);
                    VmEntry::Io {
                        data: Some(u32::from_le_bytes(bytes)),
                    }
                }
                // The board's.
                exit => return Ok(exit),
            };
        }
    }

    fn get_reg(&self, reg: Reg) -> Result<u64, Error> {
        self.inner.get_reg(reg)
    }

    fn set_regs(&mut self, vals: &[(Reg, u64)]) -> Result<(), Error> {
        self.inner.set_regs(vals)
    }

    fn get_seg_reg(&self, reg: SegReg) -> Result<SegRegVal, Error> {
        self.inner.get_seg_reg(reg)
    }

    fn get_dt_reg(&self, reg: DtReg) -> Result<DtRegVal, Error> {
        self.inner.get_dt_reg(reg)
    }

    fn get_sreg(&self, reg: SReg) -> Result<u64, Error> {
        self.inner.get_sreg(reg)
    }

    fn set_sregs(
        &mut self,
        sregs: &[(SReg, u64)],
        seg_regs: &[(SegReg, SegRegVal)],
        dt_regs: &[(DtReg, DtRegVal)],
    ) -> Result<(), Error> {
        self.inner.set_sregs(sregs, seg_regs, dt_regs)
    }

    fn set_cpuids(&mut self, cpuids: HashMap<CpuidIn, CpuidResult>) -> Result<(), Error> {
        self.inner.set_cpuids(cpuids)
    }

    fn set_msrs(&mut self, msrs: &[(u32, u64)]) -> Result<(), Error> {
        self.inner.set_msrs(msrs)
    }

    fn dump(&self) -> Result<(), Error> {
        self.inner.dump()
    }

    fn tdx_init_vcpu(&self, hob: u64) -> Result<(), Error> {
        self.inner.tdx_init_vcpu(hob)
    }

    fn tdx_init_mem_region(&self, data: &[u8], gpa: u64, measure: bool) -> Result<(), Error> {
        self.inner.tdx_init_mem_region(data, gpa, measure)
    }
}

/// The serial port, and the power-off register. alioth has an ACPI reset register at the port of the latter.
fn is_of_demo_guest(port: u16) -> bool {
    matches!(port, 0x3f8..=0x3ff | 0x604)
}

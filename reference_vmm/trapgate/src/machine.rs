//! The PC around the VPs, as the runner uses it: port I/O and the reset to the power-on state.

use crate::arch::x86_64::acpi;
use crate::arch::x86_64::layout;
use crate::arch::x86_64::linux_boot;
use crate::arch::x86_64::power_on::PowerOn;
use crate::arch::x86_64::pvh_boot;
use crate::arch::x86_64::start_state::StartState;
use crate::devices::PortBus;
use crate::devices::lock;
use crate::interrupts::InterruptControllers;
use crate::kernel::BootFiles;
use crate::kernel::Entry;
use crate::kernel::KernelError;
use crate::memory::MemorySize;
use kvm_bindings::CpuId;
use kvm_ioctls::VcpuFd;
use std::sync::Arc;
use std::sync::Mutex;
use vm_memory::Bytes as _;
use vm_memory::GuestMemoryMmap;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::VpIndex;
use vp_runner::kvm::x86_64::XsaveSize;
use vp_runner::machine::DeviceOutcome;
use vp_runner::machine::Machine;
use vp_runner::machine::MachineError;
use vp_runner::machine::MmioOutcome;

/// All parts of the machine except the VPs.
pub(crate) struct Pc {
    /// The devices at I/O ports.
    pub ports: PortBus,
    /// KVM's interrupt controllers and timer.
    pub interrupts: InterruptControllers,
    /// The boot files and their place in memory.
    pub boot: Boot,
    /// The CPUID of each VP, in the order of the indexes.
    pub cpuid: Vec<CpuId>,
    /// The size of a VP's XSAVE area.
    pub xsave: XsaveSize,
    /// The MSRs that this KVM lists.
    pub msrs: Vec<u32>,
    /// The power-on state of each VP, once it was read.
    pub power_on: Vec<Mutex<Option<PowerOn>>>,
    /// The start state of the first CPU.
    pub start: Mutex<StartState>,
}

/// The data that is written into memory before the first instruction.
pub(crate) struct Boot {
    /// The kernel and the initial RAM disk.
    pub files: BootFiles,
    /// Kernel command line.
    pub command_line: String,
    /// Guest RAM.
    pub memory: Arc<GuestMemoryMmap>,
    /// The size of the guest's RAM.
    pub size: MemorySize,
    /// The number of CPUs.
    pub cpus: u8,
}

impl Boot {
    /// Loads the kernel, writes its boot parameters, and returns the start state.
    pub(crate) fn load(&self) -> Result<StartState, KernelError> {
        let memory = &self.memory;
        let loaded = self.files.load(memory, self.size)?;
        let rsdp = acpi::write(memory, self.cpus)?;
        let mut line = self.command_line.clone().into_bytes();
        line.push(0);
        memory.write_slice(&line, layout::COMMAND_LINE)?;
        let start = match loaded.entry {
            Entry::Pvh(entry) => {
                pvh_boot::write(memory, self.size, loaded.initrd, rsdp)?;
                StartState::Pvh { entry }
            }
            Entry::Linux64(entry, header) => {
                linux_boot::write(
                    memory,
                    self.size,
                    header.map(|header| *header),
                    loaded.initrd,
                    rsdp,
                )?;
                StartState::Linux64 { entry }
            }
        };
        start.write_tables(memory)?;
        Ok(start)
    }
}

impl Machine for Pc {
    fn pio_read(&self, _vp: VpIndex, port: u16, data: &mut [u8]) {
        self.ports.read(port, data);
    }

    fn pio_write(&self, _vp: VpIndex, port: u16, data: &[u8]) -> DeviceOutcome {
        self.ports.write(port, data)
    }

    /// This PC has no memory-mapped devices except KVM's interrupt controllers.
    fn mmio_read(&self, _vp: Option<VpIndex>, _gpa: Gpa, _data: &mut [u8]) -> MmioOutcome {
        MmioOutcome::Unclaimed
    }

    fn mmio_write(
        &self,
        _vp: Option<VpIndex>,
        _gpa: Gpa,
        _data: &[u8],
    ) -> (MmioOutcome, DeviceOutcome) {
        (MmioOutcome::Unclaimed, DeviceOutcome::Done)
    }

    fn init_vp(&self, vp: VpIndex, vcpu: &VcpuFd) -> Result<(), MachineError> {
        let index = usize::try_from(vp.index()).unwrap_or(usize::MAX);
        let (Some(slot), Some(cpuid)) = (self.power_on.get(index), self.cpuid.get(index)) else {
            return Err(MachineError::new(
                "start a VP",
                format!("this PC has no VP {vp}"),
            ));
        };
        let mut slot = lock(slot);
        let power_on = match &mut *slot {
            Some(known) => known,
            fresh => {
                vcpu.set_cpuid2(cpuid)
                    .map_err(|why| MachineError::new("set the CPUID of a VP", why))?;
                fresh.insert(PowerOn::read(vcpu, self.xsave, &self.msrs)?)
            }
        };
        power_on.write(vcpu, (vp == VpIndex::BSP).then(|| *lock(&self.start)))
    }

    fn reset(&self) -> Result<(), MachineError> {
        self.ports.reset();
        self.interrupts.reset()?;
        let start = self
            .boot
            .load()
            .map_err(|error| MachineError::new("load the guest again", error))?;
        *lock(&self.start) = start;
        Ok(())
    }
}

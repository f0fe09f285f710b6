//! Creates the virtual machine: RAM, interrupt controllers, vCPUs and the PC around them.

use crate::arch::x86_64::cpuid;
use crate::arch::x86_64::layout;
use crate::devices::PortBus;
use crate::devices::keyboard;
use crate::devices::keyboard::Keyboard;
use crate::devices::power;
use crate::devices::power::Power;
use crate::devices::pvpanic;
use crate::devices::pvpanic::Pvpanic;
use crate::devices::reset_control;
use crate::devices::reset_control::ResetControl;
use crate::devices::serial;
use crate::devices::serial::Com1;
use crate::interrupts::InterruptControllers;
use crate::kernel::BootFiles;
use crate::kernel::KernelError;
use crate::kvm_host::KvmHost;
use crate::machine::Boot;
use crate::machine::Pc;
use crate::memory::MemoryError;
use crate::memory::MemorySize;
use crate::serial_output::SerialOutput;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use thiserror::Error;
use vmm_sys_util::eventfd::EventFd;
use vp_runner::kvm::ram::RegisteredRam;
use vp_runner::kvm::x86_64::XsaveSize;
use vp_runner::machine::MachineError;

/// The configuration of a machine.
pub(crate) struct VmConfig {
    /// The boot files.
    pub files: BootFiles,
    /// Kernel command line.
    pub command_line: String,
    /// The number of CPUs, at least one.
    pub cpus: u8,
    /// The size of the RAM.
    pub memory: MemorySize,
    /// The destination of the serial port's output.
    pub serial: SerialOutput,
}

/// A machine that has not run yet.
pub(crate) struct Vm {
    /// The KVM handle of the VM.
    pub fd: Arc<VmFd>,
    /// The vCPUs, in the order of their indexes.
    pub vcpus: Vec<VcpuFd>,
    /// The registered RAM. Dropping it removes the RAM from the VM.
    pub ram: RegisteredRam,
    /// The PC around the vCPUs.
    pub pc: Arc<Pc>,
    /// The serial port, for its input.
    pub serial: Com1<SerialOutput>,
}

/// The reason why a machine cannot be created.
#[derive(Debug, Error)]
pub(crate) enum VmError {
    /// The kernel or the initial RAM disk cannot be loaded.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The RAM cannot be allocated.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// There are more CPUs than possible.
    #[error("{given} CPUs are too many: {why}; use --cpus {most} or fewer")]
    TooManyCpus {
        /// The requested number.
        given: u32,
        /// The maximum number.
        most: u32,
        /// The reason for the maximum.
        why: &'static str,
    },
    /// KVM refused a request.
    #[error("KVM on this host refused to {what}: {why}; `trapgate doctor` shows what it can do")]
    Kvm {
        /// The request, as a verb phrase.
        what: &'static str,
        /// KVM's error.
        why: String,
    },
}

/// The id of a local APIC has 8 bits, and the last value addresses all CPUs.
const MOST_CPUS: u32 = 254;

impl From<MachineError> for VmError {
    fn from(error: MachineError) -> Self {
        Self::Kvm {
            what: error.what,
            why: error.why,
        }
    }
}

fn kvm(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> VmError {
    move |why| VmError::Kvm {
        what,
        why: why.to_string(),
    }
}

impl Vm {
    /// Creates the machine, with the kernel in its memory.
    pub(crate) fn new(host: &KvmHost, config: VmConfig) -> Result<Self, VmError> {
        let VmConfig {
            files,
            command_line,
            cpus,
            memory: size,
            serial,
        } = config;
        files.check(size, &command_line)?;
        let memory = Arc::new(size.allocate()?);
        let boot = Boot {
            files,
            command_line,
            memory: memory.clone(),
            size,
            cpus,
        };
        let start = boot.load()?;

        let fd = Arc::new(
            host.kvm
                .create_vm()
                .map_err(kvm("create a virtual machine"))?,
        );
        let ram = RegisteredRam::new(fd.clone(), memory).map_err(kvm("register guest memory"))?;
        fd.set_identity_map_address(layout::KVM_IDENTITY_MAP)
            .map_err(kvm("place its real-mode page"))?;
        fd.set_tss_address(layout::KVM_TSS)
            .map_err(kvm("place its real-mode task state"))?;
        let interrupts = InterruptControllers::create(fd.clone())?;
        let serial = connect_serial(&fd, serial)?;
        let vcpus = (0..cpus)
            .map(|index| fd.create_vcpu(index.into()).map_err(kvm("create a vCPU")))
            .collect::<Result<Vec<_>, _>>()?;
        let cpuid = (0..cpus)
            .map(|index| cpuid::for_cpu(&host.cpuid, index, cpus, host.tsc_deadline))
            .collect();
        let pc = Pc {
            ports: ports(&serial),
            interrupts,
            boot,
            cpuid,
            xsave: XsaveSize::of(&fd),
            msrs: host.msrs.clone(),
            power_on: (0..cpus).map(|_| Mutex::new(None)).collect(),
            start: Mutex::new(start),
        };
        Ok(Self {
            fd,
            vcpus,
            ram,
            pc: Arc::new(pc),
            serial,
        })
    }
}

/// Checks the number of CPUs against the limits of KVM, of the local APIC and of the guest (`guest_most`; the demo
/// guest has a limited number of stacks).
pub(crate) fn check_cpus(
    host: &KvmHost,
    given: u32,
    guest_most: Option<u32>,
) -> Result<u8, VmError> {
    let limits = [
        (
            host.max_vcpus,
            "this host's KVM supports no more in one guest",
        ),
        (MOST_CPUS, "a PC has no more APIC ids"),
        (
            guest_most.unwrap_or(u32::MAX),
            "the demo guest has no stacks for more",
        ),
    ];
    let (most, why) = limits
        .into_iter()
        .min_by_key(|(most, _)| *most)
        .expect("there are three limits");
    match u8::try_from(given) {
        Ok(cpus) if given <= most => Ok(cpus),
        _ => Err(VmError::TooManyCpus { given, most, why }),
    }
}

fn connect_serial(fd: &VmFd, out: SerialOutput) -> Result<Com1<SerialOutput>, VmError> {
    let failed = |why: io::Error| VmError::Kvm {
        what: "connect the serial port's interrupt",
        why: why.to_string(),
    };
    let irq = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(failed)?;
    fd.register_irqfd(&irq, serial::IRQ)
        .map_err(kvm("connect the serial port's interrupt"))?;
    Ok(Com1::new(irq, out))
}

fn ports(serial: &Com1<SerialOutput>) -> PortBus {
    let mut ports = PortBus::default();
    ports.add(
        serial::FIRST_PORT..serial::END_PORT,
        Box::new(serial.clone()),
    );
    ports.add(
        power::EVENT_PORT..power::END_PORT,
        Box::new(Power::default()),
    );
    ports.add(
        reset_control::FIRST_PORT..reset_control::END_PORT,
        Box::new(ResetControl::default()),
    );
    ports.add(pvpanic::PORT..pvpanic::PORT + 1, Box::new(Pvpanic));
    for port in [keyboard::DATA_PORT, keyboard::COMMAND_PORT] {
        ports.add(port..port + 1, Box::new(Keyboard { port }));
    }
    ports
}

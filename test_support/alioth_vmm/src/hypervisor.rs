//! alioth's KVM and its VM, with a debugger for each VM.

use crate::descriptors;
use crate::memory::DebuggedMemory;
use crate::vcpu::DebuggedVcpu;
use alioth::arch::cpuid::CpuidIn;
use alioth::arch::sev::SevPolicy;
use alioth::arch::sev::SnpPageType;
use alioth::arch::sev::SnpPolicy;
use alioth::arch::tdx::TdAttr;
use alioth::hv::Coco;
use alioth::hv::Error;
use alioth::hv::Hypervisor;
use alioth::hv::Kvm;
use alioth::hv::KvmConfig;
use alioth::hv::Vm;
use alioth::hv::VmConfig;
use small_pc::Devices;
use std::arch::x86_64::CpuidResult;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::JoinHandle;
use vmm_core_defs::debug_rpc::DebugMessage;
use vp_runner::embed::Controller;
use vp_runner::embed::EmbedParams;
use vp_runner::embed::StartMode;
use vp_runner::embed::VmHandle;
use vp_runner::embed::embed;
use vp_runner::probe;
use vp_runner::probe::Report;

/// The debugger of the VM, once alioth has created the VM.
type Started = (VmHandle, Controller);

/// alioth's KVM.
pub(crate) struct DebuggedKvm {
    inner: Kvm,
    kvm: OwnedFd,
    report: Report,
    vcpus: u16,
    /// The devices of the demo guest, if it is the guest. alioth's own serial port needs a terminal.
    devices: Option<Arc<Devices>>,
    start: StartMode,
    requests: Mutex<Option<mesh::Receiver<DebugMessage>>>,
    started: mpsc::Sender<Started>,
}

impl DebuggedKvm {
    pub(crate) fn new(
        requests: mesh::Receiver<DebugMessage>,
        vcpus: u16,
        devices: Option<Arc<Devices>>,
        start: StartMode,
    ) -> Result<(Self, mpsc::Receiver<Started>), Box<dyn std::error::Error>> {
        let (started, receiver) = mpsc::channel();
        let report = probe::run()?;
        // The kernel takes its time to destroy the VMs of the probe, and nothing tells when it has. alioth's VM is found as the only one.
        while descriptors::has_vm()? {
            std::thread::yield_now();
        }
        let kvm = Self {
            report,
            vcpus,
            inner: Kvm::new(KvmConfig::default())?,
            kvm: File::options()
                .read(true)
                .write(true)
                .open("/dev/kvm")?
                .into(),
            devices,
            start,
            requests: Mutex::new(Some(requests)),
            started,
        };
        Ok((kvm, receiver))
    }

    /// The debugger of the VM that alioth has just created.
    fn debug(&self, power_off: Arc<AtomicBool>) -> Result<VmHandle, Box<dyn std::error::Error>> {
        let requests = &mut *self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = requests
            .take()
            .ok_or("there is a VM already; start another process")?;
        let vm = descriptors::named("anon_inode:kvm-vm")?;
        // alioth kicks its vCPUs by SIGRTMIN, whose handler does nothing. The debugger uses the same signal, and its handler makes alioth's kicks certain as well.
        let params = EmbedParams::new(self.kvm.as_fd(), vm.as_fd(), requests)?
            .report(self.report.clone())
            .start(self.start)
            // The guest ends by one event only.
            .on_continue(move |_| power_off.store(true, Ordering::SeqCst));
        let (debugger, controller) = embed(params)?;
        // alioth creates and runs each vCPU on a thread of its own, and these begin in any order.
        (0..self.vcpus).for_each(|id| debugger.expect_vp(id.into()));
        self.started.send((debugger.clone(), controller))?;
        Ok(debugger)
    }
}

impl Hypervisor for DebuggedKvm {
    type Vm = DebuggedVm;

    fn create_vm(&self, config: &VmConfig) -> Result<DebuggedVm, Error> {
        let inner = self.inner.create_vm(config)?;
        let power_off = Arc::<AtomicBool>::default();
        let debugger = self.debug(power_off.clone());
        Ok(DebuggedVm {
            inner,
            // Nobody outside alioth can make a value of its error type.
            debugger: debugger.expect("the debugger of the VM"),
            devices: self.devices.clone(),
            power_off,
        })
    }

    fn get_supported_cpuids(
        &self,
        coco: Option<&Coco>,
    ) -> Result<HashMap<CpuidIn, CpuidResult>, Error> {
        self.inner.get_supported_cpuids(coco)
    }
}

type KvmVm = <Kvm as Hypervisor>::Vm;

/// alioth's VM.
pub(crate) struct DebuggedVm {
    inner: KvmVm,
    debugger: VmHandle,
    devices: Option<Arc<Devices>>,
    power_off: Arc<AtomicBool>,
}

impl DebuggedVm {
    /// alioth calls this on the thread of the vCPU.
    fn wrap(
        &self,
        index: u16,
        inner: <KvmVm as Vm>::Vcpu,
        fd: io::Result<OwnedFd>,
    ) -> DebuggedVcpu {
        DebuggedVcpu {
            inner,
            id: index.into(),
            fd: fd.expect("a descriptor of the vCPU"),
            hook: None,
            debugger: self.debugger.clone(),
            devices: self.devices.clone(),
            power_off: self.power_off.clone(),
            unanswered: None,
        }
    }
}

impl Vm for DebuggedVm {
    type Vcpu = DebuggedVcpu;
    type Memory = DebuggedMemory<<KvmVm as Vm>::Memory>;
    type MsiSender = <KvmVm as Vm>::MsiSender;
    type IoeventFdRegistry = <KvmVm as Vm>::IoeventFdRegistry;

    fn create_vcpu(&self, index: u16, identity: u64) -> Result<DebuggedVcpu, Error> {
        let inner = self.inner.create_vcpu(index, identity)?;
        let fd = descriptors::named(&format!("anon_inode:kvm-vcpu:{identity}"));
        Ok(self.wrap(index, inner, fd))
    }

    fn create_msi_sender(&self) -> Result<Self::MsiSender, Error> {
        self.inner.create_msi_sender()
    }

    fn create_vm_memory(&mut self) -> Result<Self::Memory, Error> {
        let inner = self.inner.create_vm_memory()?;
        let debugger = self.debugger.clone();
        Ok(DebuggedMemory { inner, debugger })
    }

    fn create_ioeventfd_registry(&self) -> Result<Self::IoeventFdRegistry, Error> {
        self.inner.create_ioeventfd_registry()
    }

    fn stop_vcpu<T>(&self, identity: u64, handle: &JoinHandle<T>) -> Result<(), Error> {
        self.inner.stop_vcpu(identity, handle)
    }

    fn sev_launch_start(&self, policy: SevPolicy) -> Result<(), Error> {
        self.inner.sev_launch_start(policy)
    }

    fn sev_launch_update_vmsa(&self) -> Result<(), Error> {
        self.inner.sev_launch_update_vmsa()
    }

    fn sev_launch_update_data(&self, range: &mut [u8]) -> Result<(), Error> {
        self.inner.sev_launch_update_data(range)
    }

    fn sev_launch_measure(&self) -> Result<Vec<u8>, Error> {
        self.inner.sev_launch_measure()
    }

    fn sev_launch_finish(&self) -> Result<(), Error> {
        self.inner.sev_launch_finish()
    }

    fn snp_launch_start(&self, policy: SnpPolicy) -> Result<(), Error> {
        self.inner.snp_launch_start(policy)
    }

    fn snp_launch_update(
        &self,
        range: &mut [u8],
        gpa: u64,
        kind: SnpPageType,
    ) -> Result<(), Error> {
        self.inner.snp_launch_update(range, gpa, kind)
    }

    fn snp_launch_finish(&self) -> Result<(), Error> {
        self.inner.snp_launch_finish()
    }

    fn tdx_init_vm(
        &self,
        attr: TdAttr,
        cpuids: &HashMap<CpuidIn, CpuidResult>,
    ) -> Result<(), Error> {
        self.inner.tdx_init_vm(attr, cpuids)
    }

    fn tdx_finalize_vm(&self) -> Result<(), Error> {
        self.inner.tdx_finalize_vm()
    }
}

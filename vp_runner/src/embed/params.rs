//! The parameters of an embedded debugger.

use super::Kick;
use super::SignalKick;
use super::StartMode;
use crate::breakpoints::DEFAULT_LIMIT;
use crate::machine::DeviceOutcome;
use crate::machine::MachineError;
use crate::machine::MmioOutcome;
use crate::machine::for_debugger::ForDebugger;
use crate::probe::Report;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_core_defs::stop::GuestEventKind;
use vmm_core_defs::stop::StopOn;

/// The parameters of [`embed`](super::embed). [`new`](Self::new) takes what every VMM has to give, and the methods set the rest.
#[must_use = "pass it to `embed`"]
pub struct EmbedParams {
    pub(super) kvm: OwnedFd,
    pub(super) vm: OwnedFd,
    pub(super) debug: mesh::Receiver<DebugMessage>,
    pub(super) start: StartMode,
    pub(super) breakpoint_limit: u32,
    pub(super) report: Option<Report>,
    pub(super) kick: Arc<dyn Kick>,
    pub(super) devices: VmmDevices,
    pub(super) continued: Box<dyn Fn(GuestEventKind) + Send + Sync>,
    pub(super) announced: StopOn,
}

/// A debugger's access to a device.
#[derive(Debug)]
#[non_exhaustive]
pub enum MmioAccess<'a> {
    /// Reads 1, 2, 4 or 8 bytes.
    Read(&'a mut [u8]),
    /// Writes 1, 2, 4 or 8 bytes.
    Write(&'a [u8]),
}

type Mmio = Box<dyn Fn(u64, MmioAccess<'_>) -> MmioOutcome + Send + Sync>;
type Reset = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What a VMM lets debuggers do with the machine around the vCPUs.
#[derive(Default)]
pub(super) struct VmmDevices {
    mmio: Option<Mmio>,
    reset: Option<Reset>,
}

impl EmbedParams {
    /// A debugger of this VM, whose guest runs at once.
    ///
    /// - `kvm`, `vm`: descriptors of `/dev/kvm` and of the VM, which are duplicated.
    /// - `debug`: the channel of debugger requests. No debugger can attach after all senders were dropped.
    ///
    /// # Errors
    /// The error of the host, which has no file descriptor left.
    pub fn new(
        kvm: BorrowedFd<'_>,
        vm: BorrowedFd<'_>,
        debug: mesh::Receiver<DebugMessage>,
    ) -> io::Result<Self> {
        Ok(Self {
            kvm: kvm.try_clone_to_owned()?,
            vm: vm.try_clone_to_owned()?,
            debug,
            start: StartMode::Run,
            breakpoint_limit: DEFAULT_LIMIT,
            report: None,
            kick: Arc::new(SignalKick::default()),
            devices: VmmDevices::default(),
            continued: Box::new(|_| {}),
            announced: StopOn::all(),
        })
    }

    /// Sets whether the guest runs at once. Without this call it does.
    pub const fn start(mut self, start: StartMode) -> Self {
        self.start = start;
        self
    }

    /// Sets the most breakpoints that a debugger may set. Each takes about 400 bytes.
    pub const fn breakpoint_limit(mut self, limit: u32) -> Self {
        self.breakpoint_limit = limit;
        self
    }

    /// Passes the report of the capability probe on this host. Without a report the client gets no capabilities, and software breakpoints use debug registers,
    /// four at most.
    pub fn report(mut self, report: impl Into<Option<Report>>) -> Self {
        self.report = report.into();
        self
    }

    /// Sets how a `KVM_RUN` is ended. Without this call it is a [`SignalKick`] by `SIGRTMIN`.
    pub fn kick(mut self, kick: impl Kick) -> Self {
        self.kick = Arc::new(kick);
        self
    }

    /// Lets debuggers access devices, by this function of the VMM's. The arguments are a guest physical address and the access. The function is called on a thread
    /// of its own and may block. Without this call such an access is an error.
    pub fn mmio(
        mut self,
        access: impl Fn(u64, MmioAccess<'_>) -> MmioOutcome + Send + Sync + 'static,
    ) -> Self {
        self.devices.mmio = Some(Box::new(access));
        self
    }

    /// Lets debuggers reset the machine, by this function of the VMM's, which returns when the reset is done or the reason why it is impossible. The function is
    /// called on a thread of its own, with every VP parked. Without this call a reset is an error.
    pub fn reset(mut self, reset: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.devices.reset = Some(Box::new(reset));
        self
    }

    /// Sets the guest events that this crate learns of: KVM reports triple faults, and the VMM announces others by [`VmHandle::guest_event`](super::VmHandle::guest_event).
    /// A debugger cannot ask for a stop at any other event. Without this call a debugger can ask for a stop at every event.
    pub fn announces(mut self, events: impl IntoIterator<Item = GuestEventKind>) -> Self {
        self.announced = events.into_iter().collect();
        self
    }

    /// Sets the function that is called when the debugger has continued from an event that
    /// [`VmHandle::guest_event`](super::VmHandle::guest_event) has held. The VMM then acts on the event. The function must not block.
    pub fn on_continue(
        mut self,
        continued: impl Fn(GuestEventKind) + Send + Sync + 'static,
    ) -> Self {
        self.continued = Box::new(continued);
        self
    }
}

impl ForDebugger for VmmDevices {
    fn has_devices(&self) -> bool {
        self.mmio.is_some()
    }

    fn can_be_reset(&self) -> bool {
        self.reset.is_some()
    }

    fn read_device(&self, gpa: Gpa, data: &mut [u8]) -> MmioOutcome {
        match &self.mmio {
            Some(mmio) => mmio(gpa.value(), MmioAccess::Read(data)),
            None => MmioOutcome::Unclaimed,
        }
    }

    fn write_device(&self, gpa: Gpa, data: &[u8]) -> (MmioOutcome, DeviceOutcome) {
        let outcome = match &self.mmio {
            Some(mmio) => mmio(gpa.value(), MmioAccess::Write(data)),
            None => MmioOutcome::Unclaimed,
        };
        (outcome, DeviceOutcome::Done)
    }

    fn reset_machine(&self) -> Result<(), MachineError> {
        let what = "reset the machine";
        match &self.reset {
            Some(reset) => reset().map_err(|why| MachineError::new(what, why)),
            None => Err(MachineError::new(
                what,
                "this VMM lets no debugger reset the machine; reset it in the VMM",
            )),
        }
    }
}

//! The VMM's handle to the debugger of one VM.

use super::EmbedParams;
use super::MemorySlot;
use super::VpHook;
use crate::control::guest_event::GuestEvent;
use crate::controller::Control;
use crate::controller::Controller;
use crate::controller::HeldEvents;
use crate::controller::VpShared;
use crate::kvm::adopt;
use crate::memory::slots::MemorySlots;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::stop::GuestEventKind;

/// Starts a debugger of a VM. The debugger works only while [`Controller::run`] is polled.
///
/// # Errors
/// [`EmbedError`].
pub fn embed(params: EmbedParams) -> Result<(VmHandle, Controller), EmbedError> {
    let vm = Arc::new(adopt::vm(params.kvm.as_fd(), params.vm.as_fd()).map_err(EmbedError::Vm)?);
    let memory = Arc::new(MemorySlots::empty());
    let events = HeldEvents::new(params.continued);
    let (control, receiver) = mesh::channel();
    let parts = crate::controller::assembly::Embedded {
        vm,
        memory: memory.clone(),
        events: events.clone(),
        machine: Arc::new(params.devices),
        kick: params.kick,
        debug: params.debug,
        control: receiver,
        start: params.start,
        breakpoint_limit: params.breakpoint_limit,
        report: params.report,
    };
    let (controller, shared) = Controller::embedded(parts);
    let handle = VmHandle(Arc::new(Inner {
        shared,
        memory,
        events,
        control,
        ids: Mutex::default(),
    }));
    Ok((handle, controller))
}

/// Why a debugger could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// The descriptors are not those of `/dev/kvm` and of a VM, or the host has no descriptor left.
    #[error(
        "the descriptors of /dev/kvm and of the VM cannot be used; pass those with which the VM was created"
    )]
    Vm(#[source] io::Error),
}

/// Whether the VMM acts on an event of the guest now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "an event that is held is not to be acted on"]
pub enum Proceed {
    /// The VMM acts on the event now.
    Now,
    /// A debugger sees the event first. The VMM acts on the event when the function of [`EmbedParams::on_continue`] is called.
    Held,
}

/// The guest's memory is without breakpoint bytes until this value is dropped.
#[must_use = "the breakpoint bytes are written again when this is dropped"]
pub struct Quiesced(Arc<Inner>);

impl Drop for Quiesced {
    fn drop(&mut self) {
        self.0.shared.unquiesce();
    }
}

/// The VMM's handle to the debugger of one VM. Dropping all handles has no effect.
#[derive(Clone)]
pub struct VmHandle(Arc<Inner>);

struct Inner {
    shared: VpShared,
    memory: Arc<MemorySlots>,
    events: HeldEvents,
    control: mesh::Sender<Control>,
    /// The VMM's identifier of each VP, by VP index.
    ids: Mutex<Vec<u32>>,
}

impl VmHandle {
    pub(super) fn slots(&self) -> &MemorySlots {
        &self.0.memory
    }

    /// Sets, changes or (`None`) removes a memory slot, as the VMM does with `KVM_SET_USER_MEMORY_REGION`. Waits until no access of a debugger is in progress.
    ///
    /// Call it after the slot was added in KVM, and before the memory of a slot that goes away is unmapped or used for anything else.
    pub fn set_slot(&self, number: u32, slot: Option<MemorySlot>) {
        self.0.memory.set(number, slot);
    }

    /// Registers a vCPU, on its own thread, before its first `KVM_RUN` and after its CPUID is set. `id` is the VMM's identifier. Identifiers may have gaps. A vCPU
    /// that has gone may register again.
    ///
    /// # Errors
    /// The error of the host, and [`io::ErrorKind::AlreadyExists`] for a vCPU that is registered.
    pub fn register_vp(&self, id: u32, vcpu: BorrowedFd<'_>) -> io::Result<VpHook> {
        let vcpu = adopt::vcpu(self.0.shared.vm(), vcpu)?;
        // The controller learns of VPs in the order of their indexes.
        let mut ids = self.0.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let known = ids.iter().position(|known| *known == id);
        let position = known.unwrap_or(ids.len());
        let index = u32::try_from(position).map_err(|_| io::ErrorKind::QuotaExceeded)?;
        let vp = self.0.shared.register(VpIndex::new(index), vcpu)?;
        if known.is_none() {
            ids.push(id);
        }
        drop(ids);
        Ok(VpHook::new(vp))
    }

    /// A device of the VMM has caused an event. `id` is that of the vCPU on whose thread the device was called, if there is one. May be called on any thread.
    pub fn guest_event(&self, kind: GuestEventKind, id: Option<u32>) -> Proceed {
        let ids = self.0.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let position = id.and_then(|id| ids.iter().position(|known| *known == id));
        drop(ids);
        let vp = position.and_then(|position| Some(VpIndex::new(u32::try_from(position).ok()?)));
        let Some(event) = GuestEvent::of_kind(kind, vp) else {
            return Proceed::Now;
        };
        match self.0.events.hold(event) {
            true => {
                self.0.control.send(Control::Event(event));
                Proceed::Held
            }
            false => Proceed::Now,
        }
    }

    /// Takes every breakpoint byte out of the guest's memory until the result is dropped, so that the VMM can take a snapshot of the memory. The VMM has paused its
    /// vCPUs before: they are out of `KVM_RUN` and out of the hooks. A vCPU that was parked has no step flag and no debug register of a debugger then.
    ///
    /// A debugger may stay attached, and gets [`DebugError::HeldByVmm`](vmm_core_defs::debug_rpc::DebugError::HeldByVmm) for requests that need a vCPU.
    pub fn quiesce(&self) -> Quiesced {
        self.0.shared.quiesce();
        Quiesced(self.0.clone())
    }

    /// Ends the debugger: parked VPs are let go, [`Controller::run`] returns, and the hooks let everything pass.
    pub fn stop(&self) {
        self.0.control.send(Control::Stop);
    }
}

//! The VMM's handle to the debugger of one VM.

use super::EmbedParams;
use super::MemorySlot;
use super::VpHook;
use crate::control::guest_event::GuestEvent;
use crate::controller::AddedVp;
use crate::controller::Causer;
use crate::controller::Control;
use crate::controller::Controller;
use crate::controller::HeldEvents;
use crate::controller::KvmVps;
use crate::kvm::adopt;
use crate::memory::slots::MemorySlots;
use std::io;
use std::ops::Range;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::stop::GuestEventKind;

/// Starts a debugger of a VM. The debugger works only while [`Controller::run`] is polled.
///
/// # Errors
/// [`EmbedError`].
pub fn embed(params: EmbedParams) -> Result<(VmHandle, Controller), EmbedError> {
    let vm = Arc::new(adopt::vm(params.kvm.as_fd(), params.vm.as_fd()).map_err(EmbedError::Vm)?);
    let memory = Arc::new(MemorySlots::empty());
    let events = HeldEvents::new(params.continued, params.announced);
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
    let (controller, kvm) = Controller::embedded(parts);
    let handle = VmHandle(Arc::new(Inner {
        kvm,
        memory,
        events,
        control,
        vps: Mutex::default(),
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
        self.0.kvm.shared.unquiesce();
    }
}

/// The VMM's handle to the debugger of one VM. Dropping all handles has no effect.
#[derive(Clone)]
pub struct VmHandle(Arc<Inner>);

struct Inner {
    kvm: KvmVps,
    memory: Arc<MemorySlots>,
    events: HeldEvents,
    control: mesh::Sender<Control>,
    /// By VP index.
    vps: Mutex<Vec<Known>>,
}

/// A VP as the VMM knows it.
struct Known {
    /// The VMM's identifier.
    id: u32,
    /// `None`: the vCPU has never been added.
    added: Option<AddedVp>,
}

impl Known {
    /// The vCPU, unless it has gone.
    fn here(&self) -> Option<&AddedVp> {
        self.added.as_ref().filter(|vp| !vp.mailbox.is_closed())
    }
}

/// The position of the vCPU, which is appended if it is new.
fn position(vps: &mut Vec<Known>, id: u32) -> usize {
    let known = vps.iter().position(|known| known.id == id);
    known.unwrap_or_else(|| {
        vps.push(Known { id, added: None });
        vps.len() - 1
    })
}

impl VmHandle {
    /// Sets, changes or (`None`) removes a memory slot, as the VMM does with `KVM_SET_USER_MEMORY_REGION`. Waits until no access of a debugger is in progress. Memory
    /// that goes away is without breakpoint bytes when the call returns.
    ///
    /// Call it after the slot was added in KVM, and before the memory of a slot that goes away is unmapped or used for anything else.
    pub fn set_slot(&self, number: u32, slot: Option<MemorySlot>) {
        let before = self.0.memory.slot(number);
        let away = before.map_or_else(MemorySlot::nowhere, |before| before.range());
        self.change_slots(away, |slots| slots.set(number, slot));
    }

    pub(super) fn change_slots(
        &self,
        away: RangeInclusive<Gpa>,
        change: impl FnOnce(&MemorySlots),
    ) {
        self.0.kvm.shared.change_slots(away, change);
        self.0.control.send(Control::MemoryChanged);
    }

    /// Adds a vCPU whose thread does not run it yet, when its CPUID is set. Debuggers see the vCPU from now on, also in a VM that the VMM has created paused. May be called on
    /// any thread. [`register_vp`](Self::register_vp) follows on the thread of the vCPU. Has no effect on a vCPU that is here already.
    ///
    /// # Errors
    /// The error of the host.
    pub fn add_vp(&self, id: u32, vcpu: BorrowedFd<'_>) -> io::Result<()> {
        let mut vps = self.vps();
        let position = position(&mut vps, id);
        match vps[position].here() {
            Some(_) => Ok(()),
            None => self.add(&mut vps, position, vcpu).map(drop),
        }
    }

    fn add<'a>(
        &self,
        vps: &'a mut [Known],
        position: usize,
        vcpu: BorrowedFd<'_>,
    ) -> io::Result<&'a AddedVp> {
        let vcpu = adopt::vcpu(&self.0.kvm.vm, vcpu)?;
        let index = u32::try_from(position).map_err(|_| io::ErrorKind::QuotaExceeded)?;
        let added = self.0.kvm.add(VpIndex::new(index), vcpu)?;
        Ok(vps[position].added.insert(added))
    }

    /// Says that a vCPU will register. Debuggers number the vCPUs in the order of these calls. A vCPU without such a call is numbered when it registers, so the threads
    /// of a VMM that begins all vCPUs at once would decide the order. A second call for a vCPU has no effect.
    pub fn expect_vp(&self, id: u32) {
        position(&mut self.vps(), id);
    }

    /// Registers a vCPU, on its own thread, before its first `KVM_RUN` and after its CPUID is set. `id` is the VMM's identifier. Identifiers may have gaps. A vCPU
    /// that has gone may register again.
    ///
    /// # Errors
    /// The error of the host, and [`io::ErrorKind::AlreadyExists`] for a vCPU that is registered.
    pub fn register_vp(&self, id: u32, vcpu: BorrowedFd<'_>) -> io::Result<VpHook> {
        let mut vps = self.vps();
        let position = position(&mut vps, id);
        let added = match vps[position].here() {
            Some(added) => added,
            None => self.add(&mut vps, position, vcpu)?,
        };
        let seat = added.seat.clone();
        drop(vps);
        VpHook::new(seat, self.0.kvm.shared.kick.clone())
    }

    /// A device of the VMM has caused an event. `id` is that of the vCPU that accessed the device, if one did: where the event is held, this vCPU executes no further
    /// instruction. May be called on any thread.
    pub fn guest_event(&self, kind: GuestEventKind, id: Option<u32>) -> Proceed {
        let vps = self.vps();
        let position = vps.iter().position(|known| Some(known.id) == id);
        let vp = position.and_then(|position| u32::try_from(position).ok());
        let vp = vp.map(VpIndex::new);
        let Some(event) = GuestEvent::of_kind(kind, vp) else {
            return Proceed::Now;
        };
        let causer = vp.zip(position).and_then(|(vp, position)| {
            let gate = &vps[position].here()?.gate;
            let signal = &*self.0.kvm.shared.kick;
            Some(Causer { vp, gate, signal })
        });
        let events = &self.0.kvm.shared.events;
        match self.0.events.hold(event, causer, events) {
            true => Proceed::Held,
            false => Proceed::Now,
        }
    }

    fn vps(&self) -> MutexGuard<'_, Vec<Known>> {
        self.0.vps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes every breakpoint byte out of the guest's memory until the result is dropped, so that the VMM can take a snapshot of the memory. The VMM has paused its
    /// vCPUs before: they are out of `KVM_RUN` and out of the hooks. A vCPU that was parked has no step flag and no debug register of a debugger then.
    ///
    /// A debugger may stay attached, and gets [`DebugError::HeldByVmm`](vmm_core_defs::debug_rpc::DebugError::HeldByVmm) for requests that change a vCPU.
    pub fn quiesce(&self) -> Quiesced {
        self.0.kvm.shared.quiesce();
        Quiesced(self.0.clone())
    }

    /// Whether there is a breakpoint byte in the guest's memory, which [`quiesce`](Self::quiesce) would take out. Takes a lock for a moment.
    pub fn has_breakpoint_bytes(&self) -> bool {
        self.0.kvm.shared.has_breakpoint_bytes()
    }

    /// From now on, notes the pages that a debugger writes, breakpoint bytes included. A VMM that copies the memory of a running guest calls this before it starts
    /// KVM's log of dirty pages, which does not have these writes.
    pub fn note_writes(&self) {
        self.0.memory.written.keep();
    }

    /// The guest physical addresses of the pages of 4096 bytes in this range that a debugger has written since the last call. Empty without
    /// [`note_writes`](Self::note_writes).
    pub fn take_written_pages(&self, range: Range<u64>) -> Vec<u64> {
        self.0.memory.written.take(range)
    }

    /// Ends the debugger: parked VPs are let go, [`Controller::run`] returns, and the hooks let everything pass.
    pub fn stop(&self) {
        self.0.control.send(Control::Stop);
    }
}

//! What happens at each interposed function, with the real call as a closure.
//!
//! No lock is held while the real call is made. A call that has nothing to do with KVM takes no lock at all.

use crate::descriptor_set::DescriptorSet;
use crate::host::Host;
use crate::kvm_request::GUESTDBG_ENABLE;
use crate::kvm_request::SignalSet;
use crate::ours::Ours;
use crate::ours::is_ours;
use crate::signals::without_signals;
use crate::tracker::Fd;
use crate::tracker::Gone;
use crate::tracker::Slot;
use crate::tracker::Tracker;
use crate::tracker::Vcpu;
use crate::tracker::VmNumber;
use crate::vcpu_threads;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::AsFd as _;
use std::os::fd::AsRawFd as _;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

/// The state of the process.
pub(crate) struct Interposer<H> {
    host: H,
    state: Mutex<State>,
    /// A debug server has started.
    has_started: Condvar,
    /// The process that `trapgate exec` has started. 0: it has not started this program.
    armed: AtomicU32,
    /// The descriptors that the tracker knows.
    known: DescriptorSet,
    /// The process whose VMs these are: the one that has created the first. 0 before that. A child has a copy of this state, or, after `vfork`, even the
    /// same, and must leave it alone.
    process: AtomicU32,
    /// Whether this process or a child that is a copy of this one (`fork`) has created a VM, in memory that they share.
    created: OnceLock<&'static AtomicBool>,
    /// Counts the changes of the objects behind descriptors.
    changes: AtomicU32,
    /// Whether the VMM has enabled debugging of a vCPU by itself.
    vmm_debugs: AtomicBool,
}

struct State {
    tracker: Tracker,
    /// `/dev/kvm`, as each VM without vCPUs was created with it.
    kvm: BTreeMap<VmNumber, OwnedFd>,
    /// The VMs whose debug server is about to start.
    starting: BTreeSet<VmNumber>,
    /// The VMs whose debug server was started.
    started: BTreeSet<VmNumber>,
    /// The VMs in which KVM logs writes.
    logged: BTreeSet<VmNumber>,
}

impl<H: Host> Interposer<H> {
    pub(crate) const fn new(host: H) -> Self {
        Self {
            host,
            state: Mutex::new(State {
                tracker: Tracker::new(),
                kvm: BTreeMap::new(),
                starting: BTreeSet::new(),
                started: BTreeSet::new(),
                logged: BTreeSet::new(),
            }),
            armed: AtomicU32::new(0),
            has_started: Condvar::new(),
            known: DescriptorSet::new(),
            process: AtomicU32::new(0),
            created: OnceLock::new(),
            changes: AtomicU32::new(0),
            vmm_debugs: AtomicBool::new(false),
        }
    }

    /// From now on, VMs are debugged. Without this call nothing is tracked.
    pub(crate) fn arm(&self) {
        self.armed.store(std::process::id(), Ordering::Relaxed);
    }

    /// Memory that is shared with children. Before the first VM.
    pub(crate) fn share(&self, created: &'static AtomicBool) {
        // Once per process: the constructor is the only caller.
        let _ = self.created.set(created);
    }

    /// The debug servers.
    pub(crate) fn host(&self) -> &H {
        &self.host
    }

    /// Whether this is the process that `trapgate exec` has started, and neither it nor a copy of it has created a VM.
    pub(crate) fn has_done_nothing(&self) -> bool {
        let created = self.created.get();
        self.armed.load(Ordering::Relaxed) == std::process::id()
            && self.process.load(Ordering::Relaxed) == 0
            && !created.is_some_and(|created| created.load(Ordering::Relaxed))
    }

    fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed) != 0
    }

    /// Whether this process has created a VM.
    pub(crate) fn has_vms(&self) -> bool {
        self.process.load(Ordering::Relaxed) == std::process::id()
    }

    /// The VMM has created a VM.
    pub(crate) fn vm_created(&self, kvm: BorrowedFd<'_>, fd: Fd) {
        if is_ours() || !self.is_armed() {
            return;
        }
        let us = std::process::id();
        let owner = self
            .process
            .compare_exchange(0, us, Ordering::Relaxed, Ordering::Relaxed);
        if owner.is_err_and(|owner| owner != us) {
            return;
        }
        if let Some(created) = self.created.get() {
            created.store(true, Ordering::Relaxed);
        }
        // The VMM may close its own before it creates a vCPU.
        let kvm = {
            let _ours = Ours::enter();
            kvm.try_clone_to_owned()
        };
        let gone = self.with(|state| {
            let (vm, gone) = state.tracker.vm_created(fd);
            // Without a descriptor for it, the VM runs without a debugger.
            state.kvm.extend(kvm.ok().map(|kvm| (vm, kvm)));
            gone
        });
        self.known.insert(fd);
        self.are_gone(&gone);
    }

    /// The VMM has created a vCPU.
    pub(crate) fn vcpu_created(&self, vm: BorrowedFd<'_>, id: u32, fd: Fd) {
        if !self.knows(vm.as_raw_fd()) {
            return;
        }
        let created = self.with(|state| {
            let (vcpu, gone) = state.tracker.vcpu_created(vm.as_raw_fd(), id, fd)?;
            let kvm = state.kvm.remove(&vcpu.vm);
            state.starting.extend(kvm.as_ref().map(|_| vcpu.vm));
            Some((vcpu, gone, kvm))
        });
        let Some((vcpu, gone, first)) = created else {
            return;
        };
        self.known.insert(fd);
        self.are_gone(&gone);
        if let Some(kvm) = first {
            let _ours = Ours::enter();
            self.host.vm_starts(vcpu.vm, kvm.as_fd(), vm);
            // A slot that another thread sets meanwhile is passed on by that thread, or is among these.
            self.with(|state| {
                state.starting.remove(&vcpu.vm);
                state.started.insert(vcpu.vm);
                for (number, slot) in state.tracker.slots(vcpu.vm) {
                    self.host.slot(vcpu.vm, number, Some(slot));
                }
                if state.logged.contains(&vcpu.vm) {
                    self.host.log_begins(vcpu.vm);
                }
            });
            self.has_started.notify_all();
        }
        let _ours = Ours::enter();
        self.host.vcpu_created(vcpu);
    }

    /// The VMM has set the CPUID of a vCPU, so a debugger knows which registers it has.
    pub(crate) fn vcpu_described(&self, fd: BorrowedFd<'_>) {
        if !self.knows(fd.as_raw_fd()) {
            return;
        }
        if let Some(vcpu) = self.vcpu_of_started_vm(fd.as_raw_fd()) {
            let _ours = Ours::enter();
            self.host.vcpu_described(vcpu, fd);
        }
    }

    /// The VMM sets a memory slot of a VM.
    pub(crate) fn set_slot(
        &self,
        vm: Fd,
        number: u32,
        wanted: Option<Slot>,
        real: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let change = match self.knows(vm) {
            true => self.with(|state| state.tracker.slot_change(vm, number, wanted)),
            false => None,
        };
        let Some(change) = change else {
            return real();
        };
        // The VMM may unmap the former memory as soon as KVM has forgotten it.
        if change.before.is_some() {
            self.tell_slot(change.vm, number, None);
        }
        let result = real();
        let _ours = Ours::enter();
        self.with(|state| {
            if result.is_ok() {
                state.tracker.slot_changed(change);
            }
            let now = match result {
                Ok(()) => change.after,
                Err(_) => change.before,
            };
            // Under the lock, so that two changes of one slot arrive in the order in which the tracker got them.
            if state.started.contains(&change.vm) {
                self.host.slot(change.vm, number, now);
            }
        });
        result
    }

    /// The VMM is about to log which pages of a VM are written.
    pub(crate) fn log_begins(&self, vm: Fd) {
        if !self.knows(vm) {
            return;
        }
        let _ours = Ours::enter();
        self.with(|state| {
            if let Some(vm) = state.tracker.vm(vm)
                && state.logged.insert(vm)
                && state.started.contains(&vm)
            {
                self.host.log_begins(vm);
            }
        });
    }

    /// The VMM has read the log of a slot: the distances from the start of the slot of the pages that a debugger has written meanwhile.
    pub(crate) fn pages_for_log(&self, vm: Fd, number: u32) -> Vec<u64> {
        if !self.knows(vm) {
            return Vec::new();
        }
        let slot = self.with(|state| {
            let vm = state.tracker.vm(vm)?;
            let slot = state.tracker.slot(vm, number)?;
            state.started.contains(&vm).then_some((vm, slot))
        });
        let Some((vm, slot)) = slot else {
            return Vec::new();
        };
        let _ours = Ours::enter();
        let pages = self.host.written_pages(vm, slot).into_iter();
        // A slot may begin in the middle of a page for the debugger, but not for KVM.
        pages
            .filter_map(|page| page.checked_sub(slot.gpa))
            .collect()
    }

    /// The VMM runs a vCPU on the calling thread.
    pub(crate) fn run(
        &self,
        fd: BorrowedFd<'_>,
        mut kvm_run: impl FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        let changes = self.changes.load(Ordering::Acquire);
        vcpu_threads::run(fd, changes, &mut kvm_run, || self.thread_of(fd))
    }

    /// The VMM sets the debugging of a vCPU.
    pub(crate) fn set_guest_debug(
        &self,
        vcpu: Fd,
        control: u32,
        real: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        if !self.knows(vcpu) {
            return real();
        }
        let Some(vcpu) = self.with(|state| state.tracker.vcpu(vcpu)) else {
            return real();
        };
        if control & GUESTDBG_ENABLE != 0 {
            if !self.vmm_debugs.swap(true, Ordering::Relaxed) {
                let _ours = Ours::enter();
                self.host.vmm_debugs_itself(vcpu.vm);
            }
            return real();
        }
        // The VMM switches off debugging that it has never switched on. The debugger's setting stays.
        match self.vmm_debugs.load(Ordering::Relaxed) {
            true => real(),
            false => Ok(()),
        }
    }

    /// The VMM is about to forbid system calls to one of its threads.
    pub(crate) fn system_calls_are_filtered(&self) {
        if self.is_armed() && !is_ours() {
            let _ours = Ours::enter();
            self.host.system_calls_are_filtered();
        }
    }

    /// The VMM sets the signals that stay blocked while a vCPU runs: ours has to come through.
    pub(crate) fn signal_mask(&self, vcpu: Fd, blocked: SignalSet) -> SignalSet {
        match self.knows(vcpu) {
            true => blocked.without(self.host.kick_signal()),
            false => blocked,
        }
    }

    /// The VMM has duplicated a descriptor.
    pub(crate) fn duplicated(&self, old: Fd, new: Fd) {
        if !self.knows(old) && !self.knows(new) {
            return;
        }
        let (gone, is_known) = self.with(|state| {
            let gone = state.tracker.duplicated(old, new);
            (gone, state.tracker.object(new).is_some())
        });
        match is_known {
            true => self.known.insert(new),
            false => self.known.remove(new),
        }
        self.are_gone(&gone);
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// The VMM is about to close a descriptor. After the close, another thread may get the number for another object.
    pub(crate) fn closing(&self, fd: Fd) {
        if self.knows(fd) {
            self.known.remove(fd);
            let gone = self.with(|state| state.tracker.closed(fd));
            self.are_gone(&gone);
        }
    }

    /// The VMM is about to close all descriptors of a range.
    pub(crate) fn closing_range(&self, range: RangeInclusive<Fd>) {
        if is_ours() || !self.has_vms() {
            return;
        }
        let gone = self.with(|state| state.tracker.closed_range(range));
        self.are_gone(&gone);
    }

    /// Whether the descriptor is one of the tracker's, and this thread one of the VMM's.
    pub(crate) fn knows(&self, fd: Fd) -> bool {
        self.known.contains(fd) && !is_ours() && self.has_vms()
    }

    fn thread_of<'a>(&'a self, fd: BorrowedFd<'a>) -> vcpu_threads::Found<'a> {
        if !self.knows(fd.as_raw_fd()) {
            return vcpu_threads::Found::Unknown;
        }
        let Some(vcpu) = self.vcpu_of_started_vm(fd.as_raw_fd()) else {
            return vcpu_threads::Found::Unknown;
        };
        vcpu_threads::Found::Vcpu(
            vcpu,
            Box::new(move || {
                let _ours = Ours::enter();
                self.host.vcpu_thread(vcpu, fd)
            }),
        )
    }

    /// Waits while another thread, which has created the first vCPU, starts the debug server.
    fn vcpu_of_started_vm(&self, fd: Fd) -> Option<Vcpu> {
        without_signals(|| {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let is_starting = |state: &mut State| {
                let vcpu = state.tracker.vcpu(fd);
                vcpu.is_some_and(|vcpu| state.starting.contains(&vcpu.vm))
            };
            let state = self.has_started.wait_while(state, is_starting);
            let state = state.unwrap_or_else(PoisonError::into_inner);
            state.tracker.vcpu(fd)
        })
    }

    fn tell_slot(&self, vm: VmNumber, number: u32, slot: Option<Slot>) {
        if self.with(|state| state.started.contains(&vm)) {
            let _ours = Ours::enter();
            self.host.slot(vm, number, slot);
        }
    }

    fn are_gone(&self, gone: &[Gone]) {
        if gone.is_empty() {
            return;
        }
        self.changes.fetch_add(1, Ordering::Release);
        let _ours = Ours::enter();
        for object in gone {
            if let Gone::Vm(vm) = object {
                let (kvm, started) = self.with(|state| {
                    state.logged.remove(vm);
                    (state.kvm.remove(vm), state.started.remove(vm))
                });
                drop(kvm);
                if started {
                    self.host.vm_is_gone(*vm);
                }
            }
        }
    }

    /// A signal handler that closes a descriptor would wait for a lock that its own thread holds, so none runs meanwhile.
    fn with<R>(&self, use_state: impl FnOnce(&mut State) -> R) -> R {
        without_signals(|| {
            use_state(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }
}

#[cfg(test)]
mod tests;

//! How a VP begins: on a thread of this crate, or on a thread of the VMM.

use super::VpThread;
use super::Vps;
use crate::arch::GuestMemory;
use crate::arch::PagingLimits;
use crate::arch::Snapshots;
use crate::arch::Timekeeper;
use crate::arch::VpContext;
use crate::breakpoints::Breakpoints;
use crate::control::run_gate::RunGate;
use crate::hook::HookParts;
use crate::hook::HookedVp;
use crate::hook::NewVp;
use crate::hook::VpEvent;
use crate::hook::link::HookLink;
use crate::hook::mailbox::Holder;
use crate::hook::mailbox::Mailbox;
use crate::hook::on_thread::OnThread;
use crate::hook::seat::Seat;
use crate::kvm::exit_decode::Exits;
use crate::kvm::guest_ram;
use crate::kvm::hooked_vcpu::HookedVcpu;
use crate::kvm::kick::Kick;
use crate::kvm::vcpu::KvmVcpu;
use crate::kvm::vcpu::features::KvmFeatures;
use crate::machine::Machine;
use crate::memory::slots::MemorySlots;
use crate::sync::thread;
use crate::vp_thread;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::regs::XFeatures;

/// What all VPs of a VM share.
pub(crate) struct VpShared {
    pub(crate) ram: Arc<MemorySlots>,
    pub(crate) breakpoints: Arc<RwLock<Breakpoints>>,
    pub(crate) time: Arc<Timekeeper>,
    pub(crate) kick: Arc<dyn Kick>,
    pub(crate) events: mesh::Sender<VpEvent>,
}

/// The VPs of a VM in KVM.
pub(crate) struct KvmVps {
    pub(crate) shared: VpShared,
    pub(crate) vm: Arc<VmFd>,
    pub(crate) features: KvmFeatures,
}

/// A vCPU of the VMM's.
pub(crate) struct AddedVp<V: HookedVcpu = KvmVcpu> {
    pub(crate) gate: Arc<RunGate>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) seat: Arc<Seat<V>>,
}

/// The two ends of a VP that is about to begin: of its thread, and of the controller.
struct Ends {
    context: VpContext,
    parts: HookParts,
    gate: Arc<RunGate>,
    snapshot: Snapshots,
    link: HookLink,
}

impl VpShared {
    fn ends(
        &self,
        index: VpIndex,
        machine: Option<Arc<dyn Machine>>,
        exits: Exits,
        holder: Holder,
    ) -> io::Result<Ends> {
        let gate = Arc::new(RunGate::new());
        let snapshot = Snapshots::default();
        let mailbox = Arc::new(Mailbox::new(holder)?);
        let context = VpContext {
            index,
            gate: gate.clone(),
            snapshot: snapshot.clone(),
            memory: GuestMemory {
                ram: self.ram.clone(),
                breakpoints: self.breakpoints.clone(),
            },
            time: self.time.clone(),
        };
        let link = HookLink {
            vp: index,
            mailbox: mailbox.clone(),
            kick: self.kick.clone(),
            away: None,
            thread: None,
        };
        let parts = HookParts {
            mailbox,
            events: self.events.clone(),
            exits,
            machine,
        };
        Ok(Ends {
            context,
            parts,
            gate,
            snapshot,
            link,
        })
    }

    /// Whether there is a breakpoint byte.
    pub(crate) fn has_breakpoint_bytes(&self) -> bool {
        let breakpoints = self.breakpoints.read();
        let breakpoints = breakpoints.unwrap_or_else(PoisonError::into_inner);
        !breakpoints.bytes.is_empty()
    }

    /// Changes memory slots. Memory at these addresses may go away, and is without breakpoint bytes then.
    pub(crate) fn change_slots(
        &self,
        away: RangeInclusive<Gpa>,
        change: impl FnOnce(&MemorySlots),
    ) {
        let breakpoints = self.breakpoints.write();
        let mut breakpoints = breakpoints.unwrap_or_else(PoisonError::into_inner);
        breakpoints.bytes.withdraw_within(&*self.ram, away);
        change(&self.ram);
    }

    /// Takes every breakpoint byte out of memory.
    pub(crate) fn quiesce(&self) {
        let breakpoints = self.breakpoints.write();
        let mut breakpoints = breakpoints.unwrap_or_else(PoisonError::into_inner);
        breakpoints.bytes.quiesce(&*self.ram);
    }

    /// Ends one [`quiesce`](Self::quiesce).
    pub(crate) fn unquiesce(&self) {
        let breakpoints = self.breakpoints.write();
        let mut breakpoints = breakpoints.unwrap_or_else(PoisonError::into_inner);
        breakpoints.bytes.unquiesce(&*self.ram);
    }

    /// Adds a vCPU of the VMM, whose thread may come later ([`Around::new`]). The VP is parked until the controller enters it.
    ///
    /// # Errors
    /// The error of the host.
    pub(crate) fn add<V: HookedVcpu>(
        &self,
        index: VpIndex,
        vcpu: V,
        xfeatures: XFeatures,
        paging_limits: PagingLimits,
    ) -> io::Result<AddedVp<V>> {
        let Ends {
            context,
            parts,
            gate,
            snapshot,
            mut link,
        } = self.ends(index, None, Exits::GoToVmm, Holder::Vmm)?;
        let mailbox = link.mailbox.clone();
        let seat = Arc::new(Seat::new(HookedVp::new(vcpu, context, parts)));
        link.away = Some(seat.clone());
        let new = NewVp {
            gate: gate.clone(),
            link: Box::new(link),
            snapshot,
            xfeatures,
            paging_limits,
        };
        self.events.send(VpEvent::Joined(index, new));
        Ok(AddedVp {
            gate,
            mailbox,
            seat,
        })
    }

    /// Starts a thread of this crate for a vCPU, which `vcpu` makes on the thread.
    pub(in crate::controller) fn start<V: HookedVcpu>(
        &self,
        index: VpIndex,
        vcpu: impl FnOnce() -> V + Send + 'static,
        machine: Arc<dyn Machine>,
    ) -> io::Result<VpThread> {
        let served = machine.clone();
        let ends = self.ends(index, Some(machine), Exits::AreFailures, Holder::Runner)?;
        let Ends {
            context,
            parts,
            gate,
            snapshot,
            mut link,
        } = ends;
        let kick = self.kick.clone();
        let run = move || {
            let mut vp = HookedVp::new(vcpu(), context, parts);
            match OnThread::new(&mut vp, kick) {
                Ok(_thread) => vp_thread::serve(vp, index, &*served),
                Err(error) => tracing::error!(vp = %index, %error, "a VP thread cannot be kicked"),
            }
        };
        let name = format!("vp{}", index.index());
        link.thread = Some(thread::Builder::new().name(name).spawn(run)?);
        Ok(VpThread::new(gate, Box::new(link), snapshot))
    }
}

impl KvmVps {
    /// As [`VpShared::add`].
    ///
    /// # Errors
    /// The error of the host.
    pub(crate) fn add(&self, index: VpIndex, fd: VcpuFd) -> io::Result<AddedVp> {
        guest_ram::install();
        let mut vcpu = KvmVcpu::new(fd, self.vm.clone(), self.features);
        let registers = vcpu.find_register_file().map_err(io::Error::other)?;
        vcpu.set_register_file(registers);
        let (xfeatures, paging_limits) = (registers.xfeatures(), registers.paging_limits());
        self.shared.add(index, vcpu, xfeatures, paging_limits)
    }

    /// Starts a thread of this crate for a vCPU.
    fn start(&self, index: VpIndex, fd: VcpuFd, machine: Arc<dyn Machine>) -> io::Result<VpThread> {
        let (vm, features) = (self.vm.clone(), self.features);
        let vcpu = move || KvmVcpu::new(fd, vm, features);
        self.shared.start(index, vcpu, machine)
    }
}

impl Vps {
    /// Starts a thread of this crate for each vCPU.
    pub(crate) fn start(
        vcpus: Vec<VcpuFd>,
        kvm: &KvmVps,
        machine: &Arc<dyn Machine>,
    ) -> io::Result<Self> {
        guest_ram::install();
        let mut vps = Self::of(Vec::with_capacity(vcpus.len()));
        for (index, fd) in (0..).map(VpIndex::new).zip(vcpus) {
            vps.join(index, kvm.start(index, fd, machine.clone())?);
        }
        Ok(vps)
    }
}

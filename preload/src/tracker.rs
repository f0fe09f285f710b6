//! The objects behind the VMM's file descriptors: VMs, vCPUs, and the memory slots of each VM. Without IO: the interposed functions report each call of the VMM.
//!
//! A VMM may close a descriptor by a system call that no interposed function sees. So a number that comes up for a new object is taken to have been closed
//! before.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// A number of a file descriptor.
pub(crate) type Fd = i32;

/// A VM of this process. The numbers start at 1, in the order of creation, and are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct VmNumber(pub(crate) u32);

/// A vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Vcpu {
    /// Its VM.
    pub(crate) vm: VmNumber,
    /// The id with which the VMM has created the vCPU.
    pub(crate) id: u32,
    /// Tells two vCPUs with the same id apart: an id may come again after its vCPU was closed.
    pub(crate) serial: u32,
}

/// What a descriptor stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Object {
    /// A VM.
    Vm(VmNumber),
    /// A vCPU.
    Vcpu(Vcpu),
}

impl Object {
    fn vm(self) -> VmNumber {
        match self {
            Self::Vm(vm) => vm,
            Self::Vcpu(vcpu) => vcpu.vm,
        }
    }
}

/// An object with no descriptor left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// A vCPU whose last descriptor was closed.
    Vcpu(Vcpu),
    /// A VM. KVM keeps a VM while one of its vCPUs has a descriptor, and so does this.
    Vm(VmNumber),
}

/// A memory slot as the VMM has registered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The first guest physical address.
    pub(crate) gpa: u64,
    /// The size in bytes.
    pub(crate) size: u64,
    /// The address of the memory in this process.
    pub(crate) host: u64,
    /// Whether the guest may write.
    pub(crate) writable: bool,
}

/// The VMM's wish for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotChange {
    /// The VM.
    pub(crate) vm: VmNumber,
    /// The number of the slot.
    pub(crate) slot: u32,
    /// What the slot has been.
    pub(crate) before: Option<Slot>,
    /// The slot after the change. `None` if the change removes the slot.
    pub(crate) after: Option<Slot>,
}

#[derive(Debug, Default)]
struct Vm {
    slots: BTreeMap<u32, Slot>,
    /// The number of descriptors of the VM and of its vCPUs.
    descriptors: usize,
}

/// The objects of this process.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    descriptors: BTreeMap<Fd, Object>,
    vms: BTreeMap<VmNumber, Vm>,
    last_vm: u32,
    last_vcpu: u32,
}

impl Tracker {
    /// Without objects.
    pub(crate) const fn new() -> Self {
        Self {
            descriptors: BTreeMap::new(),
            vms: BTreeMap::new(),
            last_vm: 0,
            last_vcpu: 0,
        }
    }

    /// The VMM has created a VM.
    pub(crate) fn vm_created(&mut self, fd: Fd) -> (VmNumber, Vec<Gone>) {
        let gone = self.closed(fd);
        self.last_vm += 1;
        let vm = VmNumber(self.last_vm);
        self.vms.insert(vm, Vm::default());
        self.opened(fd, Object::Vm(vm));
        (vm, gone)
    }

    /// The VMM has created a vCPU of the VM that `vm` stands for. `None` if that VM is not known.
    pub(crate) fn vcpu_created(&mut self, vm: Fd, id: u32, fd: Fd) -> Option<(Vcpu, Vec<Gone>)> {
        let vm = self.vm(vm)?;
        let gone = self.closed(fd);
        // The number can have been the VM's last one only if the VMM used a closed descriptor.
        self.vms.get(&vm)?;
        self.last_vcpu += 1;
        let vcpu = Vcpu {
            vm,
            id,
            serial: self.last_vcpu,
        };
        self.opened(fd, Object::Vcpu(vcpu));
        Some((vcpu, gone))
    }

    /// `new` is a duplicate of `old`. If `new` was open (`dup2`), it was closed first.
    pub(crate) fn duplicated(&mut self, old: Fd, new: Fd) -> Vec<Gone> {
        if old == new {
            return Vec::new();
        }
        let object = self.object(old);
        // The duplicate is counted first: `dup2` may close the last other descriptor of the same VM.
        if let Some(vm) = object.and_then(|object| self.vms.get_mut(&object.vm())) {
            vm.descriptors += 1;
        }
        let gone = self.closed(new);
        if let Some(object) = object {
            self.descriptors.insert(new, object);
        }
        gone
    }

    /// The VMM closes a descriptor.
    pub(crate) fn closed(&mut self, fd: Fd) -> Vec<Gone> {
        let Some(object) = self.descriptors.remove(&fd) else {
            return Vec::new();
        };
        let mut gone = Vec::new();
        if let Object::Vcpu(vcpu) = object
            && !self.descriptors.values().any(|other| *other == object)
        {
            gone.push(Gone::Vcpu(vcpu));
        }
        let number = object.vm();
        if let Some(vm) = self.vms.get_mut(&number) {
            vm.descriptors -= 1;
            if vm.descriptors == 0 {
                self.vms.remove(&number);
                gone.push(Gone::Vm(number));
            }
        }
        gone
    }

    /// The VMM closes all descriptors of a range.
    pub(crate) fn closed_range(&mut self, range: RangeInclusive<Fd>) -> Vec<Gone> {
        if range.is_empty() {
            return Vec::new();
        }
        let numbers: Vec<Fd> = self.descriptors.range(range).map(|(fd, _)| *fd).collect();
        numbers.into_iter().flat_map(|fd| self.closed(fd)).collect()
    }

    /// What a descriptor stands for.
    pub(crate) fn object(&self, fd: Fd) -> Option<Object> {
        self.descriptors.get(&fd).copied()
    }

    /// The VM that a descriptor stands for.
    pub(crate) fn vm(&self, fd: Fd) -> Option<VmNumber> {
        match self.object(fd)? {
            Object::Vm(vm) => Some(vm),
            Object::Vcpu(_) => None,
        }
    }

    /// The vCPU that a descriptor stands for.
    pub(crate) fn vcpu(&self, fd: Fd) -> Option<Vcpu> {
        match self.object(fd)? {
            Object::Vm(_) => None,
            Object::Vcpu(vcpu) => Some(vcpu),
        }
    }

    /// What a call with these numbers would change. `None` if the VM is not known, or if nothing changes that a debugger sees: a change of the log of dirty
    /// pages leaves the memory where it is.
    pub(crate) fn slot_change(&self, vm: Fd, slot: u32, after: Option<Slot>) -> Option<SlotChange> {
        let vm = self.vm(vm)?;
        let before = self.vms.get(&vm)?.slots.get(&slot).copied();
        (before != after).then_some(SlotChange {
            vm,
            slot,
            before,
            after,
        })
    }

    /// KVM has accepted the change.
    pub(crate) fn slot_changed(&mut self, change: SlotChange) {
        // The VM may be gone: another thread has closed it meanwhile.
        let Some(vm) = self.vms.get_mut(&change.vm) else {
            return;
        };
        match change.after {
            Some(slot) => vm.slots.insert(change.slot, slot),
            None => vm.slots.remove(&change.slot),
        };
    }

    /// A slot of a VM.
    pub(crate) fn slot(&self, vm: VmNumber, number: u32) -> Option<Slot> {
        self.vms.get(&vm)?.slots.get(&number).copied()
    }

    /// The slots of a VM, by their numbers.
    pub(crate) fn slots(&self, vm: VmNumber) -> Vec<(u32, Slot)> {
        let slots = self.vms.get(&vm).map(|vm| &vm.slots);
        let slots = slots.into_iter().flatten();
        slots.map(|(number, slot)| (*number, *slot)).collect()
    }

    fn opened(&mut self, fd: Fd, object: Object) {
        self.descriptors.insert(fd, object);
        if let Some(vm) = self.vms.get_mut(&object.vm()) {
            vm.descriptors += 1;
        }
    }
}

#[cfg(test)]
mod tests;

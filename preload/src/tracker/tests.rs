use super::*;

const VM_FD: Fd = 10;
const FIRST: Fd = 11;
const SECOND: Fd = 12;

/// A VM with two vCPUs, whose ids are not consecutive.
fn two_vcpus() -> (Tracker, VmNumber, [Vcpu; 2]) {
    let mut tracker = Tracker::new();
    let (vm, _) = tracker.vm_created(VM_FD);
    let ids = [(0, FIRST), (6, SECOND)];
    let vcpus = ids.map(|(id, fd)| tracker.vcpu_created(VM_FD, id, fd).expect("a VM").0);
    (tracker, vm, vcpus)
}

fn ram(gpa: u64) -> Slot {
    Slot {
        gpa,
        size: 0x10_0000,
        host: 0x7f00_0000_0000 + gpa,
        writable: true,
    }
}

#[test]
fn each_descriptor_stands_for_its_object() {
    let (tracker, vm, [first, second]) = two_vcpus();
    assert_eq!(tracker.vm(VM_FD), Some(vm));
    assert_eq!(tracker.vcpu(VM_FD), None);
    assert_eq!(tracker.vcpu(FIRST), Some(first));
    assert_eq!(tracker.vm(FIRST), None);
    assert_eq!((first.vm, first.id), (vm, 0));
    assert_eq!((second.vm, second.id), (vm, 6));
    assert_eq!(tracker.object(3), None);
}

#[test]
fn a_vcpu_of_an_unknown_vm_is_unknown() {
    let (mut tracker, _, _) = two_vcpus();
    assert_eq!(tracker.vcpu_created(99, 0, 20), None);
    assert_eq!(tracker.vcpu_created(FIRST, 0, 20), None);
    assert_eq!(tracker.object(20), None);
}

#[test]
fn a_vm_lives_as_long_as_a_descriptor_of_it_or_of_a_vcpu() {
    let (mut tracker, vm, [first, second]) = two_vcpus();
    assert_eq!(tracker.closed(VM_FD), []);
    assert_eq!(tracker.closed(FIRST), [Gone::Vcpu(first)]);
    assert_eq!(tracker.closed(SECOND), [Gone::Vcpu(second), Gone::Vm(vm)]);
    assert_eq!(tracker.closed(SECOND), []);
}

#[test]
fn a_duplicate_keeps_its_object() {
    let (mut tracker, vm, [first, second]) = two_vcpus();
    assert_eq!(tracker.duplicated(FIRST, 30), []);
    assert_eq!(tracker.vcpu(30), Some(first));
    assert_eq!(tracker.closed(FIRST), []);
    assert_eq!(tracker.closed(30), [Gone::Vcpu(first)]);
    // The same for a VM, with dup2 onto its own last other descriptor.
    assert_eq!(tracker.closed(SECOND), [Gone::Vcpu(second)]);
    assert_eq!(tracker.duplicated(VM_FD, 31), []);
    assert_eq!(tracker.duplicated(31, VM_FD), []);
    assert_eq!(tracker.closed(31), []);
    assert_eq!(tracker.vm(VM_FD), Some(vm));
    assert_eq!(tracker.closed(VM_FD), [Gone::Vm(vm)]);
}

#[test]
fn dup2_closes_what_its_number_stood_for() {
    let (mut tracker, _, [first, second]) = two_vcpus();
    assert_eq!(tracker.duplicated(SECOND, FIRST), [Gone::Vcpu(first)]);
    assert_eq!(tracker.vcpu(FIRST), Some(second));
    // A descriptor that is not KVM's.
    assert_eq!(tracker.duplicated(3, FIRST), []);
    assert_eq!(tracker.object(FIRST), None);
    assert_eq!(tracker.duplicated(SECOND, SECOND), []);
    assert_eq!(tracker.vcpu(SECOND), Some(second));
}

#[test]
fn the_last_vcpu_replaced_by_its_own_vm_keeps_the_vm() {
    let mut tracker = Tracker::new();
    let (vm, _) = tracker.vm_created(VM_FD);
    let (vcpu, _) = tracker.vcpu_created(VM_FD, 0, FIRST).expect("a VM");
    assert_eq!(tracker.duplicated(VM_FD, FIRST), [Gone::Vcpu(vcpu)]);
    assert_eq!(tracker.closed(VM_FD), []);
    assert_eq!(tracker.closed(FIRST), [Gone::Vm(vm)]);
}

#[test]
fn a_range_is_closed_as_one_by_one() {
    let (mut tracker, vm, [first, second]) = two_vcpus();
    assert_eq!(tracker.closed_range(FIRST..=FIRST), [Gone::Vcpu(first)]);
    #[expect(clippy::reversed_empty_ranges, reason = "a VMM may ask for it")]
    let backwards = tracker.closed_range(13..=3);
    assert_eq!(backwards, []);
    assert_eq!(
        tracker.closed_range(3..=Fd::MAX),
        [Gone::Vcpu(second), Gone::Vm(vm)]
    );
}

#[test]
fn a_number_that_comes_again_was_closed_unseen() {
    let (mut tracker, old, [first, second]) = two_vcpus();
    let (new, gone) = tracker.vm_created(FIRST);
    assert_ne!(new, old);
    assert_eq!(gone, [Gone::Vcpu(first)]);
    let (vcpu, gone) = tracker.vcpu_created(FIRST, 0, SECOND).expect("a VM");
    assert_eq!(gone, [Gone::Vcpu(second)]);
    assert_eq!(tracker.vcpu(SECOND), Some(vcpu));
    assert_eq!(tracker.closed(VM_FD), [Gone::Vm(old)]);
}

#[test]
fn a_vcpu_with_the_id_of_a_closed_one_is_another_vcpu() {
    let (mut tracker, _, [first, _]) = two_vcpus();
    tracker.closed(FIRST);
    let (again, _) = tracker.vcpu_created(VM_FD, 0, FIRST).expect("a VM");
    assert_eq!((again.vm, again.id), (first.vm, first.id));
    assert_ne!(again, first);
}

#[test]
fn two_vms_have_their_own_slots() {
    let (mut tracker, one, _) = two_vcpus();
    let (two, _) = tracker.vm_created(20);
    for (fd, slot) in [(VM_FD, ram(0)), (20, ram(0x4000_0000))] {
        let change = tracker.slot_change(fd, 0, Some(slot)).expect("new");
        tracker.slot_changed(change);
    }
    assert_eq!(tracker.slots(one), [(0, ram(0))]);
    assert_eq!(tracker.slots(two), [(0, ram(0x4000_0000))]);
    tracker.closed(20);
    assert_eq!(tracker.slots(two), []);
}

#[test]
fn a_slot_moves_becomes_read_only_and_goes() {
    let (mut tracker, vm, _) = two_vcpus();
    let mut last = None;
    let moved = ram(0x20_0000);
    let rom = Slot {
        writable: false,
        ..moved
    };
    for after in [Some(ram(0)), Some(moved), Some(rom), None, Some(moved)] {
        let change = tracker.slot_change(VM_FD, 3, after).expect("a change");
        assert_eq!((change.vm, change.slot), (vm, 3));
        assert_eq!((change.before, change.after), (last, after));
        // Until KVM has accepted the change, the slot is what it was.
        let now: Vec<Slot> = tracker
            .slots(vm)
            .into_iter()
            .map(|(_, slot)| slot)
            .collect();
        assert_eq!(now, last.into_iter().collect::<Vec<_>>());
        tracker.slot_changed(change);
        last = after;
    }
    assert_eq!(tracker.slots(vm), [(3, moved)]);
}

#[test]
fn what_changes_no_memory_is_no_change() {
    let (mut tracker, _, _) = two_vcpus();
    let change = tracker.slot_change(VM_FD, 0, Some(ram(0))).expect("new");
    tracker.slot_changed(change);
    assert_eq!(tracker.slot_change(VM_FD, 0, Some(ram(0))), None);
    assert_eq!(tracker.slot_change(VM_FD, 1, None), None);
    assert_eq!(tracker.slot_change(FIRST, 1, Some(ram(0))), None);
    assert_eq!(tracker.slot_change(99, 1, Some(ram(0))), None);
}

#[test]
fn a_change_that_is_late_does_not_bring_a_vm_back() {
    let mut tracker = Tracker::new();
    let (vm, _) = tracker.vm_created(VM_FD);
    let change = tracker.slot_change(VM_FD, 0, Some(ram(0))).expect("new");
    tracker.closed(VM_FD);
    tracker.slot_changed(change);
    assert_eq!(tracker.slots(vm), []);
}

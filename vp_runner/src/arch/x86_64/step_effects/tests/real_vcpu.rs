//! Steps on a real vCPU. After the corrections, memory does not show the trap flag of the step.

use super::*;
use crate::kvm::x86_64::RegisterFile;
use crate::kvm::x86_64::ScratchVm;
use crate::kvm::x86_64::StartIn;
use crate::kvm::x86_64::kvm_for_test;
use kvm_bindings::KVM_GUESTDBG_ENABLE;
use kvm_bindings::KVM_GUESTDBG_SINGLESTEP;
use kvm_bindings::kvm_guest_debug;
use kvm_ioctls::VcpuExit;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;

const CODE: u64 = 0x800;
const STACK: u64 = 0x700;

/// The RAM of a guest. Linear addresses below its size equal the physical ones.
struct Flat<'a>(&'a GuestMemoryMmap);

impl GuestState for Flat<'_> {
    fn read(&self, gva: Gva, data: &mut [u8]) -> bool {
        self.0.read_slice(data, GuestAddress(gva.value())).is_ok()
    }

    fn syscall_mask(&self) -> u64 {
        0
    }

    fn syscall_entry(&self) -> u64 {
        0
    }
}

/// The image of the flags, `slot` bytes wide, that a step over `pushf` has stored, before and after its correction.
fn pushed_by_a_step(mode: StartIn, slot: u64, own: TrapFlag) -> Option<(u16, u16)> {
    let mut scratch = ScratchVm::new(&kvm_for_test()?, 0x1000).unwrap();
    let pushf = [0x9c];
    scratch.load(&pushf, CODE).unwrap();
    scratch.start(mode, CODE, STACK).unwrap();
    let file = RegisterFile::new(scratch.vm(), scratch.vcpu()).unwrap();
    let before = file.read(scratch.vcpu()).unwrap();
    let step = step_over(&before, own, &pushf, &Flat(scratch.ram()));
    let debug = kvm_guest_debug {
        control: KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP,
        ..Default::default()
    };
    scratch.vcpu().set_guest_debug(&debug).unwrap();
    match scratch.vcpu_mut().run() {
        Ok(VcpuExit::Debug(_)) => {}
        other => panic!("a step over pushf ended with {other:?}"),
    }
    let after = file.read(scratch.vcpu()).unwrap();
    assert_eq!(after.rip, CODE + 1);
    let ram = scratch.ram();
    let image = || ram.read_obj::<u16>(GuestAddress(STACK - slot)).unwrap();
    let left = image();
    let effects = step.after(&after, &Flat(ram));
    assert_eq!(effects.own, own);
    if let Some(Correction { location, flag }) = effects.correction {
        let FlagsLocation::Memory(gva) = location else {
            panic!("pushf stores in memory, not in {location:?}");
        };
        let at = GuestAddress(gva.value());
        let byte: u8 = ram.read_obj(at).unwrap();
        let byte = match flag {
            TrapFlag::Set => byte | TF_IN_BYTE,
            TrapFlag::Clear => byte & !TF_IN_BYTE,
        };
        ram.write_obj(byte, at).unwrap();
    }
    Some((left, image()))
}

#[test]
fn what_pushf_pushed_in_a_step_is_what_it_would_have_pushed_without() {
    for (mode, slot) in [
        (StartIn::Real, 2),
        (StartIn::Protected32, 4),
        (StartIn::Long, 8),
    ] {
        for (own, right) in [(TrapFlag::Clear, 0x002), (TrapFlag::Set, 0x102)] {
            let Some((left, corrected)) = pushed_by_a_step(mode, slot, own) else {
                return;
            };
            eprintln!("{mode:?}: this host's KVM left {left:#x}");
            assert_eq!(corrected, right, "{mode:?}");
        }
    }
}

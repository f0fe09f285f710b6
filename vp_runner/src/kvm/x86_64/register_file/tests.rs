//! Writes and reads every register of a real vCPU.

use super::*;
use crate::kvm::x86_64::ScratchVm;
use crate::kvm::x86_64::StartIn;
use crate::kvm::x86_64::kvm_for_test;
use crate::kvm::x86_64::read_msr;
use crate::kvm::x86_64::write_msr;
use kvm_bindings::KVM_CAP_EXCEPTION_PAYLOAD;
use kvm_bindings::kvm_enable_cap;
use kvm_ioctls::VcpuExit;
use vmm_core_defs::regs::x86_64::SegmentRegister;
use vmm_core_defs::regs::x86_64::TableRegister;

mod changes;

use changes::CHANGES;
use changes::Change;

fn scratch() -> Option<(ScratchVm, RegisterFile)> {
    let scratch = ScratchVm::new(&kvm_for_test()?, 0x1000).unwrap();
    let file = RegisterFile::new(scratch.vm(), scratch.vcpu()).unwrap();
    Some((scratch, file))
}

fn segment(n: u32, attributes: u32) -> SegmentRegister {
    SegmentRegister {
        base: u64::from(n) * 0x11_1000,
        // KVM on AMD computes G from the limit, so the two have to agree.
        limit: n * 0x1000 + 0xfff,
        selector: u16::try_from(n * 8).unwrap(),
        attributes,
    }
}

const DATA: u32 = 1 << 7 | 1 << 4 | 3;
const LONG_CODE: u32 = 1 << 13 | 1 << 7 | 1 << 4 | 11;
const TSS: u32 = 1 << 7 | 11;
const LDT: u32 = 1 << 7 | 2;

/// A legal 64-bit state in which all registers differ.
fn distinct(present: &X86VpState) -> X86VpState {
    let mut s = present.clone();
    s.gp = std::array::from_fn(|n| 0x8000_1111_2222_0000 + n as u64);
    s.rip = 0xffff_8000_0000_1234;
    s.rflags = 0x246;
    s.cr0 = 0x8005_0033;
    s.cr2 = 0x0000_7fff_2222_2000;
    s.cr3 = 0x3000;
    s.cr4 = 0x6a0;
    s.cr8 = 8;
    s.efer = 0xd01;
    s.apic_base = 0xfee0_1900;
    s.kernel_gs_base = 0xffff_8880_0102_0000;
    s.es = segment(1, DATA);
    s.cs = segment(2, LONG_CODE);
    s.ss = segment(3, DATA);
    s.ds = segment(4, DATA | 3 << 5);
    s.fs = segment(5, DATA);
    s.fs.base = 0x0000_7fff_f500_0000;
    s.gs = segment(6, DATA);
    s.gs.base = 0xffff_8880_0600_0000;
    s.tr = segment(7, TSS);
    s.ldtr = segment(8, LDT);
    s.gdtr = TableRegister {
        base: 0xffff_fe00_0000_9000,
        limit: 0x7f,
    };
    s.idtr = TableRegister {
        base: 0xffff_fe00_0000_a000,
        limit: 0xfff,
    };
    s.debug.db = [0x1001, 0x2002, 0x3003, 0xffff_8000_0000_4004];
    s.debug.dr6 = 0xffff_0ff2;
    s.debug.dr7 = 0x0d_0602;
    let vector = |n: usize| u128::MAX / 7 + n as u128;
    s.x87.st = std::array::from_fn(|n| 0x4001_8000_0000_0000_0000 + n as u128);
    s.x87.fcw = 0x27f;
    s.x87.fsw = 0x3800;
    s.x87.ftw = 0;
    s.x87.fop = 0x5a5;
    s.x87.fip = 0x1357_9bdf;
    s.x87.fcs = 0x1234;
    s.x87.fdp = 0x2468_ace0;
    s.x87.fds = 0x4321;
    s.sse.xmm = std::array::from_fn(vector);
    s.sse.mxcsr = 0x1fa0;
    if let Some(avx) = &mut s.avx {
        *avx = std::array::from_fn(|n| vector(100 + n));
    }
    if let Some(avx512) = &mut s.avx512 {
        avx512.opmask = std::array::from_fn(|n| 0x1_0001 * (n as u64 + 1));
        avx512.zmm_hi256 = std::array::from_fn(|n| [vector(200 + 2 * n), vector(201 + 2 * n)]);
        avx512.hi16_zmm =
            std::array::from_fn(|n| std::array::from_fn(|piece| vector(300 + 4 * n + piece)));
    }
    if let Some(pkru) = &mut s.pkru {
        *pkru = 0x5555_5554;
    }
    if let Some(xcr0) = &mut s.xcr0 {
        let features = |set: bool, bits: u64| if set { bits } else { 0 };
        *xcr0 = 3
            | features(present.avx.is_some(), 4)
            | features(present.avx512.is_some(), 0xe0)
            | features(present.pkru.is_some(), 0x200);
    }
    s
}

#[test]
fn every_register_is_read_back_with_its_own_value() {
    let Some((mut scratch, file)) = scratch() else {
        return;
    };
    let reset = file.read(scratch.vcpu()).unwrap();
    eprintln!("this vCPU has {:?}", file.xfeatures());
    let wanted = distinct(&reset);
    file.write(scratch.vcpu_mut(), &reset, &wanted).unwrap();
    assert_eq!(file.read(scratch.vcpu()).unwrap(), wanted);
    // Back to the former state, which is another mode.
    file.write(scratch.vcpu_mut(), &wanted, &reset).unwrap();
    assert_eq!(file.read(scratch.vcpu()).unwrap(), reset);
}

#[test]
fn each_register_changes_alone() {
    let Some((mut scratch, file)) = scratch() else {
        return;
    };
    let reset = file.read(scratch.vcpu()).unwrap();
    let base = distinct(&reset);
    file.write(scratch.vcpu_mut(), &reset, &base).unwrap();
    for (name, change) in CHANGES {
        let mut wanted = base.clone();
        change(&mut wanted);
        file.write(scratch.vcpu_mut(), &base, &wanted)
            .unwrap_or_else(|err| panic!("{name}: {err}"));
        assert_eq!(file.read(scratch.vcpu()).unwrap(), wanted, "{name}");
        file.write(scratch.vcpu_mut(), &wanted, &base).unwrap();
        assert_eq!(file.read(scratch.vcpu()).unwrap(), base, "{name} undone");
    }
}

/// Each refused value comes with a legal change in every group that is written earlier, so that these changes have to be undone.
#[test]
fn a_refused_value_names_its_register_and_leaves_all_others_as_they_were() {
    let Some((mut scratch, file)) = scratch() else {
        return;
    };
    let reset = file.read(scratch.vcpu()).unwrap();
    let base = distinct(&reset);
    file.write(scratch.vcpu_mut(), &reset, &base).unwrap();
    let refusals: &[Change] = &[
        ("rip", |s| s.rip = 1 << 60),
        ("rflags", |s| s.rflags |= 1 << 40),
        ("cr0", |s| s.cr0 = 1 << 31),
        ("cr3", |s| s.cr3 = 1 << 62),
        ("cr4", |s| s.cr4 |= 1 << 62),
        ("cr4", |s| s.cr4 &= !0x20),
        ("cr8", |s| s.cr8 = 16),
        ("efer", |s| s.efer |= 1 << 50),
        ("efer", |s| s.efer &= !0x400),
        ("apic_base", |s| s.apic_base |= 1 << 60),
        ("k_gs_base", |s| s.kernel_gs_base = 1 << 60),
        ("fs_base", |s| s.fs.base = 1 << 60),
        ("gdtr_base", |s| s.gdtr.base = 1 << 60),
        ("ds_base", |s| s.ds.base = 1 << 40),
        ("es", |s| s.es.attributes |= 1 << 20),
        ("ss", |s| s.ss.limit = 0x10_0000),
        ("dr7", |s| s.debug.dr7 |= 1 << 32),
        ("st3", |s| s.x87.st[3] |= 1 << 80),
        ("mxcsr", |s| s.sse.mxcsr |= 1 << 31),
        ("ymm", |s| {
            s.avx = if s.avx.is_some() { None } else { Some([0; 16]) }
        }),
        ("pkru", |s| s.pkru = s.pkru.map_or(Some(0), |_| None)),
        ("xcr0", |s| s.xcr0 = s.xcr0.map_or(Some(1), |_| Some(0))),
    ];
    for (name, refusal) in refusals {
        let mut wanted = base.clone();
        wanted.gp[0] ^= 1;
        wanted.cr2 ^= 1;
        wanted.debug.db[0] ^= 1;
        wanted.kernel_gs_base ^= 8;
        wanted.sse.xmm[0] ^= 1;
        refusal(&mut wanted);
        match file.write(scratch.vcpu_mut(), &base, &wanted) {
            Err(DebugError::BadRegister { name: told, .. }) => assert_eq!(told, *name),
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(file.read(scratch.vcpu()).unwrap(), base, "{name}");
    }
}

/// Whether a KVM supports 32-bit paging or not, the answer has to be true.
#[test]
fn a_mode_that_kvm_lacks_is_refused_and_not_silently_dropped() {
    let Some((mut scratch, file)) = scratch() else {
        return;
    };
    scratch.start(StartIn::Protected32, 0, 0).unwrap();
    let old = file.read(scratch.vcpu()).unwrap();
    let mut new = old.clone();
    new.cr0 |= 1 << 31;
    new.gp[0] = 1;
    let result = file.write(scratch.vcpu_mut(), &old, &new);
    eprintln!("32-bit paging here: {result:?}");
    let expected = if result.is_ok() { new } else { old };
    assert_eq!(file.read(scratch.vcpu()).unwrap(), expected);
}

#[test]
fn what_waits_to_be_delivered_still_does_after_a_write() {
    let Some((mut scratch, file)) = scratch() else {
        return;
    };
    scratch
        .vm()
        .enable_cap(&kvm_enable_cap {
            cap: KVM_CAP_EXCEPTION_PAYLOAD,
            args: [1, 0, 0, 0],
            ..Default::default()
        })
        .unwrap();
    let mut events = scratch.vcpu().get_vcpu_events().unwrap();
    events.flags = kvm_bindings::KVM_VCPUEVENT_VALID_PAYLOAD;
    events.exception.pending = 1;
    events.exception.nr = 6;
    scratch.vcpu().set_vcpu_events(&events).unwrap();
    let mut sregs = scratch.vcpu().get_sregs().unwrap();
    sregs.interrupt_bitmap[0] = 1 << 0x31;
    scratch.vcpu().set_sregs(&sregs).unwrap();

    let old = file.read(scratch.vcpu()).unwrap();
    let mut new = old.clone();
    new.gp[0] = 7;
    new.cr2 = 9;
    file.write(scratch.vcpu_mut(), &old, &new).unwrap();

    let events = scratch.vcpu().get_vcpu_events().unwrap();
    assert_eq!((events.exception.pending, events.exception.nr), (1, 6));
    let sregs = scratch.vcpu().get_sregs().unwrap();
    assert_eq!(sregs.interrupt_bitmap[0], 1 << 0x31);
}

/// Without an APIC in the kernel, user space sets CR8 at every entry.
#[test]
fn a_task_priority_written_is_still_there_after_the_guest_has_run() {
    let Some((mut scratch, file)) = scratch() else {
        return;
    };
    let nop_then_out = [0x90, 0xe6, 0xe9];
    scratch.load(&nop_then_out, 0x800).unwrap();
    scratch.start(StartIn::Real, 0x800, 0xf00).unwrap();
    let old = file.read(scratch.vcpu()).unwrap();
    let mut new = old.clone();
    new.cr8 = 5;
    file.write(scratch.vcpu_mut(), &old, &new).unwrap();
    let exit = scratch.vcpu_mut().run().unwrap();
    assert!(matches!(exit, VcpuExit::IoOut(0xe9, _)), "{exit:?}");
    assert_eq!(file.read(scratch.vcpu()).unwrap().cr8, 5);
}

#[test]
fn msrs_are_read_and_written_by_number_and_unknown_ones_are_errors() {
    let Some((scratch, _)) = scratch() else {
        return;
    };
    const LSTAR: u32 = 0xc000_0082;
    write_msr(scratch.vcpu(), LSTAR, 0xffff_8000_0000_1000).unwrap();
    assert_eq!(
        read_msr(scratch.vcpu(), LSTAR).unwrap(),
        0xffff_8000_0000_1000
    );
    let refused = |result: Result<u64, DebugError>| match result {
        Err(DebugError::BadRegister { name, .. }) => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refused(read_msr(scratch.vcpu(), 0xdead_beef)),
        "MSR 0xdeadbeef"
    );
    assert_eq!(
        refused(write_msr(scratch.vcpu(), LSTAR, 1 << 60).map(|()| 0)),
        "MSR 0xc0000082"
    );
    assert_eq!(
        read_msr(scratch.vcpu(), LSTAR).unwrap(),
        0xffff_8000_0000_1000
    );
}

#[test]
fn a_vp_without_xsave_in_its_cpuid_has_no_xcr0_and_no_avx() {
    let Some((scratch, _)) = scratch() else {
        return;
    };
    let mut cpuid = scratch.vcpu().get_cpuid2(KVM_MAX_CPUID_ENTRIES).unwrap();
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            1 => entry.ecx &= !(1 << 26 | 1 << 27 | 1 << 28),
            0xd => (entry.eax, entry.edx) = (0, 0),
            _ => {}
        }
    }
    scratch.vcpu().set_cpuid2(&cpuid).unwrap();
    // Seen on a host whose KVM uses its own CPUID instead of the given one.
    let honoured = scratch.vcpu().get_cpuid2(KVM_MAX_CPUID_ENTRIES).unwrap();
    if honoured
        .as_slice()
        .iter()
        .any(|e| e.function == 1 && e.ecx & CPUID_1_ECX_XSAVE != 0)
    {
        eprintln!("skipped: this host's KVM does not honour KVM_SET_CPUID2");
        return;
    }
    let file = RegisterFile::new(scratch.vm(), scratch.vcpu()).unwrap();
    assert_eq!(file.xfeatures(), XFeatures::default());
    let state = file.read(scratch.vcpu()).unwrap();
    assert_eq!((state.xcr0, state.avx, state.pkru), (None, None, None));
    assert_eq!((state.sse.mxcsr, state.x87.fcw), (0x1f80, 0x37f));
}

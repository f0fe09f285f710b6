//! The targets of task switches.

use super::*;
use vmm_core_defs::regs::x86_64::bits::efer;

const GDT: u64 = 0x3_0000;
const IDT: u64 = 0x3_1000;
const LDT: u64 = 0x3_2000;
const OWN_TSS: u64 = 0x5_0000;
const TSS: u64 = 0x6_0000;
/// Selectors: code with a base, a TSS, a task gate for this TSS, an LDT.
const CODE: u64 = 0x08;
const OTHER: u64 = 0x28;
const GATE: u64 = 0x30;
const LOCAL: u64 = 0x38;
const CODE_BASE: u64 = 0x1_2000;
const LOCAL_CODE_BASE: u64 = 0x1_4000;
const EIP: u64 = 0x77;
const NT: u64 = 1 << 14;

fn descriptor(base: u64, access: u8) -> [u8; 8] {
    let [low, middle, high, top, ..] = base.to_le_bytes();
    [0xff, 0xff, low, middle, high, access, 0, top]
}

/// A TSS of each size: the type of its descriptor, and the offsets of EIP, EFLAGS, CS and the LDT.
const SIZES: [(u8, [u64; 4]); 2] = [
    (0x89, [0x20, 0x24, 0x4c, 0x60]),
    (0x81, [0x0e, 0x10, 0x24, 0x2a]),
];

/// Two tasks. The VP is in the task whose back-link names the other.
fn tasks((access, at): (u8, [u64; 4]), cs: u64, flags: u64) -> (X86VpState, Fake) {
    let guest = Fake::default();
    guest.put(GDT + CODE, &descriptor(CODE_BASE, 0x9a));
    guest.put(GDT + OTHER, &descriptor(TSS, access));
    guest.put(GDT + GATE, &[0, 0, 0x28, 0, 0, 0x85, 0, 0]);
    guest.put(GDT + LOCAL, &descriptor(LDT, 0x82));
    guest.put(LDT, &descriptor(LOCAL_CODE_BASE, 0xfa));
    let slot = if access == 0x89 { 4 } else { 2 };
    for (at, value) in at.into_iter().zip([EIP, flags, cs, LOCAL]) {
        guest.put_slots(TSS + at, slot, &[value]);
    }
    guest.put_slots(OWN_TSS, 2, &[OTHER]);
    // The gates of int 40h and #UD.
    for vector in [0x40, 6] {
        guest.put(IDT + vector * 8, &[0, 0, 0x28, 0, 0, 0xe5, 0, 0]);
    }
    let mut state = vp(CpuMode::Protected32);
    (state.gdtr.base, state.gdtr.limit) = (GDT, 0x3f);
    (state.idtr.base, state.idtr.limit) = (IDT, 0x7ff);
    (state.tr.base, state.tr.attributes) = (OWN_TSS, 0x8b);
    (state, guest)
}

fn landing(state: &X86VpState, bytes: &[u8], guest: &Fake) -> Option<Gva> {
    let landing = step(state, bytes, guest).landing(state, guest);
    landing.map(|landing| landing.first)
}

#[test]
fn each_way_to_another_task_leads_to_its_first_instruction() {
    let entry = Some(Gva::new(CODE_BASE + EIP));
    for size in SIZES {
        let (mut state, guest) = tasks(size, CODE, 2);
        for selector in [0x28, 0x30] {
            for opcode in [0x9a, 0xea] {
                let far = [opcode, 1, 2, 3, 4, selector, 0];
                assert_eq!(landing(&state, &far, &guest), entry);
            }
            // jmp far [ebx+4]; call far [bp] with a pointer of 16 bits
            guest.put(0x9004, &[1, 2, 3, 4, selector, 0]);
            state.ds.base = 0x1000;
            state.gp[Gp::Rbx as usize] = 0xdead_0000_8000;
            assert_eq!(landing(&state, &[0xff, 0x6b, 4], &guest), entry);
            guest.put(0xa000, &[1, 2, selector, 0]);
            state.ss.base = 0x2000;
            state.gp[Gp::Rbp as usize] = 0xabcd_8000;
            let call = [0x66, 0x67, 0xff, 0x5e, 0];
            assert_eq!(landing(&state, &call, &guest), entry);
        }
        assert_eq!(landing(&state, &[0xcd, 0x40], &guest), entry);
        assert_eq!(
            handler(&state, 6, &guest).map(|landing| landing.first),
            entry
        );
        assert_eq!(landing(&state, &[0xcf], &guest), None, "NT is clear");
        state.rflags |= NT;
        assert_eq!(landing(&state, &[0xcf], &guest), entry);
    }
}

#[test]
fn a_task_may_begin_in_a_segment_of_its_own_and_in_virtual_8086_mode() {
    for size in SIZES {
        let (state, guest) = tasks(size, 4, 2);
        let far = [0xea, 0, 0, 0, 0, 0x28, 0];
        let local = Some(Gva::new(LOCAL_CODE_BASE + EIP));
        assert_eq!(landing(&state, &far, &guest), local);
    }
    let (state, guest) = tasks(SIZES[0], 0x1234, 1 << 17 | 2);
    let far = [0xea, 0, 0, 0, 0, 0x28, 0];
    let segment = Some(Gva::new(0x1_2340 + EIP));
    assert_eq!(landing(&state, &far, &guest), segment);
}

#[test]
fn what_leads_to_no_task_or_cannot_be_read_has_no_landing() {
    let (mut state, guest) = tasks(SIZES[0], CODE, 2);
    let far = |selector| [0xea, 0, 0, 0, 0, selector, 0];
    // A code segment, an LDT, and an empty descriptor.
    for selector in [0x08, 0x38, 0x20, 0xf0] {
        assert_eq!(landing(&state, &far(selector), &guest), None);
    }
    // A TSS that is not present.
    guest.put(GDT + OTHER, &descriptor(TSS, 0x09));
    assert_eq!(landing(&state, &far(0x28), &guest), None);
    guest.put(GDT + OTHER, &descriptor(0x7_0000, 0x89));
    assert_eq!(landing(&state, &far(0x28), &guest), None, "no TSS is there");
    guest.put(GDT + OTHER, &descriptor(TSS, 0x89));
    assert!(landing(&state, &far(0x28), &guest).is_some());
    state.efer = efer::LMA;
    state.rflags |= NT;
    for bytes in [&far(0x28)[..], &[0xcf]] {
        assert_eq!(landing(&state, bytes, &guest), None, "long mode");
    }
    (state.efer, state.cr0) = (0, 0);
    assert_eq!(landing(&state, &far(0x28), &guest), None, "real mode");
}

#[test]
fn each_way_to_a_task_that_begins_with_the_resume_flag_says_where_the_flag_is() {
    const RF: u64 = 1 << 16;
    let far = [0xea, 0, 0, 0, 0, 0x28, 0];
    let int = [0xcd, 0x40];
    let iret = [0xcf];
    let flags = |size, flags| {
        let (mut state, guest) = tasks(size, CODE, flags);
        state.rflags |= NT;
        let of = |bytes: &[u8]| step(&state, bytes, &guest).landing(&state, &guest);
        let found = [of(&far), of(&int), of(&iret), handler(&state, 6, &guest)];
        found.map(|landing| landing.unwrap().resume_flag)
    };
    assert_eq!(flags(SIZES[0], RF | 2), [Some(Gva::new(TSS + 0x26)); 4]);
    assert_eq!(flags(SIZES[0], 0xffff & !RF), [None; 4]);
    // Flags of 16 bits have no RF. This bit belongs to CX in the TSS.
    assert_eq!(flags(SIZES[1], RF | 2), [None; 4]);
}

#[test]
fn an_interrupt_that_is_handled_by_a_task_saves_the_resume_flag_in_the_tss_it_leaves() {
    for ((access, _), saved) in SIZES
        .into_iter()
        .zip([Some(Gva::new(OWN_TSS + 0x26)), None])
    {
        let (mut state, guest) = tasks(SIZES[0], CODE, 2);
        state.tr.attributes = u32::from(access) | 2;
        let mut after = state.clone();
        (after.tr.base, after.tr.selector) = (TSS, 0x28);
        let found = step(&state, &[0x90], &guest).saved_resume_flag(&after, &guest);
        assert_eq!(found, saved, "{access:#x}");
    }
}

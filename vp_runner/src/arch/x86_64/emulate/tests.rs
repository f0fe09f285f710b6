use super::*;
use vmm_core_defs::regs::x86_64::bits::cr0;
use vmm_core_defs::regs::x86_64::bits::cr4;
use vmm_core_defs::regs::x86_64::bits::rflags;

mod real_vcpu;

fn long() -> X86VpState {
    let mut state = X86VpState {
        cr0: 0x8000_0001,
        efer: 0x500,
        rflags: 2,
        rip: 0x1000,
        ..Default::default()
    };
    state.cs.attributes = segment_attributes::LONG;
    state.gp[Gp::Rsp as usize] = 0x8000;
    state
}

fn run(state: &X86VpState, bytes: &[u8]) -> Result<Outcome, Unsupported> {
    emulate(state, bytes, InterruptShadow::None)
}

const PUSH_RBP: [u8; 1] = [0x55];
const NOP: [u8; 1] = [0x90];

#[test]
fn usual_first_instructions_are_known_in_every_mode_and_others_are_not() {
    for mode in [ModeClass::Real, ModeClass::Protected, ModeClass::Long] {
        let nop = [0x0f, 0x1f, 0x40, 0x00];
        let (mov_bp_sp, sub_sp) = ([0x89, 0xe5], [0x83, 0xec, 0x10]);
        for known in [&NOP[..], &PUSH_RBP, &nop, &mov_bp_sp, &sub_sp] {
            assert!(is_known(mode, known), "{mode:?} {known:x?}");
        }
        let (load, int3) = ([0x8b, 0x07], [0xcc]);
        for unknown in [&load[..], &int3, &[0xc3], &[0xeb, 0xfe], &[]] {
            assert!(!is_known(mode, unknown), "{mode:?} {unknown:x?}");
        }
    }
    assert!(
        is_known(ModeClass::Long, &[0xf3, 0x0f, 0x1e, 0xfa]),
        "endbr64"
    );
}

#[test]
fn what_could_trap_or_waits_is_left_to_the_vp() {
    let vp = long();
    assert!(run(&vp, &NOP).is_ok());
    assert_eq!(
        emulate(&vp, &NOP, InterruptShadow::Active),
        Err(Unsupported::Shadow)
    );
    let mut traced = vp.clone();
    traced.rflags |= rflags::TF;
    assert_eq!(run(&traced, &NOP), Err(Unsupported::TrapFlag));
    let mut tracked = vp.clone();
    tracked.cr4 |= cr4::CET;
    assert_eq!(run(&tracked, &NOP), Err(Unsupported::Cet));
    let mut watched = vp.clone();
    watched.debug.dr7 = 0x402;
    assert_eq!(run(&watched, &NOP), Err(Unsupported::GuestDebug));
    let mut virtual_8086 = vp;
    virtual_8086.cs.attributes = 0;
    virtual_8086.efer = 0;
    virtual_8086.rflags |= 1 << 17;
    assert_eq!(run(&virtual_8086, &NOP), Err(Unsupported::Mode));
}

#[test]
fn instructions_that_are_not_certain_are_left_to_the_vp() {
    let vp = long();
    for (what, bytes) in [
        ("pause", &[0xf3, 0x90][..]),
        ("lock nop", &[0xf0, 0x90]),
        ("rep push", &[0xf3, 0x55]),
        ("half an instruction", &[0x48, 0x81]),
        ("xchg r8,rax", &[0x49, 0x90]),
        ("mov from memory", &[0x48, 0x8b, 0x00]),
        ("lea of a register", &[0x48, 0x8d, 0xc0]),
        ("add to memory", &[0x48, 0x83, 0x00, 0x01]),
        ("xor with memory", &[0x48, 0x33, 0x00]),
        ("push of memory", &[0xff, 0x30]),
        ("pop rbp", &[0x5d]),
        ("int3", &[0xcc]),
        ("test in its second encoding", &[0xf6, 0xc8, 0x00]),
        ("nothing", &[]),
    ] {
        assert_eq!(run(&vp, bytes), Err(Unsupported::Instruction), "{what}");
    }
}

#[test]
fn the_resume_flag_is_spent() {
    let mut vp = long();
    vp.rflags |= rflags::RF;
    assert_eq!(run(&vp, &NOP).unwrap().rflags, 2);
}

#[test]
fn rip_stays_in_its_segment_and_canonical() {
    let mut vp = long();
    vp.rip = 0x7fff_ffff_fffe;
    assert!(run(&vp, &NOP).is_ok());
    vp.rip += 1;
    assert_eq!(run(&vp, &NOP), Err(Unsupported::Rip));
    vp.cr4 |= cr4::LA57;
    assert!(run(&vp, &NOP).is_ok());
    vp.rip = u64::MAX;
    assert_eq!(run(&vp, &NOP), Err(Unsupported::Rip));

    let mut real = X86VpState::default();
    real.cs.limit = 0xffff;
    real.rip = 0xfffe;
    assert!(run(&real, &NOP).is_ok());
    real.rip = 0xffff;
    assert_eq!(run(&real, &NOP), Err(Unsupported::Rip));
}

#[test]
fn a_push_that_could_fault_is_left_to_the_vp() {
    let pushes_at = |vp: &X86VpState, rsp| {
        let mut vp = vp.clone();
        vp.gp[Gp::Rsp as usize] = rsp;
        run(&vp, &PUSH_RBP).map(|after| after.store.unwrap().gva.value())
    };
    let refused = Err(Unsupported::Stack);
    let vp = long();
    assert_eq!(pushes_at(&vp, 0x8001), Ok(0x7ff9), "unaligned");
    assert_eq!(pushes_at(&vp, 7), refused, "wraps");
    assert_eq!(pushes_at(&vp, 0x8000_0000_0004), refused, "canonical hole");
    let mut aligned = vp;
    aligned.cr0 |= cr0::AM;
    aligned.rflags |= rflags::AC;
    assert!(pushes_at(&aligned, 0x8001).is_ok(), "only user mode checks");
    aligned.ss.attributes = 3 << 5;
    assert_eq!(pushes_at(&aligned, 0x8001), refused);
    assert!(pushes_at(&aligned, 0x8008).is_ok());

    let mut flat = X86VpState {
        cr0: 1,
        ..Default::default()
    };
    flat.cs.attributes = segment_attributes::DEFAULT_BIG;
    flat.cs.limit = u32::MAX;
    flat.ss.attributes = segment_attributes::DEFAULT_BIG | 0x93;
    flat.ss.limit = 0xfff;
    assert_eq!(pushes_at(&flat, 0x1000), Ok(0xffc));
    assert_eq!(pushes_at(&flat, 0x1001), refused, "limit");
    assert_eq!(pushes_at(&flat, 3), refused, "wraps");
    flat.ss.base = 0xffff_f001;
    assert_eq!(pushes_at(&flat, 0x1000), refused, "passes 4 GiB");
    flat.ss.base = 0x1000;
    assert_eq!(pushes_at(&flat, 0x1000), Ok(0x1ffc));
    for (what, bits) in [
        ("read-only", 0x91),
        ("expand-down", 0x97),
        ("not present", 0x13),
        ("unusable", 0x93 | segment_attributes::UNUSABLE),
    ] {
        flat.ss.attributes = segment_attributes::DEFAULT_BIG | bits;
        assert_eq!(pushes_at(&flat, 0x1000), refused, "{what}");
    }
}

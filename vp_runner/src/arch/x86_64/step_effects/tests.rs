use super::*;
use crate::arch::x86_64::instruction::decode;
use std::cell::RefCell;
use std::collections::BTreeMap;
use vmm_core_defs::regs::x86_64::bits::cr0;
use vmm_core_defs::regs::x86_64::bits::efer;

mod frames;
mod real_vcpu;
mod tasks;

/// The step over the instruction with these bytes.
fn step_over(state: &X86VpState, own: TrapFlag, bytes: &[u8], guest: &impl GuestState) -> Step {
    let instruction = decode(cpu_mode(state), state.rip, bytes);
    Step::new(state, own, instruction.as_ref(), guest)
}

/// Memory of single bytes, and IA32_FMASK.
#[derive(Default)]
struct Fake {
    bytes: RefCell<BTreeMap<u64, u8>>,
    syscall_mask: u64,
}

impl Fake {
    fn put(&self, at: u64, bytes: &[u8]) {
        let placed = (at..).zip(bytes.iter().copied());
        self.bytes.borrow_mut().extend(placed);
    }

    /// Writes values to slots of `slot` bytes.
    fn put_slots(&self, at: u64, slot: usize, values: &[u64]) {
        for (index, value) in values.iter().enumerate() {
            let at = at + (index * slot) as u64;
            self.put(at, &value.to_le_bytes()[..slot]);
        }
    }
}

impl GuestState for Fake {
    fn read(&self, gva: Gva, data: &mut [u8]) -> bool {
        let bytes = self.bytes.borrow();
        data.iter_mut().zip(gva.value()..).all(|(byte, at)| {
            bytes.get(&at).is_some_and(|value| {
                *byte = *value;
                true
            })
        })
    }

    fn syscall_mask(&self) -> u64 {
        self.syscall_mask
    }

    fn syscall_entry(&self) -> u64 {
        ENTRY
    }
}

const RIP: u64 = 0x1000;
const RSP: u64 = 0x8000;
/// The target of `syscall`.
const ENTRY: u64 = 0xffff_8000_0000_0000;
const MODES: [CpuMode; 7] = [
    CpuMode::Real,
    CpuMode::Virtual8086,
    CpuMode::Protected16,
    CpuMode::Protected32,
    CpuMode::Compatibility16,
    CpuMode::Compatibility32,
    CpuMode::Long64,
];

fn vp(mode: CpuMode) -> X86VpState {
    let mut state = X86VpState {
        rip: RIP,
        rflags: 2,
        ..Default::default()
    };
    state.gp[Gp::Rsp as usize] = RSP;
    state.cs.selector = 8;
    if mode != CpuMode::Real {
        state.cr0 = cr0::PE;
    }
    match mode {
        CpuMode::Compatibility16 | CpuMode::Compatibility32 | CpuMode::Long64 => {
            state.efer = efer::LMA;
        }
        CpuMode::Virtual8086 => state.rflags |= 1 << 17,
        _ => {}
    }
    let big = segment_attributes::DEFAULT_BIG;
    let attributes = match mode {
        CpuMode::Protected32 | CpuMode::Compatibility32 => big,
        CpuMode::Long64 => segment_attributes::LONG,
        _ => 0,
    };
    state.cs.attributes = attributes;
    state.ss.attributes = attributes & big;
    assert_eq!(cpu_mode(&state), mode);
    state
}

fn step(state: &X86VpState, bytes: &[u8], guest: &Fake) -> Step {
    step_over(state, TrapFlag::Clear, bytes, guest)
}

/// The registers after an instruction of `len` bytes that continues with the next one, with the stack pointer moved.
fn gone_on(state: &X86VpState, len: u64, stack: i64) -> X86VpState {
    let mut after = state.clone();
    after.rip += len;
    let rsp = &mut after.gp[Gp::Rsp as usize];
    *rsp = rsp.wrapping_add_signed(stack);
    after
}

fn clear_tf_at(at: u64) -> Option<Correction> {
    Some(Correction {
        location: FlagsLocation::Memory(Gva::new(at)),
        flag: TrapFlag::Clear,
    })
}

#[test]
fn each_instruction_is_what_the_manual_says_in_each_mode() {
    use CpuMode::*;
    let kind = |mode: CpuMode, bytes: &[u8]| step(&vp(mode), bytes, &Fake::default()).kind();
    let wide = |mode| matches!(mode, Protected32 | Compatibility32);
    for mode in MODES {
        let own = match mode {
            Long64 => 8,
            _ if wide(mode) => 4,
            _ => 2,
        };
        let other = if own == 2 { 4 } else { 2 };
        // An operand-size prefix. In 64-bit code REX.W, because 64 bits are not the default of `iret`.
        let same_everywhere = [
            (&[0x9c][..], Kind::PushFlags { bytes: own }),
            (&[0x66, 0x9c], Kind::PushFlags { bytes: other }),
            (&[0x9d], Kind::PopFlags),
            (&[0xcd, 0x80], Kind::SoftwareInterrupt { vector: 0x80 }),
            (&[0xcc], Kind::SoftwareInterrupt { vector: 3 }),
            (&[0xf1], Kind::SoftwareInterrupt { vector: 1 }),
            (&[0xf4], Kind::Halt),
            (&[0xfb], Kind::EnableInterrupts),
            (&[0x8e, 0xd0], Kind::StackSegment),
            (&[0x8e, 0xd8], Kind::Ordinary),
            (&[0x0f, 0xb2, 0x00], Kind::Ordinary),
            (&[0xf3, 0xa4], Kind::RepeatedString),
            (&[0xf2, 0xae], Kind::RepeatedString),
            (&[0xf3, 0x6c], Kind::RepeatedString),
            (&[0xa4], Kind::Ordinary),
            (&[0xf3, 0x90], Kind::Intercepted),
            (&[0x0f, 0xa2], Kind::Intercepted),
            (&[0x0f, 0x30], Kind::Intercepted),
            (&[0x6c], Kind::Intercepted),
            (&[0x0f, 0x34], Kind::SystemEnter),
            (&[0x0f, 0x00, 0xd8], Kind::LoadTaskRegister),
            (&[0xcb], Kind::FarTransfer),
            (&[0xff, 0x18], Kind::FarTransfer),
            (&[0xc3], Kind::Ordinary),
            (&[0x90], Kind::Ordinary),
            (&[], Kind::Ordinary),
        ];
        for (bytes, expected) in same_everywhere {
            assert_eq!(kind(mode, bytes), expected, "{mode:?} {bytes:x?}");
        }
        let bytes = if mode == Long64 { 4 } else { own };
        assert_eq!(kind(mode, &[0xcf]), Kind::InterruptReturn { bytes });
    }
    let bytes = 8;
    assert_eq!(kind(Long64, &[0x48, 0xcf]), Kind::InterruptReturn { bytes });
    for bytes in [&[0x0f, 0x05][..], &[0x48, 0x0f, 0x07]] {
        let system = kind(Long64, bytes);
        assert!(matches!(
            system,
            Kind::SystemCall | Kind::SystemReturn { .. }
        ));
    }
    // These instructions do not exist in 64-bit code.
    for bytes in [&[0x17][..], &[0x9a, 0, 0, 0, 0, 0, 0], &[0xce]] {
        assert_eq!(kind(Long64, bytes), Kind::Ordinary);
    }
    assert_eq!(kind(Protected32, &[0x17]), Kind::StackSegment);
    assert_eq!(kind(Real, &[0x9a, 0, 0, 0, 0]), Kind::FarTransfer);
}

#[test]
fn into_interrupts_only_on_overflow() {
    let mut state = vp(CpuMode::Protected32);
    let guest = Fake::default();
    assert_eq!(step(&state, &[0xce], &guest).kind(), Kind::Ordinary);
    state.rflags |= 1 << 11;
    let vector = 4;
    assert_eq!(
        step(&state, &[0xce], &guest).kind(),
        Kind::SoftwareInterrupt { vector }
    );
}

#[test]
fn pushf_leaves_tf_in_the_second_byte_of_what_it_pushed() {
    for mode in MODES {
        for prefix in [&[][..], &[0x66]] {
            let bytes = [prefix, &[0x9c]].concat();
            let state = vp(mode);
            let guest = Fake::default();
            let stepped = step(&state, &bytes, &guest);
            let Kind::PushFlags { bytes: size } = stepped.kind() else {
                panic!("{mode:?} {bytes:x?}");
            };
            let at = RSP - u64::from(size);
            let after = gone_on(&state, bytes.len() as u64, -i64::from(size));
            guest.put_slots(at, size.into(), &[0x102]);
            let found = stepped.after(&after, &guest);
            assert_eq!(found.correction, clear_tf_at(at + 1), "{mode:?}");
            assert_eq!(
                (found.own, found.trap),
                (TrapFlag::Clear, GuestTrap::Nothing)
            );
            // On a host that hides TF, there is nothing to correct.
            guest.put_slots(at, size.into(), &[2]);
            assert_eq!(stepped.after(&after, &guest).correction, None);
        }
    }
}

#[test]
fn a_16_bit_stack_wraps() {
    let mut state = vp(CpuMode::Real);
    state.gp[Gp::Rsp as usize] = 0xabcd_0000;
    state.ss.base = 0x5000;
    let guest = Fake::default();
    let stepped = step(&state, &[0x9c], &guest);
    guest.put_slots(0x1_4ffe, 2, &[0x102]);
    let mut after = gone_on(&state, 1, 0);
    after.gp[Gp::Rsp as usize] = 0xabcd_fffe;
    assert_eq!(
        stepped.after(&after, &guest).correction,
        clear_tf_at(0x1_4fff)
    );
}

#[test]
fn the_guests_own_trap_flag_is_kept_and_its_trap_given() {
    let state = vp(CpuMode::Long64);
    let guest = Fake::default();
    let own = TrapFlag::Set;
    let pushf = step_over(&state, own, &[0x9c], &guest);
    let after = gone_on(&state, 1, -8);
    guest.put_slots(RSP - 8, 8, &[0x102]);
    let right = StepEffects {
        correction: None,
        own,
        trap: GuestTrap::SingleStepTrap,
    };
    assert_eq!(pushf.after(&after, &guest), right);
    // A host that hides TF also hides the guest's own TF, so the correction sets TF in the frame.
    guest.put_slots(RSP - 8, 8, &[2]);
    let location = FlagsLocation::Memory(Gva::new(RSP - 7));
    assert_eq!(
        pushf.after(&after, &guest).correction,
        Some(Correction {
            location,
            flag: own
        })
    );
    // After `mov ss` the trap waits. An instruction that was not carried out has no trap.
    let mov_ss = step_over(&state, own, &[0x8e, 0xd0], &guest);
    let waits = mov_ss.after(&gone_on(&state, 2, 0), &guest);
    assert_eq!((waits.own, waits.trap), (own, GuestTrap::Nothing));
    let nop = step_over(&state, own, &[0x90], &guest);
    assert_eq!(nop.after(&state, &guest).trap, GuestTrap::Nothing);
    // Each iteration has a trap.
    let rep = step_over(&state, own, &[0xf3, 0xa4], &guest);
    assert_eq!(rep.after(&state, &guest).trap, GuestTrap::SingleStepTrap);
}

#[test]
fn popf_and_iret_load_the_guests_own_trap_flag() {
    for (mode, bytes, flags_at, slot, popped) in [
        (CpuMode::Real, &[0x9d][..], 0, 2, 2),
        (CpuMode::Protected32, &[0x9d], 0, 4, 4),
        (CpuMode::Long64, &[0x9d], 0, 8, 8),
        (CpuMode::Real, &[0xcf], 4, 2, 6),
        (CpuMode::Real, &[0x66, 0xcf], 8, 4, 12),
        (CpuMode::Protected16, &[0xcf], 4, 2, 6),
        (CpuMode::Protected32, &[0xcf], 8, 4, 12),
        (CpuMode::Long64, &[0x48, 0xcf], 16, 8, 40),
    ] {
        for (image, expected) in [(0x102, TrapFlag::Set), (0xfe02, TrapFlag::Clear)] {
            for own in [TrapFlag::Set, TrapFlag::Clear] {
                let state = vp(mode);
                let guest = Fake::default();
                guest.put_slots(RSP + flags_at, slot, &[image]);
                let stepped = step_over(&state, own, bytes, &guest);
                let after = gone_on(&state, bytes.len() as u64, popped);
                let found = stepped.after(&after, &guest);
                assert_eq!((found.own, found.correction), (expected, None), "{mode:?}");
                // TF before the instruction decides about the trap.
                let trap = found.trap == GuestTrap::SingleStepTrap;
                assert_eq!(trap, own == TrapFlag::Set);
            }
        }
    }
}

#[test]
fn syscall_leaves_tf_in_r11_and_masks_the_guests_own() {
    for (mask, own, then) in [
        (0x4_7700, TrapFlag::Clear, TrapFlag::Clear),
        (0x4_7700, TrapFlag::Set, TrapFlag::Clear),
        (0, TrapFlag::Set, TrapFlag::Set),
    ] {
        let guest = Fake {
            syscall_mask: mask,
            ..Default::default()
        };
        let state = vp(CpuMode::Long64);
        let syscall = step_over(&state, own, &[0x0f, 0x05], &guest);
        let mut after = state.clone();
        after.rip = 0xffff_8000_0000_0000;
        after.gp[Gp::Rcx as usize] = RIP + 2;
        after.gp[Gp::R11 as usize] = 0x302;
        let found = syscall.after(&after, &guest);
        assert_eq!(found.own, then);
        assert_eq!(
            found.trap == GuestTrap::SingleStepTrap,
            then == TrapFlag::Set
        );
        let correction = (own == TrapFlag::Clear).then_some(Correction {
            location: FlagsLocation::Register(Gp::R11),
            flag: own,
        });
        assert_eq!(found.correction, correction);
    }
    // `sysret` loads RFLAGS from R11.
    let mut state = vp(CpuMode::Long64);
    state.gp[Gp::R11 as usize] = 0x302;
    let guest = Fake::default();
    let sysret = step(&state, &[0x48, 0x0f, 0x07], &guest);
    let mut after = state.clone();
    after.rip = 0x40_0000;
    let found = sysret.after(&after, &guest);
    assert_eq!(
        (found.own, found.trap),
        (TrapFlag::Set, GuestTrap::SingleStepTrap)
    );
    // `sysenter` does not change TF.
    let sysenter = step_over(
        &vp(CpuMode::Protected32),
        TrapFlag::Set,
        &[0x0f, 0x34],
        &guest,
    );
    let mut after = vp(CpuMode::Protected32);
    after.rip = 0xc000_0000;
    let found = sysenter.after(&after, &guest);
    assert_eq!((found.own, found.correction), (TrapFlag::Set, None));
}

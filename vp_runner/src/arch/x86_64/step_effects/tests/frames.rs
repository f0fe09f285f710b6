//! Exceptions, interrupts and task switches during a step.

use super::*;
use vmm_core_defs::regs::x86_64::bits::efer;

const HANDLER: u64 = 0x4_3210;
const IDT: u64 = 0x2_0000;
const KERNEL_CS: u16 = 0x10;
/// The slots of a frame, from the return address on.
const PUSHED_FLAGS: u64 = 0x102;

/// The bytes of a gate to the handler.
fn gate(kind: u8, wide: bool, offset: u64) -> Vec<u8> {
    let [o0, o1, o2, o3, high @ ..] = offset.to_le_bytes();
    let [s0, s1] = KERNEL_CS.to_le_bytes();
    let mut gate = vec![o0, o1, s0, s1, 0, 0x80 | kind, o2, o3];
    if wide {
        gate.extend(high);
        gate.extend([0; 4]);
    }
    gate
}

struct Delivery {
    mode: CpuMode,
    gate: u8,
    slot: usize,
    vector: usize,
    error_code: Option<u64>,
}

impl Delivery {
    /// The VP at the handler, with its new stack at another address, and the address of TF in the frame.
    fn run(&self, state: &X86VpState, rip: u64, guest: &Fake) -> (X86VpState, u64) {
        let mut after = state.clone();
        let long = after.efer & efer::LMA != 0;
        let entry = if long { 16 } else { 8 };
        let handler = match self.slot {
            2 => HANDLER & 0xffff,
            8 => 0xffff_8000_0000_0000 | HANDLER,
            _ => HANDLER,
        };
        guest.put(IDT, &vec![0; 32 * entry]);
        let gate = gate(self.gate, long, handler);
        guest.put(IDT + (self.vector * entry) as u64, &gate);
        after.idtr.base = IDT;
        after.idtr.limit = u16::try_from(32 * entry - 1).unwrap();
        after.rip = handler;
        after.cs.selector = KERNEL_CS;
        after.rflags &= !(1 << 17);
        if long {
            after.cs.attributes = segment_attributes::LONG;
        }
        let stack = 0x9_0000;
        after.gp[Gp::Rsp as usize] = stack;
        after.ss.attributes |= segment_attributes::DEFAULT_BIG;
        let mut slots: Vec<u64> = self.error_code.into_iter().collect();
        slots.extend([rip, state.cs.selector.into(), PUSHED_FLAGS]);
        guest.put_slots(stack, self.slot, &slots);
        let flags = slots.len() as u64 - 1;
        (after, stack + flags * self.slot as u64 + 1)
    }
}

const DELIVERIES: [Delivery; 8] = [
    delivery(CpuMode::Protected32, 0xe, 4, 3, None),
    delivery(CpuMode::Protected32, 0xf, 4, 14, Some(5)),
    delivery(CpuMode::Protected32, 0x6, 2, 13, Some(8)),
    delivery(CpuMode::Protected16, 0x7, 2, 6, None),
    delivery(CpuMode::Virtual8086, 0xe, 4, 13, Some(0)),
    delivery(CpuMode::Compatibility32, 0xe, 8, 14, Some(7)),
    delivery(CpuMode::Long64, 0xf, 8, 3, None),
    delivery(CpuMode::Long64, 0xe, 8, 14, Some(2)),
];

const fn delivery(
    mode: CpuMode,
    gate: u8,
    slot: usize,
    vector: usize,
    error_code: Option<u64>,
) -> Delivery {
    Delivery {
        mode,
        gate,
        slot,
        vector,
        error_code,
    }
}

const NOP: [u8; 1] = [0x90];

#[test]
fn a_frame_is_found_in_every_mode_with_and_without_error_code() {
    for delivery in &DELIVERIES {
        // The frames of a fault, and of an interrupt after the instruction.
        for rip in [RIP, RIP + 1] {
            let what = format!("{:?} vector {}", delivery.mode, delivery.vector);
            let guest = Fake::default();
            let state = vp(delivery.mode);
            let (after, tf) = delivery.run(&state, rip, &guest);
            let found = step(&state, &NOP, &guest).after(&after, &guest);
            assert_eq!(found.correction, clear_tf_at(tf), "{what}");
            let rf = step(&state, &NOP, &guest).saved_resume_flag(&after, &guest);
            let expected = (delivery.slot > 2).then(|| Gva::new(tf + 1));
            assert_eq!(rf, expected, "{what}");
            // A TF that the guest has set stays in the frame, and is off in the handler.
            let own = step_over(&state, TrapFlag::Set, &NOP, &guest).after(&after, &guest);
            assert_eq!(own.correction, None, "{what}");
            assert_eq!((own.own, own.trap), (TrapFlag::Clear, GuestTrap::Nothing));
        }
    }
}

#[test]
fn a_real_mode_interrupt_pushes_three_words() {
    let guest = Fake::default();
    let mut state = vp(CpuMode::Real);
    state.idtr.limit = 0x3ff;
    guest.put(0, &[0; 0x400]);
    guest.put(0x21 * 4, &[0x34, 0x12, 0, 0xf0]);
    let int = step(&state, &[0xcd, 0x21], &guest);
    let mut after = gone_on(&state, 0, -6);
    (after.rip, after.cs.selector) = (0x1234, 0xf000);
    guest.put_slots(RSP - 6, 2, &[RIP + 2, 8, PUSHED_FLAGS]);
    assert_eq!(int.after(&after, &guest).correction, clear_tf_at(RSP - 1));
    after.cs.selector = 0xe000;
    assert_eq!(int.after(&after, &guest).correction, None, "no such vector");
}

#[test]
fn what_only_looks_like_a_frame_is_left_alone() {
    let delivery = &DELIVERIES[6];
    let state = vp(delivery.mode);
    let at_handler = |guest: &Fake| delivery.run(&state, RIP + 1, guest);
    let nothing = |what, bytes: &[u8], after: &X86VpState, guest: &Fake| {
        let found = step(&state, bytes, guest).after(after, guest);
        assert_eq!(found.correction, None, "{what}");
    };
    let guest = Fake::default();
    let (mut after, _) = at_handler(&guest);
    after.rip += 1;
    nothing("not at a handler", &NOP, &after, &guest);
    let (after, _) = at_handler(&guest);
    guest.put(IDT + 3 * 16 + 5, &[0x0f]);
    nothing("a gate that is not present", &NOP, &after, &guest);
    let (after, _) = delivery.run(&state, RIP + 7, &guest);
    nothing("another return address", &NOP, &after, &guest);
    let (after, tf) = at_handler(&guest);
    guest.put(tf - 1, &[0x28]);
    nothing("no image of flags", &NOP, &after, &guest);

    // The guest makes such a frame itself: `pushf; push cs; call handler`.
    let (after, _) = delivery.run(&state, RIP + 5, &guest);
    let call = step_over(&state, TrapFlag::Set, &[0xe8, 0, 0, 0, 0], &guest);
    assert_eq!(call.after(&after, &guest).own, TrapFlag::Set);
    // But a fault of the call is delivered.
    let (after, tf) = delivery.run(&state, RIP, &guest);
    let call = step(&state, &[0xe8, 0, 0, 0, 0], &guest);
    assert_eq!(call.after(&after, &guest).correction, clear_tf_at(tf));
}

#[test]
fn an_interrupt_after_a_jump_leads_back_to_its_target() {
    let guest = Fake::default();
    let delivery = &DELIVERIES[7];
    let state = vp(delivery.mode);
    let (after, tf) = delivery.run(&state, RIP + 0x60, &guest);
    let jump = step(&state, &[0xeb, 0x5e], &guest);
    assert_eq!(jump.after(&after, &guest).correction, clear_tf_at(tf));
}

#[test]
fn a_task_switch_leaves_tf_in_the_old_tss_and_takes_the_new_ones() {
    for (busy, flags_at) in [(0b1011, 0x24), (0b0011, 0x10)] {
        let guest = Fake::default();
        let mut state = vp(CpuMode::Protected32);
        state.tr.selector = 0x20;
        state.tr.base = 0x5_0000;
        state.tr.attributes = 0x80 | busy;
        let mut after = state.clone();
        (after.tr.selector, after.tr.base, after.rip) = (0x28, 0x6_0000, 0x77);
        guest.put_slots(0x5_0000 + flags_at, 2, &[0x102]);
        guest.put_slots(0x6_0000 + flags_at, 2, &[0x102]);
        // A far jump, whose selector does not matter here.
        let jump = step(&state, &[0xea, 0, 0, 0, 0, 0x28, 0], &guest);
        let found = jump.after(&after, &guest);
        assert_eq!(found.correction, clear_tf_at(0x5_0000 + flags_at + 1));
        assert_eq!((found.own, found.trap), (TrapFlag::Set, GuestTrap::Nothing));
        // `ltr` changes only TR.
        let ltr = step(&state, &[0x0f, 0x00, 0xd8], &guest);
        after.rip = RIP + 3;
        let found = ltr.after(&after, &guest);
        assert_eq!((found.correction, found.own), (None, TrapFlag::Clear));
    }
}

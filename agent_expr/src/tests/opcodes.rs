//! Each instruction, with the values that it finds on the stack and those that it leaves there.

use super::push;
use super::run;
use super::verified;
use super::world;
use crate::Cause;
use crate::Steps;
use crate::world::Traced;
use crate::world::World;
use std::vec::Vec;

const MIN: u64 = 1 << 63;
const MINUS: u64 = u64::MAX;

/// The values that the instruction leaves, with the deepest first. Another value lies below all operands, and has to stay.
fn leaves(operands: &[u64], instruction: &[u8], world: &World) -> Result<Vec<u64>, Cause> {
    let below = 0x5555;
    let mut values = Vec::new();
    for depth in 0.. {
        let mut code = push(below);
        operands.iter().for_each(|&value| code.extend(push(value)));
        code.extend(instruction);
        // The values above the one that this round looks at.
        code.extend((0..depth).map(|_| 0x29));
        code.push(0x27);
        let value = run(&code, &mut world.clone()).map_err(|error| {
            assert_eq!(error.offset, 9 * (operands.len() + 1), "{instruction:02x?}");
            error.cause
        })?;
        match value {
            Some(0x5555) => break,
            Some(value) => values.insert(0, value),
            None => panic!("{instruction:02x?} has taken too much"),
        }
    }
    Ok(values)
}

/// Operands, the instruction, what it leaves.
type Case = (&'static [u64], &'static [u8], &'static [u64]);

const CASES: &[Case] = &[
    // add, sub, mul
    (&[3, 5], &[0x02], &[8]),
    (&[MINUS, 2], &[0x02], &[1]),
    (&[3, 5], &[0x03], &[MINUS - 1]),
    (&[MIN, 1], &[0x03], &[MIN - 1]),
    (&[7, 6], &[0x04], &[42]),
    (&[1 << 40, 1 << 30], &[0x04], &[0]),
    (&[MINUS, 9], &[0x04], &[MINUS - 8]),
    // div_signed, div_unsigned, rem_signed, rem_unsigned
    (&[MINUS - 6, 2], &[0x05], &[MINUS - 2]),
    (&[MIN, MINUS], &[0x05], &[MIN]),
    (&[MINUS - 6, 2], &[0x06], &[MINUS / 2 - 3]),
    (&[MIN, MINUS], &[0x06], &[0]),
    (&[MINUS - 6, 4], &[0x07], &[MINUS - 2]),
    (&[MIN, MINUS], &[0x07], &[0]),
    (&[MINUS - 6, 5], &[0x08], &[4]),
    (&[MIN, MINUS], &[0x08], &[MIN]),
    // lsh, rsh_signed, rsh_unsigned
    (&[5, 62], &[0x09], &[1 << 62]),
    (&[5, 64], &[0x09], &[0]),
    (&[5, 1 << 32], &[0x09], &[0]),
    (&[MIN, 62], &[0x0a], &[MINUS - 1]),
    (&[MIN, 64], &[0x0a], &[MINUS]),
    (&[MIN, 1 << 40], &[0x0a], &[MINUS]),
    (&[MIN - 1, MINUS], &[0x0a], &[0]),
    (&[MIN, 62], &[0x0b], &[2]),
    (&[MINUS, 64], &[0x0b], &[0]),
    (&[MINUS, MINUS], &[0x0b], &[0]),
    // log_not, bit_and, bit_or, bit_xor, bit_not
    (&[0], &[0x0e], &[1]),
    (&[256], &[0x0e], &[0]),
    (&[0b1100, 0b1010], &[0x0f], &[0b1000]),
    (&[0b1100, 0b1010], &[0x10], &[0b1110]),
    (&[0b1100, 0b1010], &[0x11], &[0b0110]),
    (&[5], &[0x12], &[MINUS - 5]),
    // equal, less_signed, less_unsigned
    (&[4, 4], &[0x13], &[1]),
    (&[4, 4 | 1 << 32], &[0x13], &[0]),
    (&[MINUS, 1], &[0x14], &[1]),
    (&[1, MINUS], &[0x14], &[0]),
    (&[1, 1], &[0x14], &[0]),
    (&[MINUS, 1], &[0x15], &[0]),
    (&[1, MINUS], &[0x15], &[1]),
    (&[1, 1], &[0x15], &[0]),
    // ext, zero_ext
    (&[0x180], &[0x16, 8], &[MINUS - 0x7f]),
    (&[0x17f], &[0x16, 8], &[0x7f]),
    (&[1 << 40], &[0x16, 41], &[MINUS << 40]),
    (&[MIN + 1], &[0x16, 64], &[MIN + 1]),
    (&[MIN + 1], &[0x16, 255], &[MIN + 1]),
    (&[3], &[0x16, 1], &[MINUS]),
    (&[3], &[0x16, 0], &[0]),
    (&[MINUS], &[0x2a, 8], &[0xff]),
    (&[MINUS], &[0x2a, 63], &[MIN - 1]),
    (&[MIN + 1], &[0x2a, 64], &[MIN + 1]),
    (&[MIN + 1], &[0x2a, 255], &[MIN + 1]),
    (&[MINUS], &[0x2a, 0], &[0]),
    // ref8, ref16, ref32, ref64: at any address
    (&[0x1001], &[0x17], &[0x81]),
    (&[0x1001], &[0x18], &[0x8281]),
    (&[0x1001], &[0x19], &[0x8483_8281]),
    (&[0x1001], &[0x1a], &[0x8887_8685_8483_8281]),
    (&[0x1008], &[0x1a], &[0x8f8e_8d8c_8b8a_8988]),
    // const8, const16, const32, const64
    (&[], &[0x22, 0xff], &[0xff]),
    (&[], &[0x23, 0xff, 1], &[0xff01]),
    (&[], &[0x24, 0xff, 1, 2, 3], &[0xff01_0203]),
    (
        &[],
        &[0x25, 0xff, 1, 2, 3, 4, 5, 6, 7],
        &[0xff01_0203_0405_0607],
    ),
    // reg, getv, setv
    (&[], &[0x26, 0, 7], &[0xffff_ffff_8000_0001]),
    (&[], &[0x26, 0x12, 0x34], &[12]),
    (&[], &[0x2c, 0, 1], &[0xf000_0000_0000_0007]),
    (&[], &[0x2c, 2, 3], &[9]),
    (&[77], &[0x2d, 2, 3], &[77]),
    (
        &[77],
        &[0x2d, 2, 3, 0x2c, 2, 3, 0x2c, 0, 1],
        &[77, 77, 0xf000_0000_0000_0007],
    ),
    // dup, pop, swap, pick, rot
    (&[1, 2], &[0x28], &[1, 2, 2]),
    (&[1, 2], &[0x29], &[1]),
    (&[1, 2, 3], &[0x2b], &[1, 3, 2]),
    (&[1, 2, 3], &[0x32, 0], &[1, 2, 3, 3]),
    (&[1, 2, 3], &[0x32, 1], &[1, 2, 3, 2]),
    (&[1, 2, 3], &[0x32, 2], &[1, 2, 3, 1]),
    (&[1, 2, 3, 4], &[0x33], &[1, 4, 2, 3]),
    // trace, trace_quick, trace16, tracev, tracenz
    (&[9, 0x1000, 4], &[0x0c], &[9]),
    (&[0x1000], &[0x0d, 200], &[0x1000]),
    (&[0x1000], &[0x30, 1, 2], &[0x1000]),
    (&[], &[0x2e, 2, 3], &[]),
    (&[9, 0x1000, 4], &[0x2f], &[9]),
    // printf: the channel and the function are above the arguments
    (&[9, 0, 0], &[0x34, 0, 0, 2, b'x', 0], &[9]),
    (&[9, 8, 0, 0], &[0x34, 1, 0, 3, b'%', b'd', 0], &[9]),
];

#[test]
fn each_instruction_takes_and_leaves_what_the_manual_says() {
    for (operands, instruction, left) in CASES {
        let result = leaves(operands, instruction, &world());
        let what = std::format!("{operands:x?} {instruction:02x?}");
        assert_eq!(result.as_deref(), Ok(*left), "{what}");
    }
}

#[test]
fn each_opcode_has_a_case_or_is_a_jump() {
    let mut known: Vec<u8> = CASES.iter().map(|(_, code, _)| code[0]).collect();
    known.extend([0x20, 0x21, 0x27]);
    for opcode in 0..=u8::MAX {
        // With operands for any of them, and an empty format.
        let code = [
            &push(1).repeat(4)[..],
            &[opcode, 0, 0, 0, 0, 0, 0, 0, 0, 0x27],
        ]
        .concat();
        let is_unknown = matches!(
            crate::Expression::verify(&code, crate::Limits::default()),
            Err(crate::VerifyError::UnknownOpcode { offset: 36, .. }
                | crate::VerifyError::FloatingPoint { offset: 36, .. })
        );
        assert_eq!(is_unknown, !known.contains(&opcode), "{opcode:02x}");
    }
}

#[test]
fn jumps() {
    // 0: const8 C, 2: if_goto 9, 5: const8 5, 7: (end), 8: end, 9: const8 9, 11: goto 7
    let code = |condition| {
        [
            0x22, condition, 0x20, 0, 9, 0x22, 5, 0x27, 0x27, 0x22, 9, 0x21, 0, 7,
        ]
    };
    assert_eq!(run(&code(0), &mut world()), Ok(Some(5)));
    assert_eq!(run(&code(1), &mut world()), Ok(Some(9)));
    assert_eq!(run(&code(0x80), &mut world()), Ok(Some(9)));
    // All 64 bits count, and both bytes of a target do.
    let mut long = [push(1 << 63), Vec::from([0x20, 1, 4, 0x22, 1])].concat();
    long.resize(0x104, 0x27);
    long.extend([0x22, 3, 0x27]);
    assert_eq!(run(&long, &mut world()), Ok(Some(3)));
}

#[test]
fn end_gives_the_top_of_the_stack_or_nothing() {
    assert_eq!(run(&[0x22, 1, 0x22, 2, 0x27], &mut world()), Ok(Some(2)));
    assert_eq!(run(&[0x27], &mut world()), Ok(None));
    assert!(verified(&[0x22, 1, 0x27]).has_value());
    assert!(!verified(&[0x27]).has_value());
    // One of two ends has no value.
    assert!(!verified(&[0x22, 1, 0x28, 0x20, 0, 8, 0x29, 0x27, 0x27]).has_value());
    assert!(!verified(&[0x22, 1, 0x28, 0x20, 0, 7, 0x27, 0x29, 0x27]).has_value());
}

#[test]
fn traces_reach_the_context() {
    let traced = |operands: &[u64], instruction: &[u8]| {
        let mut world = world();
        let mut code: Vec<u8> = operands.iter().flat_map(|&value| push(value)).collect();
        code.extend(instruction);
        code.push(0x27);
        run(&code, &mut world).expect("it can be traced");
        world.traced
    };
    assert_eq!(traced(&[0x1000, 4], &[0x0c]), [Traced::Memory(0x1000, 4)]);
    assert_eq!(traced(&[8], &[0x0d, 200]), [Traced::Memory(8, 200)]);
    assert_eq!(traced(&[8], &[0x30, 1, 2]), [Traced::Memory(8, 0x102)]);
    assert_eq!(traced(&[8, MINUS], &[0x2f]), [Traced::Text(8, MINUS)]);
    assert_eq!(traced(&[], &[0x2e, 2, 3]), [Traced::Variable(0x203)]);
}

#[test]
fn a_variable_that_a_collected_expression_uses_is_recorded() {
    // `maint agent $hits = $hits + i` of GDB 13.1, with `$hits` as variable 1 and `i` at 0x1000.
    let code = [
        0x2c, 0, 1, 0x2e, 0, 1, 0x23, 0x10, 0, 0x0d, 4, 0x19, 0x16, 32, 0x02, 0x16, 64, 0x2d, 0, 1,
        0x2e, 0, 1, 0x29, 0x27,
    ];
    let mut world = world();
    world.variables.insert(1, 5);
    assert_eq!(run(&code, &mut world), Ok(None));
    let i = i64::from(i32::from_le_bytes([0x80, 0x81, 0x82, 0x83]));
    assert_eq!(world.variables[&1], (5 + i).cast_unsigned());
    assert_eq!(
        world.traced,
        [
            Traced::Variable(1),
            Traced::Memory(0x1000, 4),
            Traced::Variable(1)
        ]
    );
}

#[test]
fn what_the_context_lacks_is_named() {
    let cause = |operands: &[u64], instruction: &[u8]| {
        let world = World {
            has_buffer: false,
            ..world()
        };
        leaves(operands, instruction, &world).expect_err("the world lacks it")
    };
    for opcode in 0x05..=0x08 {
        assert_eq!(cause(&[1, 0], &[opcode]), Cause::DivisionByZero);
    }
    let unreadable = |address, length| Cause::Unreadable { address, length };
    assert_eq!(cause(&[0x1010], &[0x17]), unreadable(0x1010, 1));
    assert_eq!(cause(&[0xfff], &[0x18]), unreadable(0xfff, 2));
    assert_eq!(cause(&[0x100d], &[0x19]), unreadable(0x100d, 4));
    assert_eq!(cause(&[MINUS - 6], &[0x1a]), unreadable(MINUS - 6, 8));
    assert_eq!(
        cause(&[], &[0x26, 1, 2]),
        Cause::NoRegister { number: 0x102 }
    );
    let number = 0x102;
    assert_eq!(cause(&[], &[0x2c, 1, 2]), Cause::NoVariable { number });
    assert_eq!(cause(&[5], &[0x2d, 1, 2]), Cause::NoVariable { number });
    assert_eq!(cause(&[8, 8], &[0x0c]), Cause::NotTraced);
    assert_eq!(cause(&[8], &[0x0d, 8]), Cause::NotTraced);
    assert_eq!(cause(&[8], &[0x30, 0, 8]), Cause::NotTraced);
    assert_eq!(cause(&[8, 8], &[0x2f]), Cause::NotTraced);
    assert_eq!(cause(&[], &[0x2e, 0, 1]), Cause::NotTraced);
    let printf = [0x34, 0, 0, 2, b'x', 0];
    assert_eq!(cause(&[0, 0], &printf), Cause::NotPrinted);
}

#[test]
fn a_read_does_not_wrap_around_the_address_space() {
    let mut world = World {
        memory: [(MINUS - 7, Vec::from([1; 8])), (0, Vec::from([2; 8]))].into(),
        ..World::default()
    };
    let code = |address| [push(address), Vec::from([0x18, 0x27])].concat();
    assert_eq!(run(&code(MINUS - 1), &mut world), Ok(Some(0x0101)));
    world.reads.clear();
    let error = run(&code(MINUS), &mut world).expect_err("the second byte is nowhere");
    let (address, length) = (MINUS, 2);
    assert_eq!(error.cause, Cause::Unreadable { address, length });
    assert!(world.reads.is_empty(), "{:?}", world.reads);
}

#[test]
fn a_step_for_each_instruction() {
    let code = verified(&[0x22, 1, 0x0e, 0x27]);
    assert_eq!(code.evaluate(&mut world(), Steps(3)), Ok(Some(0)));
    let error = code.evaluate(&mut world(), Steps(2)).expect_err("one less");
    assert_eq!((error.offset, error.cause), (3, Cause::OutOfSteps));
}

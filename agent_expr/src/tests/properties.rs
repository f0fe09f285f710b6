//! Properties of any code, and of any expression of the builder.

use super::world;
use crate::Cause;
use crate::Context as _;
use crate::Expr;
use crate::Expression;
use crate::Limits;
use crate::Steps;
use crate::builder::Node;
use crate::instruction::Binary;
use crate::world::World;
use proptest::prelude::*;
use std::vec::Vec;

/// Code of which a good part is accepted: numbers and instructions without operands, and jumps back and forth.
fn likely_code() -> impl Strategy<Value = Vec<u8>> {
    let instruction = prop_oneof![
        4 => any::<u8>().prop_map(|value| Vec::from([0x22, value])),
        1 => any::<u64>().prop_map(super::push),
        4 => (0x02_u8..=0x15).prop_map(|opcode| Vec::from([opcode])),
        1 => Just(Vec::from([0x26, 0, 7])),
        1 => (0x10_u8..0x14).prop_map(|page| Vec::from([0x23, page, 0, 0x19])),
        2 => (0x28_u8..=0x34, 0_u8..4).prop_map(|(opcode, operand)| Vec::from([opcode, operand])),
        2 => (0x20_u8..=0x21, 0_u8..40).prop_map(|(opcode, target)| Vec::from([opcode, 0, target])),
        1 => Just(Vec::from(*b"\x34\x01\x00\x04%d\n\0")),
    ];
    prop::collection::vec(instruction, 0..24).prop_map(|instructions| {
        let mut code = [0x22, 1].repeat(6);
        code.extend(instructions.concat());
        code.push(0x27);
        code
    })
}

fn any_code() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        prop::collection::vec(0_u8..0x40, 0..60),
        likely_code(),
    ]
}

/// An expression of any shape.
fn any_expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        any::<u64>().prop_map(Expr::constant),
        (0_u64..70).prop_map(Expr::constant),
        prop::sample::select(&[7_u16, 0x1234, 3][..]).prop_map(Expr::register),
        prop::sample::select(&[1_u16, 0x203, 3][..]).prop_map(Expr::variable),
        (0xffc_u64..0x1014).prop_map(|address| Expr::constant(address).load_u8()),
        (0xffc_u64..0x1014).prop_map(|address| Expr::constant(address).load_u16()),
        (0xffc_u64..0x1014).prop_map(|address| Expr::constant(address).load_u32()),
        (0xffc_u64..0x1014).prop_map(|address| Expr::constant(address).load_u64()),
    ];
    leaf.prop_recursive(5, 40, 3, |part| {
        let pair = (part.clone(), part.clone());
        let two = (0..18_usize, pair).prop_map(|(which, (a, b))| match which {
            0 => a.plus(b),
            1 => a.minus(b),
            2 => a.times(b),
            3 => a.divided(b),
            4 => a.divided_signed(b),
            5 => a.remainder(b),
            6 => a.remainder_signed(b),
            7 => a.shifted_left(b),
            8 => a.shifted_right(b),
            9 => a.shifted_right_signed(b),
            10 => a.bits_and(b),
            11 => a.bits_or(b),
            12 => a.bits_xor(b),
            13 => a.equals(b),
            14 => a.less(b),
            15 => a.less_signed(b),
            16 => a.and_also(b),
            _ => a.or_else(b),
        });
        let one = (0..5_usize, 0..=70_u8, part.clone()).prop_map(|(which, bits, a)| match which {
            0 => a.sign_extended(bits),
            1 => a.zero_extended(bits),
            2 => a.is_zero(),
            3 => a.complement(),
            _ => a.load_u64(),
        });
        let three = (part.clone(), part.clone(), part);
        let three =
            three.prop_map(|(condition, then, otherwise)| condition.choose(then, otherwise));
        prop_oneof![4 => two, 2 => one, 1 => three]
    })
}

/// What an expression means, in 128-bit arithmetic where a sign or a width matters.
fn meaning(node: &Node, world: &mut World) -> Result<u64, Cause> {
    Ok(match node {
        Node::Constant(value) => *value,
        Node::Register(number) => {
            (world.registers.get(number).copied()).ok_or(Cause::NoRegister { number: *number })?
        }
        Node::Variable(number) => {
            (world.variables.get(number).copied()).ok_or(Cause::NoVariable { number: *number })?
        }
        Node::Load(length, address) => {
            let address = meaning(address, world)?;
            let mut value = 0;
            for at in (0..*length as u64).rev() {
                let mut byte = [0];
                let read = (address.checked_add(at)).map(|at| world.read(at, &mut byte));
                if !matches!(read, Some(Ok(()))) {
                    let length = *length;
                    return Err(Cause::Unreadable { address, length });
                }
                value = value * 256 + u64::from(byte[0]);
            }
            value
        }
        Node::SignExtended(bits, value) => {
            let value = cut(meaning(value, world)?, *bits);
            let has_sign = (1..=64).contains(bits) && value >> (bits - 1) & 1 == 1;
            let weight = 1_u128 << (*bits).min(64);
            low(i128::from(value) - if has_sign { weight.cast_signed() } else { 0 })
        }
        Node::ZeroExtended(bits, value) => cut(meaning(value, world)?, *bits),
        Node::LogNot(value) => match meaning(value, world)? {
            0 => 1,
            _ => 0,
        },
        Node::BitNot(value) => low(-1 - i128::from(meaning(value, world)?)),
        Node::Choose(condition, then, otherwise) => match meaning(condition, world)? {
            0 => meaning(otherwise, world)?,
            _ => meaning(then, world)?,
        },
        Node::Binary(operation, a, b) => {
            let (a, b) = (meaning(a, world)?, meaning(b, world)?);
            of_two(*operation, a, b)?
        }
    })
}

fn of_two(operation: Binary, a: u64, b: u64) -> Result<u64, Cause> {
    let (unsigned_a, unsigned_b) = (i128::from(a), i128::from(b));
    let (signed_a, signed_b) = (i128::from(a.cast_signed()), i128::from(b.cast_signed()));
    let or_error = |value: Option<i128>| value.ok_or(Cause::DivisionByZero);
    let power = 1_i128 << b.min(64);
    Ok(low(match operation {
        Binary::Add => unsigned_a + unsigned_b,
        Binary::Sub => unsigned_a - unsigned_b,
        Binary::Mul => signed_a * signed_b,
        Binary::DivSigned => or_error(signed_a.checked_div(signed_b))?,
        Binary::DivUnsigned => or_error(unsigned_a.checked_div(unsigned_b))?,
        Binary::RemSigned => or_error(signed_a.checked_rem(signed_b))?,
        Binary::RemUnsigned => or_error(unsigned_a.checked_rem(unsigned_b))?,
        // The product may have 128 bits and a sign.
        Binary::Lsh => signed_a.wrapping_mul(power),
        Binary::RshSigned => signed_a.div_euclid(power),
        Binary::RshUnsigned => unsigned_a / power,
        Binary::BitAnd => unsigned_a & unsigned_b,
        Binary::BitOr => unsigned_a | unsigned_b,
        Binary::BitXor => unsigned_a ^ unsigned_b,
        Binary::Equal => i128::from(a == b),
        Binary::LessSigned => i128::from(signed_a < signed_b),
        Binary::LessUnsigned => i128::from(unsigned_a < unsigned_b),
    }))
}

/// The lowest 64 bits.
fn low(value: i128) -> u64 {
    let bytes = value.to_le_bytes();
    u64::from_le_bytes(*bytes.first_chunk().expect("16 bytes"))
}

/// The lowest bits.
fn cut(value: u64, bits: u8) -> u64 {
    low((u128::from(value) % (1_u128 << bits.min(64))).cast_signed())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// No code makes the check or the evaluation panic, and no evaluation costs more than its budget.
    #[test]
    fn any_code_is_refused_or_evaluated_within_its_budget(code in any_code()) {
        if let Ok(expression) = Expression::verify(&code, Limits::default()) {
            let mut world = world();
            let result = expression.evaluate(&mut world, Steps(500));
            prop_assert!(world.traced.len() + world.printed.len() <= 500);
            if expression.has_value() {
                prop_assert_ne!(result, Ok(None));
            }
        }
    }

    #[test]
    fn an_expression_of_the_builder_means_what_it_says(expr in any_expr()) {
        let limits = Limits { bytes: 65536, ..Limits::default() };
        let expression = expr.assemble(limits).expect("not too deep");
        prop_assert!(expression.has_value());
        let result = expression.evaluate(&mut world(), Steps(10_000));
        let result = result.map_err(|error| error.cause);
        prop_assert_eq!(result, meaning(expr.node(), &mut world()).map(Some));
    }
}

/// The first property would say little if nearly all code were refused.
#[test]
fn some_likely_code_is_accepted() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let accepted = (0..1000).filter(|_| {
        let tree = likely_code().new_tree(&mut runner).expect("a tree");
        Expression::verify(&tree.current(), Limits::default()).is_ok()
    });
    let accepted = accepted.count();
    assert!(accepted > 50, "{accepted} of 1000");
}

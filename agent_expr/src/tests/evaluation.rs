//! Bounds of a whole evaluation, and the contexts' defaults.

use super::push;
use super::verified;
use super::world;
use crate::Cause;
use crate::Context;
use crate::EvaluationError;
use crate::Expr;
use crate::Expression;
use crate::Limits;
use crate::Refused;
use crate::STACK_DEPTH;
use crate::Steps;
use std::string::ToString as _;
use std::vec::Vec;

#[test]
fn an_endless_loop_ends_when_the_steps_are_used_up() {
    let code = verified(&[0x22, 1, 0x29, 0x21, 0, 0]);
    let error = code.evaluate(&mut world(), Steps(300_000));
    let (offset, cause) = (0, Cause::OutOfSteps);
    assert_eq!(error, Err(EvaluationError { offset, cause }));
    // No `end` is reachable.
    assert!(code.has_value());
}

#[test]
fn a_loop_counts() {
    // Variable 0x203 counts from 9 down to 0.
    let code = verified(&[
        0x2c, 2, 3, 0x22, 1, 0x03, 0x2d, 2, 3, 0x20, 0, 0, 0x2c, 2, 3, 0x27,
    ]);
    let mut world = world();
    assert_eq!(code.evaluate(&mut world, Steps(5 * 9 + 2)), Ok(Some(0)));
    assert_eq!(world.variables[&0x203], 0);
}

#[test]
fn the_stack_can_be_filled() {
    let mut code = push(1).repeat(STACK_DEPTH);
    code.extend([0x02].repeat(STACK_DEPTH - 1));
    code.push(0x27);
    let value = verified(&code).evaluate(&mut world(), Steps(1000));
    assert_eq!(value, Ok(Some(STACK_DEPTH as u64)));
}

#[test]
fn an_evaluation_allocates_nothing() {
    struct Bare;
    impl Context for Bare {
        fn register(&mut self, number: u16) -> Result<u64, Refused> {
            Ok(number.into())
        }

        fn read(&mut self, _: u64, into: &mut [u8]) -> Result<(), Refused> {
            into.fill(b'x');
            Ok(())
        }

        fn print(&mut self, _: &[u8]) -> Result<(), Refused> {
            Ok(())
        }
    }
    let condition = Expr::register(3).load_u32().less_signed(Expr::constant(9));
    let condition = condition.assemble(Limits::default()).expect("short");
    let mut printf = [push(4), push(5), push(0).repeat(2)].concat();
    printf.extend(b"\x34\x02\x00\x0b%d [%-40s]\0\x27");
    let printf = verified(&printf);
    let info = allocation_counter::measure(|| {
        assert_eq!(condition.evaluate(&mut Bare, Steps(100)), Ok(Some(0)));
        assert_eq!(printf.evaluate(&mut Bare, Steps(2000)), Ok(None));
    });
    assert_eq!(info.count_total, 0);
}

#[test]
fn a_context_for_conditions_refuses_the_rest() {
    struct Nothing;
    impl Context for Nothing {
        fn register(&mut self, _: u16) -> Result<u64, Refused> {
            Err(Refused)
        }

        fn read(&mut self, _: u64, _: &mut [u8]) -> Result<(), Refused> {
            Err(Refused)
        }
    }
    assert_eq!(Nothing.variable(1), Err(Refused));
    assert_eq!(Nothing.set_variable(1, 1), Err(Refused));
    assert_eq!(Nothing.trace_memory(1, 1), Err(Refused));
    assert_eq!(Nothing.trace_string(1, 1), Err(Refused));
    assert_eq!(Nothing.trace_variable(1), Err(Refused));
    assert_eq!(Nothing.print(b"x"), Err(Refused));
}

#[test]
fn errors_name_the_facts() {
    let text = |cause| EvaluationError { offset: 5, cause }.to_string();
    let (address, length) = (0x1f, 4);
    assert_eq!(
        text(Cause::Unreadable { address, length }),
        "offset 5: the 4 bytes at 0x1f cannot be read"
    );
    assert_eq!(
        text(Cause::NoRegister { number: 300 }),
        "offset 5: register 300 has no value"
    );
    assert_eq!(
        text(Cause::NoVariable { number: 3 }),
        "offset 5: there is no trace state variable 3"
    );
    assert_eq!(text(Cause::OutOfSteps), "offset 5: the steps are used up");
    assert_eq!(text(Cause::DivisionByZero), "offset 5: division by zero");
    assert_eq!(text(Cause::NotTraced), "offset 5: nothing was recorded");
    assert_eq!(
        text(Cause::NotPrinted),
        "offset 5: the output was not taken"
    );
    assert_eq!(Refused.to_string(), "the context does not have it");
}

#[test]
fn the_code_of_an_expression_is_kept() {
    let code = [0x22, 1, 0x27];
    assert_eq!(verified(&code).code(), code);
}

/// The code of an expression of the builder.
fn code(expr: &Expr) -> Vec<u8> {
    let assembled: Expression = expr.assemble(Limits::default()).expect("short");
    assembled.code().into()
}

#[test]
fn the_builder_emits_the_shortest_constants() {
    for (value, emitted) in [
        (0xff, &[0x22, 0xff, 0x27][..]),
        (0x100, &[0x23, 1, 0, 0x27]),
        (0xffff, &[0x23, 0xff, 0xff, 0x27]),
        (0x1_0000, &[0x24, 0, 1, 0, 0, 0x27]),
        (1 << 32, &[0x25, 0, 0, 0, 1, 0, 0, 0, 0, 0x27]),
    ] {
        assert_eq!(code(&Expr::constant(value)), emitted);
    }
}

#[test]
fn a_builder_is_held_to_the_limits() {
    let sum = (0..100).fold(Expr::constant(0), |sum, _| sum.plus(Expr::constant(1)));
    let limits = |bytes, depth| Limits { bytes, depth };
    assert!(sum.assemble(limits(303, 2)).is_ok());
    assert!(sum.assemble(limits(302, 2)).is_err());
    assert!(sum.assemble(limits(303, 1)).is_err());
    // Jumps over more code than a target can name.
    let long = (0..15).fold(Expr::constant(0), |sum, _| sum.clone().plus(sum));
    let jump = Expr::constant(0).choose(Expr::constant(1), long);
    assert!(jump.assemble(limits(usize::MAX, 10)).is_err());
}

mod evaluation;
mod opcodes;
mod printf;
mod properties;
mod refusals;

use crate::EvaluationError;
use crate::Expression;
use crate::Limits;
use crate::Steps;
use crate::world::World;
use std::vec::Vec;

/// A guest with a register, a variable, a trace buffer and 16 bytes of memory.
fn world() -> World {
    World {
        registers: [(7, 0xffff_ffff_8000_0001), (0x1234, 12)].into(),
        memory: [(0x1000, (0x80..0x90).collect())].into(),
        variables: [(1, 0xf000_0000_0000_0007), (0x203, 9)].into(),
        has_buffer: true,
        ..World::default()
    }
}

fn verified(code: &[u8]) -> Expression {
    Expression::verify(code, Limits::default()).expect("good code")
}

/// The result of code that is good.
fn run(code: &[u8], world: &mut World) -> Result<Option<u64>, EvaluationError> {
    verified(code).evaluate(world, Steps(1000))
}

/// Code that pushes a number.
fn push(value: u64) -> Vec<u8> {
    let mut code = Vec::from([0x25]);
    code.extend(value.to_be_bytes());
    code
}

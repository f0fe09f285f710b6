//! The evaluation of an expression, at each hit.

use crate::Context;
use crate::Expression;
use crate::STACK_DEPTH;
use crate::instruction::Binary;
use crate::instruction::Instruction;
use core::error::Error;
use core::fmt;

/// What an evaluation may cost: each instruction takes one step, and each byte of output takes one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps(pub u32);

/// Why an evaluation has ended without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvaluationError {
    /// The offset of the instruction in the code, in bytes.
    pub offset: usize,
    /// What was wrong there.
    pub cause: Cause,
}

/// What is wrong at an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The steps are used up.
    OutOfSteps,
    /// A divisor is zero.
    DivisionByZero,
    /// Memory cannot be read.
    Unreadable {
        /// The guest's virtual address.
        address: u64,
        /// The number of bytes.
        length: usize,
    },
    /// There is no such register, or it is larger than a value.
    NoRegister {
        /// GDB's number of the register.
        number: u16,
    },
    /// There is no such trace state variable.
    NoVariable {
        /// The number of the variable.
        number: u16,
    },
    /// The context has not recorded something for a tracepoint.
    NotTraced,
    /// The context has not taken output.
    NotPrinted,
}

impl fmt::Display for EvaluationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {}: {}", self.offset, self.cause)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfSteps => f.write_str("the steps are used up"),
            Self::DivisionByZero => f.write_str("division by zero"),
            Self::Unreadable { address, length } => {
                write!(f, "the {length} bytes at {address:#x} cannot be read")
            }
            Self::NoRegister { number } => write!(f, "register {number} has no value"),
            Self::NoVariable { number } => write!(f, "there is no trace state variable {number}"),
            Self::NotTraced => f.write_str("nothing was recorded"),
            Self::NotPrinted => f.write_str("the output was not taken"),
        }
    }
}

impl Error for EvaluationError {}

impl Steps {
    pub(crate) fn take(&mut self, steps: usize) -> Result<(), Cause> {
        let steps = u32::try_from(steps).map_err(|_| Cause::OutOfSteps)?;
        self.0 = self.0.checked_sub(steps).ok_or(Cause::OutOfSteps)?;
        Ok(())
    }
}

/// The values of an evaluation. The check of the expression has shown that the stack neither runs empty nor overflows.
struct Stack {
    slots: [u64; STACK_DEPTH],
    depth: usize,
}

impl Stack {
    fn push(&mut self, value: u64) {
        self.slots[self.depth] = value;
        self.depth += 1;
    }

    fn pop(&mut self) -> u64 {
        self.depth -= 1;
        self.slots[self.depth]
    }

    /// The value under this number of others.
    fn pick(&self, item: usize) -> u64 {
        self.slots[self.depth - 1 - item]
    }

    fn change(&mut self, change: impl FnOnce(u64) -> u64) {
        let value = self.pop();
        self.push(change(value));
    }
}

/// What comes after an instruction.
enum Next {
    Behind,
    At(usize),
    End,
}

impl Expression {
    /// The value of the expression; `None` if the stack is empty at the end ([`Expression::has_value`]). A condition is true if its value is not 0. Numbers have 64 bits, and
    /// arithmetic wraps around.
    pub fn evaluate(
        &self,
        context: &mut impl Context,
        budget: Steps,
    ) -> Result<Option<u64>, EvaluationError> {
        let mut steps = budget;
        let mut stack = Stack {
            slots: [0; STACK_DEPTH],
            depth: 0,
        };
        let mut index = 0;
        loop {
            let next = step(self.instruction(index), &mut stack, context, &mut steps);
            let next = next.map_err(|cause| EvaluationError {
                offset: self.offset(index),
                cause,
            })?;
            match next {
                Next::Behind => index += 1,
                Next::At(target) => index = target,
                Next::End => break,
            }
        }
        Ok((stack.depth > 0).then(|| stack.pop()))
    }
}

fn step(
    instruction: &Instruction,
    stack: &mut Stack,
    context: &mut impl Context,
    steps: &mut Steps,
) -> Result<Next, Cause> {
    steps.take(1)?;
    match *instruction {
        Instruction::Binary(operation) => {
            let b = stack.pop();
            let a = stack.pop();
            stack.push(binary(operation, a, b)?);
        }
        Instruction::LogNot => stack.change(|a| u64::from(a == 0)),
        Instruction::BitNot => stack.change(|a| !a),
        Instruction::Ext(bits) => stack.change(|a| sign_extend(a, bits)),
        Instruction::ZeroExt(bits) => stack.change(|a| zero_extend(a, bits)),
        Instruction::Ref(length) => {
            let address = stack.pop();
            let mut bytes = [0; 8];
            read(context, address, &mut bytes[..length])?;
            stack.push(u64::from_le_bytes(bytes));
        }
        Instruction::Const(value) => stack.push(value),
        Instruction::Reg(number) => {
            let value = context.register(number);
            stack.push(value.map_err(|_| Cause::NoRegister { number })?);
        }
        Instruction::GetV(number) => {
            let value = context.variable(number);
            stack.push(value.map_err(|_| Cause::NoVariable { number })?);
        }
        Instruction::SetV(number) => {
            let set = context.set_variable(number, stack.pick(0));
            set.map_err(|_| Cause::NoVariable { number })?;
        }
        Instruction::TraceV(number) => {
            let traced = context.trace_variable(number);
            traced.map_err(|_| Cause::NotTraced)?;
        }
        Instruction::Trace => {
            let length = stack.pop();
            let traced = context.trace_memory(stack.pop(), length);
            traced.map_err(|_| Cause::NotTraced)?;
        }
        Instruction::TraceQuick(length) => {
            let traced = context.trace_memory(stack.pick(0), length.into());
            traced.map_err(|_| Cause::NotTraced)?;
        }
        Instruction::TraceNz => {
            let limit = stack.pop();
            let traced = context.trace_string(stack.pop(), limit);
            traced.map_err(|_| Cause::NotTraced)?;
        }
        Instruction::Dup => stack.push(stack.pick(0)),
        Instruction::Pop => {
            stack.pop();
        }
        Instruction::Swap => {
            let b = stack.pop();
            let a = stack.pop();
            stack.push(b);
            stack.push(a);
        }
        Instruction::Pick(item) => stack.push(stack.pick(item.into())),
        Instruction::Rot => {
            let c = stack.pop();
            let b = stack.pop();
            let a = stack.pop();
            stack.push(c);
            stack.push(a);
            stack.push(b);
        }
        Instruction::IfGoto(target) => {
            if stack.pop() != 0 {
                return Ok(Next::At(target));
            }
        }
        Instruction::Goto(target) => return Ok(Next::At(target)),
        Instruction::Printf(ref format) => {
            // The function and the channel, which mean something only in the process of the program.
            stack.pop();
            stack.pop();
            // The first argument is on top.
            format.print(context, steps, || stack.pop())?;
        }
        Instruction::End => return Ok(Next::End),
    }
    Ok(Next::Behind)
}

fn binary(operation: Binary, a: u64, b: u64) -> Result<u64, Cause> {
    let (signed_a, signed_b) = (a.cast_signed(), b.cast_signed());
    let is_division = matches!(
        operation,
        Binary::DivSigned | Binary::DivUnsigned | Binary::RemSigned | Binary::RemUnsigned
    );
    if is_division && b == 0 {
        return Err(Cause::DivisionByZero);
    }
    // A shift by the width of a value or more moves every bit out.
    let distance = u32::try_from(b).unwrap_or(u32::MAX);
    Ok(match operation {
        Binary::Add => a.wrapping_add(b),
        Binary::Sub => a.wrapping_sub(b),
        Binary::Mul => a.wrapping_mul(b),
        Binary::DivSigned => signed_a.wrapping_div(signed_b).cast_unsigned(),
        Binary::DivUnsigned => a / b,
        Binary::RemSigned => signed_a.wrapping_rem(signed_b).cast_unsigned(),
        Binary::RemUnsigned => a % b,
        Binary::Lsh => a.checked_shl(distance).unwrap_or(0),
        Binary::RshSigned => (signed_a >> distance.min(u64::BITS - 1)).cast_unsigned(),
        Binary::RshUnsigned => a.checked_shr(distance).unwrap_or(0),
        Binary::BitAnd => a & b,
        Binary::BitOr => a | b,
        Binary::BitXor => a ^ b,
        Binary::Equal => u64::from(a == b),
        Binary::LessSigned => u64::from(signed_a < signed_b),
        Binary::LessUnsigned => u64::from(a < b),
    })
}

/// The number of bits of a value above the lowest `bits`.
fn above(bits: u8) -> u32 {
    u64::BITS.saturating_sub(bits.into())
}

/// No bit is left of a value that has no bits.
fn zero_extend(value: u64, bits: u8) -> u64 {
    let above = above(bits);
    value
        .checked_shl(above)
        .and_then(|value| value.checked_shr(above))
        .unwrap_or(0)
}

pub(crate) fn sign_extend(value: u64, bits: u8) -> u64 {
    let above = above(bits);
    let extended =
        (value.checked_shl(above)).and_then(|value| value.cast_signed().checked_shr(above));
    extended.unwrap_or(0).cast_unsigned()
}

/// Reads memory. An address behind the last one would be the first one, where nothing belongs to the value.
pub(crate) fn read(context: &mut impl Context, address: u64, into: &mut [u8]) -> Result<(), Cause> {
    let length = into.len();
    let unreadable = Cause::Unreadable { address, length };
    let ends_in_space = address.checked_add(length as u64 - 1).is_some();
    if !ends_in_space || context.read(address, into).is_err() {
        return Err(unreadable);
    }
    Ok(())
}

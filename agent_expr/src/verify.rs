//! The check of an expression, once, when it arrives. The evaluation relies on it.

use crate::FormatProblem;
use crate::instruction::Instruction;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::error::Error;
use core::fmt;

/// The number of values that the evaluator's stack can hold: that of gdbserver.
pub const STACK_DEPTH: usize = 100;

/// A jump has 16 bits for its target.
const CODE_MAX: usize = 1 << 16;

/// How large an expression may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The number of bytes of code; more than 65536 counts as 65536.
    pub bytes: usize,
    /// The number of values on the stack; more than [`STACK_DEPTH`] counts as [`STACK_DEPTH`].
    pub depth: usize,
}

impl Default for Limits {
    /// Limits that no condition in C comes near to.
    fn default() -> Self {
        Self {
            bytes: 4096,
            depth: STACK_DEPTH,
        }
    }
}

/// An expression whose code has been checked: every opcode is known, every jump leads to an instruction, and the stack neither runs empty nor overflows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    code: Box<[u8]>,
    instructions: Box<[Instruction]>,
    /// The offset of each instruction in the code.
    offsets: Box<[usize]>,
    has_value: bool,
}

/// Why an expression is refused. An `offset` is a place in the code, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerifyError {
    /// The code is longer than the limit.
    TooLong {
        /// The length of the code.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// No instruction has this opcode.
    UnknownOpcode {
        /// Where the opcode is.
        offset: usize,
        /// The opcode.
        opcode: u8,
    },
    /// The opcode is one of those for floating-point numbers, which the manual reserves and GDB does not use.
    FloatingPoint {
        /// Where the opcode is.
        offset: usize,
        /// The opcode.
        opcode: u8,
    },
    /// The code ends before the operand of an instruction does.
    Cut {
        /// Where the opcode is.
        offset: usize,
        /// The opcode.
        opcode: u8,
    },
    /// The code ends, and its last instruction is neither `end` nor `goto`.
    NoEnd {
        /// Where the next instruction would be.
        offset: usize,
    },
    /// A jump does not lead to an instruction.
    Target {
        /// Where the jump is.
        offset: usize,
        /// Where the jump leads to.
        target: usize,
    },
    /// An instruction needs more values than the stack has.
    Underflow {
        /// Where the instruction is.
        offset: usize,
        /// The number of values that the instruction needs.
        needed: usize,
        /// The number of values on the stack.
        depth: usize,
    },
    /// The stack would have more values than the limit.
    Overflow {
        /// Where the instruction is.
        offset: usize,
        /// The number of values that the stack would have.
        depth: usize,
        /// The limit.
        limit: usize,
    },
    /// Two paths lead to an instruction, and the stack has different depths on them.
    Depths {
        /// Where the instruction is.
        offset: usize,
        /// The depth on one path.
        one: usize,
        /// The depth on the other path.
        other: usize,
    },
    /// The format of a `printf` cannot be printed.
    Format {
        /// Where in the format the problem is.
        offset: usize,
        /// The problem.
        problem: FormatProblem,
    },
    /// A `printf` has another number of arguments than its format.
    Arguments {
        /// Where the `printf` is.
        offset: usize,
        /// The number of arguments.
        given: usize,
        /// The number of arguments that the format takes.
        wanted: usize,
    },
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooLong { bytes, limit } => {
                write!(f, "the code has {bytes} bytes, more than {limit}")
            }
            Self::UnknownOpcode { offset, opcode } => {
                write!(f, "offset {offset}: unknown opcode {opcode:#04x}")
            }
            Self::FloatingPoint { offset, opcode } => write!(
                f,
                "offset {offset}: opcode {opcode:#04x} is for floating-point numbers, which are not supported"
            ),
            Self::Cut { offset, opcode } => {
                write!(
                    f,
                    "offset {offset}: the operand of opcode {opcode:#04x} is cut off"
                )
            }
            Self::NoEnd { offset } => write!(f, "offset {offset}: the code has no `end` here"),
            Self::Target { offset, target } => {
                write!(
                    f,
                    "offset {offset}: the jump to {target} leads to no instruction"
                )
            }
            Self::Underflow {
                offset,
                needed,
                depth,
            } => write!(
                f,
                "offset {offset}: the instruction needs {needed} values, and the stack has {depth}"
            ),
            Self::Overflow {
                offset,
                depth,
                limit,
            } => write!(
                f,
                "offset {offset}: the stack would have {depth} values, more than {limit}"
            ),
            Self::Depths { offset, one, other } => write!(
                f,
                "offset {offset}: the stack has {one} values on one path and {other} on another"
            ),
            Self::Format { offset, problem } => write!(f, "offset {offset}: {problem}"),
            Self::Arguments {
                offset,
                given,
                wanted,
            } => write!(
                f,
                "offset {offset}: the `printf` has {given} arguments, and its format takes {wanted}"
            ),
        }
    }
}

impl Error for VerifyError {}

impl Expression {
    /// Checks the code.
    pub fn verify(code: &[u8], limits: Limits) -> Result<Self, VerifyError> {
        let limit = limits.bytes.min(CODE_MAX);
        if code.len() > limit {
            return Err(VerifyError::TooLong {
                bytes: code.len(),
                limit,
            });
        }
        let (mut instructions, offsets) = decode(code)?;
        let index_of = |offset| offsets.binary_search(&offset).ok();
        for (instruction, &offset) in instructions.iter_mut().zip(&offsets) {
            if let Instruction::IfGoto(target) | Instruction::Goto(target) = instruction {
                *target = index_of(*target).ok_or(VerifyError::Target {
                    offset,
                    target: *target,
                })?;
            }
        }
        let limit = limits.depth.min(STACK_DEPTH);
        let has_value = check_depths(&instructions, &offsets, limit)?;
        Ok(Self {
            code: code.into(),
            instructions: instructions.into(),
            offsets: offsets.into(),
            has_value,
        })
    }

    /// The code.
    pub fn code(&self) -> &[u8] {
        &self.code
    }

    /// The numbers of the registers that the code names, in the order of the code.
    pub fn registers(&self) -> impl Iterator<Item = u16> {
        self.instructions.iter().filter_map(Instruction::register)
    }

    /// This expression with other numbers of registers.
    ///
    /// # Errors
    /// The first number for which `map` has no other.
    pub fn with_registers(mut self, map: impl Fn(u16) -> Option<u16>) -> Result<Self, u16> {
        for (instruction, &offset) in self.instructions.iter_mut().zip(&self.offsets) {
            if let Instruction::Reg(number) = instruction {
                *number = map(*number).ok_or(*number)?;
                // The opcode is in front of the number.
                self.code[offset + 1..offset + 3].copy_from_slice(&number.to_be_bytes());
            }
        }
        Ok(self)
    }

    /// Whether the code names a trace state variable.
    pub fn has_variables(&self) -> bool {
        self.instructions.iter().any(|instruction| {
            matches!(
                instruction,
                Instruction::GetV(_) | Instruction::SetV(_) | Instruction::TraceV(_)
            )
        })
    }

    /// Whether every evaluation that ends results in a value. A condition has one; a `dprintf` has none.
    pub fn has_value(&self) -> bool {
        self.has_value
    }

    /// In the order of the code.
    pub(crate) fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// The instruction with this index, which is 0, behind that of another instruction, or the target of a jump.
    pub(crate) fn instruction(&self, index: usize) -> &Instruction {
        &self.instructions[index]
    }

    pub(crate) fn offset(&self, index: usize) -> usize {
        self.offsets[index]
    }
}

/// All instructions, one behind the other, and their offsets.
fn decode(code: &[u8]) -> Result<(Vec<Instruction>, Vec<usize>), VerifyError> {
    let mut instructions = Vec::new();
    let mut offsets = Vec::new();
    let mut offset = 0;
    let mut rest = code;
    while let Some((&opcode, behind)) = rest.split_first() {
        let (instruction, operands) = Instruction::decode(opcode, offset, behind)?;
        instructions.push(instruction);
        offsets.push(offset);
        rest = &behind[operands..];
        offset = code.len() - rest.len();
    }
    match instructions.last() {
        Some(Instruction::End | Instruction::Goto(_)) => Ok((instructions, offsets)),
        _ => Err(VerifyError::NoEnd { offset }),
    }
}

/// Follows every path through the code once. The depth at an instruction is the same on each path, so each instruction is visited once. The result says whether the stack has a
/// value at each `end` that a path leads to.
fn check_depths(
    instructions: &[Instruction],
    offsets: &[usize],
    limit: usize,
) -> Result<bool, VerifyError> {
    let mut depths: Vec<Option<usize>> = vec![None; instructions.len()];
    let mut to_visit = vec![(0, 0)];
    let mut has_value = true;
    while let Some((index, depth)) = to_visit.pop() {
        let offset = offsets[index];
        match depths[index] {
            Some(one) if one == depth => continue,
            Some(one) => {
                return Err(VerifyError::Depths {
                    offset,
                    one,
                    other: depth,
                });
            }
            None => depths[index] = Some(depth),
        }
        let instruction = &instructions[index];
        let effect = instruction.effect();
        let Some(below) = depth.checked_sub(effect.pops) else {
            return Err(VerifyError::Underflow {
                offset,
                needed: effect.pops,
                depth,
            });
        };
        let after = below + effect.pushes;
        if after > limit {
            return Err(VerifyError::Overflow {
                offset,
                depth: after,
                limit,
            });
        }
        match *instruction {
            Instruction::End => has_value &= depth > 0,
            Instruction::Goto(target) => to_visit.push((target, after)),
            Instruction::IfGoto(target) => {
                to_visit.extend([(target, after), (index + 1, after)]);
            }
            _ => to_visit.push((index + 1, after)),
        }
    }
    Ok(has_value)
}

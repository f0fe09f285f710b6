//! One instruction: how its bytes are read, and what it takes from the stack and leaves there.

use crate::VerifyError;
use crate::format::Format;
use alloc::boxed::Box;

/// What takes two values and leaves one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binary {
    Add,
    Sub,
    Mul,
    DivSigned,
    DivUnsigned,
    RemSigned,
    RemUnsigned,
    Lsh,
    RshSigned,
    RshUnsigned,
    BitAnd,
    BitOr,
    BitXor,
    Equal,
    LessSigned,
    LessUnsigned,
}

/// An instruction with its operands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Instruction {
    Binary(Binary),
    LogNot,
    BitNot,
    Ext(u8),
    ZeroExt(u8),
    /// The number of bytes.
    Ref(usize),
    Const(u64),
    Reg(u16),
    GetV(u16),
    SetV(u16),
    TraceV(u16),
    Trace,
    /// `trace_quick` and `trace16`.
    TraceQuick(u16),
    TraceNz,
    Dup,
    Pop,
    Swap,
    /// 0 is the top of the stack.
    Pick(u8),
    Rot,
    /// The target is an offset in the code at first, and then the index of the instruction there.
    IfGoto(usize),
    Goto(usize),
    Printf(Box<Format>),
    End,
}

impl Instruction {
    /// Reads the instruction with its opcode at `offset`, and returns the number of bytes of its operands.
    pub(crate) fn decode(
        opcode: u8,
        offset: usize,
        behind: &[u8],
    ) -> Result<(Self, usize), VerifyError> {
        let mut operands = Operands {
            opcode,
            offset,
            rest: behind,
        };
        let instruction = match opcode {
            0x02 => Self::Binary(Binary::Add),
            0x03 => Self::Binary(Binary::Sub),
            0x04 => Self::Binary(Binary::Mul),
            0x05 => Self::Binary(Binary::DivSigned),
            0x06 => Self::Binary(Binary::DivUnsigned),
            0x07 => Self::Binary(Binary::RemSigned),
            0x08 => Self::Binary(Binary::RemUnsigned),
            0x09 => Self::Binary(Binary::Lsh),
            0x0a => Self::Binary(Binary::RshSigned),
            0x0b => Self::Binary(Binary::RshUnsigned),
            0x0c => Self::Trace,
            0x0d => Self::TraceQuick(operands.byte()?.into()),
            0x0e => Self::LogNot,
            0x0f => Self::Binary(Binary::BitAnd),
            0x10 => Self::Binary(Binary::BitOr),
            0x11 => Self::Binary(Binary::BitXor),
            0x12 => Self::BitNot,
            0x13 => Self::Binary(Binary::Equal),
            0x14 => Self::Binary(Binary::LessSigned),
            0x15 => Self::Binary(Binary::LessUnsigned),
            0x16 => Self::Ext(operands.byte()?),
            0x17 => Self::Ref(1),
            0x18 => Self::Ref(2),
            0x19 => Self::Ref(4),
            0x1a => Self::Ref(8),
            0x20 => Self::IfGoto(operands.half()?.into()),
            0x21 => Self::Goto(operands.half()?.into()),
            0x22 => Self::Const(operands.byte()?.into()),
            0x23 => Self::Const(operands.half()?.into()),
            0x24 => Self::Const(u32::from_be_bytes(operands.take()?).into()),
            0x25 => Self::Const(u64::from_be_bytes(operands.take()?)),
            0x26 => Self::Reg(operands.half()?),
            0x27 => Self::End,
            0x28 => Self::Dup,
            0x29 => Self::Pop,
            0x2a => Self::ZeroExt(operands.byte()?),
            0x2b => Self::Swap,
            0x2c => Self::GetV(operands.half()?),
            0x2d => Self::SetV(operands.half()?),
            0x2e => Self::TraceV(operands.half()?),
            0x2f => Self::TraceNz,
            0x30 => Self::TraceQuick(operands.half()?),
            0x32 => Self::Pick(operands.byte()?),
            0x33 => Self::Rot,
            0x34 => operands.printf()?,
            // float, ref_float, ref_double, ref_long_double, l_to_d, d_to_l: "not implemented yet", says the manual.
            0x01 | 0x1b..=0x1f => return Err(VerifyError::FloatingPoint { offset, opcode }),
            _ => return Err(VerifyError::UnknownOpcode { offset, opcode }),
        };
        Ok((instruction, behind.len() - operands.rest.len()))
    }

    /// The number of the register that the instruction reads.
    pub(crate) fn register(&self) -> Option<u16> {
        match self {
            Self::Reg(number) => Some(*number),
            _ => None,
        }
    }

    /// The numbers of values that the stack has to have, and that it has less and more afterwards.
    pub(crate) fn effect(&self) -> Effect {
        let (pops, pushes) = match self {
            Self::Binary(_) => (2, 1),
            Self::LogNot | Self::BitNot | Self::Ext(_) | Self::ZeroExt(_) | Self::Ref(_) => (1, 1),
            Self::Const(_) | Self::Reg(_) | Self::GetV(_) => (0, 1),
            Self::SetV(_) | Self::TraceQuick(_) => (1, 1),
            // The manual shows a value that `tracev` pushes. gdbserver pushes none, and GDB's code, which has `getv` before it, counts on none.
            Self::TraceV(_) | Self::Goto(_) | Self::End => (0, 0),
            Self::Trace | Self::TraceNz => (2, 0),
            Self::Dup => (1, 2),
            Self::Pop | Self::IfGoto(_) => (1, 0),
            Self::Swap => (2, 2),
            Self::Pick(item) => (usize::from(*item) + 1, usize::from(*item) + 2),
            Self::Rot => (3, 3),
            // The function and the channel are above the arguments.
            Self::Printf(format) => (format.conversions() + 2, 0),
        };
        Effect { pops, pushes }
    }
}

/// What an instruction does to the depth of the stack.
pub(crate) struct Effect {
    pub(crate) pops: usize,
    pub(crate) pushes: usize,
}

/// The bytes behind an opcode.
struct Operands<'a> {
    opcode: u8,
    offset: usize,
    rest: &'a [u8],
}

impl Operands<'_> {
    /// Numbers in the code are big-endian on every guest.
    fn take<const N: usize>(&mut self) -> Result<[u8; N], VerifyError> {
        let (operand, rest) = self.rest.split_first_chunk().ok_or_else(|| self.cut())?;
        self.rest = rest;
        Ok(*operand)
    }

    fn byte(&mut self) -> Result<u8, VerifyError> {
        self.take().map(u8::from_be_bytes)
    }

    fn half(&mut self) -> Result<u16, VerifyError> {
        self.take().map(u16::from_be_bytes)
    }

    /// The number of arguments, the length of the format, and the format with a zero byte at its end.
    fn printf(&mut self) -> Result<Instruction, VerifyError> {
        let arguments = self.byte()?;
        let length = self.half()?;
        let (text, rest) = (self.rest.split_at_checked(length.into())).ok_or_else(|| self.cut())?;
        self.rest = rest;
        let format = Format::parse(text).map_err(|(at, problem)| VerifyError::Format {
            // The format is behind the opcode, the byte and the half.
            offset: self.offset + 4 + at,
            problem,
        })?;
        if format.conversions() != usize::from(arguments) {
            return Err(VerifyError::Arguments {
                offset: self.offset,
                given: arguments.into(),
                wanted: format.conversions(),
            });
        }
        Ok(Instruction::Printf(Box::new(format)))
    }

    fn cut(&self) -> VerifyError {
        VerifyError::Cut {
            offset: self.offset,
            opcode: self.opcode,
        }
    }
}

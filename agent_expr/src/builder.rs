//! Expressions that are written in Rust.

use crate::Expression;
use crate::Limits;
use crate::VerifyError;
use crate::instruction::Binary;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// An expression with one value, to be assembled. Numbers have 64 bits, and whether a number has a sign is a matter of the operation.
///
/// ```
/// # use agent_expr::Expr;
/// // The 32-bit number with a sign at 8 bytes behind the address in register 7.
/// let field = Expr::register(7).plus(Expr::constant(8)).load_u32().sign_extended(32);
/// let is_negative = field.less_signed(Expr::constant(0));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expr(Node);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Constant(u64),
    Register(u16),
    Variable(u16),
    /// The number of bytes: 1, 2, 4 or 8.
    Load(usize, Box<Node>),
    SignExtended(u8, Box<Node>),
    ZeroExtended(u8, Box<Node>),
    LogNot(Box<Node>),
    BitNot(Box<Node>),
    Binary(Binary, Box<Node>, Box<Node>),
    /// The condition, the value if it is not 0, and the value if it is.
    Choose(Box<Node>, Box<Node>, Box<Node>),
}

impl Expr {
    /// A number.
    pub fn constant(value: u64) -> Self {
        Self(Node::Constant(value))
    }

    /// The register with GDB's number.
    pub fn register(number: u16) -> Self {
        Self(Node::Register(number))
    }

    /// A trace state variable.
    pub fn variable(number: u16) -> Self {
        Self(Node::Variable(number))
    }

    /// The number of 8 bits without a sign in memory at this address.
    #[must_use]
    pub fn load_u8(self) -> Self {
        Self(Node::Load(1, Box::new(self.0)))
    }

    /// The number of 16 bits without a sign in memory at this address.
    #[must_use]
    pub fn load_u16(self) -> Self {
        Self(Node::Load(2, Box::new(self.0)))
    }

    /// The number of 32 bits without a sign in memory at this address.
    #[must_use]
    pub fn load_u32(self) -> Self {
        Self(Node::Load(4, Box::new(self.0)))
    }

    /// The number of 64 bits without a sign in memory at this address.
    #[must_use]
    pub fn load_u64(self) -> Self {
        Self(Node::Load(8, Box::new(self.0)))
    }

    /// The lowest bits, as a number with a sign.
    #[must_use]
    pub fn sign_extended(self, bits: u8) -> Self {
        Self(Node::SignExtended(bits, Box::new(self.0)))
    }

    /// The lowest bits, as a number without a sign.
    #[must_use]
    pub fn zero_extended(self, bits: u8) -> Self {
        Self(Node::ZeroExtended(bits, Box::new(self.0)))
    }

    /// `!self`: 1 for 0, and 0 for any other number.
    #[must_use]
    pub fn is_zero(self) -> Self {
        Self(Node::LogNot(Box::new(self.0)))
    }

    /// `~self`
    #[must_use]
    pub fn complement(self) -> Self {
        Self(Node::BitNot(Box::new(self.0)))
    }

    /// `self + other`
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.with(Binary::Add, other)
    }

    /// `self - other`
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.with(Binary::Sub, other)
    }

    /// `self * other`
    #[must_use]
    pub fn times(self, other: Self) -> Self {
        self.with(Binary::Mul, other)
    }

    /// `self / other` of numbers with a sign
    #[must_use]
    pub fn divided_signed(self, other: Self) -> Self {
        self.with(Binary::DivSigned, other)
    }

    /// `self / other` of numbers without a sign
    #[must_use]
    pub fn divided(self, other: Self) -> Self {
        self.with(Binary::DivUnsigned, other)
    }

    /// `self % other` of numbers with a sign
    #[must_use]
    pub fn remainder_signed(self, other: Self) -> Self {
        self.with(Binary::RemSigned, other)
    }

    /// `self % other` of numbers without a sign
    #[must_use]
    pub fn remainder(self, other: Self) -> Self {
        self.with(Binary::RemUnsigned, other)
    }

    /// `self << other`
    #[must_use]
    pub fn shifted_left(self, other: Self) -> Self {
        self.with(Binary::Lsh, other)
    }

    /// `self >> other` of a number with a sign
    #[must_use]
    pub fn shifted_right_signed(self, other: Self) -> Self {
        self.with(Binary::RshSigned, other)
    }

    /// `self >> other` of a number without a sign
    #[must_use]
    pub fn shifted_right(self, other: Self) -> Self {
        self.with(Binary::RshUnsigned, other)
    }

    /// `self & other`
    #[must_use]
    pub fn bits_and(self, other: Self) -> Self {
        self.with(Binary::BitAnd, other)
    }

    /// `self | other`
    #[must_use]
    pub fn bits_or(self, other: Self) -> Self {
        self.with(Binary::BitOr, other)
    }

    /// `self ^ other`
    #[must_use]
    pub fn bits_xor(self, other: Self) -> Self {
        self.with(Binary::BitXor, other)
    }

    /// `self == other`
    #[must_use]
    pub fn equals(self, other: Self) -> Self {
        self.with(Binary::Equal, other)
    }

    /// `self < other` of numbers with a sign
    #[must_use]
    pub fn less_signed(self, other: Self) -> Self {
        self.with(Binary::LessSigned, other)
    }

    /// `self < other` of numbers without a sign
    #[must_use]
    pub fn less(self, other: Self) -> Self {
        self.with(Binary::LessUnsigned, other)
    }

    /// `self && other`: `other` is evaluated only if `self` is not 0.
    #[must_use]
    pub fn and_also(self, other: Self) -> Self {
        self.choose(
            other.choose(Self::constant(1), Self::constant(0)),
            Self::constant(0),
        )
    }

    /// `self || other`: `other` is evaluated only if `self` is 0.
    #[must_use]
    pub fn or_else(self, other: Self) -> Self {
        self.choose(
            Self::constant(1),
            other.choose(Self::constant(1), Self::constant(0)),
        )
    }

    /// `self ? then : otherwise`: only one of the two is evaluated.
    #[must_use]
    pub fn choose(self, then: Self, otherwise: Self) -> Self {
        Self(Node::Choose(
            Box::new(self.0),
            Box::new(then.0),
            Box::new(otherwise.0),
        ))
    }

    /// The expression as verified code.
    pub fn assemble(&self, limits: Limits) -> Result<Expression, VerifyError> {
        let mut code = Vec::new();
        emit(&self.0, &mut code);
        code.push(0x27);
        Expression::verify(&code, limits)
    }

    pub(crate) fn node(&self) -> &Node {
        &self.0
    }

    fn with(self, operation: Binary, other: Self) -> Self {
        Self(Node::Binary(operation, Box::new(self.0), Box::new(other.0)))
    }
}

pub(crate) fn emit(node: &Node, code: &mut Vec<u8>) {
    match node {
        Node::Constant(value) => constant(*value, code),
        Node::Register(number) => with_half(0x26, *number, code),
        Node::Variable(number) => with_half(0x2c, *number, code),
        Node::Load(bytes, address) => {
            emit(address, code);
            code.push(match bytes {
                1 => 0x17,
                2 => 0x18,
                4 => 0x19,
                _ => 0x1a,
            });
        }
        Node::SignExtended(bits, value) => {
            emit(value, code);
            code.extend([0x16, *bits]);
        }
        Node::ZeroExtended(bits, value) => {
            emit(value, code);
            code.extend([0x2a, *bits]);
        }
        Node::LogNot(value) => {
            emit(value, code);
            code.push(0x0e);
        }
        Node::BitNot(value) => {
            emit(value, code);
            code.push(0x12);
        }
        Node::Binary(operation, a, b) => {
            emit(a, code);
            emit(b, code);
            code.push(opcode(*operation));
        }
        Node::Choose(condition, then, otherwise) => {
            emit(condition, code);
            let to_then = jump(0x20, code);
            emit(otherwise, code);
            let to_end = jump(0x21, code);
            land(to_then, code);
            emit(then, code);
            land(to_end, code);
        }
    }
}

fn opcode(operation: Binary) -> u8 {
    match operation {
        Binary::Add => 0x02,
        Binary::Sub => 0x03,
        Binary::Mul => 0x04,
        Binary::DivSigned => 0x05,
        Binary::DivUnsigned => 0x06,
        Binary::RemSigned => 0x07,
        Binary::RemUnsigned => 0x08,
        Binary::Lsh => 0x09,
        Binary::RshSigned => 0x0a,
        Binary::RshUnsigned => 0x0b,
        Binary::BitAnd => 0x0f,
        Binary::BitOr => 0x10,
        Binary::BitXor => 0x11,
        Binary::Equal => 0x13,
        Binary::LessSigned => 0x14,
        Binary::LessUnsigned => 0x15,
    }
}

/// The shortest instruction for a number without a sign.
pub(crate) fn constant(value: u64, code: &mut Vec<u8>) {
    if let Ok(value) = u8::try_from(value) {
        code.extend([0x22, value]);
    } else if let Ok(value) = u16::try_from(value) {
        with_half(0x23, value, code);
    } else if let Ok(value) = u32::try_from(value) {
        code.push(0x24);
        code.extend(value.to_be_bytes());
    } else {
        code.push(0x25);
        code.extend(value.to_be_bytes());
    }
}

fn with_half(opcode: u8, operand: u16, code: &mut Vec<u8>) {
    code.push(opcode);
    code.extend(operand.to_be_bytes());
}

/// Emits a jump, and returns where its target belongs.
fn jump(opcode: u8, code: &mut Vec<u8>) -> usize {
    with_half(opcode, 0, code);
    code.len() - 2
}

/// The jump leads to the end of the code so far. The check refuses code that is too long for the target, because the code is too long then.
fn land(at: usize, code: &mut [u8]) {
    let target = u16::try_from(code.len()).unwrap_or(u16::MAX);
    code[at..at + 2].copy_from_slice(&target.to_be_bytes());
}

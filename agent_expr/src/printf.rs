//! A `printf` that is written in Rust.

use crate::Expr;
use crate::Expression;
use crate::Limits;
use crate::VerifyError;
use crate::builder::constant;
use crate::builder::emit;
use alloc::string::String;
use alloc::vec::Vec;

/// A text with numbers, to be assembled: the format of C's `printf`, with a number for each conversion. `%s` takes the address of a string in the guest.
///
/// A backslash in the format begins an escape sequence of C. There are no conversions for floating-point numbers, and no `%n`.
///
/// ```
/// # use agent_expr::{Expr, Limits, Printf};
/// let text = Printf::new("register 7 is %#lx\n", [Expr::register(7)]);
/// assert!(text.assemble(Limits::default()).is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Printf {
    format: String,
    values: Vec<Expr>,
}

impl Printf {
    /// The values are in the order of the conversions.
    pub fn new(format: impl Into<String>, values: impl IntoIterator<Item = Expr>) -> Self {
        Self {
            format: format.into(),
            values: values.into_iter().collect(),
        }
    }

    /// The text as verified code, which prints and has no value.
    ///
    /// # Errors
    /// The format is wrong, its conversions and the values do not match, or the code is too large.
    pub fn assemble(&self, limits: Limits) -> Result<Expression, VerifyError> {
        let mut code = Vec::new();
        // The first value is on top, below the function and the channel.
        for value in self.values.iter().rev() {
            emit(value.node(), &mut code);
        }
        for _ in 0..2 {
            constant(0, &mut code);
        }
        // The check refuses numbers that do not fit: more values than conversions, and code that is too large.
        code.extend([0x34, u8::try_from(self.values.len()).unwrap_or(u8::MAX)]);
        let length = u16::try_from(self.format.len() + 1).unwrap_or(u16::MAX);
        code.extend(length.to_be_bytes());
        code.extend(self.format.as_bytes());
        code.extend([0, 0x27]);
        Expression::verify(&code, limits)
    }
}

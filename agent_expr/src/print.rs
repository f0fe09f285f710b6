//! The output of a `printf`, as C writes it. Nothing is allocated: the parts of the text go to the context one by one.

use crate::Cause;
use crate::Context;
use crate::Steps;
use crate::evaluate::read;
use crate::evaluate::sign_extend;
use crate::format::Base;
use crate::format::Conversion;
use crate::format::Format;
use crate::format::Kind;
use crate::format::Piece;

/// The number of bytes of a string that `%s` prints. The rest of a longer string is left out.
pub const STRING_MAX: usize = 1024;

/// A string is read in blocks of this size, each at an address that is a multiple of the size: so no read touches a page that the string does not reach.
const BLOCK: u64 = 64;

/// The number of digits of the largest number, which is octal.
const DIGITS_MAX: usize = 22;

impl Format {
    /// Prints the format with the arguments.
    pub(crate) fn print(
        &self,
        context: &mut impl Context,
        steps: &mut Steps,
        mut argument: impl FnMut() -> u64,
    ) -> Result<(), Cause> {
        let mut output = Output { context, steps };
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => output.put(text)?,
                Piece::Conversion(conversion) => output.convert(conversion, argument())?,
            }
        }
        Ok(())
    }
}

/// Where the text goes, and what it may cost.
struct Output<'a, C> {
    context: &'a mut C,
    steps: &'a mut Steps,
}

impl<C: Context> Output<'_, C> {
    fn put(&mut self, text: &[u8]) -> Result<(), Cause> {
        if text.is_empty() {
            return Ok(());
        }
        self.steps.take(text.len())?;
        self.context.print(text).map_err(|_| Cause::NotPrinted)
    }

    fn fill(&mut self, byte: u8, count: usize) -> Result<(), Cause> {
        let block = [byte; 32];
        let mut left = count;
        while left > 0 {
            let now = left.min(block.len());
            self.put(&block[..now])?;
            left -= now;
        }
        Ok(())
    }

    /// Text in a field of the conversion's width.
    fn field(&mut self, conversion: &Conversion, text: &[u8]) -> Result<(), Cause> {
        let padding = conversion.width.saturating_sub(text.len());
        if !conversion.flags.left {
            self.fill(b' ', padding)?;
        }
        self.put(text)?;
        if conversion.flags.left {
            self.fill(b' ', padding)?;
        }
        Ok(())
    }

    fn convert(&mut self, conversion: &Conversion, value: u64) -> Result<(), Cause> {
        let flags = conversion.flags;
        match conversion.kind {
            Kind::Signed { bits } => {
                let value = sign_extend(value, bits).cast_signed();
                let sign: &[u8] = match value {
                    ..0 => b"-",
                    _ if flags.plus => b"+",
                    _ if flags.space => b" ",
                    _ => b"",
                };
                self.number(conversion, sign, value.unsigned_abs(), Base::Decimal)
            }
            Kind::Unsigned { bits, base } => {
                let value = value & (u64::MAX >> (u64::BITS - u32::from(bits)));
                let prefix: &[u8] = match base {
                    Base::LowerHex if flags.alternate && value != 0 => b"0x",
                    Base::UpperHex if flags.alternate && value != 0 => b"0X",
                    _ => b"",
                };
                self.number(conversion, prefix, value, base)
            }
            Kind::Char => self.field(conversion, &value.to_le_bytes()[..1]),
            Kind::Pointer if value == 0 => self.field(conversion, b"(nil)"),
            Kind::Pointer => self.number(conversion, b"0x", value, Base::LowerHex),
            Kind::Text if value == 0 => {
                let null = b"(null)";
                let length = conversion.precision.unwrap_or(null.len()).min(null.len());
                self.field(conversion, &null[..length])
            }
            Kind::Text => {
                let mut bytes = [0; STRING_MAX];
                let limit = conversion.precision.unwrap_or(STRING_MAX).min(STRING_MAX);
                let length = string(self.context, value, &mut bytes[..limit])?;
                self.field(conversion, &bytes[..length])
            }
        }
    }

    /// A number with a sign or another prefix.
    fn number(
        &mut self,
        conversion: &Conversion,
        prefix: &[u8],
        value: u64,
        base: Base,
    ) -> Result<(), Cause> {
        let mut buffer = [b'0'; DIGITS_MAX];
        let mut digits = digits(value, base, &mut buffer);
        let flags = conversion.flags;
        if value == 0 && conversion.precision == Some(0) {
            digits = b"";
        }
        let needs_zero = base == Base::Octal && flags.alternate && !digits.starts_with(b"0");
        let least = conversion.precision.unwrap_or(1);
        let least = least.max(digits.len() + usize::from(needs_zero));
        let padding = conversion.width.saturating_sub(prefix.len() + least);
        let zeros = least - digits.len();
        let (before, zeros, after) = match flags.left {
            true => (0, zeros, padding),
            false if flags.zero && conversion.precision.is_none() => (0, zeros + padding, 0),
            false => (padding, zeros, 0),
        };
        self.fill(b' ', before)?;
        self.put(prefix)?;
        self.fill(b'0', zeros)?;
        self.put(digits)?;
        self.fill(b' ', after)
    }
}

/// The digits of a number, at least one.
fn digits(value: u64, base: Base, buffer: &mut [u8; DIGITS_MAX]) -> &[u8] {
    let (radix, ten) = match base {
        Base::Octal => (8, b'a'),
        Base::Decimal => (10, b'a'),
        Base::LowerHex => (16, b'a'),
        Base::UpperHex => (16, b'A'),
    };
    let mut left = value;
    let mut start = buffer.len();
    loop {
        start -= 1;
        let [digit, ..] = (left % radix).to_le_bytes();
        buffer[start] = match digit {
            0..10 => b'0' + digit,
            _ => ten + (digit - 10),
        };
        left /= radix;
        if left == 0 {
            return &buffer[start..];
        }
    }
}

/// Reads a string up to its zero byte, or until `into` is full, and returns its length.
fn string(context: &mut impl Context, address: u64, into: &mut [u8]) -> Result<usize, Cause> {
    let mut length = 0;
    let mut at = address;
    while length < into.len() {
        let room = into.len() - length;
        // A block has less bytes than any number can hold.
        let to_boundary = usize::try_from(BLOCK - at % BLOCK).unwrap_or(room);
        let block = &mut into[length..][..room.min(to_boundary)];
        read(context, at, block)?;
        if let Some(end) = block.iter().position(|&byte| byte == 0) {
            return Ok(length + end);
        }
        length += block.len();
        at = at.wrapping_add(block.len() as u64);
    }
    Ok(length)
}

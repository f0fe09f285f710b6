//! The format of a `printf`: what GDB allows in it. The check of an expression parses the format, so that the evaluation finds no error in it.
//!
//! GDB sends the format as the user wrote it, with the escape sequences of C.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

/// The largest width and precision.
pub const WIDTH_MAX: u16 = 1024;

/// What is wrong with the format of a `printf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormatProblem {
    /// The last byte of the format is not zero.
    NotTerminated,
    /// A byte before the last is zero.
    ZeroByte,
    /// The format ends within an escape sequence or a conversion.
    Incomplete,
    /// No escape sequence of GDB has this letter.
    UnknownEscape(u8),
    /// There is no conversion with this letter here: `%n`, `*`, `%lc` and `%ls` are among them.
    UnknownConversion(u8),
    /// The conversion with this letter is for floating-point numbers.
    FloatingPoint(u8),
    /// The conversion with this letter has a flag, a precision or a length that does not fit it.
    Modifiers(u8),
    /// The width or the precision is larger than [`WIDTH_MAX`].
    TooWide,
}

impl fmt::Display for FormatProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotTerminated => f.write_str("the format has no zero byte at its end"),
            Self::ZeroByte => f.write_str("the format has a zero byte before its end"),
            Self::Incomplete => f.write_str("the format ends too early"),
            Self::UnknownEscape(letter) => {
                write!(
                    f,
                    "unknown escape sequence `\\{}`",
                    char::from(letter).escape_default()
                )
            }
            Self::UnknownConversion(letter) => {
                write!(
                    f,
                    "unknown conversion `{}`",
                    char::from(letter).escape_default()
                )
            }
            Self::FloatingPoint(letter) => write!(
                f,
                "conversion `{}` is for floating-point numbers, which are not supported",
                char::from(letter)
            ),
            Self::Modifiers(letter) => write!(
                f,
                "conversion `{}` has a flag, a precision or a length that does not fit it",
                char::from(letter)
            ),
            Self::TooWide => write!(f, "a width or precision is larger than {WIDTH_MAX}"),
        }
    }
}

/// A format without errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) pieces: Box<[Piece]>,
}

/// A part of a format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Text that is put out as it is.
    Text(Box<[u8]>),
    Conversion(Conversion),
}

/// What one argument looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conversion {
    pub(crate) flags: Flags,
    pub(crate) width: usize,
    pub(crate) precision: Option<usize>,
    pub(crate) kind: Kind,
}

/// The flags `-`, `0`, `+`, space and `#`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags {
    pub(crate) left: bool,
    pub(crate) zero: bool,
    pub(crate) plus: bool,
    pub(crate) space: bool,
    pub(crate) alternate: bool,
}

/// What an argument is. An integer has this number of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Signed { bits: u8 },
    Unsigned { bits: u8, base: Base },
    Char,
    Text,
    Pointer,
}

/// How the digits of a number without a sign look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    Octal,
    Decimal,
    LowerHex,
    UpperHex,
}

/// The length in front of a conversion.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Length {
    Int,
    /// `hh`
    Byte,
    /// `h`
    Short,
    /// `l`, `ll`, `z`: 64 bits on every guest that we know.
    Long,
}

/// A problem, and where it is in the format.
type Problem = (usize, FormatProblem);

impl Format {
    /// Parses the bytes of the instruction, with the zero byte at their end.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Problem> {
        let Some((&0, text)) = text.split_last() else {
            return Err((text.len(), FormatProblem::NotTerminated));
        };
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        let mut reader = Reader { text, at: 0 };
        while let Some(byte) = reader.peek() {
            let start = reader.at;
            reader.at += 1;
            match byte {
                0 => return Err((start, FormatProblem::ZeroByte)),
                b'\\' => literal.push(reader.escape().map_err(|problem| (start, problem))?),
                b'%' if reader.eat(b'%') => literal.push(b'%'),
                b'%' => {
                    let conversion = reader.conversion().map_err(|problem| (start, problem))?;
                    if !literal.is_empty() {
                        pieces.push(Piece::Text(core::mem::take(&mut literal).into()));
                    }
                    pieces.push(Piece::Conversion(conversion));
                }
                _ => literal.push(byte),
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal.into()));
        }
        let pieces = pieces.into();
        Ok(Self { pieces })
    }

    /// The number of arguments.
    pub(crate) fn conversions(&self) -> usize {
        let is_conversion = |piece: &&Piece| matches!(piece, Piece::Conversion(_));
        self.pieces.iter().filter(is_conversion).count()
    }
}

/// The part of a format that has not been read.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn eat(&mut self, wanted: u8) -> bool {
        let is_there = self.peek() == Some(wanted);
        self.at += usize::from(is_there);
        is_there
    }

    fn next(&mut self) -> Result<u8, FormatProblem> {
        let byte = self.peek().ok_or(FormatProblem::Incomplete)?;
        self.at += 1;
        Ok(byte)
    }

    /// The byte of the escape sequence behind a backslash.
    fn escape(&mut self) -> Result<u8, FormatProblem> {
        Ok(match self.next()? {
            same @ (b'\\' | b'"') => same,
            b'a' => 0x07,
            b'b' => 0x08,
            b'e' => 0x1b,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            letter => return Err(FormatProblem::UnknownEscape(letter)),
        })
    }

    /// The conversion behind a percent sign.
    fn conversion(&mut self) -> Result<Conversion, FormatProblem> {
        let flags = self.flags();
        let width = self.number()?;
        let precision = match self.eat(b'.') {
            true => Some(self.number()?),
            false => None,
        };
        let length = self.length();
        let letter = self.next()?;
        let bits = match length {
            Length::Int => 32,
            Length::Byte => 8,
            Length::Short => 16,
            Length::Long => 64,
        };
        let unsigned = |base| Kind::Unsigned { bits, base };
        let kind = match letter {
            b'd' | b'i' => Kind::Signed { bits },
            b'o' => unsigned(Base::Octal),
            b'u' => unsigned(Base::Decimal),
            b'x' => unsigned(Base::LowerHex),
            b'X' => unsigned(Base::UpperHex),
            // A wide character or string.
            b'c' | b's' if length == Length::Long => {
                return Err(FormatProblem::UnknownConversion(letter));
            }
            b'c' => Kind::Char,
            b's' => Kind::Text,
            b'p' => Kind::Pointer,
            b'a' | b'A' | b'e' | b'E' | b'f' | b'F' | b'g' | b'G' => {
                return Err(FormatProblem::FloatingPoint(letter));
            }
            _ => return Err(FormatProblem::UnknownConversion(letter)),
        };
        let is_signed = flags.plus || flags.space;
        let fits = match kind {
            Kind::Signed { .. } => true,
            Kind::Unsigned { base, .. } => {
                let is_plain_decimal = base != Base::Decimal || !flags.alternate;
                !is_signed && is_plain_decimal
            }
            Kind::Char => !is_signed && !flags.zero && precision.is_none() && length == Length::Int,
            Kind::Text => !is_signed && !flags.zero && length == Length::Int,
            Kind::Pointer => {
                let has_flag = is_signed || flags.zero || flags.alternate;
                !has_flag && precision.is_none() && length == Length::Int
            }
        };
        if !fits {
            return Err(FormatProblem::Modifiers(letter));
        }
        Ok(Conversion {
            flags,
            width,
            precision,
            kind,
        })
    }

    fn flags(&mut self) -> Flags {
        let mut flags = Flags::default();
        while let Some(byte) = self.peek() {
            match byte {
                b'-' => flags.left = true,
                b'0' => flags.zero = true,
                b'+' => flags.plus = true,
                b' ' => flags.space = true,
                b'#' => flags.alternate = true,
                _ => break,
            }
            self.at += 1;
        }
        flags
    }

    /// A width or a precision. No digit is 0.
    fn number(&mut self) -> Result<usize, FormatProblem> {
        let mut number = 0;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            self.at += 1;
            number = number * 10 + usize::from(digit - b'0');
            if number > WIDTH_MAX.into() {
                return Err(FormatProblem::TooWide);
            }
        }
        Ok(number)
    }

    fn length(&mut self) -> Length {
        if self.eat(b'h') {
            match self.eat(b'h') {
                true => Length::Byte,
                false => Length::Short,
            }
        } else if self.eat(b'l') {
            self.eat(b'l');
            Length::Long
        } else if self.eat(b'z') {
            Length::Long
        } else {
            Length::Int
        }
    }
}

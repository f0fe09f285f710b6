//! A check of the bytes of a message against the fields of its type, before anything is decoded and allocated.
//!
//! `prost` ignores fields that it does not know, cuts numbers that are too large, and takes the last of two values. A debugger's request with one of these
//! would be carried out as another request than the one that was meant. The check walks over the tags of the message with the table of the fields, which `cargo xtask wire` makes from the `.proto` files.

use crate::debug_rpc::BadMessage;

/// The fields of a type of message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) name: &'static str,
    /// In the order of their numbers.
    pub(super) fields: &'static [Field],
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) occurs: Occurs,
}

/// How a field is encoded.
#[derive(Debug)]
pub(super) enum Kind {
    Varint(Range),
    Fixed64,
    Bytes,
    Message(&'static Message),
}

/// The numbers that a field can have. All are encoded alike, with up to 64 bits, and `prost` drops the bits that its type has no place for.
#[derive(Debug)]
pub(super) enum Range {
    Bool,
    Uint32,
    /// Also the values of an enum.
    Int32,
    Uint64,
}

/// How often a field may occur.
#[derive(Debug)]
pub(super) enum Occurs {
    /// Once, with any other field of the same number here: the fields of a `oneof`.
    Once(u8),
    /// As an element of a list.
    Often,
}

/// The wire types of <https://protobuf.dev/programming-guides/encoding/#structure>.
const VARINT: u64 = 0;
const I64: u64 = 1;
const LEN: u64 = 2;
const I32: u64 = 5;

/// The number of fields among which [`id`] looks for its field. Messages without an error have fewer.
const FIELDS_BEFORE_ID: usize = 64;

/// Checks that the message contains only fields of its type, each at most once and with a number of its range, and lists of at most `elements` elements in
/// total. The time of the decoder after that is bounded by the length of bytes and strings, and by `elements`.
pub(super) fn check(
    message: &'static Message,
    bytes: &[u8],
    elements: usize,
) -> Result<(), BadMessage> {
    let mut walk = Walk {
        unknown: Unknown::Refused,
        elements,
        left: elements,
    };
    walk.message(message, bytes)
}

/// As [`check`], for a message that has no lists and may have fields that this version does not know.
pub(super) fn check_known(message: &'static Message, bytes: &[u8]) -> Result<(), BadMessage> {
    let mut walk = Walk {
        unknown: Unknown::Skipped,
        elements: 0,
        left: 0,
    };
    walk.message(message, bytes)
}

/// The number of a request or of an answer: the field 1 of both. 0 if there is none.
pub(super) fn id(bytes: &[u8]) -> u64 {
    let mut rest = bytes;
    for _ in 0..FIELDS_BEFORE_ID {
        let Ok(tag) = varint(&mut rest) else { break };
        if tag == 1 << 3 | VARINT {
            return varint(&mut rest).unwrap_or(0);
        }
        if skip(&mut rest, tag).is_err() {
            break;
        }
    }
    0
}

enum Unknown {
    Refused,
    Skipped,
}

struct Walk {
    unknown: Unknown,
    elements: usize,
    /// The elements that may still come.
    left: usize,
}

impl Walk {
    /// The types of the `.proto` files are not recursive, so this recursion is as deep as they are.
    fn message(&mut self, message: &'static Message, mut rest: &[u8]) -> Result<(), BadMessage> {
        // One bit for each slot of `Occurs::Once`.
        let mut seen = 0_u64;
        while !rest.is_empty() {
            let tag = varint(&mut rest)?;
            let number = u32::try_from(tag >> 3).map_err(|_| BadMessage::Malformed)?;
            let found = message
                .fields
                .binary_search_by_key(&number, |field| field.number);
            let field = match (found, &self.unknown) {
                (Ok(index), _) => &message.fields[index],
                (Err(_), Unknown::Skipped) => {
                    skip(&mut rest, tag)?;
                    continue;
                }
                (Err(_), Unknown::Refused) => {
                    return Err(BadMessage::UnknownField {
                        message: message.name.to_owned(),
                        field: number,
                    });
                }
            };
            match field.occurs {
                Occurs::Once(slot) if seen & 1 << slot != 0 => {
                    let of = field.name.to_owned();
                    return Err(BadMessage::Duplicate { of });
                }
                Occurs::Once(slot) => seen |= 1 << slot,
                // An empty packed list too.
                Occurs::Often => self.count(1)?,
            }
            match (&field.kind, tag & 7, &field.occurs) {
                (Kind::Varint(range), VARINT, _) => field.check(range, varint(&mut rest)?)?,
                (Kind::Fixed64, I64, _) => {
                    take(&mut rest, 8)?;
                }
                (Kind::Bytes, LEN, _) => {
                    delimited(&mut rest)?;
                }
                (Kind::Message(inner), LEN, _) => {
                    let inside = delimited(&mut rest)?;
                    self.message(inner, inside)?;
                }
                // Packed lists.
                (Kind::Varint(range), LEN, Occurs::Often) => {
                    let mut inside = delimited(&mut rest)?;
                    let ends = inside.iter().filter(|byte| *byte & 0x80 == 0).count();
                    self.count(ends.saturating_sub(1))?;
                    while !inside.is_empty() {
                        field.check(range, varint(&mut inside)?)?;
                    }
                }
                (Kind::Fixed64, LEN, Occurs::Often) => {
                    let (numbers, incomplete) = delimited(&mut rest)?.as_chunks::<8>();
                    self.count(numbers.len().saturating_sub(1))?;
                    if !incomplete.is_empty() {
                        return Err(BadMessage::Malformed);
                    }
                }
                _ => return Err(BadMessage::Malformed),
            }
        }
        Ok(())
    }

    fn count(&mut self, elements: usize) -> Result<(), BadMessage> {
        let limit = self.elements as u64;
        let left = self.left.checked_sub(elements);
        self.left = left.ok_or(BadMessage::TooMany { limit })?;
        Ok(())
    }
}

impl Field {
    fn check(&self, range: &Range, value: u64) -> Result<(), BadMessage> {
        let within = match range {
            Range::Bool => value <= 1,
            Range::Uint32 => u32::try_from(value).is_ok(),
            // A negative number is encoded with 64 bits.
            Range::Int32 => i32::try_from(value.cast_signed()).is_ok(),
            Range::Uint64 => true,
        };
        let of = self.name;
        match within {
            true => Ok(()),
            false => Err(BadMessage::OutOfRange { of: of.to_owned() }),
        }
    }
}

/// Skips the value after a tag.
fn skip(rest: &mut &[u8], tag: u64) -> Result<(), BadMessage> {
    match tag & 7 {
        VARINT => varint(rest).map(|_| ()),
        I64 => take(rest, 8).map(|_| ()),
        LEN => delimited(rest).map(|_| ()),
        I32 => take(rest, 4).map(|_| ()),
        _ => Err(BadMessage::Malformed),
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], BadMessage> {
    let (taken, left) = rest.split_at_checked(count).ok_or(BadMessage::Malformed)?;
    *rest = left;
    Ok(taken)
}

fn delimited<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], BadMessage> {
    let length = varint(rest)?;
    let length = usize::try_from(length).map_err(|_| BadMessage::Malformed)?;
    take(rest, length)
}

fn varint(rest: &mut &[u8]) -> Result<u64, BadMessage> {
    let mut value = 0;
    for (index, &byte) in rest.iter().enumerate().take(10) {
        // The tenth byte has the highest of 64 bits.
        if index == 9 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *rest = &rest[index + 1..];
            return Ok(value);
        }
    }
    Err(BadMessage::Malformed)
}

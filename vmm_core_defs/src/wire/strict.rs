//! A check of the bytes of a message against the fields of its type, before anything is decoded and allocated.
//!
//! `prost` ignores fields that it does not know. A debugger's request with such a field would be carried out as another request than the one that was
//! meant. The check walks over the tags of the message with the table of the fields, which `cargo xtask wire` makes from the `.proto` files.

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
    pub(super) kind: Kind,
    pub(super) repeated: bool,
}

/// How a field is encoded.
#[derive(Debug)]
pub(super) enum Kind {
    Varint,
    Fixed64,
    Bytes,
    Message(&'static Message),
}

/// The wire types of <https://protobuf.dev/programming-guides/encoding/#structure>.
const VARINT: u64 = 0;
const I64: u64 = 1;
const LEN: u64 = 2;

/// Checks that the message contains only fields of its type, and lists of at most `elements` elements in total.
pub(super) fn check(
    message: &'static Message,
    bytes: &[u8],
    elements: usize,
) -> Result<(), BadMessage> {
    let mut walk = Walk {
        elements,
        left: elements,
    };
    walk.message(message, bytes)
}

/// The number of a request or of an answer: the field 1 of both. 0 if there is none.
pub(super) fn id(bytes: &[u8]) -> u64 {
    let mut rest = bytes;
    let mut id = 0;
    while !rest.is_empty() {
        let Ok(tag) = varint(&mut rest) else { break };
        let value = match tag & 7 {
            VARINT => varint(&mut rest),
            I64 => take(&mut rest, 8).map(|_| 0),
            LEN => delimited(&mut rest).map(|_| 0),
            _ => break,
        };
        match value {
            Ok(value) if tag == 1 << 3 | VARINT => id = value,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    id
}

struct Walk {
    elements: usize,
    /// The elements that may still come.
    left: usize,
}

impl Walk {
    /// The types of the `.proto` files are not recursive, so this recursion is as deep as they are.
    fn message(&mut self, message: &'static Message, mut rest: &[u8]) -> Result<(), BadMessage> {
        while !rest.is_empty() {
            let tag = varint(&mut rest)?;
            let number = u32::try_from(tag >> 3).map_err(|_| BadMessage::Malformed)?;
            let found = message
                .fields
                .binary_search_by_key(&number, |field| field.number);
            let field = found.map(|index| &message.fields[index]).map_err(|_| {
                BadMessage::UnknownField {
                    message: message.name.to_owned(),
                    field: number,
                }
            })?;
            match (&field.kind, tag & 7) {
                (Kind::Varint, VARINT) => {
                    varint(&mut rest)?;
                    self.count(field, 1)?;
                }
                (Kind::Fixed64, I64) => {
                    take(&mut rest, 8)?;
                    self.count(field, 1)?;
                }
                (Kind::Bytes, LEN) => {
                    delimited(&mut rest)?;
                    self.count(field, 1)?;
                }
                (Kind::Message(inner), LEN) => {
                    self.count(field, 1)?;
                    let inside = delimited(&mut rest)?;
                    self.message(inner, inside)?;
                }
                // Packed lists.
                (Kind::Varint, LEN) if field.repeated => {
                    let inside = delimited(&mut rest)?;
                    let ends = inside.iter().filter(|byte| *byte & 0x80 == 0);
                    self.count(field, ends.count())?;
                }
                (Kind::Fixed64, LEN) if field.repeated => {
                    let inside = delimited(&mut rest)?;
                    self.count(field, inside.len() / 8)?;
                }
                _ => return Err(BadMessage::Malformed),
            }
        }
        Ok(())
    }

    fn count(&mut self, field: &Field, elements: usize) -> Result<(), BadMessage> {
        if field.repeated {
            let limit = self.elements as u64;
            let left = self.left.checked_sub(elements);
            self.left = left.ok_or(BadMessage::TooMany { limit })?;
        }
        Ok(())
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

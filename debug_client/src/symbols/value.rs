//! Values in guest memory by their types.

use super::types::Kind;
use super::types::Member;
use super::types::Type;
use std::fmt;
use std::fmt::Write as _;
use std::ops::Index;

/// A value that was read from guest memory by its type. It can be indexed by the name of a member and by the number of an element, and printed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// An integer of any sign and length.
    Integer(i128),
    /// A truth value.
    Bool(bool),
    /// A character, by its code.
    Character(u32),
    /// A floating-point number.
    Float(f64),
    /// An address.
    Pointer(u64),
    /// A value of an enumeration.
    Enum {
        /// The number.
        value: i128,
        /// Its name, if it has one.
        name: Option<String>,
    },
    /// The members of a struct or a union, in the order of their declaration.
    Struct(Vec<Field>),
    /// The elements of an array.
    Array(Vec<Value>),
    /// Bytes whose type is not known.
    Bytes(Vec<u8>),
}

/// A member of a struct or a union.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Field {
    /// The name. Empty for an anonymous struct or union.
    pub name: String,
    /// The value.
    pub value: Value,
}

impl Value {
    /// The value of bytes. Missing bytes are zeros: debug information may say that a member passes the end of its struct.
    pub(crate) fn decode(of: &Type, bytes: &[u8]) -> Self {
        let bytes = part(bytes, 0, of.size);
        match &of.kind {
            Kind::Unsigned => Self::Integer(integer(bytes, false)),
            Kind::Signed => Self::Integer(integer(bytes, true)),
            Kind::Bool => Self::Bool(bytes.iter().any(|byte| *byte != 0)),
            Kind::Character => Self::Character(u32::try_from(integer(bytes, false)).unwrap_or(0)),
            Kind::Float => float(bytes),
            Kind::Pointer => Self::Pointer(u64::try_from(integer(bytes, false)).unwrap_or(0)),
            Kind::Enum(names) => enumerator(names, bytes),
            Kind::Struct(members) => Self::Struct(
                members
                    .iter()
                    .map(|member| Field {
                        name: member.name.clone(),
                        value: decode_member(member, bytes),
                    })
                    .collect(),
            ),
            Kind::Array { element, count } => Self::Array(
                (0..*count)
                    .map(|number| {
                        Self::decode(element, part(bytes, number * element.size, element.size))
                    })
                    .collect(),
            ),
            Kind::Opaque => Self::Bytes(bytes.to_vec()),
        }
    }

    /// A member by its name, also one of an anonymous struct or union.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Struct(fields) = self else {
            return None;
        };
        let direct = fields.iter().find(|field| field.name == name);
        match direct {
            Some(field) => Some(&field.value),
            None => fields
                .iter()
                .filter(|field| field.name.is_empty())
                .find_map(|field| field.value.get(name)),
        }
    }

    /// An element by its number.
    pub fn element(&self, number: usize) -> Option<&Self> {
        match self {
            Self::Array(elements) => elements.get(number),
            _ => None,
        }
    }

    /// The number of an integer, a truth value, a character, a pointer or a value of an enumeration, if it fits.
    pub fn as_u64(&self) -> Option<u64> {
        self.as_i128()?.try_into().ok()
    }

    /// As [`as_u64`](Self::as_u64), with a sign.
    pub fn as_i64(&self) -> Option<i64> {
        self.as_i128()?.try_into().ok()
    }

    /// The text of an array of characters, up to its first zero.
    pub fn as_text(&self) -> Option<String> {
        let Self::Array(elements) = self else {
            return None;
        };
        let mut text = Vec::new();
        for element in elements {
            match element {
                Self::Character(0) => break,
                Self::Character(code) => text.push(u8::try_from(*code).ok()?),
                _ => return None,
            }
        }
        (!elements.is_empty()).then(|| String::from_utf8_lossy(&text).into_owned())
    }

    fn as_i128(&self) -> Option<i128> {
        match self {
            Self::Integer(value) | Self::Enum { value, .. } => Some(*value),
            Self::Bool(value) => Some((*value).into()),
            Self::Character(code) => Some((*code).into()),
            Self::Pointer(address) => Some((*address).into()),
            _ => None,
        }
    }
}

/// A member by its name.
///
/// # Panics
/// There is no such member. [`Value::get`] returns `None` then.
impl Index<&str> for Value {
    type Output = Self;

    fn index(&self, name: &str) -> &Self {
        match self.get(name) {
            Some(member) => member,
            None => panic!("the value has no member `{name}`: {self}"),
        }
    }
}

/// An element by its number.
///
/// # Panics
/// There is no such element. [`Value::element`] returns `None` then.
impl Index<usize> for Value {
    type Output = Self;

    fn index(&self, number: usize) -> &Self {
        match self.element(number) {
            Some(element) => element,
            None => panic!("the value has no element {number}: {self}"),
        }
    }
}

/// In the form of GDB: `{online = true, id = 0}`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = self.as_text() {
            return write!(f, "{text:?}");
        }
        match self {
            Self::Integer(value) => value.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::Character(code) => match char::from_u32(*code) {
                Some(character) => write!(f, "{character:?}"),
                None => code.fmt(f),
            },
            Self::Float(value) => value.fmt(f),
            Self::Pointer(address) => write!(f, "{address:#x}"),
            Self::Enum { value, name } => match name {
                Some(name) => f.write_str(name),
                None => value.fmt(f),
            },
            Self::Struct(fields) => list(f, fields, |f, field| match field.name.is_empty() {
                true => field.value.fmt(f),
                false => write!(f, "{} = {}", field.name, field.value),
            }),
            Self::Array(elements) => list(f, elements, |f, element| element.fmt(f)),
            Self::Bytes(bytes) => list(f, bytes, |f, byte| write!(f, "{byte:#04x}")),
        }
    }
}

fn list<T>(
    f: &mut fmt::Formatter<'_>,
    parts: &[T],
    show: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    f.write_char('{')?;
    for (number, part) in parts.iter().enumerate() {
        if number > 0 {
            f.write_str(", ")?;
        }
        show(f, part)?;
    }
    f.write_char('}')
}

/// A part of bytes, as far as they go.
fn part(bytes: &[u8], from: u64, len: u64) -> &[u8] {
    let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let end = from.saturating_add(len).min(bytes.len());
    &bytes[from..end]
}

/// An integer of at most 16 bytes.
fn integer(bytes: &[u8], signed: bool) -> i128 {
    let negative = signed && bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 16];
    let len = bytes.len().min(16);
    wide[..len].copy_from_slice(&bytes[..len]);
    i128::from_le_bytes(wide)
}

fn float(bytes: &[u8]) -> Value {
    match (bytes.try_into(), bytes.try_into()) {
        (Ok(bytes), _) => Value::Float(f32::from_le_bytes(bytes).into()),
        (_, Ok(bytes)) => Value::Float(f64::from_le_bytes(bytes)),
        // The 80 bits of x87 have no type here.
        _ => Value::Bytes(bytes.to_vec()),
    }
}

fn enumerator(names: &[(i128, String)], bytes: &[u8]) -> Value {
    let find = |value: i128| {
        let found = names.binary_search_by_key(&value, |(known, _)| *known);
        found.ok().map(|number| names[number].1.clone())
    };
    // Debug information does not say whether it has a sign.
    let (unsigned, signed) = (integer(bytes, false), integer(bytes, true));
    match find(unsigned) {
        None if find(signed).is_some() => Value::Enum {
            value: signed,
            name: find(signed),
        },
        name => Value::Enum {
            value: unsigned,
            name,
        },
    }
}

fn decode_member(member: &Member, bytes: &[u8]) -> Value {
    let Some((first, len)) = member.bits else {
        return Value::decode(&member.of, part(bytes, member.offset, member.of.size));
    };
    // At most 64 bits, at any bit of a byte.
    let len = len.min(64);
    let bits = integer(part(bytes, member.offset, 9), false) >> first.min(7);
    let value = bits & ((1 << len) - 1);
    let negative = len > 0 && value >> (len - 1) & 1 == 1;
    match &member.of.kind {
        Kind::Bool => Value::Bool(value != 0),
        Kind::Signed if negative => Value::Integer(value - (1 << len)),
        Kind::Enum(names) => enumerator(names, &value.to_le_bytes()),
        _ => Value::Integer(value),
    }
}

//! The types of a guest program, as far as a value needs them.

use std::sync::Arc;

/// A name of so many bytes counts as one more part of a value, because each value has a copy of the name.
const BYTES_OF_A_PART: usize = 64;

/// A type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Type {
    /// The name as in C.
    pub(crate) name: String,
    /// The number of bytes.
    pub(crate) size: u64,
    pub(crate) kind: Kind,
    /// How many parts a value has: itself, its members and elements and theirs, and each byte that is no number.
    pub(crate) parts: u64,
    /// How many levels of members and elements a value has.
    pub(crate) depth: u64,
}

impl Type {
    pub(crate) fn new(name: String, size: u64, kind: Kind) -> Self {
        let (parts, depth) = match &kind {
            Kind::Struct(members) => {
                let parts = members.iter().map(Member::parts);
                let depth = members.iter().map(|member| member.of.depth).max();
                (
                    parts.fold(1, u64::saturating_add),
                    1 + depth.unwrap_or_default(),
                )
            }
            Kind::Array { element, count } => {
                let elements = element.parts.saturating_mul((*count).max(1));
                (elements.saturating_add(1), 1 + element.depth)
            }
            Kind::Enum(names) => {
                let longest = names.iter().map(|(_, name)| parts_of_name(name)).max();
                (1 + longest.unwrap_or_default(), 0)
            }
            Kind::Opaque | Kind::Float => (size.max(1), 0),
            Kind::Unsigned | Kind::Signed | Kind::Bool | Kind::Character | Kind::Pointer => (1, 0),
        };
        Self {
            name,
            size,
            kind,
            parts,
            depth,
        }
    }
}

/// The parts of a value as which a name counts.
pub(crate) fn parts_of_name(name: &str) -> u64 {
    u64::try_from(name.len() / BYTES_OF_A_PART).unwrap_or(u64::MAX)
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Unsigned,
    Signed,
    Bool,
    Character,
    Float,
    Pointer,
    /// The names of values, in the order of the values.
    Enum(Arc<[(i128, String)]>),
    /// A struct or a union.
    Struct(Arc<[Member]>),
    Array {
        element: Arc<Type>,
        count: u64,
    },
    /// Bytes without a meaning that this library knows.
    Opaque,
}

/// A member of a struct or a union.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    /// Empty for an anonymous struct or union, whose members are seen as members of the outer one.
    pub(crate) name: String,
    /// The first byte.
    pub(crate) offset: u64,
    /// The first bit, counted from bit 0 of the first byte, and the number of bits.
    pub(crate) bits: Option<(u64, u64)>,
    pub(crate) of: Arc<Type>,
}

impl Member {
    fn parts(&self) -> u64 {
        self.of.parts.saturating_add(parts_of_name(&self.name))
    }
}

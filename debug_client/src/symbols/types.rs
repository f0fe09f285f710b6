//! The types of a guest program, as far as a value needs them.

use std::sync::Arc;

/// A type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Type {
    /// The name as in C.
    pub(crate) name: String,
    /// The number of bytes.
    pub(crate) size: u64,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Unsigned,
    Signed,
    Bool,
    Character,
    Float,
    Pointer,
    /// The names of values.
    Enum(Vec<(i128, String)>),
    /// A struct or a union.
    Struct(Vec<Member>),
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

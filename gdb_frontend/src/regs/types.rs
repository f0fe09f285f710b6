//! Register types of target descriptions (GDB manual, nodes "Predefined Target Types" and "Types" of "Target Description Format").

/// The type of a register, which determines how clients show it.
#[derive(Debug)]
pub(crate) enum Type {
    /// A type that is predefined in GDB, by its name.
    Predefined(&'static str),
    /// Named bits and bit fields.
    Flags {
        /// The name of the type in the description.
        id: &'static str,
        /// The width of the register, in bytes.
        bytes: u8,
        /// The named bits, with the lowest first. Bits without a name are not shown.
        fields: &'static [Field],
    },
    /// An array of equal elements.
    Vector {
        /// The name of the type in the description.
        id: &'static str,
        /// The type of each element.
        element: &'static Type,
        /// The number of elements.
        count: u8,
    },
    /// The same bits with several types.
    Union {
        /// The name of the type in the description.
        id: &'static str,
        /// The name and the type of each member.
        members: &'static [(&'static str, &'static Type)],
    },
}

/// A named bit or bit field of [`Type::Flags`].
#[derive(Debug)]
pub(crate) struct Field {
    /// The name, which is shown if the bit is set, or before `=` and the value of a wider field.
    pub(crate) name: &'static str,
    /// The number of the lowest bit.
    pub(crate) start: u8,
    /// The number of the highest bit.
    pub(crate) end: u8,
}

impl Type {
    /// The name by which a register refers to the type.
    pub(crate) const fn id(&self) -> &'static str {
        match self {
            Self::Predefined(id)
            | Self::Flags { id, .. }
            | Self::Vector { id, .. }
            | Self::Union { id, .. } => id,
        }
    }
}

/// A named bit.
pub(crate) const fn bit(name: &'static str, bit: u8) -> Field {
    bits(name, bit, bit)
}

/// A named bit field.
pub(crate) const fn bits(name: &'static str, start: u8, end: u8) -> Field {
    Field { name, start, end }
}

pub(crate) static UINT16: Type = Type::Predefined("uint16");
pub(crate) static UINT32: Type = Type::Predefined("uint32");
pub(crate) static UINT64: Type = Type::Predefined("uint64");
pub(crate) static UINT128: Type = Type::Predefined("uint128");
pub(crate) static INT32: Type = Type::Predefined("int32");
pub(crate) static INT64: Type = Type::Predefined("int64");
/// GDB puts a register with the plain type `int` into the group `float`.
pub(crate) static INT: Type = Type::Predefined("int");
pub(crate) static CODE_PTR: Type = Type::Predefined("code_ptr");
pub(crate) static DATA_PTR: Type = Type::Predefined("data_ptr");
pub(crate) static I387_EXT: Type = Type::Predefined("i387_ext");
static SINGLE: Type = Type::Predefined("ieee_single");
static DOUBLE: Type = Type::Predefined("ieee_double");
static INT8: Type = Type::Predefined("int8");
static INT16: Type = Type::Predefined("int16");

/// The types with which GDB shows a 128-bit vector.
pub(crate) static VEC128: Type = Type::Union {
    id: "vec128",
    members: &[
        ("v4_float", &V4_FLOAT),
        ("v2_double", &V2_DOUBLE),
        ("v16_int8", &V16_INT8),
        ("v8_int16", &V8_INT16),
        ("v4_int32", &V4_INT32),
        ("v2_int64", &V2_INT64),
        ("uint128", &UINT128),
    ],
};

/// Bits 256 to 511 of a 512-bit vector. LLDB recognises vectors by type names that begin with `vec`.
pub(crate) static VEC256: Type = vector("vec256", &UINT128, 2);

static V4_FLOAT: Type = vector("v4f", &SINGLE, 4);
static V2_DOUBLE: Type = vector("v2d", &DOUBLE, 2);
static V16_INT8: Type = vector("v16i8", &INT8, 16);
static V8_INT16: Type = vector("v8i16", &INT16, 8);
static V4_INT32: Type = vector("v4i32", &INT32, 4);
static V2_INT64: Type = vector("v2i64", &INT64, 2);

const fn vector(id: &'static str, element: &'static Type, count: u8) -> Type {
    Type::Vector { id, element, count }
}

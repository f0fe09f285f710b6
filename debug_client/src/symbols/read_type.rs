//! Types from DWARF (version 5, chapter 5 "Type Entries"; the older forms of bit fields are those of version 3).

use super::Section;
use super::error::SymbolsError;
use super::error::unreadable;
use super::types::Kind;
use super::types::Member;
use super::types::Type;
use gimli::AttributeValue;
use gimli::DwAt;
use gimli::DwTag;
use gimli::Reader as _;
use std::sync::Arc;

/// The maximum number of bytes of a type.
const MOST_BYTES: u64 = 1 << 20;

/// The maximum depth of a type. C types are finite, and damaged debug information may not be.
const MOST_DEPTH: u32 = 64;

type Dwarf = gimli::Dwarf<Section>;
type Unit = gimli::Unit<Section>;
type Offset = gimli::UnitOffset<usize>;
type Entry = gimli::DebuggingInformationEntry<Section>;

/// The tags of types that a name without a keyword may mean.
const WITHOUT_KEYWORD: [DwTag; 4] = [
    gimli::DW_TAG_typedef,
    gimli::DW_TAG_base_type,
    // In languages other than C.
    gimli::DW_TAG_structure_type,
    gimli::DW_TAG_enumeration_type,
];

/// The type with a name as in C.
pub(super) fn named(dwarf: &Dwarf, name: &str) -> Result<Type, SymbolsError> {
    let (tags, bare): (&[DwTag], &str) = match name.split_once(' ') {
        Some(("struct", bare)) => (&[gimli::DW_TAG_structure_type], bare),
        Some(("union", bare)) => (&[gimli::DW_TAG_union_type], bare),
        Some(("enum", bare)) => (&[gimli::DW_TAG_enumeration_type], bare),
        _ => (&WITHOUT_KEYWORD, name),
    };
    let mut headers = dwarf.units();
    while let Some(header) = headers.next().map_err(unreadable)? {
        let unit = dwarf.unit(header).map_err(unreadable)?;
        let Some(offset) = find(dwarf, &unit, tags, bare)? else {
            continue;
        };
        let read = Reading { dwarf, depth: 0 }.at(&unit, offset)?;
        if read.size > MOST_BYTES {
            return Err(SymbolsError::TooBig {
                name: name.to_owned(),
                size: read.size,
                most: MOST_BYTES,
            });
        }
        return Ok(read);
    }
    Err(SymbolsError::NoSuchType(name.to_owned()))
}

/// The place of a complete type in a unit.
fn find(
    dwarf: &Dwarf,
    unit: &Unit,
    tags: &[DwTag],
    name: &str,
) -> Result<Option<Offset>, SymbolsError> {
    let mut entries = unit.entries();
    while let Some(entry) = entries.next_dfs().map_err(unreadable)? {
        if tags.contains(&entry.tag())
            && !entry.has_attr(gimli::DW_AT_declaration)
            && name_of(dwarf, unit, entry)?.as_deref() == Some(name)
        {
            return Ok(Some(entry.offset()));
        }
    }
    Ok(None)
}

fn name_of(dwarf: &Dwarf, unit: &Unit, entry: &Entry) -> Result<Option<String>, SymbolsError> {
    let Some(value) = entry.attr_value(gimli::DW_AT_name) else {
        return Ok(None);
    };
    let name = dwarf.attr_string(unit, value).map_err(unreadable)?;
    Ok(Some(
        name.to_string_lossy().map_err(unreadable)?.into_owned(),
    ))
}

fn unsigned(entry: &Entry, attribute: DwAt) -> Option<u64> {
    entry.attr_value(attribute)?.udata_value()
}

#[derive(Clone, Copy)]
struct Reading<'a> {
    dwarf: &'a Dwarf,
    depth: u32,
}

impl Reading<'_> {
    /// The type at a place of a unit.
    fn at(self, unit: &Unit, offset: Offset) -> Result<Type, SymbolsError> {
        let entry = unit.entry(offset).map_err(unreadable)?;
        let size = unsigned(&entry, gimli::DW_AT_byte_size);
        let bare = name_of(self.dwarf, unit, &entry)?;
        let keyword = |keyword: &str| match &bare {
            Some(bare) => format!("{keyword} {bare}"),
            None => keyword.to_owned(),
        };
        let (name, size, kind) = match entry.tag() {
            gimli::DW_TAG_typedef
            | gimli::DW_TAG_const_type
            | gimli::DW_TAG_volatile_type
            | gimli::DW_TAG_restrict_type
            | gimli::DW_TAG_atomic_type => {
                let of = self.of(unit, &entry)?;
                return Ok(Type {
                    name: bare.unwrap_or(of.name),
                    ..of
                });
            }
            gimli::DW_TAG_base_type => {
                let kind = match entry.attr_value(gimli::DW_AT_encoding) {
                    Some(AttributeValue::Encoding(encoding)) => base(encoding),
                    _ => Kind::Opaque,
                };
                (bare.unwrap_or_default(), size.unwrap_or_default(), kind)
            }
            gimli::DW_TAG_pointer_type
            | gimli::DW_TAG_reference_type
            | gimli::DW_TAG_rvalue_reference_type => {
                let default = unit.encoding().address_size.into();
                ("pointer".to_owned(), size.unwrap_or(default), Kind::Pointer)
            }
            gimli::DW_TAG_enumeration_type => {
                let size = match size {
                    Some(size) => size,
                    None => self.of(unit, &entry)?.size,
                };
                (keyword("enum"), size, self.enumerators(unit, offset)?)
            }
            gimli::DW_TAG_structure_type | gimli::DW_TAG_class_type => {
                let size = size.unwrap_or_default();
                (keyword("struct"), size, self.members(unit, offset)?)
            }
            gimli::DW_TAG_union_type => {
                let size = size.unwrap_or_default();
                (keyword("union"), size, self.members(unit, offset)?)
            }
            gimli::DW_TAG_array_type => return self.array(unit, &entry),
            _ => (
                bare.unwrap_or_else(|| "unknown type".to_owned()),
                size.unwrap_or_default(),
                Kind::Opaque,
            ),
        };
        Ok(Type { name, size, kind })
    }

    /// The type that an entry names. An entry without a type means `void`.
    fn of(self, unit: &Unit, entry: &Entry) -> Result<Type, SymbolsError> {
        let opaque = |name: &str| Type {
            name: name.to_owned(),
            size: 0,
            kind: Kind::Opaque,
        };
        if self.depth == MOST_DEPTH {
            return Ok(opaque("a type of too many parts"));
        }
        let deeper = Self {
            depth: self.depth + 1,
            ..self
        };
        match entry.attr_value(gimli::DW_AT_type) {
            None => Ok(opaque("void")),
            Some(AttributeValue::UnitRef(offset)) => deeper.at(unit, offset),
            Some(AttributeValue::DebugInfoRef(offset)) => {
                let mut headers = self.dwarf.units();
                while let Some(header) = headers.next().map_err(unreadable)? {
                    if let Some(offset) = offset.to_unit_offset(&header) {
                        return deeper.at(&self.dwarf.unit(header).map_err(unreadable)?, offset);
                    }
                }
                Ok(opaque("a type of another file"))
            }
            Some(_) => Ok(opaque("a type of another file")),
        }
    }

    fn enumerators(self, unit: &Unit, offset: Offset) -> Result<Kind, SymbolsError> {
        let mut names = Vec::new();
        let mut tree = unit.entries_tree(Some(offset)).map_err(unreadable)?;
        let mut children = tree.root().map_err(unreadable)?.children();
        while let Some(child) = children.next().map_err(unreadable)? {
            let entry = child.entry();
            let value = entry.attr_value(gimli::DW_AT_const_value);
            let value = value.and_then(|value| {
                let unsigned = value.udata_value().map(i128::from);
                unsigned.or_else(|| value.sdata_value().map(i128::from))
            });
            if let (Some(value), Some(name)) = (value, name_of(self.dwarf, unit, entry)?) {
                names.push((value, name));
            }
        }
        Ok(Kind::Enum(names))
    }

    fn members(self, unit: &Unit, offset: Offset) -> Result<Kind, SymbolsError> {
        let mut members = Vec::new();
        let mut tree = unit.entries_tree(Some(offset)).map_err(unreadable)?;
        let mut children = tree.root().map_err(unreadable)?.children();
        while let Some(child) = children.next().map_err(unreadable)? {
            let entry = child.entry();
            if entry.tag() != gimli::DW_TAG_member {
                continue;
            }
            let of = self.of(unit, entry)?;
            let (offset, bits) = place(entry, &of);
            members.push(Member {
                name: name_of(self.dwarf, unit, entry)?.unwrap_or_default(),
                offset,
                bits,
                of: Arc::new(of),
            });
        }
        Ok(Kind::Struct(members))
    }

    fn array(self, unit: &Unit, entry: &Entry) -> Result<Type, SymbolsError> {
        let mut counts = Vec::new();
        let mut tree = unit
            .entries_tree(Some(entry.offset()))
            .map_err(unreadable)?;
        let mut children = tree.root().map_err(unreadable)?.children();
        while let Some(child) = children.next().map_err(unreadable)? {
            let entry = child.entry();
            if entry.tag() == gimli::DW_TAG_subrange_type {
                // An array without a length has neither.
                let last = unsigned(entry, gimli::DW_AT_upper_bound);
                let count = unsigned(entry, gimli::DW_AT_count);
                counts.push(count.or(last.and_then(|last| last.checked_add(1))));
            }
        }
        let mut of = self.of(unit, entry)?;
        for count in counts.into_iter().rev() {
            let count = count.unwrap_or_default();
            let name = format!("{}[{count}]", of.name);
            // Elements without bytes count too, so that their number has the limit of bytes.
            let size = of.size.max(1).saturating_mul(count);
            if size > MOST_BYTES {
                let most = MOST_BYTES;
                return Err(SymbolsError::TooBig { name, size, most });
            }
            of = Type {
                name,
                size: of.size * count,
                kind: Kind::Array {
                    element: Arc::new(of),
                    count,
                },
            };
        }
        Ok(of)
    }
}

const fn base(encoding: gimli::DwAte) -> Kind {
    match encoding {
        gimli::DW_ATE_boolean => Kind::Bool,
        gimli::DW_ATE_signed => Kind::Signed,
        gimli::DW_ATE_unsigned | gimli::DW_ATE_address => Kind::Unsigned,
        gimli::DW_ATE_signed_char | gimli::DW_ATE_unsigned_char | gimli::DW_ATE_UTF => {
            Kind::Character
        }
        gimli::DW_ATE_float => Kind::Float,
        _ => Kind::Opaque,
    }
}

/// The first byte of a member, and the bits of a bit field.
fn place(member: &Entry, of: &Type) -> (u64, Option<(u64, u64)>) {
    let offset = unsigned(member, gimli::DW_AT_data_member_location).unwrap_or_default();
    let Some(len) = unsigned(member, gimli::DW_AT_bit_size) else {
        return (offset, None);
    };
    if let Some(first) = unsigned(member, gimli::DW_AT_data_bit_offset) {
        return (offset + first / 8, Some((first % 8, len)));
    }
    // The older form counts from the highest bit of a storage unit.
    let unit = unsigned(member, gimli::DW_AT_byte_size).unwrap_or(of.size);
    let from_high = unsigned(member, gimli::DW_AT_bit_offset).unwrap_or_default();
    let first = (unit * 8).saturating_sub(from_high + len);
    (offset + first / 8, Some((first % 8, len)))
}

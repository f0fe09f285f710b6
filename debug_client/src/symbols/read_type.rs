//! Types from DWARF (version 5, chapter 5 "Type Entries"; the older forms of bit fields are those of version 3).

use super::Section;
use super::error::SymbolsError;
use super::error::unreadable;
use super::types::Kind;
use super::types::Member;
use super::types::Type;
use super::types::parts_of_name;
use gimli::AttributeValue;
use gimli::DwAt;
use gimli::DwTag;
use gimli::Reader as _;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// The maximum number of bytes of a type.
const MOST_BYTES: u64 = 1 << 20;

/// The maximum number of parts of a value, and of entries that are read for a type. An array of `MOST_BYTES` characters has half of it.
const MOST_PARTS: u64 = 2 * MOST_BYTES;

/// The maximum number of levels of members, elements and other names of a type, because each is a level of recursion.
const MOST_DEPTH: u64 = 64;

type Dwarf = gimli::Dwarf<Section>;
type Header = gimli::UnitHeader<Section>;
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
pub(super) fn named(dwarf: &Dwarf, name: &str) -> Result<Arc<Type>, SymbolsError> {
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
        let read = Reading::new(dwarf, name).at(&unit, offset)?;
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
            && has_name(dwarf, unit, entry, name)?
        {
            return Ok(Some(entry.offset()));
        }
    }
    Ok(None)
}

fn has_name(dwarf: &Dwarf, unit: &Unit, entry: &Entry, name: &str) -> Result<bool, SymbolsError> {
    let Some(value) = entry.attr_value(gimli::DW_AT_name) else {
        return Ok(false);
    };
    let found = dwarf.attr_string(unit, value).map_err(unreadable)?;
    Ok(*found.to_slice().map_err(unreadable)? == *name.as_bytes())
}

fn unsigned(entry: &Entry, attribute: DwAt) -> Option<u64> {
    entry.attr_value(attribute)?.udata_value()
}

/// The place of a type: the offset of its unit, and its offset in the unit.
type Key = (usize, usize);

/// What reads one type, and the types of its parts. Each entry is read once, so the time grows with the debug information and not with the number of paths to an entry.
struct Reading<'a> {
    dwarf: &'a Dwarf,
    /// The type of the request.
    wanted: &'a str,
    /// How many parts may still be read.
    left: u64,
    known: HashMap<Key, Arc<Type>>,
    /// The types of which the present one is a part.
    around: Vec<Key>,
    /// The headers of all units in the order of their offsets, when an entry names another unit.
    headers: Option<Rc<[Header]>>,
    /// The other units that were read, by their offsets.
    units: HashMap<usize, Rc<Unit>>,
}

impl<'a> Reading<'a> {
    fn new(dwarf: &'a Dwarf, wanted: &'a str) -> Self {
        Self {
            dwarf,
            wanted,
            left: MOST_PARTS,
            known: HashMap::new(),
            around: Vec::new(),
            headers: None,
            units: HashMap::new(),
        }
    }

    /// The type at a place of a unit.
    fn at(&mut self, unit: &Unit, offset: Offset) -> Result<Arc<Type>, SymbolsError> {
        let key = (unit.header.offset().0, offset.0);
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        if self.around.contains(&key) {
            let why = format!("a part of `{}` contains itself", self.wanted);
            return Err(SymbolsError::Dwarf(why));
        }
        // The type has at least as many levels as there are types around it. More of them may be found inside.
        self.check_depth(self.around.len().try_into().unwrap_or(u64::MAX))?;
        self.around.push(key);
        let read = self.entry(unit, offset)?;
        self.around.pop();
        self.check_depth(read.depth)?;
        if read.parts > MOST_PARTS {
            return Err(self.too_many_parts());
        }
        let read = Arc::new(read);
        self.known.insert(key, read.clone());
        Ok(read)
    }

    fn check_depth(&self, depth: u64) -> Result<(), SymbolsError> {
        match depth > MOST_DEPTH {
            true => Err(SymbolsError::TooDeep {
                name: self.wanted.to_owned(),
                most: MOST_DEPTH,
            }),
            false => Ok(()),
        }
    }

    fn too_many_parts(&self) -> SymbolsError {
        SymbolsError::TooManyParts {
            name: self.wanted.to_owned(),
            most: MOST_PARTS,
        }
    }

    /// Counts parts that are read.
    fn count(&mut self, parts: u64) -> Result<(), SymbolsError> {
        let left = self.left.checked_sub(parts);
        self.left = left.ok_or_else(|| self.too_many_parts())?;
        Ok(())
    }

    fn name_of(&mut self, unit: &Unit, entry: &Entry) -> Result<Option<String>, SymbolsError> {
        let Some(value) = entry.attr_value(gimli::DW_AT_name) else {
            return Ok(None);
        };
        let name = self.dwarf.attr_string(unit, value).map_err(unreadable)?;
        let name = name.to_string_lossy().map_err(unreadable)?.into_owned();
        self.count(parts_of_name(&name))?;
        Ok(Some(name))
    }

    fn entry(&mut self, unit: &Unit, offset: Offset) -> Result<Type, SymbolsError> {
        let entry = unit.entry(offset).map_err(unreadable)?;
        let size = unsigned(&entry, gimli::DW_AT_byte_size);
        self.count(1)?;
        let bare = self.name_of(unit, &entry)?;
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
                let of = Type::clone(&*self.of(unit, &entry)?);
                self.count(parts_of_name(&of.name))?;
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
        Ok(Type::new(name, size, kind))
    }

    /// The type that an entry names. An entry without a type means `void`.
    fn of(&mut self, unit: &Unit, entry: &Entry) -> Result<Arc<Type>, SymbolsError> {
        let opaque = |name: &str| Arc::new(Type::new(name.to_owned(), 0, Kind::Opaque));
        match entry.attr_value(gimli::DW_AT_type) {
            None => Ok(opaque("void")),
            Some(AttributeValue::UnitRef(offset)) => self.at(unit, offset),
            Some(AttributeValue::DebugInfoRef(offset)) => {
                let headers = self.headers()?;
                let behind = headers.partition_point(|header| header.offset().0 <= offset.0);
                let header = behind.checked_sub(1).map(|number| &headers[number]);
                match header.and_then(|header| Some((header, offset.to_unit_offset(header)?))) {
                    Some((header, offset)) => {
                        let unit = self.unit(header)?;
                        self.at(&unit, offset)
                    }
                    None => Ok(opaque("a type of another file")),
                }
            }
            Some(_) => Ok(opaque("a type of another file")),
        }
    }

    fn headers(&mut self) -> Result<Rc<[Header]>, SymbolsError> {
        if let Some(headers) = &self.headers {
            return Ok(headers.clone());
        }
        let mut headers = Vec::new();
        let mut units = self.dwarf.units();
        while let Some(header) = units.next().map_err(unreadable)? {
            headers.push(header);
        }
        Ok(self.headers.insert(headers.into()).clone())
    }

    fn unit(&mut self, header: &Header) -> Result<Rc<Unit>, SymbolsError> {
        let offset = header.offset().0;
        if let Some(known) = self.units.get(&offset) {
            return Ok(known.clone());
        }
        let unit = self.dwarf.unit(header.clone()).map_err(unreadable)?;
        let unit = Rc::new(unit);
        self.units.insert(offset, unit.clone());
        Ok(unit)
    }

    fn enumerators(&mut self, unit: &Unit, offset: Offset) -> Result<Kind, SymbolsError> {
        let mut names = Vec::new();
        let mut tree = unit.entries_tree(Some(offset)).map_err(unreadable)?;
        let mut children = tree.root().map_err(unreadable)?.children();
        while let Some(child) = children.next().map_err(unreadable)? {
            let entry = child.entry();
            self.count(1)?;
            let value = entry.attr_value(gimli::DW_AT_const_value);
            let value = value.and_then(|value| {
                let unsigned = value.udata_value().map(i128::from);
                unsigned.or_else(|| value.sdata_value().map(i128::from))
            });
            if let (Some(value), Some(name)) = (value, self.name_of(unit, entry)?) {
                names.push((value, name));
            }
        }
        // Of several names of a value, the first one is kept.
        names.sort_by_key(|(value, _)| *value);
        names.dedup_by_key(|(value, _)| *value);
        Ok(Kind::Enum(names.into()))
    }

    fn members(&mut self, unit: &Unit, offset: Offset) -> Result<Kind, SymbolsError> {
        let mut members = Vec::new();
        let mut tree = unit.entries_tree(Some(offset)).map_err(unreadable)?;
        let mut children = tree.root().map_err(unreadable)?.children();
        while let Some(child) = children.next().map_err(unreadable)? {
            let entry = child.entry();
            self.count(1)?;
            // A static member of C++ is a declaration, and has no bytes in the object.
            if entry.tag() != gimli::DW_TAG_member || entry.has_attr(gimli::DW_AT_declaration) {
                continue;
            }
            let of = self.of(unit, entry)?;
            let (offset, bits) = place(entry, &of);
            members.push(Member {
                name: self.name_of(unit, entry)?.unwrap_or_default(),
                offset,
                bits,
                of,
            });
        }
        Ok(Kind::Struct(members.into()))
    }

    fn array(&mut self, unit: &Unit, entry: &Entry) -> Result<Type, SymbolsError> {
        let mut counts = Vec::new();
        let mut tree = unit
            .entries_tree(Some(entry.offset()))
            .map_err(unreadable)?;
        let mut children = tree.root().map_err(unreadable)?.children();
        while let Some(child) = children.next().map_err(unreadable)? {
            let entry = child.entry();
            self.count(1)?;
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
            self.count(1 + parts_of_name(&name))?;
            self.check_depth(of.depth)?;
            // Elements without bytes count too, so that their number has the limit of bytes.
            let size = of.size.max(1).saturating_mul(count);
            if size > MOST_BYTES {
                let most = MOST_BYTES;
                return Err(SymbolsError::TooBig { name, size, most });
            }
            let size = of.size * count;
            let array = Kind::Array { element: of, count };
            of = Arc::new(Type::new(name, size, array));
        }
        Ok(Type::clone(&of))
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
        return (offset.saturating_add(first / 8), Some((first % 8, len)));
    }
    // The older form counts from the highest bit of a storage unit.
    let unit = unsigned(member, gimli::DW_AT_byte_size).unwrap_or(of.size);
    let from_high = unsigned(member, gimli::DW_AT_bit_offset).unwrap_or_default();
    let first = unit
        .saturating_mul(8)
        .saturating_sub(from_high.saturating_add(len));
    (offset.saturating_add(first / 8), Some((first % 8, len)))
}

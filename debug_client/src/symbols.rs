//! The symbols, source lines and types of a guest program.

mod error;
mod read_type;
#[cfg(test)]
mod tests;
mod types;
mod value;

pub use error::SymbolsError;
pub use value::Field;
pub use value::Value;

use error::unreadable;
use gimli::LittleEndian;
use object::Object;
use object::ObjectSection;
use object::ObjectSymbol;
use object::SymbolKind;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use types::Type;

/// A section of DWARF.
type Section = gimli::EndianArcSlice<LittleEndian>;

/// The symbols, source lines and types of an ELF file, which the guest executes at the addresses of the file. Clones share them.
#[derive(Clone)]
pub struct Symbols(Arc<Inner>);

struct Inner {
    /// The addresses of each name. File-local names may have several.
    addresses: HashMap<String, Vec<u64>>,
    /// The functions by their addresses, with their lengths in bytes.
    functions: BTreeMap<u64, (u64, String)>,
    dwarf: Arc<gimli::Dwarf<Section>>,
    /// Reads the lines of a unit when it first needs them.
    lines: Mutex<addr2line::Context<Section>>,
    /// The types that were read, by their names.
    types: Mutex<HashMap<String, Arc<Type>>>,
}

impl fmt::Debug for Symbols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Symbols")
            .field("names", &self.0.addresses.len())
            .finish_non_exhaustive()
    }
}

/// A line of a source file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceLine {
    /// The file, as the compiler has written its name.
    pub file: String,
    /// The line, counted from 1.
    pub line: u32,
}

impl fmt::Display for SourceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl Symbols {
    /// Reads an ELF file.
    ///
    /// # Errors
    /// The file cannot be read, or is no ELF file of a 64-bit little-endian processor with readable debug information.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, SymbolsError> {
        let path = path.as_ref();
        let bytes = fs::read(path).map_err(|source| SymbolsError::File {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&bytes)
    }

    /// Reads the contents of an ELF file.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub fn parse(elf: &[u8]) -> Result<Self, SymbolsError> {
        let not_elf = |error: object::Error| SymbolsError::NotElf(error.to_string());
        let file = object::File::parse(elf).map_err(not_elf)?;
        if !file.is_little_endian() {
            let other = "it is for a big-endian processor".to_owned();
            return Err(SymbolsError::NotElf(other));
        }
        let mut addresses: HashMap<String, Vec<u64>> = HashMap::new();
        let mut functions = BTreeMap::new();
        for symbol in file.symbols().filter(ObjectSymbol::is_definition) {
            let Ok(name) = symbol.name() else { continue };
            let known = addresses.entry(name.to_owned()).or_default();
            if !known.contains(&symbol.address()) {
                known.push(symbol.address());
            }
            if symbol.kind() == SymbolKind::Text {
                let function = (symbol.size(), name.to_owned());
                functions.entry(symbol.address()).or_insert(function);
            }
        }
        let dwarf = gimli::Dwarf::load(|id| section(&file, id.name()))?;
        let dwarf = Arc::new(dwarf);
        let lines = addr2line::Context::from_arc_dwarf(dwarf.clone()).map_err(unreadable)?;
        Ok(Self(Arc::new(Inner {
            addresses,
            functions,
            dwarf,
            lines: Mutex::new(lines),
            types: Mutex::default(),
        })))
    }

    /// The address of a symbol.
    ///
    /// # Errors
    /// There is no such symbol, or several file-local ones have the name.
    pub fn address(&self, name: &str) -> Result<u64, SymbolsError> {
        match self.0.addresses.get(name).map(Vec::as_slice) {
            Some([address]) => Ok(*address),
            Some(several) => Err(SymbolsError::SeveralSymbols {
                name: name.to_owned(),
                addresses: several.to_vec(),
            }),
            None => Err(SymbolsError::NoSuchSymbol(name.to_owned())),
        }
    }

    /// The function that contains an address, with the distance of the address from its beginning in bytes.
    pub fn function(&self, address: u64) -> Option<(&str, u64)> {
        let (start, (len, name)) = self.0.functions.range(..=address).next_back()?;
        let distance = address - start;
        // Functions of assembler files may have no length.
        (distance < *len || (*len == 0 && distance == 0)).then_some((name.as_str(), distance))
    }

    /// The source line of an instruction, if the debug information has one.
    pub fn line(&self, address: u64) -> Option<SourceLine> {
        let lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let location = lines.find_location(address).ok()??;
        Some(SourceLine {
            file: location.file?.to_owned(),
            line: location.line?,
        })
    }

    /// The type with a name as in C: `struct cpu`, `enum scenario`, `u64`.
    pub(crate) fn type_named(&self, name: &str) -> Result<Arc<Type>, SymbolsError> {
        let mut types = self.0.types.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = types.get(name) {
            return Ok(known.clone());
        }
        let read = read_type::named(&self.0.dwarf, name)?;
        types.insert(name.to_owned(), read.clone());
        Ok(read)
    }
}

/// The contents of a section, or nothing.
fn section(file: &object::File<'_>, name: &str) -> Result<Section, SymbolsError> {
    let bytes: Arc<[u8]> = match file.section_by_name(name) {
        Some(section) => {
            let unreadable = |error: object::Error| SymbolsError::Compressed {
                section: name.to_owned(),
                why: error.to_string(),
            };
            section.uncompressed_data().map_err(unreadable)?.into()
        }
        None => Arc::default(),
    };
    Ok(Section::new(bytes, LittleEndian))
}

//! The errors of symbols.

use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// The reason why a symbol, a line or a type is not known.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SymbolsError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; give the ELF file that the guest executes", path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
    /// The file is no ELF file that this library reads.
    #[error(
        "this is no ELF file that can be used ({0}); give the uncompressed ELF file that the guest executes (of a Linux kernel: vmlinux)"
    )]
    NotElf(String),
    /// The debug information is compressed in a way that this library does not read.
    #[error(
        "the section {section} cannot be read: {why}; decompress it with `objcopy --decompress-debug-sections`"
    )]
    Compressed {
        /// The name of the section.
        section: String,
        /// The reason.
        why: String,
    },
    /// The debug information is damaged.
    #[error("the debug information is damaged: {0}; build the program again")]
    Dwarf(String),
    /// No symbol has this name.
    #[error("there is no symbol `{0}`; check the name with `nm`, or give its address")]
    NoSuchSymbol(String),
    /// Several file-local symbols have this name.
    #[error("several symbols are called `{name}`; give one of the addresses {addresses:#x?}")]
    SeveralSymbols {
        /// The name in the request.
        name: String,
        /// Their addresses.
        addresses: Vec<u64>,
    },
    /// No type has this name.
    #[error(
        "there is no type `{0}` in the debug information; write the name as in C (`struct cpu`, `enum state`, a typedef), and build the program with -g"
    )]
    NoSuchType(String),
    /// The type has more bytes than a value may have.
    #[error("`{name}` has {size} bytes, and a value may have {most}; read a part of it")]
    TooBig {
        /// The name of the type.
        name: String,
        /// The size of the type, in bytes.
        size: u64,
        /// The limit, in bytes.
        most: u64,
    },
    /// A value of the type would have more parts than a value may have. Members of a union that share their bytes count each.
    #[error(
        "`{name}` has more than {most} parts (members, elements and bytes without a known type, also those of its members), and a value may have no more; read a part of it: a \
         member, at its address and by its own type"
    )]
    TooManyParts {
        /// The name of the type.
        name: String,
        /// The limit.
        most: u64,
    },
    /// The members of the type have members, and so on for more levels than a value may have.
    #[error(
        "`{name}` has more than {most} levels of members and elements, and a value may have no more; read a part of it: a member, at its address and by its own type"
    )]
    TooDeep {
        /// The name of the type.
        name: String,
        /// The limit.
        most: u64,
    },
}

/// The debug information has another form than gimli expects. A function, so that no public item names gimli.
pub(super) fn unreadable(error: gimli::Error) -> SymbolsError {
    SymbolsError::Dwarf(error.to_string())
}

//! Addresses, as programs write them.

use crate::error::Error;
use crate::symbols::Symbols;
use vmm_core_defs::addr::Gva;

/// A virtual address: a number, a [`Gva`], or the name of a symbol of the file that [`load_symbols`](crate::Debugger::load_symbols) has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a>(Kind<'a>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind<'a> {
    Address(Gva),
    Symbol(&'a str),
}

impl From<u64> for Place<'_> {
    fn from(address: u64) -> Self {
        Self(Kind::Address(Gva::new(address)))
    }
}

impl From<Gva> for Place<'_> {
    fn from(address: Gva) -> Self {
        Self(Kind::Address(address))
    }
}

impl<'a> From<&'a str> for Place<'a> {
    fn from(name: &'a str) -> Self {
        Self(Kind::Symbol(name))
    }
}

impl Place<'_> {
    pub(crate) fn address(self, symbols: Option<&Symbols>) -> Result<Gva, Error> {
        match (self.0, symbols) {
            (Kind::Address(address), _) => Ok(address),
            (Kind::Symbol(name), Some(symbols)) => Ok(Gva::new(symbols.address(name)?)),
            (Kind::Symbol(name), None) => Err(Error::NoSymbols(name.to_owned())),
        }
    }
}

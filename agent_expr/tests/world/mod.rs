//! A guest for tests: registers, memory and variables, and a list of what was recorded and printed.

use agent_expr::Context;
use agent_expr::Refused;
use std::collections::BTreeMap;
use std::vec::Vec;

/// The guest. What it does not have is refused.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) registers: BTreeMap<u16, u64>,
    /// Areas, each from an address on.
    pub(crate) memory: Vec<(u64, Vec<u8>)>,
    pub(crate) variables: BTreeMap<u16, u64>,
    /// Trace buffer and output are refused without it.
    pub(crate) has_buffer: bool,
    pub(crate) traced: Vec<Traced>,
    pub(crate) printed: Vec<u8>,
    /// The address and the length of each read.
    pub(crate) reads: Vec<(u64, usize)>,
}

/// What was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Traced {
    Memory(u64, u64),
    Text(u64, u64),
    Variable(u16),
}

impl World {
    fn trace(&mut self, what: Traced) -> Result<(), Refused> {
        if !self.has_buffer {
            return Err(Refused);
        }
        self.traced.push(what);
        Ok(())
    }
}

impl Context for World {
    fn register(&mut self, number: u16) -> Result<u64, Refused> {
        self.registers.get(&number).copied().ok_or(Refused)
    }

    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), Refused> {
        self.reads.push((address, into.len()));
        let found = self.memory.iter().find_map(|(start, bytes)| {
            let from = usize::try_from(address.checked_sub(*start)?).ok()?;
            bytes.get(from..)?.get(..into.len())
        });
        into.copy_from_slice(found.ok_or(Refused)?);
        Ok(())
    }

    fn variable(&mut self, number: u16) -> Result<u64, Refused> {
        self.variables.get(&number).copied().ok_or(Refused)
    }

    fn set_variable(&mut self, number: u16, value: u64) -> Result<(), Refused> {
        *self.variables.get_mut(&number).ok_or(Refused)? = value;
        Ok(())
    }

    fn trace_memory(&mut self, address: u64, length: u64) -> Result<(), Refused> {
        self.trace(Traced::Memory(address, length))
    }

    fn trace_string(&mut self, address: u64, limit: u64) -> Result<(), Refused> {
        self.trace(Traced::Text(address, limit))
    }

    fn trace_variable(&mut self, number: u16) -> Result<(), Refused> {
        self.trace(Traced::Variable(number))
    }

    fn print(&mut self, text: &[u8]) -> Result<(), Refused> {
        if !self.has_buffer {
            return Err(Refused);
        }
        self.printed.extend(text);
        Ok(())
    }
}

//! What an expression sees of the guest, and where its output goes.

use core::error::Error;
use core::fmt;

/// A [`Context`] does not have what an expression asks for. [`EvaluationError`](crate::EvaluationError) says what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the context does not have it")
    }
}

impl Error for Refused {}

/// What an expression sees of the guest, and where its output goes. A context for conditions needs only registers and memory; it refuses the rest.
pub trait Context {
    /// The value of the register with GDB's number, extended with zeros. A register of more than 64 bits has no value here.
    fn register(&mut self, number: u16) -> Result<u64, Refused>;

    /// Fills `into` with the guest's memory from this virtual address. Numbers in memory are little-endian. No read reaches over the end of the address space.
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), Refused>;

    /// The value of a trace state variable.
    fn variable(&mut self, number: u16) -> Result<u64, Refused> {
        let _ = number;
        Err(Refused)
    }

    /// Gives a trace state variable a value.
    fn set_variable(&mut self, number: u16, value: u64) -> Result<(), Refused> {
        let _ = (number, value);
        Err(Refused)
    }

    /// Records `length` bytes of memory in the trace buffer. `length` may be any number: the guest may have computed it.
    fn trace_memory(&mut self, address: u64, length: u64) -> Result<(), Refused> {
        let _ = (address, length);
        Err(Refused)
    }

    /// Records a string in the trace buffer: the bytes up to and with the first zero byte, and at most `limit` bytes.
    fn trace_string(&mut self, address: u64, limit: u64) -> Result<(), Refused> {
        let _ = (address, limit);
        Err(Refused)
    }

    /// Records the value of a trace state variable in the trace buffer.
    fn trace_variable(&mut self, number: u16) -> Result<(), Refused> {
        let _ = number;
        Err(Refused)
    }

    /// Takes output of `printf`. The text of one `printf` comes in several parts.
    fn print(&mut self, text: &[u8]) -> Result<(), Refused> {
        let _ = text;
        Err(Refused)
    }
}

//! Guest RAM as the debugger accesses it.

use vmm_core_defs::addr::Gpa;

/// RAM of which every access can fail. The VMM may have mapped the RAM read-only, or its file may have shrunk. A failed access does not end the process (I10).
pub(crate) trait GuestRam {
    /// Reads up to the first byte that cannot be read. Returns the number of bytes. A naturally aligned value of up to 8 bytes is read in one access.
    fn read_some(&self, gpa: Gpa, data: &mut [u8]) -> usize;

    /// Writes up to the first byte that cannot be written. Returns the number of bytes. A naturally aligned value of up to 8 bytes is written in one access.
    fn write_some(&self, gpa: Gpa, data: &[u8]) -> usize;

    /// Makes a failed access an error, even if the VMM has changed signal handlers meanwhile. Makes two system calls. Called before each request of a client that
    /// accesses memory.
    fn guard_accesses(&self);
}

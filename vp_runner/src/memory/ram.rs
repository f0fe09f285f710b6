//! Guest RAM as the debugger accesses it.

use vmm_core_defs::addr::Gpa;

/// RAM whose every access can fail. The VMM may have mapped it read-only, or its file may have shrunk, and none of that ends the process (I10).
pub(crate) trait GuestRam {
    /// Reads up to the first byte that cannot be read. Returns the number of bytes. A naturally aligned value of up to 8 bytes is read in one access.
    fn read_some(&self, gpa: Gpa, data: &mut [u8]) -> usize;

    /// Writes up to the first byte that cannot be written. Returns the number of bytes. A naturally aligned value of up to 8 bytes is written in one access.
    fn write_some(&self, gpa: Gpa, data: &[u8]) -> usize;

    /// Makes sure that a failing access is noticed and does not end the process, also where the VMM has changed signal handlers meanwhile. Costs two system
    /// calls, and comes before each piece of work that a client asks for.
    fn guard_accesses(&self);
}

//! The VMMs with run loops of their own under a debugger: what the debugger does, and what the VMM does meanwhile.

mod gdb;
mod packets;
mod vmm;

//! x86 registers.

//! The messages between a debugger and a VMM: requests, stop reasons, register files

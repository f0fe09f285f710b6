//! The debug server: listener, one session at a time, GDB operations to DebugRequest and back

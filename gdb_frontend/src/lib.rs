//! The GDB Remote Serial Protocol without IO: framing, commands, register tables, target descriptions

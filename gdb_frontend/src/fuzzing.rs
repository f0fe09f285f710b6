//! The parser and the framing, for the fuzz targets of this crate (`gdb_frontend/fuzz/`). Only these fuzz targets may use
//! this module: it is not part of the API, and any release may change or remove its items.

pub use crate::command::Command;
pub use crate::framing::Decoder;
pub use crate::framing::Frame;
pub use crate::framing::PacketWriter;
pub use crate::framing::expand;

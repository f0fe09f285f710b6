//! Real debuggers and hostile clients against the real server and the demo guest.

mod clients;
mod connections;
mod hostile;
mod interrupts;
mod kept;
mod lldb;
mod modes;
mod monitor;
mod sessions;
mod stops;

use conformance::gdb_client;
use conformance::packets;
use conformance::running;

//! Real debuggers, and hostile ones, against the real server and the demo guest.

#[path = "../running/mod.rs"]
#[expect(dead_code, reason = "shared with the tests that do not debug")]
mod running;

mod clients;
mod gdb_client;
mod hostile;
mod lldb;
mod packets;
mod sessions;
mod stops;

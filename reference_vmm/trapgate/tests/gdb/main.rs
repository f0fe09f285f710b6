//! Real debuggers and hostile clients against the real server and the demo guest.

mod clients;
mod conditions;
mod connections;
mod extended;
mod found;
mod hostile;
mod interrupts;
mod isolation;
mod kept;
mod lldb;
mod modes;
mod monitor;
mod observability;
mod ranges;
mod sessions;
mod stops;
mod symbols;
mod tables;
mod tracepoints;

use test_machine::gdb_client;
use test_machine::packets;
use test_machine::running;

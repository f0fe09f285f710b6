//! The whole program with the demo guest, without a debugger: boots, resets, ends, and bad input.

mod bad_input;
mod boots;
mod doctor;
mod manual;
mod terminal;

use test_machine::running;

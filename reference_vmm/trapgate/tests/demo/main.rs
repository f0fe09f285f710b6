//! The program from end to end with the demo guest, without a debugger: boots, resets, ends, and every bad input.

mod bad_input;
mod boots;
mod doctor;
mod terminal;

use conformance::running;

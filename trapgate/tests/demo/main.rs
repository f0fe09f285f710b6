//! The program from end to end with the demo guest, without a debugger: boots, resets, ends, and every bad input.

#[path = "../running/mod.rs"]
#[expect(dead_code, reason = "shared with the tests that debug")]
mod running;

mod bad_input;
mod boots;
mod doctor;
mod terminal;

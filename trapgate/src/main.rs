//! The Trapgate VMM.
fn main() {}

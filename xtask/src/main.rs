//! Build, test and benchmark tooling.
fn main() {}

//! The podstead binary.
fn main() {}

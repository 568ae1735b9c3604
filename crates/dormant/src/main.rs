//! Dormant.
fn main() {}

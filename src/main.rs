//! zkfast.
fn main() {}

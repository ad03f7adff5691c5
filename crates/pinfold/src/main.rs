//! Pinfold.
fn main() {}

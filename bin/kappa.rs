//! kappa
fn main() {}

//! Project chores: generated files, benchmarks.
fn main() {}

//! Runs the benchmarks.

fn main() {}

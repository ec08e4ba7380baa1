//! Repository tasks: set-up, tests, demo, benchmarks.

fn main() {}

//! starling, the command for people: pull, mount, convert, inspect, status.

fn main() {}

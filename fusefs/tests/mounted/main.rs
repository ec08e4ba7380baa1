//! Layers through a real mount: what a container sees and does. One binary, so that it is linked once.
//!
//! Tests that need root or FUSE say `skipped: why` and pass where it is missing.

// Everything here is test code, also what clippy does not see as a test function.
#![allow(clippy::unwrap_used, clippy::panic)]

mod blob;
mod chain;
mod connection;
mod directories;
mod fixture;
mod handles;
mod handover;
mod memory;
mod model;
mod nodes;
mod overlay;
mod reading;
mod refused;
mod staleness;
mod stored;
mod trees;

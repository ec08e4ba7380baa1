//! `starling pull` and `starling status` as a user runs them, with a containerd and a daemon.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod afterwards;
mod node;
mod profile;
mod pulling;

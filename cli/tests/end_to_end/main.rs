//! The whole way with real peers: containerd, runc and Docker Engine, an image of Debian packages, a registry.
//!
//! Each test has a registry, a `starlingd` and a containerd of its own in a scratch directory.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod cache;
mod containerd;
mod docker;
mod doctor;
mod handover;
mod interrupted;
mod node;
mod registries;
mod starling;

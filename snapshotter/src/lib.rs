//! The containerd side: snapshot metadata, state machine, gRPC services, configuration, metrics and the daemon starlingd.
//!
//! Two halves meet in [`lazy`]: what a snapshot is and how containerd asks for it (`metadata`, `snapshots`,
//! `service`), and where the bytes of a remote layer come from, behind [`lazy::LazyLayers`].

#![forbid(unsafe_code)]

pub mod config;
pub mod flags;
pub mod lazy;
pub mod logging;
pub mod metrics;
pub mod process;

#[cfg(test)]
mod docs;

/// The version of the daemon.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

//! The containerd side: snapshot metadata, state machine, gRPC services, configuration, metrics and the daemon starlingd.
//!
//! Two halves meet in [`lazy`]: what a snapshot is and how containerd asks for it ([`metadata`], [`snapshots`],
//! [`service`]), and where the bytes of a remote layer come from, behind [`lazy::LazyLayers`].

#![deny(unsafe_code)]

pub mod admin;
mod closure;
pub mod config;
pub mod connections;
pub mod crash;
pub mod cri;
pub mod daemon;
pub mod directories;
pub mod error;
pub mod explain;
pub mod fd_store;
pub mod filters;
pub mod flags;
pub mod idmap;
mod in_use;
pub mod lazy;
pub mod lock;
pub mod logging;
pub mod metadata;
pub mod metrics;
pub mod mounts;
pub mod name;
pub mod overlay;
pub mod process;
pub mod profile;
pub mod remote;
pub mod server;
pub mod service;
pub mod snapshots;
pub mod usage;

mod docs;

/// The version of the daemon.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

//! The containerd side: snapshot metadata, state machine, gRPC services, configuration, metrics and the daemon starlingd.
//!
//! Two halves meet in [`lazy`]: what a snapshot is and how containerd asks for it (`metadata`, `snapshots`,
//! `service`), and where the bytes of a remote layer come from, behind [`lazy::LazyLayers`].

#![forbid(unsafe_code)]

pub mod lazy;

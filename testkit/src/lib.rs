//! Test parts: image builder, fault-injecting and latency-shaping registry, containerd harness.
//!
//! Nothing here depends on Starling's own crates, so every one of them can use it in its tests, and what it
//! judges with is not what is judged.

#![forbid(unsafe_code)]

pub mod blob;
pub mod golden;
mod http_service;
pub mod loopback_certificate;
pub mod oci_layout;
pub mod peers;
pub mod registry;
pub mod registry_process;
pub mod requires;
pub mod sample_image;
pub mod scratch;
pub mod signing_front;
pub mod token_service;
pub mod tree_compare;

pub use registry::{Auth, Fault, On, Redirect, RegistryOptions, Shaping, TestRegistry};

//! Test parts: image builder, fault-injecting and latency-shaping registry, containerd harness.

pub mod oci_layout;
pub mod peers;
pub mod sample_image;
pub mod scratch;

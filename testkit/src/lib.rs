//! Test parts: image builder, fault-injecting and latency-shaping registry, containerd harness.

//! One blob of an OCI registry as a ranged byte source.

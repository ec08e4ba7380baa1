//! The containerd side: snapshot metadata, state machine, gRPC services, configuration, metrics and the daemon starlingd.

fn main() {}

//! Generates Rust from `wire/` with a compiler written in Rust, so no `protoc` is needed.

use std::path::PathBuf;

/// Every description that is compiled, relative to `wire/`.
const WIRE: &[&str] = &[
    "containerd/services/content/v1/content.proto",
    "containerd/services/images/v1/images.proto",
    "containerd/services/introspection/v1/introspection.proto",
    "containerd/services/snapshots/v1/snapshots.proto",
    "containerd/services/streaming/v1/streaming.proto",
    "containerd/services/transfer/v1/transfer.proto",
    "containerd/types/transfer/imagestore.proto",
    "containerd/types/transfer/progress.proto",
    "containerd/types/transfer/registry.proto",
    "runtime/v1/image.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("wire");
    println!("cargo::rerun-if-changed={}", root.display());
    let descriptors = protox::compile(WIRE, [&root])?;
    let mut config = tonic_prost_build::Config::new();
    // `Any` names the type of what it carries.
    config.enable_type_names();
    // It holds passwords: what prints it shows nothing (see `lib.rs`).
    config.skip_debug([".runtime.v1.AuthConfig"]);
    tonic_prost_build::configure().include_file("wire.rs").compile_fds_with_config(descriptors, config)?;
    Ok(())
}

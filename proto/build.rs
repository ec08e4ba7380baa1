//! Generates Rust from `wire/` with a compiler written in Rust, so no `protoc` is needed.

use std::path::PathBuf;

/// Every description that is compiled, relative to `wire/`.
const WIRE: &[&str] = &["containerd/services/snapshots/v1/snapshots.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("wire");
    println!("cargo::rerun-if-changed={}", root.display());
    let descriptors = protox::compile(WIRE, [&root])?;
    tonic_prost_build::configure().include_file("wire.rs").compile_fds(descriptors)?;
    Ok(())
}

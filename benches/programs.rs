//! The programs that are measured and those that help, built before anything is timed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use testkit::peers::{erofs_utils, go_tools, rival::Rival};

/// Where they are.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) starling: PathBuf,
    pub(crate) starlingd: PathBuf,
    pub(crate) registry: PathBuf,
    pub(crate) rival: PathBuf,
}

/// The workspace's root directory.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_owned)
}

impl Programs {
    /// Builds what is missing: Starling in release, the registry, containerd and its tools, the rival.
    pub(crate) fn build() -> Result<Self> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let status = Command::new(cargo)
            .args([
                "build",
                "--quiet",
                "--release",
                "-p",
                "snapshotter",
                "-p",
                "cli",
                "-p",
                "testkit",
                "--bins",
            ])
            .current_dir(root())
            .status()
            .context("start cargo")?;
        if !status.success() {
            bail!("the release build: {status}");
        }
        for tool in go_tools::CONTAINERD_TOOLS {
            go_tools::ensure(tool)?;
        }
        let built = root().join("target/release");
        Ok(Self {
            starling: built.join("starling"),
            starlingd: built.join("starlingd"),
            registry: built.join("testkit-registry"),
            rival: Rival::build()?,
        })
    }

    /// Why containerd's erofs snapshotter cannot work here, if it cannot; fetches what it needs.
    pub(crate) fn erofs_missing(&self) -> Option<String> {
        let kernel = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        if !kernel.lines().any(|line| line.trim() == "erofs") {
            return Some("this kernel has no erofs".to_owned());
        }
        erofs_utils::ensure().err().map(|error| format!("no mkfs.erofs: {error:#}"))
    }
}

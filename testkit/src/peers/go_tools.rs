//! The programs that are built from Go modules, each at one pinned version, kept in `target/tools/bin`.
//!
//! A tool is built once: a stamp beside it names the version it was built from. Two test processes that
//! want the same tool wait for each other through a lock on the directory.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

/// A program of a Go module.
#[derive(Debug, Clone, Copy)]
pub struct GoTool {
    /// The program's file name.
    pub name: &'static str,
    /// The package that `go install` is given, without its version.
    pub package: &'static str,
    /// The module version.
    pub version: &'static str,
    /// Build tags; a tool with tags is built with cgo.
    pub tags: &'static str,
}

/// The container runtime that plugs Starling in.
pub const CONTAINERD: GoTool =
    containerd_tool("containerd", "github.com/containerd/containerd/v2/cmd/containerd");
/// containerd's command line client.
pub const CTR: GoTool = containerd_tool("ctr", "github.com/containerd/containerd/v2/cmd/ctr");
/// The process containerd leaves beside each container; containerd finds it through `PATH`.
pub const SHIM: GoTool = containerd_tool(
    "containerd-shim-runc-v2",
    "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
);
/// The OCI runtime; it needs libseccomp's headers.
pub const RUNC: GoTool =
    GoTool { name: "runc", package: "github.com/opencontainers/runc", version: "v1.5.2", tags: "seccomp" };
/// Docker Engine.
pub const DOCKERD: GoTool = GoTool {
    name: "dockerd",
    package: "github.com/moby/moby/v2/cmd/dockerd",
    version: "v2.0.0-beta.24",
    tags: "",
};

/// What a lazy pull with containerd needs.
pub const CONTAINERD_TOOLS: &[GoTool] = &[CONTAINERD, CTR, SHIM, RUNC];

const fn containerd_tool(name: &'static str, package: &'static str) -> GoTool {
    GoTool { name, package, version: "v2.4.2", tags: "" }
}

/// The directory that holds the built tools; put it first in a peer's `PATH`.
pub fn bin_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin")
}

/// Builds `tool` unless it is there already.
///
/// # Errors
/// No Go, or the module cannot be fetched or built; the message carries Go's own output.
pub fn ensure(tool: &GoTool) -> Result<PathBuf> {
    let dir = bin_dir();
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let dir = dir.canonicalize()?;
    let lock = File::create(dir.join(".lock"))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| e).context("lock the tools")?;
    let path = dir.join(tool.name);
    let stamp = dir.join(format!(".{}.version", tool.name));
    if path.exists() && fs::read_to_string(&stamp).is_ok_and(|built| built == tool.version) {
        return Ok(path);
    }
    let output = Command::new("go")
        .args(["install", "-trimpath", "-ldflags", "-s -w", "-tags", tool.tags])
        .arg(format!("{}@{}", tool.package, tool.version))
        .env("GOBIN", &dir)
        .env("GOFLAGS", "-mod=mod")
        .env("CGO_ENABLED", if tool.tags.is_empty() { "0" } else { "1" })
        .output()
        .context("run go, which builds the peers of the tests: install Go 1.24 or newer")?;
    if !output.status.success() {
        bail!("go install {}@{}: {}", tool.package, tool.version, String::from_utf8_lossy(&output.stderr));
    }
    fs::write(&stamp, tool.version)?;
    Ok(path)
}

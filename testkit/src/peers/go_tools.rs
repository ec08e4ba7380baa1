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
    /// How it is built.
    pub build: Build,
}

/// How a tool's module is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// `go install`, without cgo.
    Install,
    /// `go install` with cgo and these build tags.
    Tagged(&'static str),
    /// The module names its dependencies in `vendor.mod` and has no `go.mod`, as Docker's client does:
    /// a copy is given that file as its `go.mod`.
    VendorMod,
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
pub const RUNC: GoTool = GoTool {
    name: "runc",
    package: "github.com/opencontainers/runc",
    version: "v1.5.2",
    build: Build::Tagged("seccomp"),
};
/// Docker Engine.
pub const DOCKERD: GoTool = GoTool {
    name: "dockerd",
    package: "github.com/moby/moby/v2/cmd/dockerd",
    version: "v2.0.0-beta.24",
    build: Build::Install,
};
/// Docker's client. Newer versions need a module that the Go module proxy does not serve.
pub const DOCKER: GoTool = GoTool {
    name: "docker",
    package: "github.com/docker/cli/cmd/docker",
    version: "v29.9.1+incompatible",
    build: Build::VendorMod,
};
/// The client's plug-in that speaks to BuildKit; `docker build` needs it.
pub const BUILDX: GoTool = GoTool {
    name: "buildx",
    package: "github.com/docker/buildx/cmd/buildx",
    version: "v0.37.2",
    build: Build::Install,
};

/// What a lazy pull with containerd needs.
pub const CONTAINERD_TOOLS: &[GoTool] = &[CONTAINERD, CTR, SHIM, RUNC];
/// What a lazy pull with Docker Engine needs besides.
pub const DOCKER_TOOLS: &[GoTool] = &[DOCKERD, DOCKER, BUILDX];

const fn containerd_tool(name: &'static str, package: &'static str) -> GoTool {
    GoTool { name, package, version: "v2.4.2", build: Build::Install }
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
    match tool.build {
        Build::Install => install(tool, &dir, "", "0")?,
        Build::Tagged(tags) => install(tool, &dir, tags, "1")?,
        Build::VendorMod => build_with_vendor_mod(tool, &path)?,
    }
    fs::write(&stamp, tool.version)?;
    Ok(path)
}

/// Builds the package `package` of our own Go module in `source`; go itself knows when that is up to date.
///
/// # Errors
/// As [`ensure`].
pub fn build_module(name: &str, source: &Path, package: &str) -> Result<PathBuf> {
    let dir = bin_dir();
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let program = dir.canonicalize()?.join(name);
    let target = program.to_str().context("a path in UTF-8")?;
    go(source, "0", &["build", "-trimpath", "-ldflags", "-s -w", "-o", target, package], None)?;
    Ok(program)
}

fn install(tool: &GoTool, bin: &Path, tags: &str, cgo: &str) -> Result<()> {
    let package = format!("{}@{}", tool.package, tool.version);
    go(
        Path::new("."),
        cgo,
        &["install", "-trimpath", "-ldflags", "-s -w", "-tags", tags, &package],
        Some(bin),
    )?;
    Ok(())
}

fn build_with_vendor_mod(tool: &GoTool, program: &Path) -> Result<()> {
    let (module, package) =
        tool.package.split_once("/cmd/").context("a package in the module's cmd directory")?;
    let wanted = format!("{module}@{}", tool.version);
    let json = go(Path::new("."), "0", &["mod", "download", "-json", &wanted], None)?;
    let described: serde_json::Value = serde_json::from_slice(&json)?;
    let source = described.get("Dir").and_then(serde_json::Value::as_str).context("go names no directory")?;
    let scratch = tempfile::tempdir()?;
    let copy = scratch.path().join("module");
    let status = Command::new("cp")
        .arg("-r")
        .arg("--no-preserve=mode")
        .args([source.as_ref(), copy.as_os_str()])
        .status()?;
    if !status.success() {
        bail!("copy {source}: {status}");
    }
    fs::remove_dir_all(copy.join("vendor"))?;
    fs::rename(copy.join("vendor.mod"), copy.join("go.mod"))?;
    fs::rename(copy.join("vendor.sum"), copy.join("go.sum"))?;
    let program = program.to_str().context("a path in UTF-8")?;
    let package = format!("./cmd/{package}");
    go(&copy, "0", &["build", "-trimpath", "-ldflags", "-s -w", "-o", program, &package], None)?;
    Ok(())
}

/// Runs go in `dir` and gives what it printed.
fn go(dir: &Path, cgo: &str, args: &[&str], bin: Option<&Path>) -> Result<Vec<u8>> {
    let mut command = Command::new("go");
    command.args(args).current_dir(dir).env("GOFLAGS", "-mod=mod").env("CGO_ENABLED", cgo);
    if let Some(bin) = bin {
        command.env("GOBIN", bin);
    }
    let output =
        command.output().context("run go, which builds the peers of the tests: install Go 1.24 or newer")?;
    if !output.status.success() {
        bail!("go {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

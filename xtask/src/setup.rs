//! What the tasks need on the machine, and its installation: Debian packages by apt, peers as Go tools.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;
use testkit::peers::{docker_registry, go_tools};

use crate::shell;

/// Debian packages, each with what needs it.
const PACKAGES: &[(&str, &str)] = &[
    ("gcc", "C parts of the dependencies"),
    ("g++", "the fuzzing runtime"),
    ("make", "C parts of the dependencies"),
    ("cmake", "C parts of the dependencies"),
    ("pkg-config", "runc finds libseccomp with it"),
    ("libseccomp-dev", "runc"),
    ("git", "cargo and go"),
    ("ca-certificates", "TLS to the package registries"),
    ("debootstrap", "the sample images"),
    ("acl", "the POSIX ACL tests"),
    ("attr", "the extended attribute tests"),
    ("libcap2-bin", "the file capability tests"),
    ("iproute2", "network namespaces"),
    ("zstd", "the converter's tests"),
    ("python3-pip", "the scikit-learn image"),
    ("skopeo", "the demo copies images with it"),
    ("wget", "debootstrap"),
];

/// Installs what is missing.
///
/// # Errors
/// A package or tool is missing and cannot be installed: the message says what to do.
pub(crate) fn run() -> Result<()> {
    packages()?;
    docker_registry()?;
    cargo_deny()?;
    shell::stage("peers: containerd, runc, dockerd (pinned Go tools)");
    for tool in go_tools::CONTAINERD_TOOLS.iter().chain(go_tools::DOCKER_TOOLS) {
        let path = go_tools::ensure(tool)?;
        eprintln!("{} {} in {}", tool.name, tool.version, path.display());
    }
    Ok(())
}

/// Installs the Debian packages that are missing.
///
/// # Errors
/// As [`run`].
pub(crate) fn packages() -> Result<()> {
    shell::stage("Debian packages");
    let mut missing: Vec<&str> =
        PACKAGES.iter().map(|(name, _)| *name).filter(|name| !installed(name)).collect();
    if !runs("go", "version") {
        missing.push("golang-go");
    }
    if missing.is_empty() {
        eprintln!("all there");
        return Ok(());
    }
    install(&missing)
}

/// Unpacks Debian's registry, a peer of the tests. It is not installed: that would start a service.
fn docker_registry() -> Result<()> {
    const PACKAGE: &str = "docker-registry";
    shell::stage("Debian's registry");
    if docker_registry::missing().is_none() {
        eprintln!("there");
        return Ok(());
    }
    let dir = docker_registry::unpacked_dir();
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let download = || {
        let mut command = shell::command("apt-get", &["download", "-qq", PACKAGE]);
        shell::run(command.current_dir(&dir).stdout(Stdio::null()))
    };
    // A machine that had nothing to install has no package lists, perhaps.
    download().or_else(|_| {
        shell::run(shell::command("apt-get", &["update", "-qq"]).stdout(Stdio::null()))?;
        download()
    })?;
    for file in fs::read_dir(&dir)?.flatten().map(|entry| entry.path()) {
        if file.extension().is_some_and(|extension| extension == "deb") {
            shell::run(shell::command("dpkg-deb", &["-x"]).arg(&file).arg(&dir))?;
            fs::remove_file(&file)?;
        }
    }
    Ok(())
}

/// Builds cargo-deny unless this version is there. Without optimisation, which takes half the time to build and
/// costs a second at run time.
///
/// # Errors
/// It cannot be fetched or built.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    const VERSION: &str = "0.20.2";
    shell::stage("cargo-deny");
    let tools = shell::root().join("target/tools");
    let program = tools.join("bin/cargo-deny");
    let there = Command::new(&program).arg("--version").output();
    if there.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim().ends_with(VERSION)) {
        eprintln!("cargo-deny {VERSION}");
        return Ok(program);
    }
    let building = tempfile::tempdir()?;
    shell::run(
        shell::cargo(&["install", "cargo-deny", "--version", VERSION, "--locked", "--debug", "--quiet"])
            .arg("--root")
            .arg(tools)
            .arg("--target-dir")
            .arg(building.path()),
    )
    .context("install cargo-deny")?;
    Ok(program)
}

/// Installs the Debian package `package`, which only some tasks need, unless its `program` can be started.
///
/// # Errors
/// As [`run`].
pub(crate) fn program(program: &str, package: &str) -> Result<()> {
    if runs(program, "--version") { Ok(()) } else { install(&[package]) }
}

fn install(missing: &[&str]) -> Result<()> {
    eprintln!("missing: {}", missing.join(" "));
    if !Uid::effective().is_root() {
        bail!("install them first: apt-get install {}", missing.join(" "));
    }
    shell::run(shell::command("apt-get", &["update", "-qq"]).stdout(Stdio::null()))?;
    shell::run(
        shell::command("apt-get", &["install", "-y", "-qq", "--no-install-recommends"])
            .args(missing)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(Stdio::null()),
    )
    .context("install Debian packages")
}

fn installed(package: &str) -> bool {
    let output = Command::new("dpkg-query").args(["-W", "-f", "${Status}", package]).output();
    output.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains("install ok installed"))
}

/// Whether `program` can be started here.
fn runs(program: &str, argument: &str) -> bool {
    Command::new(program)
        .arg(argument)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

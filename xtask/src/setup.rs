//! What the tasks need on the machine, and its installation: Debian packages by apt, peers as Go tools.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;
use testkit::peers::go_tools;

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
];

/// Installs what is missing.
///
/// # Errors
/// A package or tool is missing and cannot be installed: the message says what to do.
pub(crate) fn run() -> Result<()> {
    packages()?;
    shell::stage("peers: containerd, runc, dockerd (pinned Go tools)");
    for tool in go_tools::CONTAINERD_TOOLS.iter().chain(go_tools::DOCKER_TOOLS) {
        let path = go_tools::ensure(tool)?;
        println!("{} {} in {}", tool.name, tool.version, path.display());
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
        println!("all there");
        return Ok(());
    }
    install(&missing)
}

/// Installs one more package, which only some tasks need.
///
/// # Errors
/// As [`run`].
pub(crate) fn ensure_package(package: &str, why: &str) -> Result<()> {
    if installed(package) {
        return Ok(());
    }
    println!("{package} is needed {why}");
    install(&[package])
}

fn install(missing: &[&str]) -> Result<()> {
    println!("missing: {}", missing.join(" "));
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

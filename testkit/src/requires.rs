//! What a test needs of the machine: what a test must be skipped for, and what a program cannot do without.

use std::{path::Path, process::Command};

use anyhow::{Result, bail};
use nix::unistd::Uid;

/// Root, for mounts and owners. Like the others it gives the reason why a test must be skipped, or `None`.
pub fn root() -> Option<String> {
    (!Uid::effective().is_root()).then(|| "needs root".to_owned())
}

/// Root and `/dev/fuse`.
pub fn fuse() -> Option<String> {
    root().or_else(|| (!Path::new("/dev/fuse").exists()).then(|| "needs /dev/fuse".to_owned()))
}

/// Says what is missing to mount file systems; `what`, which does so, begins the message.
///
/// # Errors
/// This is not root, or there is no FUSE.
pub fn ensure_mounts(what: &str) -> Result<()> {
    if root().is_some() {
        bail!("{what} mounts file systems: run it as root");
    }
    match fuse() {
        Some(why) => bail!("{what} needs FUSE: {why}"),
        None => Ok(()),
    }
}

/// A Go toolchain.
pub fn go() -> Option<String> {
    program("go", "version")
}

/// A program that can be started with `argument`.
pub fn program(name: &str, argument: &str) -> Option<String> {
    let output = Command::new(name).arg(argument).output();
    (!output.is_ok_and(|output| output.status.success())).then(|| format!("needs {name}"))
}

/// Returns from the calling test, saying why, unless every reason is `None`.
#[macro_export]
macro_rules! skip_unless {
    ($($reason:expr),+ $(,)?) => {
        $(if let Some(why) = $reason {
            eprintln!("skipped: {why}");
            return;
        })+
    };
}

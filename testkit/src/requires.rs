//! What a test needs of the machine: each function gives the reason why a test must be skipped, or `None`.

use std::{path::Path, process::Command};

use nix::unistd::Uid;

/// Root, for mounts and owners.
pub fn root() -> Option<String> {
    (!Uid::effective().is_root()).then(|| "needs root".to_owned())
}

/// Root and `/dev/fuse`.
pub fn fuse() -> Option<String> {
    root().or_else(|| (!Path::new("/dev/fuse").exists()).then(|| "needs /dev/fuse".to_owned()))
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

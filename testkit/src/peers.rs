//! Real peers, run as processes in a scratch directory: containerd, runc and dockerd at pinned versions, and
//! Debian's registry.
//!
//! Nothing here touches the machine's own containerd or Docker: every peer gets its own root, state and
//! socket below one directory, and is stopped, with its mounts, when its handle is dropped.

use std::path::Path;

pub mod containerd;
pub mod docker_registry;
pub mod dockerd;
pub mod erofs_utils;
pub mod gate;
pub mod go_tools;
mod process;
pub mod rival;
pub mod starlingd;

/// `PATH` with `tools` first: containerd looks its shim up there, and the shim runc.
fn path_with(tools: &Path) -> String {
    format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default())
}

//! Real peers, run as processes in a scratch directory: containerd, runc and dockerd, at pinned versions.
//!
//! Nothing here touches the machine's own containerd or Docker: every peer gets its own root, state and
//! socket below one directory, and is stopped, with its mounts, when its handle is dropped.

pub mod containerd;
pub mod go_tools;
pub mod starlingd;

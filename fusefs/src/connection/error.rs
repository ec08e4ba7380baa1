//! Why a connection cannot be made, used or ended.

use std::{io, path::PathBuf};

use crate::Slot;

/// A connection was not mounted. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The place cannot be made ready.
    #[error("cannot prepare {} to mount layers on it", path.display())]
    Place {
        /// The mount point.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The directory above the mount point lets others in, and is not ours to close.
    #[error(
        "directory {} lets other users reach the layers mounted in it: use one of mode 0700",
        path.display()
    )]
    OpenParent {
        /// The directory above the mount point.
        path: PathBuf,
        /// Why it cannot be closed.
        #[source]
        source: io::Error,
    },
    /// Something else is mounted there.
    #[error("a {file_system} file system is mounted on {}: unmount it or use another directory", path.display())]
    Occupied {
        /// The mount point.
        path: PathBuf,
        /// Its type.
        file_system: String,
    },
    /// There is no FUSE.
    #[error("cannot open /dev/fuse: load the kernel module fuse, or let this container use the device")]
    Device(#[source] io::Error),
    /// The kernel refused.
    #[error("cannot mount a FUSE file system on {}: root is needed", path.display())]
    Mount {
        /// The mount point.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Someone else unmounted it at once.
    #[error("the file system that was mounted on {} is not there any more", path.display())]
    Gone {
        /// The mount point.
        path: PathBuf,
    },
    /// Kernel and daemon do not understand each other.
    #[error("the FUSE handshake with the kernel failed")]
    Handshake(#[source] io::Error),
    /// A thread could not be started.
    #[error("cannot start a thread for the FUSE connection")]
    Thread(#[source] io::Error),
}

/// A layer was not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The slot serves a layer, or did: the kernel still holds that layer's names and pages under its inode numbers.
    #[error("slot {0} was used before in this connection: attach the layer to a new one")]
    SlotUsed(Slot),
    /// A chain has no layers, or more than inode numbers tell apart.
    #[error("a chain has 1 to {most} layers: show these layers one by one")]
    ChainLength {
        /// The largest number.
        most: usize,
    },
}

/// A connection was not unmounted; it is served as before.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// Containers, overlay mounts or processes use layers.
    #[error("{} is in use", path.display())]
    InUse {
        /// The mount point.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("cannot unmount {}", path.display())]
    Kernel {
        /// The mount point.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

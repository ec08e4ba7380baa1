//! How the connection is mounted.

use std::{ffi::OsStr, time::Duration};

/// Settings of a [`crate::Connection`].
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// Whether layers have extended attributes and opaque directories. If not, the kernel is told so once, and never asks.
    pub attributes: bool,
    /// Under which name opaque directories are marked for overlayfs.
    pub opaque: OpaqueForm,
    /// Read-ahead of the kernel, in KiB. It is written to sysfs after mounting, for the kernel offers no more than
    /// 128 KiB in the handshake; reads then come in pieces of up to 1 MiB.
    pub read_ahead_kb: u32,
    /// Number of threads that take requests. Cached reads are answered on them.
    pub threads: usize,
    /// Longest time after which a read that the store has not answered fails with EIO. The store bounds reads itself,
    /// with a shorter time (`StoreConfig::read_timeout`); this is the bound that holds whatever it does.
    pub read_deadline: Duration,
}

/// The attribute that tells overlayfs that a directory hides what lower layers have under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpaqueForm {
    /// `trusted.overlay.opaque`, for ordinary mounts.
    Trusted,
    /// `user.overlay.opaque`, for overlays mounted with `userxattr` (rootless, user namespaces).
    User,
}

// === impl MountOptions ===

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            attributes: true,
            opaque: OpaqueForm::Trusted,
            read_ahead_kb: 1024,
            threads: 4,
            read_deadline: Duration::from_secs(90),
        }
    }
}

// === impl OpaqueForm ===

impl OpaqueForm {
    /// Value of the attribute on an opaque directory.
    pub(crate) const VALUE: &'static [u8] = b"y";

    /// Name of the attribute.
    pub(crate) fn attribute(self) -> &'static OsStr {
        OsStr::new(match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        })
    }
}

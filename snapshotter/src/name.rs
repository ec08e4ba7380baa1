//! Names and numbers of snapshots.
//!
//! Active snapshots, views and committed snapshots share one keyspace, as in containerd: what is a key before Commit and
//! a name after it is one type here.

use std::{borrow::Borrow, fmt};

/// The longest name that is stored: bolt's limit for a key, so that whatever containerd accepts fits here too.
pub const MAX_NAME_LEN: usize = 32_768;

/// A snapshot's key or name: any text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// A snapshot's number, and in decimal the name of its directory. Short, since mount options are one page; never
/// reused, so that a directory can be deleted long after its snapshot was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(u64);

// === impl Name ===

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a snapshot may be created under this name.
    pub fn is_storable(&self) -> bool {
        !self.0.is_empty() && self.0.len() <= MAX_NAME_LEN
    }
}

impl<T: Into<String>> From<T> for Name {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

// === impl SnapshotId ===

impl SnapshotId {
    /// The snapshot with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

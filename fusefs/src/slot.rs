//! The place of a layer, or of a chain of layers, in a FUSE connection.

use std::{fmt, num::NonZeroU32};

/// The upper half of a layer's or chain's inode numbers, and in decimal the name of its directory below the mount. Never
/// reused while a connection lives: the kernel still holds the old names and pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(NonZeroU32);

// === impl Slot ===

impl Slot {
    /// The slot with this number; none for 0, where the connection's own inodes are.
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The slot's number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

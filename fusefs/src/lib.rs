//! The kernel side: the FUSE connection, inodes and replies.

mod slot;

pub use slot::Slot;

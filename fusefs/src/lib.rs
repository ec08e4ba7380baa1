//! The kernel side: the FUSE connection, inodes and replies.
//!
//! A [`Connection`] serves any number of layers. Its root holds one directory for each, and one for each [`Chain`] of
//! layers that is shown merged, named by its [`Slot`]; below such a directory everything is immutable and the kernel may
//! keep it for ever, while the root itself is never cached. Inode numbers are a pure function of slot and node, nothing
//! depends on how often the kernel looked something up, and no FUSE thread waits for the network, so that a successor of
//! the daemon can take the connection over and one hanging layer slows no other.
//!
//! This is the only crate that names `fuser`. What a layer holds comes through [`LayerTree`]; bytes are fetched and
//! verified behind it.

#![deny(unsafe_code)]

mod chain;
mod connection;
mod counters;
mod failure;
mod ino;
mod options;
mod server;
mod shown;
mod slot;
mod table;
mod tree;
mod under_way;

pub use chain::{Chain, MAX_LAYERS as MAX_CHAIN};
pub use connection::{
    AttachError, Connection, ConnectionState, InitParameters, MountError, Opened, ParseStateError,
    Predecessor, UnmountError,
};
pub use counters::{Counters, STALL_BOUNDS, Stalls};
pub use failure::Failure;
pub use options::{MountOptions, OpaqueForm};
pub use slot::Slot;
pub use tree::{Attributes, LayerTree, Listed, ReadFuture, Totals};

//! Makes the kernel let go of a detached layer's names and pages, and of the pages of a file that were wrong.
//!
//! The kernel answers such a notification only when it has the root's lock, which a look-up in the root holds while it
//! waits for a FUSE thread: sent from a FUSE thread it could wait for itself. Hence a thread that does nothing else.
//! For a detached slot nothing depends on it but memory: the table refuses it at once, and it is never used again. Pages are
//! given up when no read of them is under way any more, which may take as long as the registry does.

use std::{ffi::OsStr, io, sync::mpsc};

use estargz::NodeId;
use fuser::{INodeNo, Notifier};

use crate::{Slot, ino::Inode};

/// Where what is to be forgotten goes. Its thread ends when this is dropped.
pub(super) struct Forgetter(mpsc::Sender<Forgotten>);

/// What is to be forgotten.
enum Forgotten {
    /// All of a detached layer.
    Layer(Slot),
    /// A file's bytes.
    Pages(Slot, NodeId),
}

// === impl Forgetter ===

impl Forgetter {
    pub(super) fn start(notifier: Notifier) -> io::Result<Self> {
        let (sender, forgotten) = mpsc::channel::<Forgotten>();
        std::thread::Builder::new().name("fuse-forget".into()).spawn(move || {
            for forgotten in forgotten {
                let told = match forgotten {
                    Forgotten::Layer(slot) => {
                        notifier.inval_entry(INodeNo::ROOT, OsStr::new(&slot.to_string()))
                    }
                    // From the start to the end (fuse_reverse_inval_inode).
                    Forgotten::Pages(slot, file) => {
                        notifier.inval_inode(Inode::Layer(slot, file).number(), 0, 0)
                    }
                };
                if let Err(error) = told {
                    tracing::debug!(%error, "the kernel did not drop something from its caches");
                }
            }
        })?;
        Ok(Self(sender))
    }

    pub(super) fn forget(&self, slot: Slot) {
        // It fails only if the thread is gone, and then the connection is, too.
        let _ = self.0.send(Forgotten::Layer(slot));
    }

    pub(super) fn forget_pages(&self, slot: Slot, file: NodeId) {
        let _ = self.0.send(Forgotten::Pages(slot, file));
    }
}

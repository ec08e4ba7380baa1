//! Makes the kernel let go of a detached layer's names and pages.
//!
//! The kernel answers such a notification only when it has the root's lock, which a look-up in the root holds while it
//! waits for a FUSE thread: sent from a FUSE thread it could wait for itself. Hence a thread that does nothing else.
//! Nothing depends on it but memory: a detached slot is refused by the table at once, and never used again.

use std::{ffi::OsStr, io, sync::mpsc};

use fuser::{INodeNo, Notifier};

use crate::Slot;

/// Where detached slots go. Its thread ends when this is dropped.
pub(super) struct Forgetter(mpsc::Sender<Slot>);

// === impl Forgetter ===

impl Forgetter {
    pub(super) fn start(notifier: Notifier) -> io::Result<Self> {
        let (sender, slots) = mpsc::channel::<Slot>();
        std::thread::Builder::new().name("fuse-forget".into()).spawn(move || {
            for slot in slots {
                if let Err(error) = notifier.inval_entry(INodeNo::ROOT, OsStr::new(&slot.to_string())) {
                    tracing::debug!(%slot, %error, "kernel did not drop a detached layer from its caches");
                }
            }
        })?;
        Ok(Self(sender))
    }

    pub(super) fn forget(&self, slot: Slot) {
        // It fails only if the thread is gone, and then the connection is, too.
        let _ = self.0.send(slot);
    }
}

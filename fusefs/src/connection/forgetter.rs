//! Makes the kernel let go of a detached layer's names and pages, and of the pages of a file that were wrong.
//!
//! The kernel answers such a notification only when it has the root's lock, which a look-up in the root holds while it
//! waits for a FUSE thread: sent from a FUSE thread it could wait for itself. Hence a thread that does nothing else.
//! For a detached slot nothing depends on it but memory: the table refuses it at once, and it is never used again. A file's
//! pages go when no read of it waits for bytes any more ([`UnderWay`]), which may take as long as the registry does.

use std::{
    ffi::OsStr,
    io,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use estargz::NodeId;
use fuser::{INodeNo, Notifier};

use crate::{Slot, ino::Inode, server::Shared, under_way::UnderWay};

/// How often it is looked whether reads that are in the way have ended.
const AGAIN: Duration = Duration::from_millis(50);
/// How long to sleep while there is nothing to do.
const IDLE: Duration = Duration::from_secs(3600);

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
    pub(super) fn start(notifier: Notifier, shared: Arc<Shared>) -> io::Result<Self> {
        let (sender, forgotten) = mpsc::channel::<Forgotten>();
        std::thread::Builder::new().name("fuse-forget".into()).spawn(move || {
            let mut later = Vec::new();
            loop {
                match forgotten.recv_timeout(if later.is_empty() { IDLE } else { AGAIN }) {
                    Ok(forgotten) => later.push(forgotten),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                later.retain(|forgotten: &Forgotten| {
                    let wait = forgotten.waits(&shared.under_way);
                    if !wait && let Err(error) = forgotten.tell(&notifier) {
                        tracing::debug!(%error, "the kernel did not drop something from its caches");
                    }
                    wait
                });
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

// === impl Forgotten ===

impl Forgotten {
    /// Whether a read waits that the notification would wait for.
    fn waits(&self, under_way: &UnderWay) -> bool {
        match *self {
            Self::Layer(_) => false,
            Self::Pages(slot, file) => under_way.has(slot, file),
        }
    }

    fn tell(&self, notifier: &Notifier) -> io::Result<()> {
        match *self {
            Self::Layer(slot) => notifier.inval_entry(INodeNo::ROOT, OsStr::new(&slot.to_string())),
            // From the start to the end (fuse_reverse_inval_inode).
            Self::Pages(slot, file) => notifier.inval_inode(Inode::Layer(slot, file).number(), 0, 0),
        }
    }
}

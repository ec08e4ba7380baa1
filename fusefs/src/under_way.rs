//! Reads that wait for bytes, by file.
//!
//! Who makes the kernel drop a file's pages waits there for the reads of these pages, in a way that not even SIGKILL ends
//! (`folio_lock`): if the bytes hang, the daemon could not end, and nobody could take its place and answer them. So pages
//! are dropped when no read waits.

use std::collections::HashMap;

use estargz::NodeId;
use parking_lot::Mutex;

use crate::Slot;

/// How many reads wait, of files of which any does.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(Mutex<HashMap<(Slot, NodeId), usize>>);

/// A read that waits, as long as this lives.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    all: &'a UnderWay,
    file: (Slot, NodeId),
}

// === impl UnderWay ===

impl UnderWay {
    /// A read of a file begins to wait.
    pub(crate) fn begin(&self, slot: Slot, file: NodeId) -> Waiting<'_> {
        *self.0.lock().entry((slot, file)).or_default() += 1;
        Waiting { all: self, file: (slot, file) }
    }

    /// Whether any read of a file waits.
    pub(crate) fn has(&self, slot: Slot, file: NodeId) -> bool {
        self.0.lock().contains_key(&(slot, file))
    }
}

// === impl Waiting ===

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        if let Some(count) = all.get_mut(&self.file) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.file);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_waits_until_its_last_read_ends() {
        let (all, slot, file) = (UnderWay::default(), Slot::new(3).unwrap(), NodeId::new(4).unwrap());
        let (first, second) = (all.begin(slot, file), all.begin(slot, file));
        drop(first);
        assert!(all.has(slot, file) && !all.has(slot, NodeId::ROOT));
        drop(second);
        assert!(!all.has(slot, file) && all.0.lock().is_empty());
    }
}

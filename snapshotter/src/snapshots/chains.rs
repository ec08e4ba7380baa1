//! The lower directories of a snapshot, of which the lazy layers at the bottom are one.
//!
//! A chain gets its slot when the first snapshot is made on it, and keeps it in its uppermost snapshot's record: every later
//! call, and every later daemon, names the same directory.

use std::path::PathBuf;

use fusefs::MAX_CHAIN;

use super::Snapshots;
use crate::{
    error::SnapshotError,
    lazy::{Absence, Chain},
    metadata::Below,
    name::Name,
};

// === impl Snapshots ===

impl Snapshots {
    /// Gives the lazy layers at the bottom of the chain that ends in `parent` a slot to be shown in as one tree, if there
    /// are several and they have none.
    pub(super) fn show_as_one(&self, parent: Option<&Name>) -> Result<(), SnapshotError> {
        let below = self.storage.metadata.view()?.below(parent)?;
        let lazy = below.iter().rev().take_while(|(_, record)| record.remote.is_some()).count();
        let uppermost = below.len().checked_sub(lazy).and_then(|first| below.get(first));
        let Some((name, record)) = uppermost.filter(|_| (2..=MAX_CHAIN).contains(&lazy)) else {
            return Ok(());
        };
        if record.chain.is_some() {
            return Ok(());
        }
        let Some(slot) = self.lazy.chain_slot() else { return Ok(()) };
        let id = record.id;
        self.storage.metadata.change(|change| change.show_chain(name, id, slot))
    }

    /// The directories of a chain's snapshots, the uppermost first, for the snapshot `key` on top of them.
    pub(super) fn lower(&self, key: &Name, below: &[Below]) -> Result<Vec<PathBuf>, SnapshotError> {
        let absence = absence(key);
        let mut lower = Vec::new();
        for (at, snapshot) in below.iter().enumerate() {
            let layers: Option<Vec<_>> = below.iter().skip(at).map(|below| below.remote).collect();
            if let (Some(slot), Some(layers)) = (snapshot.chain, layers) {
                lower.push(self.lazy.chain_dir(&Chain { slot, layers }, absence)?);
                break;
            }
            lower.push(match &snapshot.remote {
                Some(layer) => self.lazy.lower_dir(layer, absence)?,
                None => self.storage.directories.upper(snapshot.id),
            });
        }
        Ok(lower)
    }
}

/// What the user of the snapshot `key` takes as "no such attribute".
///
/// BuildKit compares what a step changed with the layers below, and takes `EOPNOTSUPP` for a failure, after which it reads
/// the whole image (`compareCapabilities` in its `util/overlay`); containerd's own comparison knows both. Its keys are
/// those of its `identity.NewID`, 25 letters and digits; what it only reads ends in `-view` (`cache/refs.go`). Whoever is taken for it by mistake, or is not recognized, gets the right files all the same.
fn absence(key: &Name) -> Absence {
    let own = key.as_str().rsplit('/').next().unwrap_or_default();
    let is_id = own.len() == 25 && own.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if is_id || own.ends_with("-view") { Absence::NoData } else { Absence::Unsupported }
}

#[cfg(test)]
mod tests;

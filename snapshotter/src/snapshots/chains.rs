//! The lower directories of a snapshot, of which the lazy layers at the bottom are one.
//!
//! A chain gets its slot when the first snapshot is made on it, and keeps it in its uppermost snapshot's record: every later
//! call, and every later daemon, names the same directory.

use std::path::PathBuf;

use fusefs::MAX_CHAIN;

use super::Snapshots;
use crate::{
    error::SnapshotError,
    lazy::Absence,
    metadata::{Below, View},
    name::Name,
};

// === impl Snapshots ===

impl Snapshots {
    /// The chain that ends in `parent`. Its lazy layers at the bottom get a slot to be shown in as one tree, if they are
    /// several and have none.
    pub(super) fn chain_as_one(
        &self,
        view: View,
        parent: Option<&Name>,
    ) -> Result<Vec<Below>, SnapshotError> {
        let below = view.below(parent)?;
        drop(view);
        let lazy = below.iter().rev().take_while(|(_, record)| record.remote.is_some()).count();
        let uppermost = below.len().checked_sub(lazy).and_then(|first| below.get(first));
        let to_show = uppermost
            .filter(|(_, record)| (2..=MAX_CHAIN).contains(&lazy) && record.chain.is_none())
            .and_then(|(name, record)| Some((name, record.id, self.lazy.chain_slot()?)));
        if let Some((name, id, slot)) = to_show {
            self.storage.metadata.change(|change| change.show_chain(name, id, slot))?;
            return self.storage.metadata.view()?.chain(parent);
        }
        Ok(below.iter().map(|(_, record)| Below::from(record)).collect())
    }

    /// The directories of a chain's snapshots, the uppermost first, for the snapshot `key` on top of them.
    pub(super) fn lower(&self, key: &Name, chain: &[Below]) -> Result<Vec<PathBuf>, SnapshotError> {
        let absence = absence(key);
        let mut lower = Vec::new();
        let mut rest = chain;
        while let [snapshot, below @ ..] = rest {
            if let Some(chain) = Below::as_one(rest) {
                lower.push(self.lazy.chain_dir(&chain, absence)?);
                break;
            }
            lower.push(match &snapshot.remote {
                Some(layer) => self.lazy.lower_dir(layer, absence)?,
                None => self.storage.directories.upper(snapshot.id),
            });
            rest = below;
        }
        Ok(lower)
    }
}

/// What the user of the snapshot `key` takes as "no such attribute".
///
/// BuildKit compares what a step changed with the layers below, and takes `EOPNOTSUPP` for a failure, after which it reads
/// the whole image (`compareCapabilities` in its `util/overlay`); containerd's own comparison knows both. Its keys are
/// those of its `identity.NewID`, 25 letters and digits; what it only reads ends in `-view` (`cache/refs.go`). Whoever is
/// taken for it by mistake, or is not recognized, gets the right files all the same.
fn absence(key: &Name) -> Absence {
    let own = key.as_str().rsplit('/').next().unwrap_or_default();
    let is_id = own.len() == 25 && own.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if is_id || own.ends_with("-view") { Absence::NoData } else { Absence::Unsupported }
}

#[cfg(test)]
mod tests;

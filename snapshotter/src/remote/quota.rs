//! Keeping layers within the disk that they may take.
//!
//! Every few seconds the disk is looked at. If layers take more than they may, those go that no snapshot refers to, the
//! least recently used first; then, if that is wanted, what no start reads of the others. If that does not do, or the file
//! system is nearly full, nothing more is kept until there is room again: reads go on, with verified bytes from the registry.

use std::{
    sync::Weak,
    time::{Duration, UNIX_EPOCH},
};

use estargz::ChunkId;
use parking_lot::Mutex;
use store::{Checked, FileSystem, LayerKey, OnDisk};

use super::{RemoteLayers, images::blocking, removal};
use crate::{
    admin::{Cache, CacheStatus, CachedLayer, Pruned, Verified},
    config,
};

/// How often the disk is looked at.
const EVERY: Duration = Duration::from_secs(2);
/// The floor of free space is no larger part of the file system than one in this many.
const LARGEST_FLOOR: u64 = 20;
/// What was stopped for want of room goes on once there is one part in this many more of it.
const SLACK: u64 = 50;

/// Bytes that are read again for one answer: a second or two of a slow disk.
const VERIFIED_AT_ONCE: u64 = 128 << 20;

/// What layers may take, and what was found when it was last looked at.
#[derive(Debug)]
pub(super) struct Quota {
    config: config::Cache,
    state: Mutex<State>,
    /// Held while a layer's chunks are looked at again.
    verifying: Mutex<()>,
}

/// What was found.
#[derive(Debug, Clone, Default)]
struct State {
    used: u64,
    file_system: FileSystem,
    /// Why nothing is kept.
    why: Option<&'static str>,
    evicted_layers: u64,
    evicted_bytes: u64,
    given_back_bytes: u64,
    /// A layer could not give anything back: that was logged, and is not every few seconds.
    cannot_give_back: bool,
}

/// What the layers of a file system may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    /// Bytes of all layers.
    most: u64,
    /// Free bytes of the file system.
    floor: u64,
}

// === impl Quota ===

impl Quota {
    pub(super) fn new(config: &config::Cache) -> Self {
        Self { config: config.clone(), state: Mutex::default(), verifying: Mutex::default() }
    }

    fn bounds(&self, file_system: FileSystem) -> Bounds {
        let share = file_system.total / 100 * self.config.quota_percent.min(100);
        let most = match self.config.quota.0 {
            0 => share,
            quota => quota,
        };
        Bounds { most, floor: self.config.min_free.0.min(file_system.total / LARGEST_FLOOR) }
    }
}

// === impl Bounds ===

impl Bounds {
    /// How many bytes are to come free.
    fn excess(self, used: u64, free: u64) -> u64 {
        used.saturating_sub(self.most).max(self.floor.saturating_sub(free))
    }

    /// Why nothing more can be kept, if so. What was stopped is begun again a little later than it was stopped.
    fn why_not(self, used: u64, free: u64, stopped: bool) -> Option<&'static str> {
        let slack = |bytes: u64| if stopped { bytes / SLACK } else { 0 };
        if free < self.floor + slack(self.floor) {
            Some("the file system is nearly full")
        } else if used > self.most - slack(self.most) {
            Some("layers take all that they may")
        } else {
            None
        }
    }
}

// === impl RemoteLayers ===

impl RemoteLayers {
    /// What layers take of the disk and may take of it, as it was last looked at.
    pub fn cache_status(&self) -> CacheStatus {
        let state = self.quota.state.lock().clone();
        let bounds = self.quota.bounds(state.file_system);
        CacheStatus {
            bytes: state.used,
            quota_bytes: bounds.most,
            free_bytes: state.file_system.free,
            min_free_bytes: bounds.floor,
            keeping: state.why.is_none(),
            why_not: state.why.map(str::to_owned),
            uncached_chunks: self.opener.store.uncached_chunks(),
            evicted_layers: state.evicted_layers,
            evicted_bytes: state.evicted_bytes,
            given_back_bytes: state.given_back_bytes,
        }
    }

    /// Looks at the disk and sees to it that layers do not take more of it than they may. Blocks.
    fn keep_within_quota(&self) {
        let store = &self.opener.store;
        let Ok(file_system) = store.file_system() else { return };
        let bounds = self.quota.bounds(file_system);
        let layers = store.on_disk();
        let used = sum(&layers);
        let excess = bounds.excess(used, file_system.free);
        let (mut used, mut free) = (used, file_system.free);
        if excess > 0 {
            let (_, bytes) = self.evict(&layers, excess);
            used = used.saturating_sub(bytes);
            free += bytes;
        }
        let excess = bounds.excess(used, free);
        if excess > 0 && self.quota.config.evict_unread {
            // A little more, or the next reads would be over the bound again.
            let bytes = self.give_back(&layers, excess + bounds.most / SLACK);
            used = used.saturating_sub(bytes);
            free += bytes;
        }
        let why = bounds.why_not(used, free, !store.is_keeping());
        if store.set_keeping(why.is_none()) {
            match why {
                Some(why) => tracing::error!(
                    used,
                    quota = bounds.most,
                    free,
                    floor = bounds.floor,
                    "{why}: what is fetched is served and not kept; remove images, or raise [cache] quota"
                ),
                None => tracing::info!(used, free, "there is room again: what is fetched is kept"),
            }
        }
        let mut state = self.quota.state.lock();
        (state.used, state.file_system, state.why) = (used, FileSystem { free, ..file_system }, why);
    }

    /// Has layers that stay give back about `excess` bytes, the least recently used first. Gives the bytes. Blocks.
    fn give_back(&self, layers: &[OnDisk], excess: u64) -> u64 {
        let mut layers = layers.to_vec();
        layers.sort_by_key(|layer| (layer.used, layer.key));
        let mut given = 0;
        for OnDisk { key, .. } in layers {
            if given >= excess {
                break;
            }
            match self.opener.store.give_back(&key, excess - given) {
                Ok(bytes) => given += bytes,
                Err(error) => {
                    if !std::mem::replace(&mut self.quota.state.lock().cannot_give_back, true) {
                        tracing::warn!(layer = %key, %error, "a layer cannot give back disk");
                    }
                }
            }
        }
        if given > 0 {
            tracing::info!(bytes = given, "layers in use gave back what no start was seen to read");
        }
        self.quota.state.lock().given_back_bytes += given;
        given
    }

    /// Looks at some of a layer's chunks again. Blocks.
    pub(super) fn verify_some(&self, key: LayerKey, from: u32, bytes: u64) -> Result<Verified, String> {
        let store = &self.opener.store;
        // Of two, the first to end would close the layer under the other.
        let _alone = self.quota.verifying.lock();
        let was_open = store.layer(&key).is_some();
        let open = self.opener.attach(key).map_err(|error| crate::logging::chain(&error))?;
        let open = open.ok_or_else(|| format!("the files of layer {key} cannot be used"))?;
        let checked = open.verify(from, bytes);
        if let Ok(Checked { damaged, .. }) = &checked {
            let chunks = damaged.iter().filter_map(|id| open.index().chunk(ChunkId(*id)).ok());
            chunks.for_each(|chunk| self.attached.forget_pages(&key, chunk.node));
        }
        // A Prepare may just have got it; what it fetches of a layer that is closed would not be recorded.
        if !was_open
            && let Ok(_alone) = self.preparing.try_write()
            && !self.claims.needed().contains(&key)
        {
            store.close(&key);
        }
        let Checked { next, chunks, bytes, damaged } = checked.map_err(|error| error.to_string())?;
        Ok(Verified { next, chunks, bytes, damaged })
    }

    /// Deletes layers that no snapshot refers to until `excess` bytes are free, the least recently used first. Nothing
    /// while layers are being prepared: which of them will be referred to is not known then. Gives the layers and their
    /// bytes. Blocks.
    fn evict(&self, layers: &[OnDisk], excess: u64) -> (Vec<LayerKey>, u64) {
        let Ok(alone) = self.preparing.try_write() else { return (Vec::new(), 0) };
        let gone = store::choose(layers, &self.claims.needed(), excess);
        let retired: Vec<_> = gone.iter().filter_map(|key| self.removal.retire(key)).collect();
        drop(alone);
        removal::delete(retired);
        let bytes = layers.iter().filter(|layer| gone.contains(&layer.key)).map(|layer| layer.bytes).sum();
        if !gone.is_empty() {
            tracing::info!(layers = gone.len(), bytes, "deleted layers that no snapshot refers to");
        }
        let mut state = self.quota.state.lock();
        state.evicted_layers += gone.len() as u64;
        state.evicted_bytes += bytes;
        (gone, bytes)
    }
}

impl Cache for RemoteLayers {
    fn list(&self) -> Vec<CachedLayer> {
        let needed = self.claims.needed();
        let mut layers = self.opener.store.on_disk();
        layers.sort_by_key(|layer| std::cmp::Reverse(layer.used));
        let listed = |layer: &OnDisk| CachedLayer {
            key: layer.key.to_string(),
            blob: layer.key.blob.to_string(),
            bytes: layer.bytes,
            used_at: layer.used.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            in_use: needed.contains(&layer.key),
        };
        layers.iter().map(listed).collect()
    }

    fn prune(&self, keep: u64) -> Pruned {
        let layers = self.opener.store.on_disk();
        let (gone, bytes) = self.evict(&layers, sum(&layers).saturating_sub(keep));
        Pruned { layers: gone.iter().map(LayerKey::to_string).collect(), bytes }
    }

    fn verify(&self, layer: &str, from: u32) -> Result<Verified, String> {
        let key = self.opener.store.keys_on_disk().into_iter().find(|key| key.to_string() == layer);
        let key = key.ok_or_else(|| format!("there is no layer {layer} on disk"))?;
        self.verify_some(key, from, VERIFIED_AT_ONCE)
    }
}

fn sum(layers: &[OnDisk]) -> u64 {
    layers.iter().map(|layer| layer.bytes).sum()
}

/// Looks at the disk every few seconds.
pub(super) async fn watch(remote: Weak<RemoteLayers>) {
    loop {
        let Some(this) = remote.upgrade() else { return };
        blocking(move || this.keep_within_quota()).await;
        tokio::time::sleep(EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_counts_as_well_as_the_quota() {
        let bounds = Bounds { most: 1000, floor: 100 };
        assert_eq!(bounds.excess(900, 500), 0);
        assert_eq!(bounds.excess(1200, 500), 200);
        assert_eq!(bounds.excess(1010, 40), 60);
        assert_eq!(bounds.why_not(1000, 100, false), None);
        assert!(bounds.why_not(1001, 500, false).is_some_and(|why| why.contains("all that they may")));
        assert!(bounds.why_not(0, 99, false).is_some_and(|why| why.contains("nearly full")));
        // Not on and off with each layer.
        assert!(bounds.why_not(0, 101, true).is_some() && bounds.why_not(990, 500, true).is_some());
        assert_eq!(bounds.why_not(980, 102, true), None);
    }

    #[test]
    fn bounds_follow_the_file_system_unless_they_are_set() {
        let mut config = config::Config::default().cache;
        let file_system = FileSystem { total: 1000 << 30, free: 1 };
        let bounds = Quota::new(&config).bounds(file_system);
        assert_eq!(bounds.most >> 30, 700);
        assert_eq!(bounds.floor, 1 << 30);
        config.quota.0 = 5;
        let small = FileSystem { total: 100, free: 1 };
        assert_eq!(Quota::new(&config).bounds(small), Bounds { most: 5, floor: 5 });
    }
}

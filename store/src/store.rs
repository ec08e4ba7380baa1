//! The store: all layers under one root.

mod open;

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;

pub use self::open::TAIL_LEN;
use crate::{
    BlobSource, Disk, Layer, LayerKey, PlanId, RealDisk, StoreConfig, StoreError,
    engine::Engine,
    files,
    profile::{Book, Shelf},
};

/// A recording loses no more than this when the daemon is killed.
const SAVE_INTERVAL: Duration = Duration::from_secs(5);

/// The layers of a daemon. One for each root; the caller sees to that.
pub struct Store {
    dir: PathBuf,
    engine: Arc<Engine>,
    disk: Arc<dyn Disk>,
    layers: Mutex<HashMap<LayerKey, Arc<Layer>>>,
    opening: Mutex<HashMap<LayerKey, open::Opening>>,
    /// One lock for each layer whose files are being opened or deleted: this may take long, and others must not wait.
    busy: Mutex<HashMap<LayerKey, Arc<Mutex<()>>>>,
}

// === impl Store ===

impl Store {
    /// Opens the store in `config.root`, which it makes if it is not there. Must be called inside a tokio runtime, which
    /// then does the fetching.
    pub fn open(config: StoreConfig) -> Result<Arc<Self>, StoreError> {
        Self::open_on(Arc::new(RealDisk), config)
    }

    /// Like [`Self::open`], with contents written by `disk`.
    pub fn open_on(disk: Arc<dyn Disk>, config: StoreConfig) -> Result<Arc<Self>, StoreError> {
        let dir = config.root.join("layers");
        files::prepare(&dir)?;
        let shelf = Shelf::open(config.root.join("profiles"), config.profile_bytes)?;
        let engine = Engine::start(config, shelf).map_err(StoreError::new("start the threads for", &dir))?;
        let store = Arc::new(Self {
            dir,
            engine,
            disk,
            layers: Mutex::default(),
            opening: Mutex::default(),
            busy: Mutex::default(),
        });
        store.engine.runtime.spawn(save_profiles(Arc::downgrade(&store)));
        Ok(store)
    }

    /// The layer, if it is open or its files are there. Never uses the network. Its missing bytes come from `source`
    /// from now on. Takes as long as building an index if the layer's index has to be built again.
    pub fn attach(
        &self,
        key: LayerKey,
        source: Arc<dyn BlobSource>,
    ) -> Result<Option<Arc<Layer>>, StoreError> {
        self.alone_with(key, || {
            if let Some(layer) = self.layer(&key) {
                layer.set_source(source);
                return Ok(Some(layer));
            }
            let Some(files) = files::LayerFiles::open(&self.dir, key, Arc::clone(&self.disk))? else {
                return Ok(None);
            };
            let layer = Layer::new(key, files, Arc::clone(&self.engine), source);
            self.layers.lock().insert(key, Arc::clone(&layer));
            Ok(Some(layer))
        })
    }

    /// The open layers.
    pub fn layers(&self) -> Vec<Arc<Layer>> {
        self.layers.lock().values().cloned().collect()
    }

    /// The layer, if it is open.
    pub fn layer(&self, key: &LayerKey) -> Option<Arc<Layer>> {
        self.layers.lock().get(key).cloned()
    }

    /// The layers whose files are there, open or not.
    pub fn keys_on_disk(&self) -> Vec<LayerKey> {
        files::keys(&self.dir)
    }

    /// Whether anything is known about the order in which a layer is read, open or not. Looks at the disk.
    pub fn has_profile(&self, key: &LayerKey) -> bool {
        self.engine.shelf.has(Book::of_any(*key))
    }

    /// Whether it is known what `image` reads of a layer, open or not. Looks at the disk.
    pub fn has_profile_of(&self, key: &LayerKey, image: PlanId) -> bool {
        self.engine.shelf.has(Book::of(*key, image))
    }

    /// Deletes a layer's files, but for its profile. Whoever holds the layer can go on reading.
    pub fn remove(&self, key: &LayerKey) -> Result<(), StoreError> {
        self.alone_with(*key, || {
            let layer = self.layers.lock().remove(key);
            if let Some(layer) = layer {
                layer.save_profile();
                layer.mark_removed();
            }
            files::remove(&self.dir, key)
        })
    }

    /// Records what was fetched of all layers. Blocks; for an orderly end.
    pub fn flush(&self) {
        for layer in self.layers() {
            layer.flush();
            layer.save_profile();
        }
    }

    /// Bytes of the memory budget that are in use.
    pub fn memory_in_use(&self) -> u64 {
        self.engine.budget.used()
    }

    /// Does something with a layer's files while nobody else opens or deletes them.
    fn alone_with<T>(&self, key: LayerKey, work: impl FnOnce() -> T) -> T {
        let lock = Arc::clone(self.busy.lock().entry(key).or_default());
        let done = {
            let _alone = lock.lock();
            work()
        };
        drop(lock);
        let mut busy = self.busy.lock();
        if busy.get(&key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            busy.remove(&key);
        }
        done
    }

    fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Saves what is recorded, every few seconds.
async fn save_profiles(store: Weak<Store>) {
    loop {
        tokio::time::sleep(SAVE_INTERVAL).await;
        let Some(store) = store.upgrade() else { return };
        let save = move || store.layers().iter().for_each(|layer| layer.save_profile());
        // It can only fail with the runtime.
        let _ = tokio::task::spawn_blocking(save).await;
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.flush();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("dir", &self.dir).finish_non_exhaustive()
    }
}

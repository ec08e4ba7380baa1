//! The store: all layers under one root.

mod open;

use std::{
    collections::HashMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;

pub use self::open::TAIL_LEN;
use crate::{
    BlobSource, Disk, FileSystem, Layer, LayerKey, OnDisk, PlanId, RealDisk, StoreConfig, StoreError,
    engine::Engine,
    files::{self, Retired},
    profile::{Book, Shelf},
    room,
};

/// A recording loses no more than this when the daemon is killed.
const SAVE_INTERVAL: Duration = Duration::from_secs(5);

/// The layers of a daemon. One for each root; the caller sees to that.
pub struct Store {
    dir: PathBuf,
    pub(crate) engine: Arc<Engine>,
    disk: Arc<dyn Disk>,
    layers: Mutex<HashMap<LayerKey, Arc<Layer>>>,
    /// Layers that were closed and may still be read by those who hold them.
    closed: Mutex<HashMap<LayerKey, Vec<Weak<Layer>>>>,
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

    /// Like [`Self::open`], with files changed by `disk`.
    pub fn open_on(disk: Arc<dyn Disk>, config: StoreConfig) -> Result<Arc<Self>, StoreError> {
        let dir = config.root.join("layers");
        files::prepare(&dir, disk.as_ref())?;
        let shelf = Shelf::open(config.root.join("profiles"), config.profile_bytes)?;
        let engine = Engine::start(config, shelf).map_err(StoreError::new("start the threads for", &dir))?;
        let store = Arc::new(Self {
            dir,
            engine,
            disk,
            layers: Mutex::default(),
            closed: Mutex::default(),
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
        self.retire(key)?.map_or(Ok(()), Retired::delete)
    }

    /// As [`Self::remove`], but leaves to the caller what takes long. The layer is not in the store any more.
    pub fn retire(&self, key: &LayerKey) -> Result<Option<Retired>, StoreError> {
        self.alone_with(*key, || {
            self.let_go(key);
            files::retire(&self.dir, key, &self.disk)
        })
    }

    /// Closes a layer whose files stay: it can be attached again. Whoever holds it can go on reading, but nothing that
    /// is fetched for them is kept.
    pub fn close(&self, key: &LayerKey) {
        self.alone_with(*key, || {
            if let Some(layer) = self.layer(key) {
                layer.flush();
                let mut closed = self.closed.lock();
                closed.retain(|_, layers| layers.iter().any(is_held));
                closed.entry(*key).or_default().push(Arc::downgrade(&layer));
            }
            self.let_go(key);
        });
    }

    /// Has an open layer give back chunks that no recorded start has read, until `bytes` of them are gone, and completes it
    /// no more. Gives the number of bytes. What is read of them later is fetched again. Blocks.
    ///
    /// # Errors
    /// The disk does not take the change: what was given back by then stays so.
    pub fn give_back(&self, key: &LayerKey, bytes: u64) -> io::Result<u64> {
        let Some(layer) = self.layer(key) else { return Ok(0) };
        // Who holds the layer as it was before it was closed knows nothing of what the open one does to the files.
        if self.closed.lock().get(key).is_some_and(|layers| layers.iter().any(is_held)) {
            return Ok(0);
        }
        layer.give_back(bytes)
    }

    fn let_go(&self, key: &LayerKey) {
        let layer = self.layers.lock().remove(key);
        if let Some(layer) = layer {
            layer.save_profile();
            layer.mark_removed();
        }
    }

    /// Records what was fetched of all layers. Blocks; for an orderly end.
    pub fn flush(&self) {
        for layer in self.layers() {
            layer.flush();
            layer.save_profile();
        }
    }

    /// What the layers take on disk, open or not. Looks at the disk.
    pub fn on_disk(&self) -> Vec<OnDisk> {
        room::on_disk(&self.dir)
    }

    /// Bytes that a layer takes on disk, open or not. Looks at the disk.
    pub fn disk_bytes(&self, key: &LayerKey) -> u64 {
        room::bytes(&self.dir.join(key.to_string()))
    }

    /// The file system that the layers are on.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn file_system(&self) -> Result<FileSystem, StoreError> {
        room::file_system(&self.dir).map_err(StoreError::new("look at the file system of", &self.dir))
    }

    /// Whether what is fetched from now on is kept. If it is not, reads are served all the same, with verified bytes, and
    /// nothing is fetched that nobody waits for. Says whether that is a change.
    pub fn set_keeping(&self, keeping: bool) -> bool {
        self.engine.keeping.set(keeping)
    }

    /// Whether what is fetched is kept.
    pub fn is_keeping(&self) -> bool {
        self.engine.keeping.is_on()
    }

    /// Chunks that were served and not kept.
    pub fn uncached_chunks(&self) -> u64 {
        self.engine.keeping.uncached()
    }

    /// Bytes of the memory budget that are in use.
    pub fn memory_in_use(&self) -> u64 {
        self.engine.budget.used() + self.engine.outputs.used()
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

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }
}

/// Saves what is recorded, and which layers were used, every few seconds.
async fn save_profiles(store: Weak<Store>) {
    loop {
        tokio::time::sleep(SAVE_INTERVAL).await;
        let Some(store) = store.upgrade() else { return };
        let save = move || {
            for layer in store.layers() {
                layer.save_profile();
                if layer.was_used() {
                    // Nothing depends on it but which layer goes first when disk is short.
                    let _ = room::touch(&store.dir.join(layer.key().to_string()));
                }
            }
        };
        // It can only fail with the runtime.
        let _ = tokio::task::spawn_blocking(save).await;
    }
}

fn is_held(layer: &Weak<Layer>) -> bool {
    layer.strong_count() > 0
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

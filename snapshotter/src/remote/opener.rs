//! Opening layers: each at most once at a time, from local files if they are there, else over the network.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use estargz::Digest;
use futures_util::FutureExt;
use parking_lot::Mutex;
use registry::{Reference, RegistryClient};
use store::{BlobSource, Layer, LayerKey, Store};
use tokio::sync::Semaphore;

use super::{
    claims::Claims,
    early::{self, Early},
    flights::{self, Flights, Linger, launch},
    images::blocking,
    reasons,
    sources::Sources,
};
use crate::{lazy::FallBack, metrics::Metrics};

/// A layer, now or soon.
pub(super) type Flight = flights::Flight<Result<Arc<Layer>, FallBack>>;

/// A layer of an image: where to read it and what to make of it.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) key: LayerKey,
    /// As the client spelled it, and what it means.
    pub(super) spelled: String,
    pub(super) reference: Reference,
    /// The blob's length, if a manifest told it.
    pub(super) size: Option<u64>,
}

/// Opens layers.
pub(super) struct Opener {
    pub(super) store: Arc<Store>,
    pub(super) registry: Arc<RegistryClient>,
    pub(super) early: Arc<Early>,
    pub(super) claims: Arc<Claims>,
    pub(super) metrics: Metrics,
    /// How many layers are opened ahead of their Prepare at one time.
    pub(super) turns: Semaphore,
    sources: Mutex<HashMap<LayerKey, Arc<Sources>>>,
    flights: Flights<LayerKey, Result<Arc<Layer>, FallBack>>,
    patience: Duration,
}

/// What an opener works with.
pub(super) struct Parts {
    pub(super) store: Arc<Store>,
    pub(super) registry: Arc<RegistryClient>,
    pub(super) early: Arc<Early>,
    pub(super) claims: Arc<Claims>,
    pub(super) metrics: Metrics,
    pub(super) parallel: usize,
    /// How long one place may leave a read waiting before the next one is asked too.
    pub(super) patience: Duration,
}

// === impl Opener ===

impl Opener {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        let Parts { store, registry, early, claims, metrics, parallel, patience } = parts;
        let turns = Semaphore::new(parallel.max(1));
        let (sources, flights) = (Mutex::default(), Flights::default());
        Arc::new(Self { store, registry, early, claims, metrics, turns, sources, flights, patience })
    }

    /// Opens a layer for a Prepare that waits.
    pub(super) fn open(self: &Arc<Self>, target: Target) -> Flight {
        self.flight(target, false)
    }

    /// Opens a layer that nobody has asked for yet, whether the result is waited for or not.
    pub(super) fn open_ahead(self: &Arc<Self>, target: Target) -> Flight {
        self.flight(target, true)
    }

    /// Reads the end of a blob whose table of contents nobody has named yet.
    pub(super) fn read_early(&self, spelled: &str, reference: &Reference, blob: Digest) {
        if self.store.layers().iter().any(|layer| layer.key().blob == blob) {
            return;
        }
        let key = early::Key { reference: spelled.to_owned(), blob };
        let (store, source) = (Arc::clone(&self.store), self.registry.blob(reference, blob));
        self.early.begin(key, |len| async move { store.read_tail(source.as_ref(), len).await });
    }

    /// The layer, if its files are on disk. No network.
    pub(super) fn attach(&self, key: LayerKey) -> Result<Option<Arc<Layer>>, store::StoreError> {
        self.store.attach(key, self.sources(key))
    }

    /// Where the blob of `key` can be read.
    pub(super) fn sources(&self, key: LayerKey) -> Arc<Sources> {
        Arc::clone(self.sources.lock().entry(key).or_insert_with(|| Arc::new(Sources::new(self.patience))))
    }

    /// Makes `reference` a place to read the blob of `key` from.
    pub(super) fn add_source(&self, key: LayerKey, spelled: &str, reference: &Reference) {
        self.sources(key).add(spelled, self.registry.blob(reference, key.blob));
    }

    /// Forgets a layer that was deleted.
    pub(super) fn forget(&self, key: &LayerKey) {
        self.sources.lock().remove(key);
    }

    fn flight(self: &Arc<Self>, target: Target, ahead: bool) -> Flight {
        let key = target.key;
        self.claims.ahead(key, Instant::now());
        self.add_source(key, &target.spelled, &target.reference);
        if let Some(size) = target.size {
            self.sources(key).set_size(size);
        }
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&key) {
            return flight.clone();
        }
        if let Some(layer) = self.store.layer(&key) {
            return async { Ok(layer) }.boxed().shared();
        }
        let opener = Arc::clone(self);
        let flight = async move {
            let _turn = if ahead { opener.turns.acquire().await.ok() } else { None };
            opener.open_now(target).await
        };
        launch(&self.flights, &mut flights, key, flight, move |opened| {
            if let Err(fall_back) = opened {
                tracing::debug!(layer = %key, code = %fall_back.code, reason = fall_back.reason, "cannot open a layer");
            }
            Linger::For(Duration::ZERO)
        })
    }

    async fn open_now(self: &Arc<Self>, target: Target) -> Result<Arc<Layer>, FallBack> {
        let key = target.key;
        let opener = Arc::clone(self);
        match blocking(move || opener.attach(key)).await {
            Ok(Some(layer)) => return Ok(layer),
            Ok(None) => {}
            Err(error) => return Err(reasons::store(&error)),
        }
        let began = Instant::now();
        let source: Arc<dyn BlobSource> = self.sources(key);
        let held = early::Key { reference: target.spelled, blob: key.blob };
        let opened = match self.early.take(&held).await {
            Some(tail) => self.store.open_layer_with_tail(key, source, tail).await,
            None => self.store.open_layer(key, source).await,
        };
        let took: Duration = began.elapsed();
        self.metrics.opened(took);
        opened.map_err(|error| reasons::open(&error))
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("opening", &self.flights.lock().len()).finish_non_exhaustive()
    }
}

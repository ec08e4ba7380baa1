//! What the layers of a store share: threads, budget, measurements.

use std::{collections::HashMap, fmt, sync::Arc};

use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::Semaphore};

use crate::{
    BlobSource, StoreConfig,
    decode::{Outputs, Pool},
    fetch::{
        activity::Activity, background::Background, bandwidth::Bandwidth, budget::Budget, in_flight::Tracked,
        link::Link, reach::Bounds,
    },
    flush::Flusher,
    plan::Planner,
    profile::{Shelf, Starts},
    room::Keeping,
};

/// Windows that go on behind what was missed, over all layers. Each holds a connection.
const TAILS: usize = 8;
/// Of so many parts of the memory, so many are for what long members are inflated to: of 20 MiB, enough for two chunks of
/// 4 MiB, which is the usual length; the rest holds their compressed bytes and those of a third one, if they compress a little.
const PARTS: u64 = 5;
const INFLATED_PARTS: u64 = 2;

/// See the [module](self).
pub(crate) struct Engine {
    pub(crate) config: StoreConfig,
    pub(crate) runtime: Handle,
    pub(crate) pool: Pool,
    pub(crate) budget: Arc<Budget>,
    /// The rest of the memory.
    pub(crate) outputs: Outputs,
    pub(crate) tracked: Tracked,
    pub(crate) keeping: Keeping,
    pub(crate) activity: Activity,
    pub(crate) link: Arc<Link>,
    /// Windows that go on behind what was missed.
    pub(crate) tails: Arc<Semaphore>,
    pub(crate) background: Arc<Background>,
    pub(crate) flusher: Flusher,
    /// Layers that are being opened: plans wait for them.
    pub(crate) openings: Activity,
    pub(crate) planner: Arc<Planner>,
    pub(crate) shelf: Shelf,
    pub(crate) starts: Starts,
    /// Index builds at one time.
    pub(crate) builds: Semaphore,
    origins: Mutex<HashMap<String, Arc<Bandwidth>>>,
}

// === impl Engine ===

impl Engine {
    pub(crate) fn start(config: StoreConfig, shelf: Shelf) -> std::io::Result<Arc<Self>> {
        let pool = Pool::start(config.decode_threads, config.idle_threads)?;
        let flusher = Flusher::start(&config)?;
        let outputs = config.memory_budget / PARTS * INFLATED_PARTS;
        Ok(Arc::new(Self {
            runtime: Handle::current(),
            pool,
            budget: Budget::new(config.memory_budget - outputs),
            outputs: Outputs::new(outputs),
            tracked: Tracked::default(),
            keeping: Keeping::default(),
            activity: Activity::new(),
            link: Link::new(),
            tails: Arc::new(Semaphore::new(TAILS)),
            background: Background::new(&config),
            flusher,
            openings: Activity::new(),
            planner: Arc::default(),
            shelf,
            starts: Starts::default(),
            builds: Semaphore::new(config.decode_threads.max(1)),
            origins: Mutex::default(),
            config,
        }))
    }

    /// What is known of the origin of `source`. Layers of one origin share it.
    pub(crate) fn bandwidth(&self, source: &dyn BlobSource) -> Arc<Bandwidth> {
        Arc::clone(self.origins.lock().entry(source.origin()).or_default())
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { min: self.config.min_window, max: self.config.max_window }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("config", &self.config).finish_non_exhaustive()
    }
}

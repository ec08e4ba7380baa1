//! Opening a layer that is not on disk: the end of its blob, the TOC in it, the index from that.

use std::sync::Arc;

use estargz::{footer, limits};
use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, Shared},
};
use tokio::time::timeout;

use super::Store;
use crate::{
    BlobSource, Class, Layer, LayerKey, OpenLayerError, SourceError, SourceErrorKind, StoreError, Tail,
    files::{Staging, TocHeader},
};

/// How much of a blob's end is read to find its TOC, if the blob's size is not known. Two digests an entry do not
/// compress, so that this is enough for 4,000 to 5,000 entries; the TOCs of larger layers take a second request.
pub const TAIL_LEN: u64 = 512 << 10;
/// The part of a blob that its TOC takes, generously: one in this many bytes.
const TOC_SHARE: u64 = 48;
/// Least that is read, since few small layers are denser: of an image of many layers it would add up.
const SHORTEST_TAIL: u64 = 64 << 10;
/// Most that is read before it is known how much is needed.
const LONGEST_TAIL: u64 = 4 << 20;

/// An open that is going on, shared by everyone who wants the same layer.
pub(super) type Opening = Shared<BoxFuture<'static, Result<Arc<Layer>, OpenLayerError>>>;

/// Makes way for the next open of a layer, also after one that ended in a panic.
struct Done<'a> {
    store: &'a Store,
    key: LayerKey,
}

// === impl Done ===

impl Drop for Done<'_> {
    fn drop(&mut self) {
        // What is removed is dropped once the lock is free again.
        let _opening = self.store.opening.lock().remove(&self.key);
    }
}

// === impl Store ===

impl Store {
    /// Opens a layer: from its files if they are there, else with one or two requests to `source`.
    pub async fn open_layer(
        self: &Arc<Self>,
        key: LayerKey,
        source: Arc<dyn BlobSource>,
    ) -> Result<Arc<Layer>, OpenLayerError> {
        self.opening(key, source, None).await
    }

    /// Reads the last `len` bytes of a blob, which also tells how fast its origin is. Waits as long as the source does.
    pub async fn read_tail(&self, source: &dyn BlobSource, len: u64) -> Result<Tail, SourceError> {
        let tail = source.read_tail(len).await?;
        if let Some(arrival) = &tail.arrival {
            self.engine.bandwidth(source).blob_end(arrival);
        }
        Ok(tail)
    }

    /// Opens a layer whose blob's end [was read](Self::read_tail) before.
    pub async fn open_layer_with_tail(
        self: &Arc<Self>,
        key: LayerKey,
        source: Arc<dyn BlobSource>,
        tail: Tail,
    ) -> Result<Arc<Layer>, OpenLayerError> {
        self.opening(key, source, Some(tail)).await
    }

    fn opening(self: &Arc<Self>, key: LayerKey, source: Arc<dyn BlobSource>, tail: Option<Tail>) -> Opening {
        if let Some(layer) = self.layer(&key) {
            layer.set_source(source);
            return async { Ok(layer) }.boxed().shared();
        }
        let mut opening = self.opening.lock();
        if let Some(opening) = opening.get(&key) {
            return opening.clone();
        }
        // A task of its own: whoever stops waiting does not stop it for the others.
        let store = Arc::clone(self);
        let task = self.engine.runtime.spawn(async move {
            let _done = Done { store: &store, key };
            let mut busy = store.engine.openings.window();
            busy.resume();
            store.open_now(key, source, tail).await
        });
        let shared = task.map(|done| done.unwrap_or(Err(OpenLayerError::Closed))).boxed().shared();
        opening.insert(key, shared.clone());
        shared
    }

    async fn open_now(
        self: &Arc<Self>,
        key: LayerKey,
        source: Arc<dyn BlobSource>,
        tail: Option<Tail>,
    ) -> Result<Arc<Layer>, OpenLayerError> {
        if let Some(layer) = self.attach_later(key, &source).await? {
            return Ok(layer);
        }
        let tail = match tail {
            Some(tail) => tail,
            None => {
                let len = source
                    .size_hint()
                    .map_or(TAIL_LEN, |size| (size / TOC_SHARE).clamp(SHORTEST_TAIL, LONGEST_TAIL));
                self.bounded(self.read_tail(source.as_ref(), len)).await?
            }
        };
        let footer = footer::parse(&tail.bytes, tail.blob_size).map_err(OpenLayerError::Footer)?;
        let section = footer.toc_offset..tail.blob_size - footer.len;
        let (len, limit) = (section.end - section.start, limits::TOC_SECTION_LEN);
        if len > limit {
            return Err(OpenLayerError::TocTooLong { len, limit });
        }
        let header = TocHeader { key, blob_size: tail.blob_size, toc_offset: footer.toc_offset };
        let mut staging = Staging::new(self.dir(), header, self.disk())?;
        let tail_start = tail.blob_size.saturating_sub(tail.bytes.len() as u64);
        if section.start < tail_start {
            let missing = section.start..tail_start.min(section.end);
            let mut stream = self.bounded(source.read_range(missing.clone(), Class::Demand)).await?;
            let mut left = missing.end - missing.start;
            while left > 0 {
                let piece =
                    self.bounded(stream.next().map(|piece| piece.unwrap_or_else(|| Err(cut_off())))).await?;
                let useful = piece.slice(..piece.len().min(left as usize));
                left -= useful.len() as u64;
                staging.add(&useful)?;
            }
        }
        let held = |offset: u64| offset.saturating_sub(tail_start) as usize;
        staging.add(tail.bytes.get(held(section.start)..held(section.end)).unwrap_or_default())?;
        self.build(staging, len).await?;
        Ok(self.attach_later(key, &source).await?.ok_or_else(|| vanished(self))?)
    }

    /// Waits for the source no longer than a read would: nobody could open the layer while this one hangs.
    async fn bounded<T>(
        &self,
        asked: impl Future<Output = Result<T, SourceError>>,
    ) -> Result<T, OpenLayerError> {
        let limit = self.engine.config.read_timeout;
        Ok(timeout(limit, asked).await.unwrap_or_else(|_| Err(no_answer()))?)
    }

    /// Builds the index on a thread that may block. A large one takes hundreds of megabytes, so these take turns.
    async fn build(&self, staging: Staging, len: u64) -> Result<(), OpenLayerError> {
        let builds = self.engine.config.decode_threads.max(1) as u32;
        let wanted = if len > LONGEST_TAIL { builds } else { 1 };
        let _permit = self.engine.builds.acquire_many(wanted).await;
        blocking(move || staging.finish()).await?
    }

    async fn attach_later(
        self: &Arc<Self>,
        key: LayerKey,
        source: &Arc<dyn BlobSource>,
    ) -> Result<Option<Arc<Layer>>, OpenLayerError> {
        let (store, source) = (Arc::clone(self), Arc::clone(source));
        Ok(blocking(move || store.attach(key, source)).await??)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, OpenLayerError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| OpenLayerError::Closed)
}

fn no_answer() -> SourceError {
    SourceError::new(SourceErrorKind::TimedOut, "the origin does not send the end of the blob")
}

fn cut_off() -> SourceError {
    SourceError::new(SourceErrorKind::Protocol, "the blob's TOC ended early")
}

/// Somebody deleted the layer's directory between its making and its opening.
fn vanished(store: &Store) -> StoreError {
    StoreError::new("open a layer that was just made in", store.dir())(std::io::ErrorKind::NotFound.into())
}

//! Reading a file of a layer.

use std::{
    ops::Range,
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::Bytes;
use estargz::{ChunkId, NodeId};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use super::{
    Layer,
    given_up::SHORT,
    miss::{Origin, Wait},
};
use crate::{Access, PlanId, ReadError, fetch::in_flight::Outcome};

/// How often somebody who makes a plan looks whether bytes came.
const PLANNED_PAUSE: Duration = Duration::from_millis(4);

/// How often a read looks whether what it waits for still moves.
const STALL_CHECK: Duration = Duration::from_millis(200);

/// Bytes of a file that exist.
#[derive(Debug, Clone)]
pub(super) struct Extent {
    node: NodeId,
    /// In the file.
    range: Range<u64>,
    /// Where the file starts in the content file.
    base: u64,
}

// === impl Layer ===

impl Layer {
    /// Fills `buf` from a file's bytes at `offset` if all of them are here; None if some are not. The number of bytes is
    /// less than the length of `buf` only at the end of the file. Waits for nothing but the local disk.
    pub fn read_cached(&self, node: NodeId, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadError> {
        let Some(extent) = self.extent(node, offset, buf.len())? else { return Ok(Some(0)) };
        let before = self.giving_back.holes.before();
        if !self.is_here(&extent)? {
            return Ok(None);
        }
        let buf = buf.get_mut(..extent.len()).unwrap_or_default();
        self.files.content.read(buf, extent.base + extent.range.start)?;
        if !self.giving_back.holes.none_since(before) {
            return Ok(None);
        }
        self.note(&extent);
        self.counters.hits.fetch_add(1, Relaxed);
        Ok(Some(extent.len()))
    }

    /// The bytes of a file from `offset` on, `len` of them or up to the end of the file, once they are here and
    /// verified. Ends within [`read_timeout`](crate::StoreConfig::read_timeout), and sooner if another read of them just did not
    /// end well.
    pub async fn read(self: &Arc<Self>, node: NodeId, offset: u64, len: usize) -> Result<Bytes, ReadError> {
        let Some(extent) = self.extent(node, offset, len)? else { return Ok(Bytes::new()) };
        self.note(&extent);
        if let Some(bytes) = self.read_here(&extent)? {
            self.counters.hits.fetch_add(1, Relaxed);
            return Ok(bytes);
        }
        self.counters.misses.fetch_add(1, Relaxed);
        self.fetch_in_time(&extent).await.inspect_err(|error| self.counters.failed(error))
    }

    /// Fetches within the bound, and within a short one what somebody just gave up on.
    async fn fetch_in_time(self: &Arc<Self>, extent: &Extent) -> Result<Bytes, ReadError> {
        let limit = self.engine.config.read_timeout;
        let missing = self.missing(extent, &[])?;
        let first = if self.given_up.has_any(&missing) { SHORT.min(limit) } else { limit };
        let mut fetch = pin!(self.fetch(extent));
        let read = match timeout(first, &mut fetch).await {
            Ok(read) => read,
            // The origin is back.
            Err(_) if first < limit && !self.given_up.has_any(&missing) => {
                timeout(limit - first, fetch).await.unwrap_or(Err(ReadError::TimedOut(limit)))
            }
            Err(_) => Err(ReadError::TimedOut(first)),
        };
        if let Err(ReadError::TimedOut(_)) = read {
            self.given_up.add(&self.missing(extent, &[])?);
        }
        read
    }

    async fn fetch(self: &Arc<Self>, extent: &Extent) -> Result<Bytes, ReadError> {
        match self.fetch_once(extent).await {
            // Somebody else's request failed. It may have begun long ago.
            Err((
                ReadError::Source(_) | ReadError::TimedOut(_) | ReadError::GaveWay | ReadError::Closed,
                Origin::Joined,
            )) => self.fetch_once(extent).await,
            Err((ReadError::GaveWay, Origin::Own)) => self.fetch_once(extent).await,
            fetched => fetched,
        }
        .map_err(|(error, _)| error)
    }

    async fn fetch_once(self: &Arc<Self>, extent: &Extent) -> Result<Bytes, (ReadError, Origin)> {
        let own = |error| (error, Origin::Own);
        let mut held = Vec::new();
        loop {
            let before = self.giving_back.holes.before();
            let missing = self.missing(extent, &held).map_err(own)?;
            for wait in self.demand(&missing).map_err(own)? {
                let Wait { chunk, origin, .. } = wait;
                match self.outcome(wait, &missing).await {
                    Ok(Outcome::Stored) => {}
                    Ok(Outcome::Held(bytes)) => held.push((chunk, bytes)),
                    Ok(Outcome::Failed(error)) => return Err((error, origin)),
                    Err(_) => return Err((ReadError::Closed, origin)),
                }
            }
            let bytes = self.assemble(extent, &held).map_err(own)?;
            if self.giving_back.holes.none_since(before) {
                return Ok(bytes);
            }
        }
    }

    /// Makes the part `range` of a file part of the plan `id`.
    pub fn plan_part(self: &Arc<Self>, id: PlanId, node: NodeId, range: Range<u64>) {
        if let Ok(chunks) = self.files.index.chunks_of(node, range) {
            self.follow(id, chunks.map(|chunk| Access { chunk, at: 0 }).collect());
        }
    }

    /// The bytes of a file as far as they exist, fetched as part of the plan `id`. For whoever makes plans: neither
    /// counted nor recorded as a read, and never in front of one.
    pub async fn read_planned(
        self: &Arc<Self>,
        id: PlanId,
        node: NodeId,
        offset: u64,
        len: usize,
    ) -> Result<Bytes, ReadError> {
        let Some(extent) = self.extent(node, offset, len)? else { return Ok(Bytes::new()) };
        self.plan_part(id, node, extent.range.clone());
        let began = Instant::now();
        let limit = self.engine.config.read_timeout;
        // Joining what is in flight would make it urgent.
        loop {
            if let Some(bytes) = self.read_here(&extent)? {
                return Ok(bytes);
            }
            if began.elapsed() > limit {
                return Err(ReadError::TimedOut(limit));
            }
            sleep(PLANNED_PAUSE).await;
        }
    }

    /// The bytes, if all of them are here.
    fn read_here(&self, extent: &Extent) -> Result<Option<Bytes>, ReadError> {
        let before = self.giving_back.holes.before();
        if !self.is_here(extent)? {
            return Ok(None);
        }
        let bytes = self.assemble(extent, &[])?;
        Ok(self.giving_back.holes.none_since(before).then_some(bytes))
    }

    /// Waits for a chunk. One that comes with somebody else's request, which may hang, is asked for again if it does.
    async fn outcome(
        self: &Arc<Self>,
        mut wait: Wait,
        wanted: &[ChunkId],
    ) -> Result<Outcome, oneshot::error::RecvError> {
        if wait.origin == Origin::Joined {
            loop {
                if let Ok(outcome) = timeout(STALL_CHECK, &mut wait.waiting).await {
                    return outcome;
                }
                if self.hedge(&wait.window, wanted) {
                    break;
                }
            }
        }
        wait.waiting.await
    }

    /// Records that the bytes were wanted, and when.
    fn note(&self, extent: &Extent) {
        if self.recording.is_on()
            && let Ok(chunks) = self.files.index.chunks_of(extent.node, extent.range.clone())
        {
            self.recording.note(&self.engine.starts, chunks);
        }
    }

    /// The part of what is asked for that exists.
    fn extent(&self, node: NodeId, offset: u64, len: usize) -> Result<Option<Extent>, ReadError> {
        let file = self.files.index.file(node)?;
        let end = file.size.min(offset.saturating_add(len as u64));
        Ok((offset < end).then_some(Extent { node, range: offset..end, base: file.content_offset }))
    }

    fn is_here(&self, extent: &Extent) -> Result<bool, ReadError> {
        if self.files.chunks.is_complete() {
            return Ok(true);
        }
        let mut chunks = self.files.index.chunks_of(extent.node, extent.range.clone())?;
        Ok(chunks.all(|chunk| self.files.chunks.has(chunk)))
    }

    /// What is neither here nor in `held`.
    fn missing(&self, extent: &Extent, held: &[(ChunkId, Bytes)]) -> Result<Vec<ChunkId>, ReadError> {
        let chunks = self.files.index.chunks_of(extent.node, extent.range.clone())?;
        let is_held = |chunk| held.iter().any(|(id, _)| *id == chunk);
        Ok(chunks.filter(|&chunk| !self.files.chunks.has(chunk) && !is_held(chunk)).collect())
    }

    /// The bytes out of the content file, and out of `held` where they could not be stored.
    fn assemble(&self, extent: &Extent, held: &[(ChunkId, Bytes)]) -> Result<Bytes, ReadError> {
        let mut bytes = vec![0; extent.len()];
        let start = extent.base + extent.range.start;
        self.files.content.read(&mut bytes, start)?;
        for (id, data) in held {
            let chunk = self.chunk(*id)?;
            let from = start.max(chunk.content_offset);
            let end = (start + extent.len() as u64).min(chunk.content_offset + chunk.len);
            let place = (from - start) as usize..end.saturating_sub(start) as usize;
            let part =
                (from - chunk.content_offset) as usize..end.saturating_sub(chunk.content_offset) as usize;
            if let (Some(place), Some(part)) = (bytes.get_mut(place), data.get(part)) {
                place.copy_from_slice(part);
            }
        }
        Ok(bytes.into())
    }
}

// === impl Extent ===

impl Extent {
    fn len(&self) -> usize {
        (self.range.end - self.range.start) as usize
    }
}

//! One member to decode: its bytes, and the chunks that are taken from it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::AcqRel},
    },
};

use bytes::Bytes;
use estargz::{
    ChunkId,
    decode::{Inflater, verify},
};

use parking_lot::Mutex;

use crate::{
    Class, Layer, ReadError,
    fetch::{
        budget::Charge,
        in_flight::Outcome,
        window::{Member, Window},
    },
};

/// A member whose bytes are here. Queued once, or twice if somebody began to wait for it meanwhile.
pub(crate) struct MemberJob {
    layer: Arc<Layer>,
    window: Arc<Window>,
    member: Member,
    /// Given up as soon as the member is decoded: an idle thread may hold on to the job for long.
    payload: Mutex<Option<(Bytes, Arc<Charge>)>>,
    /// A thread of normal priority has begun, an idle one need not.
    begun: AtomicBool,
    /// What does not match was dealt with.
    refused: AtomicBool,
}

// === impl MemberJob ===

impl MemberJob {
    pub(crate) fn new(
        layer: Arc<Layer>,
        window: Arc<Window>,
        member: Member,
        compressed: Bytes,
        charge: Charge,
    ) -> Arc<Self> {
        let (begun, refused) = Default::default();
        Arc::new(Self {
            layer,
            window,
            member,
            payload: Mutex::new(Some((compressed, Arc::new(charge)))),
            begun,
            refused,
        })
    }

    /// Hands the job to the decoding threads.
    pub(crate) fn queue(self: Arc<Self>) {
        let layer = Arc::clone(&self.layer);
        let class = layer.in_flight.decoding(&self.member, &self.window, &self);
        layer.engine.pool.decode(class, self);
    }

    /// Somebody began to wait for one of the chunks.
    pub(crate) fn hurry(self: Arc<Self>) {
        let layer = Arc::clone(&self.layer);
        layer.engine.pool.decode(Class::Demand, self);
    }

    /// Inflates, verifies and writes.
    pub(crate) fn run(self: &Arc<Self>, inflater: &mut Inflater) {
        if self.begun.swap(true, AcqRel) {
            return;
        }
        let Some((compressed, _charge)) = self.payload.lock().take() else { return };
        let _output = self.member.is_long().then(|| self.layer.engine.outputs.take(self.member.need));
        match inflater.inflate(&compressed, self.member.need) {
            Ok(data) => {
                let mut bad = Vec::new();
                for &id in &self.member.chunks {
                    match self.check(id, data) {
                        Ok(()) => self.store(id, data),
                        Err(reason) => bad.push((id, reason)),
                    }
                }
                self.refuse(bad);
            }
            Err(error) => self.refuse_all(&error.to_string()),
        }
    }

    /// Inflates and verifies; what comes of it is written by a thread that does not run at idle priority.
    pub(crate) fn run_idle(self: &Arc<Self>, inflater: &mut Inflater) {
        // With its charge: what this thread holds counts, also if another one does the job meanwhile.
        let Some((compressed, charge)) = self.payload.lock().clone() else { return };
        let data = match inflater.inflate_owned(&compressed, self.member.need) {
            Ok(data) => data,
            Err(error) => {
                let (job, error) = (Arc::clone(self), error.to_string());
                return self
                    .layer
                    .engine
                    .pool
                    .call(Class::Background, move || job.finish(|| job.refuse_all(&error)));
            }
        };
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for &id in &self.member.chunks {
            match self.check(id, &data) {
                Ok(()) => good.push(id),
                Err(reason) => bad.push((id, reason)),
            }
        }
        let job = Arc::clone(self);
        self.layer.engine.pool.call(Class::Background, move || {
            job.finish(|| {
                good.iter().for_each(|&id| job.store(id, &data));
                job.refuse(bad);
            });
            drop((data, compressed, charge));
        });
    }

    /// Does the rest of what an idle thread began, unless another one has done it all.
    fn finish(&self, rest: impl FnOnce()) {
        if !self.begun.swap(true, AcqRel) {
            rest();
            self.payload.lock().take();
        }
    }

    fn check(&self, id: ChunkId, data: &[u8]) -> Result<(), String> {
        let chunk = self.layer.chunk(id).map_err(|error| error.to_string())?;
        verify(slice(data, chunk.inner_offset, chunk.len), &chunk.digest).map_err(|error| error.to_string())
    }

    fn store(&self, id: ChunkId, data: &[u8]) {
        if let Ok(chunk) = self.layer.chunk(id) {
            self.layer.store_chunk(id, &chunk, slice(data, chunk.inner_offset, chunk.len));
        }
    }

    fn refuse_all(&self, reason: &str) {
        self.refuse(self.member.chunks.iter().map(|&id| (id, reason.to_owned())).collect());
    }

    fn refuse(&self, bad: Vec<(ChunkId, String)>) {
        if !bad.is_empty() && !self.refused.swap(true, AcqRel) {
            self.layer.refuse(&self.window, &self.member, bad);
        }
    }
}

impl Drop for MemberJob {
    /// Whoever waits for a job that nobody will do must know.
    fn drop(&mut self) {
        for &id in &self.member.chunks {
            self.layer.in_flight.settle_of(id, &self.window, || Outcome::Failed(ReadError::Closed));
        }
    }
}

impl fmt::Debug for MemberJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemberJob").field("member", &self.member).finish_non_exhaustive()
    }
}

/// A part of `data`; empty if it is not all there, which no digest of a chunk matches.
fn slice(data: &[u8], start: u64, len: u64) -> &[u8] {
    let range = start as usize..start.saturating_add(len) as usize;
    data.get(range).unwrap_or_default()
}

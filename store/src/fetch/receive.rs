//! Receiving a window: one request, its members handed on to be decoded one by one.

use std::sync::Arc;

use tokio::{
    sync::SemaphorePermit,
    time::{Instant, timeout},
};

use super::{
    bandwidth::Transfer,
    body::{Body, STALL},
    large::Large,
    turns::Turn,
    window::{Member, STREAM_LEN, Window},
};
use crate::{BlobSource, Class, Layer, ReadError, decode::MemberJob, stats::chain};

/// Receives `window`. Whatever happens, everyone who waits for one of its chunks will know. Says whether it worked.
pub(crate) async fn receive(
    layer: Arc<Layer>,
    window: Arc<Window>,
    turn: Option<Turn>,
) -> Result<(), ReadError> {
    let left = Left { layer: &layer, window: &window };
    let received = request(&layer, &window, turn).await;
    match &received {
        Ok(()) => layer.back_off.worked(),
        Err(error) => {
            // The origin did nothing wrong that would be a reason to let others wait for it.
            if !matches!(error, ReadError::GaveWay) {
                layer.back_off.failed();
            }
            layer.counters.failed(error);
            tracing::warn!(layer = %layer.key(), span = ?window.span(), error = chain(error), "cannot fetch a window");
            layer.in_flight.abandon(&window, error);
        }
    }
    drop(left);
    received
}

/// Tells those who wait if the task that receives is cut off, as when the runtime ends.
struct Left<'a> {
    layer: &'a Layer,
    window: &'a Arc<Window>,
}

// === impl Left ===

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.layer.in_flight.abandon(self.window, &ReadError::Closed);
    }
}

async fn request(layer: &Arc<Layer>, window: &Arc<Window>, turn: Option<Turn>) -> Result<(), ReadError> {
    let mut permit = permit(layer, window).await;
    layer.back_off.wait().await;
    let mut busy = layer.engine.activity.window();
    if window.class() == Class::Demand {
        busy.resume();
    }
    layer.counters.asked(window.class());
    let source = layer.source();
    let bandwidth = layer.engine.bandwidth(source.as_ref());
    let (asked, carried) = (Instant::now(), bandwidth.carried());
    window.owes(true);
    let stream = open(layer, window, source.as_ref(), &mut busy).await?;
    window.owes(false);
    let mut body = Body::new(layer, window, stream, &bandwidth, busy, turn);
    body.seek(window.span().start).await?;
    let (first_byte, first) = (asked.elapsed(), body.received());
    let began = Instant::now();
    let mut undisturbed = window.class() != Class::Background;
    let sample = |body: &Body<'_>| {
        let (rest, of_all) = (body.received() - first, bandwidth.carried() - carried);
        bandwidth.sample(Transfer { first_byte, first, rest, time: began.elapsed(), of_all });
    };
    for member in &window.members {
        if window.is_tail(member.span.start) {
            // It may take its time: neither a measure of the link nor a reason to let misses wait for their turn.
            drop(permit.take());
            if std::mem::take(&mut undisturbed) && !body.was_held_back() {
                sample(&body);
            }
        }
        body.seek(member.span.start).await?;
        undisturbed &= take(layer, window, member, &mut body).await?;
    }
    if undisturbed && !body.was_held_back() {
        sample(&body);
    }
    Ok(())
}

/// Memory that a member takes until it is decoded. Besides its bytes there are the job, the places of its chunks, those in
/// the table of what is on its way: of a file of some hundred bytes that is as much as the file. What a long one is inflated
/// to counts when that begins, but for idle threads, which may stand still with it.
fn memory(window: &Window, member: &Member) -> u64 {
    const MEMBER: u64 = 512;
    const CHUNK: u64 = 192;
    let compressed = member.span.end - member.span.start;
    // What is not the background's now will not be when it is decoded: who waits is never forgotten.
    let by_idle_threads = member.passing || window.class_at(member.span.start) == Class::Background;
    let inflated = if by_idle_threads || !member.is_long() { member.need } else { 0 };
    MEMBER + CHUNK * member.chunks.len() as u64 + compressed + inflated
}

/// Asks the source. While it does not answer the request stops counting as activity.
async fn open(
    layer: &Layer,
    window: &Window,
    source: &dyn BlobSource,
    busy: &mut super::activity::Busy,
) -> Result<crate::ByteStream, ReadError> {
    let limit = layer.engine.config.read_timeout;
    let mut answer = source.read_range(window.span(), window.class());
    let stall = STALL.min(limit);
    if let Ok(stream) = timeout(stall, &mut answer).await {
        return Ok(stream?);
    }
    busy.pause();
    Ok(timeout(limit - stall, answer).await.map_err(|_| ReadError::TimedOut(limit))??)
}

/// Waits for the layer's turn. Demand and what is promoted to it have turns of their own.
async fn permit<'a>(layer: &'a Layer, window: &Window) -> Option<SemaphorePermit<'a>> {
    // The window that it stands in for has one.
    if window.is_hedge {
        return None;
    }
    if window.class() > Class::Demand {
        // The background's turns are the store's.
        if window.class() == Class::Background {
            return None;
        }
        tokio::select! {
            permit = layer.turns.ahead.acquire() => return permit.ok(),
            () = window.awaited(0) => {}
        }
    }
    layer.turns.demand.acquire().await.ok()
}

/// Takes one member off the body. Says whether it did not have to wait for memory or threads.
async fn take(
    layer: &Arc<Layer>,
    window: &Arc<Window>,
    member: &Member,
    body: &mut Body<'_>,
) -> Result<bool, ReadError> {
    if member.need > STREAM_LEN {
        Large::new(layer, window, member).receive(body).await?;
        return Ok(false);
    }
    let began = Instant::now();
    let memory = memory(window, member);
    let charge = if member.passing {
        match layer.engine.budget.try_charge(memory) {
            Some(charge) if layer.takes_passing(window, member) => charge,
            _ => return Ok(true),
        }
    } else {
        body.charge(member.span.start, memory).await
    };
    let prompt = began.elapsed().as_millis() == 0;
    let compressed = body.member(member.span.end).await?;
    MemberJob::new(Arc::clone(layer), Arc::clone(window), member.clone(), compressed, charge).queue();
    Ok(prompt)
}

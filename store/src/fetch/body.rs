//! The bytes of one request as they arrive, cut to where members begin and end.

use std::{pin::pin, task::Poll};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, poll};
use tokio::time::{Duration, Instant, timeout};

use super::{activity::Busy, bandwidth::Bandwidth, budget::Charge, link::Seat, turns::Turn};
use crate::{ByteStream, Class, Layer, ReadError, SourceError, SourceErrorKind, fetch::window::Window};

/// A request without a byte for this long is no longer counted as activity, and gives its turn to others.
pub(super) const STALL: Duration = Duration::from_secs(1);
/// Fewest bytes a second with which a member may hold on to memory that others wait for.
const SLOWEST: u64 = 64 << 10;
/// Shorter members are copied out of the network's buffer.
const COPIED_LEN: usize = 64 << 10;
/// A response that is held back is read on after this long, so that no server takes it for dead.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long it takes a paused request at most to see that its memory is waited for.
const MEMORY_CHECK: Duration = Duration::from_millis(50);

/// A response body.
pub(super) struct Body<'a> {
    layer: &'a Layer,
    window: &'a Window,
    stream: ByteStream,
    bandwidth: &'a Bandwidth,
    held: Bytes,
    position: u64,
    busy: Busy,
    seat: Seat,
    held_back: bool,
    /// The background's turn, if it is one of the background's requests.
    turn: Option<Turn>,
    /// When the member in hand was begun, and where.
    began: Option<(Instant, u64)>,
    received: u64,
}

// === impl Body ===

impl<'a> Body<'a> {
    pub(super) fn new(
        layer: &'a Layer,
        window: &'a Window,
        stream: ByteStream,
        bandwidth: &'a Bandwidth,
        busy: Busy,
        turn: Option<Turn>,
    ) -> Self {
        let (position, held) = (window.span().start, Bytes::new());
        let seat = layer.engine.link.seat();
        let (held_back, began, received) = Default::default();
        Self {
            layer,
            window,
            stream,
            bandwidth,
            held,
            position,
            busy,
            seat,
            held_back,
            turn,
            began,
            received,
        }
    }

    /// Bytes received.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Whether others went first at any time.
    pub(super) fn was_held_back(&self) -> bool {
        self.held_back
    }

    /// Waits for the first bytes at `start`, throwing away what is before.
    pub(super) async fn seek(&mut self, start: u64) -> Result<(), ReadError> {
        self.began = None;
        loop {
            if self.held.is_empty() {
                self.fill().await?;
            }
            let before = start.saturating_sub(self.position).min(self.held.len() as u64);
            let _ = self.take(before);
            if self.position >= start && !self.held.is_empty() {
                return Ok(());
            }
        }
    }

    /// Waits for memory for what is at `at` in the blob, as urgently as it is waited for. Meanwhile the link is left to those
    /// who have memory: no byte is taken off it here, and they cannot give theirs back without theirs.
    pub(super) async fn charge(&mut self, at: u64, bytes: u64) -> Charge {
        let mut charge = pin!(charge(self.layer, self.window, at, bytes));
        if let Poll::Ready(charge) = poll!(charge.as_mut()) {
            return charge;
        }
        self.seat.leave();
        charge.await
    }

    /// The bytes up to `end`, all of them. Memory for them is held, so this ends if they come slowly and others wait.
    pub(super) async fn member(&mut self, end: u64) -> Result<Bytes, ReadError> {
        self.began = Some((Instant::now(), self.received));
        let first = self.piece(end).await?;
        if self.position >= end {
            // The network's buffer as it is, unless it would be held for a small part of it: it may have 400 KiB.
            return Ok(if first.len() < COPIED_LEN { Bytes::copy_from_slice(&first) } else { first });
        }
        let mut member = BytesMut::with_capacity((end - self.position) as usize + first.len());
        member.extend_from_slice(&first);
        drop(first);
        while self.position < end {
            member.extend_from_slice(&self.piece(end).await?);
        }
        Ok(member.freeze())
    }

    /// The next bytes before `end`, at least one.
    pub(super) async fn piece(&mut self, end: u64) -> Result<Bytes, ReadError> {
        if self.held.is_empty() {
            self.fill().await?;
        }
        let wanted = end.saturating_sub(self.position).min(self.held.len() as u64);
        Ok(self.take(wanted))
    }

    fn take(&mut self, len: u64) -> Bytes {
        let taken = self.held.split_to((len as usize).min(self.held.len()));
        self.position += taken.len() as u64;
        taken
    }

    /// Waits for more, for a bounded time.
    async fn fill(&mut self) -> Result<(), ReadError> {
        let paused = Instant::now();
        self.make_way().await;
        let began = Instant::now();
        if let Some((member_began, _)) = &mut self.began {
            // The source was not asked for anything meanwhile.
            *member_began += began - paused;
        }
        let limit = self.layer.engine.config.read_timeout;
        self.window.owes(true);
        loop {
            match timeout(STALL.min(limit), self.stream.next()).await {
                Ok(Some(Ok(bytes))) if bytes.is_empty() => {}
                Ok(Some(Ok(bytes))) => {
                    if self.window.class() == Class::Demand {
                        self.busy.resume();
                    }
                    self.window.owes(false);
                    self.layer.given_up.answered();
                    self.received += bytes.len() as u64;
                    if !self.held_back {
                        self.bandwidth.carry(bytes.len() as u64);
                    }
                    self.layer.counters.received(self.window.class_at(self.position), bytes.len() as u64);
                    self.held = bytes;
                    return self.check_pace();
                }
                Ok(Some(Err(error))) => return Err(error.into()),
                Ok(None) => return Err(ended_early(self.position).into()),
                Err(_) => {
                    self.busy.pause();
                    self.seat.leave();
                    self.turn = None;
                    self.check_pace()?;
                }
            }
            if began.elapsed() >= limit {
                return Err(ReadError::TimedOut(limit));
            }
        }
    }

    /// Leaves the link to those with a better claim, but not with memory that they wait for.
    async fn make_way(&mut self) {
        let latest = Instant::now() + LONGEST_PAUSE;
        let at = self.position;
        loop {
            let mut changed = self.seat.watch();
            if self.seat.claim(self.window.claim_at(at)) || Instant::now() >= latest {
                return;
            }
            self.held_back = true;
            let class = self.window.class_at(at);
            if self.began.is_some() && self.layer.engine.budget.is_short(class) {
                return;
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep(MEMORY_CHECK) => {}
            }
        }
    }

    /// Memory that others wait for is not for members that hardly move.
    fn check_pace(&self) -> Result<(), ReadError> {
        let Some((began, before)) = self.began else { return Ok(()) };
        let seconds = began.elapsed().as_secs();
        let slow = seconds > 0 && self.received - before < seconds * SLOWEST;
        if slow && self.layer.engine.budget.is_short(self.window.class_at(self.position)) {
            return Err(ReadError::GaveWay);
        }
        Ok(())
    }
}

/// Waits for memory; in the first row as soon as somebody waits for what is at `at`.
async fn charge(layer: &Layer, window: &Window, at: u64, bytes: u64) -> Charge {
    let (budget, class) = (&layer.engine.budget, window.class_at(at));
    if class == Class::Demand {
        return budget.charge(class, bytes).await;
    }
    tokio::select! {
        charge = budget.charge(class, bytes) => charge,
        () = window.awaited(at) => budget.charge(Class::Demand, bytes).await,
    }
}

fn ended_early(position: u64) -> SourceError {
    SourceError::new(SourceErrorKind::Protocol, format!("the blob's bytes ended early, at {position}"))
}

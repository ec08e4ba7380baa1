//! Reading a range, whatever happens on the way.
//!
//! An answer is believed only as far as its `Content-Range` fits the question. A body that breaks off is
//! resumed from the byte where it broke, so that nothing is fetched twice; each failure is tried again as
//! the retry policy says, and progress gives a reader new attempts.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http::header;
use store::{Arrival, BlobSource, ByteStream, SourceError, SourceErrorKind as Kind};
use tokio::time::{Instant, timeout};
use url::Url;

use super::{RemoteBlob, Wanted};
use crate::{
    backoff::Backoff,
    content_range::ContentRange,
    endpoint::{Endpoint, Permit},
    error::{Failure, Retry},
    exchange::Answer,
    transport::Body,
    upstreams::Need,
};

/// Progress of this many bytes gives a reader all its attempts and time again. Less would let a server
/// that sends a byte per connection keep a reader busy for ever.
const PROGRESS: u64 = 64 * 1024;
/// The field of a part's head that tells its range.
const CONTENT_RANGE: &[u8] = b"content-range:";
/// A server may round a range to blocks of its own; more than this before the wanted byte is an error.
const MAX_ROUNDING: u64 = 1 << 20;

/// A part of an answer in several parts has a few short headers of its own; more than this is something else.
const MAX_PART_HEAD: usize = 8 * 1024;

/// Reads `next..end`.
pub(super) struct RangeReader {
    blob: RemoteBlob,
    /// The host that was asked last.
    endpoint: Option<Arc<Endpoint>>,
    next: u64,
    end: u64,
    part: Option<Part>,
    /// Where the part begins.
    opened_at: u64,
    backoff: Backoff,
    /// Bytes read since the attempts were last counted anew.
    progress: u64,
    _permit: Permit,
}

/// The body of an answer that holds wanted bytes.
#[derive(Debug)]
pub(super) struct Part {
    body: Body,
    /// Bytes before the first wanted one.
    skip: u64,
    /// Bytes that follow, as the answer's head says; unknown for an answer without a length.
    len: Option<u64>,
    /// Bytes of the body that were read with a head within it.
    held: Bytes,
    /// The part is one of several: something else comes after it.
    enclosed: bool,
}

// === impl RangeReader ===

impl RangeReader {
    pub(super) fn new(blob: RemoteBlob, range: Range<u64>, permit: Permit) -> Self {
        let backoff = blob.client.backoff();
        let Range { start: next, end } = range;
        Self {
            blob,
            endpoint: None,
            next,
            end,
            part: None,
            opened_at: next,
            backoff,
            progress: 0,
            _permit: permit,
        }
    }

    /// A reader whose first answer is there already.
    pub(super) fn with_part(mut self, part: Part) -> Self {
        let endpoint = part.body.endpoint();
        self.blob.sends(self.next..self.end, endpoint);
        self.endpoint = Some(endpoint.clone());
        self.part = Some(part);
        self
    }

    /// Waits for the first answer's head, so that the caller sees an error before it waits for bytes.
    pub(super) async fn open(&mut self) -> Result<(), SourceError> {
        while self.part.is_none() {
            self.opened_at = self.next;
            self.part = match self.ask().await {
                Ok(part) => Some(part),
                Err(failure) => {
                    self.failed(failure).await?;
                    None
                }
            };
        }
        Ok(())
    }

    pub(super) fn into_stream(self) -> ByteStream {
        let step = |reader: Option<Self>| async move {
            let mut reader = reader?;
            match reader.read().await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some(reader))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        };
        stream::unfold(Some(self), step).boxed()
    }

    /// The next bytes, `None` after the last.
    pub(super) async fn read(&mut self) -> Result<Option<Bytes>, SourceError> {
        while self.next < self.end {
            self.open().await?;
            let Some(part) = &mut self.part else { continue };
            match part.read(self.end - self.next).await {
                Ok(Some(bytes)) => {
                    self.next += bytes.len() as u64;
                    self.progress += bytes.len() as u64;
                    if self.next == self.end {
                        self.part = None;
                    }
                    return Ok(Some(bytes));
                }
                // The server gave less than it was asked for, which it may: ask for the rest.
                Ok(None) if self.next - self.opened_at >= PROGRESS => self.part = None,
                Ok(None) => {
                    let what = "the server gives only a few of the bytes that it is asked for";
                    let failure = Failure::doubtful(part.body.url(), what);
                    self.part = None;
                    self.host_failed().await;
                    self.failed(failure).await?;
                }
                Err(mut failure) => {
                    self.part = None;
                    if self.host_failed().await && matches!(failure.retry, Retry::May(_)) {
                        // Another host need not be waited for.
                        failure.retry = Retry::AtOnce;
                    }
                    // The time for attempts begins now: a long body, or a slow reader of one, has not
                    // used it up.
                    if self.backoff.is_fresh() || self.progress >= PROGRESS {
                        self.backoff = self.blob.client.backoff();
                        self.progress = 0;
                    }
                    self.failed(failure).await?;
                }
            }
        }
        Ok(None)
    }

    /// All bytes of the range, which the caller has bounded, and how they came, if one answer held them. The first one was
    /// `asked` for then.
    pub(super) async fn collect(mut self, asked: Instant) -> Result<(Bytes, Option<Arrival>), SourceError> {
        let begin = self.next;
        let Some(first) = self.read().await? else { return Ok((Bytes::new(), None)) };
        if self.next == self.end {
            return Ok((first, None));
        }
        let (came, before) = (Instant::now(), first.len() as u64);
        let mut all = BytesMut::from(&first[..]);
        while let Some(bytes) = self.read().await? {
            all.extend_from_slice(&bytes);
        }
        let time = came.into_std()..Instant::now().into_std();
        let arrival = Arrival { asked: asked.into_std(), time, bytes: all.len() as u64 - before };
        Ok((all.freeze(), (self.opened_at == begin).then_some(arrival)))
    }

    async fn ask(&mut self) -> Result<Part, Failure> {
        let blob = self.blob.clone();
        let mut round = blob.round().await?;
        while let Some(endpoint) = round.next() {
            let answer_by = round.answer_by(self.backoff.deadline());
            let part = self.ask_at(&endpoint, answer_by).await;
            self.endpoint = Some(endpoint);
            if let Some(part) = round.outcome(part) {
                self.blob.sends(self.next..self.end, part.body.endpoint());
                return Ok(part);
            }
        }
        Err(round.into_failure())
    }

    async fn ask_at(&self, endpoint: &Arc<Endpoint>, answer_by: Instant) -> Result<Part, Failure> {
        let wanted = Wanted::Part(self.next, self.end);
        let answer = self.blob.get(endpoint, wanted, answer_by).await?.expect(&[200, 206, 416]).await?;
        self.blob.part(answer, self.next).await
    }

    /// The host whose body is being read did not do well. Whether there are other hosts.
    async fn host_failed(&self) -> bool {
        let config = &self.blob.client.config;
        if let Some(endpoint) = &self.endpoint {
            endpoint.health.failed(config.host_penalty);
        }
        let endpoints = self.blob.client.endpoints(&self.blob.reference, Need::Pull).await;
        endpoints.is_ok_and(|endpoints| endpoints.iter().any(|endpoint| !endpoint.health.is_failing()))
    }

    async fn failed(&mut self, failure: Failure) -> Result<(), SourceError> {
        // A target that failed once may be tried again, one that failed twice may be better elsewhere.
        if failure.retry == Retry::Doubtful || !self.backoff.is_fresh() {
            self.blob.state.routes.clear();
        }
        self.backoff.again(failure, self.endpoint.as_deref()).await.map_err(|mut error| {
            error.message = format!("{}: {}", self.blob.describe(), error.message);
            error
        })
    }
}

// === impl RemoteBlob ===

impl RemoteBlob {
    /// The part of an answer with status 200, 206 or 416 that begins with the byte at `next`.
    pub(super) async fn part(&self, answer: Answer, next: u64) -> Result<Part, Failure> {
        let body = answer.body;
        let url = body.url().clone();
        if let Some(encoding) = body.headers().get(header::CONTENT_ENCODING)
            && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
        {
            return Err(Failure::doubtful(&url, "the answer is encoded although that was not asked for"));
        }
        match status(&body) {
            206 if is_multipart(&body) => Ok(self.first_part(body, Some(next)).await?.1),
            206 => self.partial(body, next),
            416 => {
                let size = match content_range(&body) {
                    Some(ContentRange::Unsatisfied { total }) => format!(" of {total} bytes"),
                    _ => String::new(),
                };
                body.discard();
                Err(Failure::doubtful(
                    &url,
                    format!("the server says that offset {next} lies outside the blob{size}"),
                ))
            }
            _ => self.complete(body, next),
        }
    }

    fn partial(&self, body: Body, next: u64) -> Result<Part, Failure> {
        let url = body.url().clone();
        let Some(ContentRange::Satisfied { first, end, total }) = content_range(&body) else {
            return Err(Failure::doubtful(&url, "the answer to one range does not say what range it holds"));
        };
        check_range(&url, first..end, next)?;
        if body.announced().is_some_and(|len| len != end - first) {
            return Err(Failure::doubtful(
                &url,
                "the answer's length is not that of the range that it says it holds",
            ));
        }
        if let Some(total) = total {
            self.learn_size(&body, total)?;
        }
        Ok(Part { body, skip: next - first, len: Some(end - next), held: Bytes::new(), enclosed: false })
    }

    /// The first part of an answer in several (RFC 9110, section 14.6), which some servers send for one range too, and
    /// the range it says that it holds. It is read from the byte at `next` on, or from its beginning.
    pub(super) async fn first_part(
        &self,
        mut body: Body,
        next: Option<u64>,
    ) -> Result<(ContentRange, Part), Failure> {
        let url = body.url().clone();
        let mut head = BytesMut::new();
        let end_of_head = loop {
            if let Some(at) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            let chunk = if head.len() > MAX_PART_HEAD { None } else { body.chunk().await? };
            let none =
                || Failure::doubtful(&url, "the answer to one range is in several parts without heads");
            head.extend_from_slice(&chunk.ok_or_else(none)?);
        };
        let held = head.split_off(end_of_head).freeze();
        let lines = head.as_ref().split(|byte: &u8| *byte == b'\n').map(<[u8]>::trim_ascii);
        let field = |line: &[u8]| {
            let (name, value) = line.split_at_checked(CONTENT_RANGE.len())?;
            let value = name.eq_ignore_ascii_case(CONTENT_RANGE).then_some(value)?;
            ContentRange::parse(value.trim_ascii())
        };
        let Some(range @ ContentRange::Satisfied { first, end, total }) = lines.filter_map(field).next()
        else {
            return Err(Failure::doubtful(
                &url,
                "the first part of the answer does not say what range it holds",
            ));
        };
        let next = next.unwrap_or(first);
        check_range(&url, first..end, next)?;
        if let Some(total) = total {
            self.learn_size(&body, total)?;
        }
        let part = Part { body, skip: next - first, len: Some(end - next), held, enclosed: true };
        Ok((range, part))
    }

    /// A server without ranges sends the whole blob: what lies before the wanted bytes is read and thrown
    /// away, up to a limit.
    fn complete(&self, body: Body, next: u64) -> Result<Part, Failure> {
        let url = body.url().clone();
        let announced = body.announced();
        if let Some(size) = announced {
            self.learn_size(&body, size)?;
        }
        if next > self.client.config.max_skip {
            let message = format!(
                "{}: the server does not serve parts of the blob and the wanted bytes begin after {next} bytes",
                self.describe()
            );
            return Err(Failure::fatal(Kind::RangesUnsupported, message));
        }
        let len = match announced.or(self.size()) {
            Some(size) if size <= next => {
                return Err(Failure::doubtful(&url, "the answer ends before the wanted bytes"));
            }
            size => size.map(|size| size - next),
        };
        Ok(Part { body, skip: next, len, held: Bytes::new(), enclosed: false })
    }
}

// === impl Part ===

impl Part {
    /// Up to `max` of the next wanted bytes; `None` at the part's end.
    async fn read(&mut self, max: u64) -> Result<Option<Bytes>, Failure> {
        if self.len == Some(0) {
            return Ok(None);
        }
        loop {
            let mut chunk = match std::mem::take(&mut self.held) {
                held if !held.is_empty() => held,
                _ => match self.body.chunk().await? {
                    Some(chunk) => chunk,
                    None => return self.ended(),
                },
            };
            let skipped = self.skip.min(chunk.len() as u64);
            self.skip -= skipped;
            // Not more than the chunk's length, which is a usize.
            let _ = chunk.split_to(skipped as usize);
            if chunk.is_empty() {
                continue;
            }
            if let Some(len) = self.len.filter(|len| self.enclosed && *len < chunk.len() as u64) {
                // Less than the chunk's length, which is a usize.
                chunk.truncate(len as usize);
            }
            if let Some(len) = &mut self.len {
                let Some(left) = len.checked_sub(chunk.len() as u64) else {
                    return Err(Failure::doubtful(self.body.url(), "the answer is longer than it says"));
                };
                *len = left;
                if left == 0 && self.body.announced().is_none() && !self.enclosed {
                    self.check_end().await?;
                }
            }
            if chunk.len() as u64 > max {
                chunk.truncate(max as usize);
            }
            return Ok(Some(chunk));
        }
    }

    /// The body's end came before that of the bytes that the head promised, or there was no promise.
    fn ended(&self) -> Result<Option<Bytes>, Failure> {
        if self.skip > 0 || self.len.is_some_and(|len| len > 0) {
            let mut failure = Failure::doubtful(self.body.url(), "the answer is shorter than it says");
            failure.retry = Retry::May(None);
            failure.error.kind = Kind::Unavailable;
            return Err(failure);
        }
        if self.len.is_none() {
            return Err(Failure::doubtful(self.body.url(), "the answer ends before the wanted bytes"));
        }
        Ok(None)
    }

    /// A body without an announced length must end where the range does. Its end also frees the
    /// connection; a server that leaves it open has done no harm.
    async fn check_end(&mut self) -> Result<(), Failure> {
        match timeout(Duration::from_millis(500), self.body.chunk()).await {
            Ok(Ok(Some(_))) => Err(Failure::doubtful(self.body.url(), "the answer is longer than it says")),
            _ => Ok(()),
        }
    }
}

/// An answer holds the bytes of `range`, of which those from `next` on are wanted.
fn check_range(url: &Url, range: Range<u64>, next: u64) -> Result<(), Failure> {
    let Range { start: first, end } = range;
    if first > next || end <= next || next - first > MAX_ROUNDING {
        let what = format!("the answer holds bytes {first} to {} instead of those from {next} on", end - 1);
        return Err(Failure::doubtful(url, what));
    }
    Ok(())
}

/// Whether a body consists of several parts.
pub(super) fn is_multipart(body: &Body) -> bool {
    let content_type = body.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().to_ascii_lowercase().starts_with(b"multipart/"))
}

/// The status of an answer: one that says which range it holds is a partial one, also where it says 200, as Dragonfly's
/// proxy did until 2026.
pub(super) fn status(body: &Body) -> u16 {
    match (body.status().as_u16(), content_range(body)) {
        (200, Some(ContentRange::Satisfied { .. })) => 206,
        (status, _) => status,
    }
}

/// The `Content-Range` of an answer, if it has one that makes sense.
pub(super) fn content_range(body: &Body) -> Option<ContentRange> {
    ContentRange::parse(body.headers().get(header::CONTENT_RANGE)?.as_bytes())
}

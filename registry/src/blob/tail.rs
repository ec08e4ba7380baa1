//! Reading the end of a blob whose size is not known.
//!
//! One suffix range (`bytes=-N`) gives the bytes and, in `Content-Range`, the size. Where that is refused
//! or misunderstood (Azure's storage does not know suffix ranges, some servers take them for a prefix)
//! the size is learned from whatever the server said and the range is asked for by offsets. A server that
//! sends the whole blob whatever it is asked cannot serve it lazily, unless the blob is small.

use std::sync::Arc;

use bytes::Bytes;
use store::{BlobSource, SourceError, SourceErrorKind as Kind, Tail};
use tokio::time::Instant;

use super::{
    RemoteBlob, Wanted,
    reader::{Part, RangeReader, content_range, is_multipart, status},
};
use crate::{
    content_range::ContentRange,
    endpoint::Endpoint,
    error::{Failure, Retry},
    exchange::Answer,
};

/// What an answer tells about the tail.
#[derive(Debug)]
enum Step {
    /// All that is wanted.
    Found(Found),
    /// The size only.
    Size(u64),
    /// Nothing of use.
    Nothing,
}

#[derive(Debug)]
enum Found {
    /// A body that holds a blob of `size` bytes from `start` on.
    Body { start: u64, size: u64, part: Box<Part> },
    /// The whole blob.
    Whole(Bytes),
}

// === impl RemoteBlob ===

impl RemoteBlob {
    /// The last `len` bytes and the size.
    pub(super) async fn tail(&self, len: u64) -> Result<Tail, SourceError> {
        let mut backoff = self.client.backoff();
        loop {
            let mut round = self.round().await?;
            while let Some(endpoint) = round.next() {
                let began = Instant::now();
                let found = self.find_tail(&endpoint, len, round.answer_by(backoff.deadline())).await;
                if let Some(found) = round.outcome(found) {
                    return self.finish_tail(found, len, began).await;
                }
            }
            let asked = round.asked();
            let failure = round.into_failure();
            if failure.retry == Retry::Doubtful || !backoff.is_fresh() {
                self.state.routes.clear();
            }
            backoff.again(failure, asked.as_deref()).await.map_err(|mut error| {
                error.message = format!("{}: {}", self.describe(), error.message);
                error
            })?;
        }
    }

    async fn finish_tail(&self, found: Found, len: u64, asked: Instant) -> Result<Tail, SourceError> {
        let (bytes, blob_size, arrival) = match found {
            Found::Whole(bytes) => {
                let size = bytes.len() as u64;
                (bytes, size, None)
            }
            Found::Body { start, size, part } => {
                let reader = RangeReader::new(self.clone(), start..size, None).with_part(*part);
                let (bytes, arrival) = reader.collect(asked).await?;
                (bytes, size, arrival)
            }
        };
        // Longer only where a small blob came whole.
        let cut = bytes.len().saturating_sub(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(Tail { bytes: bytes.slice(cut..), blob_size, arrival: arrival.filter(|_| cut == 0) })
    }

    async fn find_tail(
        &self,
        endpoint: &Arc<Endpoint>,
        len: u64,
        deadline: Instant,
    ) -> Result<Found, Failure> {
        if let Some(size) = self.size() {
            return self.by_offset(endpoint, len, size, deadline).await;
        }
        let suffix = endpoint.takes_suffixes();
        let mut step = if suffix { self.by_suffix(endpoint, len, deadline).await? } else { Step::Nothing };
        if matches!(step, Step::Nothing) {
            step = self.by_probe(endpoint, deadline).await?;
        }
        match step {
            Step::Found(found) => Ok(found),
            Step::Size(size) => {
                let found = self.by_offset(endpoint, len, size, deadline).await?;
                if suffix && matches!(found, Found::Body { .. }) {
                    endpoint.set_refuses_suffixes();
                }
                Ok(found)
            }
            Step::Nothing => Err(self.not_lazy("does not tell the blob's size")),
        }
    }

    async fn by_suffix(
        &self,
        endpoint: &Arc<Endpoint>,
        len: u64,
        deadline: Instant,
    ) -> Result<Step, Failure> {
        let answer = self.get(endpoint, Wanted::Last(len), deadline).await?;
        match (status(&answer.body), content_range(&answer.body)) {
            (206, Some(ContentRange::Satisfied { first, end, total: Some(size) })) => {
                if end == size && first == size.saturating_sub(len) {
                    let part = Box::new(self.part(answer, first).await?);
                    return Ok(Step::Found(Found::Body { start: first, size, part }));
                }
                answer.body.discard();
                Ok(Step::Size(size))
            }
            (206, None) if is_multipart(&answer.body) => match self.first_part(answer.body, None).await? {
                (ContentRange::Satisfied { first, end, total: Some(size) }, part)
                    if end == size && first == size.saturating_sub(len) =>
                {
                    Ok(Step::Found(Found::Body { start: first, size, part: Box::new(part) }))
                }
                (ContentRange::Satisfied { total: Some(size), .. }, _) => Ok(Step::Size(size)),
                _ => Ok(Step::Nothing),
            },
            (200, _) => self.step_of_whole(answer, false).await,
            (416, Some(ContentRange::Unsatisfied { total })) => {
                answer.body.discard();
                Ok(Step::Size(total))
            }
            (206 | 400 | 405 | 416 | 501, _) => {
                answer.body.discard();
                Ok(Step::Nothing)
            }
            _ => Err(answer.into_failure().await),
        }
    }

    /// Asks for the first byte, to learn the size.
    async fn by_probe(&self, endpoint: &Arc<Endpoint>, deadline: Instant) -> Result<Step, Failure> {
        let answer = self.get(endpoint, Wanted::Part(0, 1), deadline).await?.expect(&[200, 206, 416]).await?;
        match (status(&answer.body), content_range(&answer.body)) {
            (200, _) => self.step_of_whole(answer, true).await,
            (
                _,
                Some(
                    ContentRange::Satisfied { total: Some(size), .. }
                    | ContentRange::Unsatisfied { total: size },
                ),
            ) => {
                answer.body.discard();
                Ok(Step::Size(size))
            }
            _ => Ok(Step::Nothing),
        }
    }

    async fn by_offset(
        &self,
        endpoint: &Arc<Endpoint>,
        len: u64,
        size: u64,
        deadline: Instant,
    ) -> Result<Found, Failure> {
        if size == 0 {
            return Ok(Found::Whole(Bytes::new()));
        }
        let start = size.saturating_sub(len);
        let wanted = Wanted::Part(start, size);
        let answer = self.get(endpoint, wanted, deadline).await?.expect(&[200, 206, 416]).await?;
        if status(&answer.body) != 200 {
            self.learn_size(&answer.body, size)?;
            let part = Box::new(self.part(answer, start).await?);
            return Ok(Found::Body { start, size, part });
        }
        match self.step_of_whole(answer, true).await? {
            Step::Found(found) => Ok(found),
            Step::Size(_) | Step::Nothing => {
                Err(self.not_lazy("sends the whole blob when asked for a part of it"))
            }
        }
    }

    /// The server sent the whole blob. A small one is all that is wanted; of a large one the length is
    /// of use. One of unknown length is read up to the small size if nothing better is left (`last`).
    async fn step_of_whole(&self, answer: Answer, last: bool) -> Result<Step, Failure> {
        let small = self.client.config.small_blob;
        match answer.body.announced() {
            Some(0) => Ok(Step::Found(Found::Whole(Bytes::new()))),
            Some(size) if size <= small => {
                let part = Box::new(self.part(answer, 0).await?);
                Ok(Step::Found(Found::Body { start: 0, size, part }))
            }
            Some(size) => Ok(Step::Size(size)),
            None if last => {
                let deadline = Instant::now() + self.client.config.retry.total;
                let read = answer.body.read_all(small, deadline).await;
                Ok(read.map_or(Step::Nothing, |bytes| Step::Found(Found::Whole(bytes))))
            }
            None => Ok(Step::Nothing),
        }
    }

    fn not_lazy(&self, why: &str) -> Failure {
        let message = format!("{}: the server {why}, so it cannot be read lazily", self.describe());
        Failure::fatal(Kind::RangesUnsupported, message)
    }
}

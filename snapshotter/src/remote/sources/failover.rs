//! Asking one place after the other, and going on at another one where the first stopped.

use std::{ops::Range, sync::Arc, time::Duration};

use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, OptionFuture},
    stream::{self, FuturesUnordered},
};
use store::{BlobSource, ByteStream, Class, SourceError, SourceErrorKind};
use tokio::time::{Instant, sleep};

use super::places::{Place, Places};

/// A place that sends this much within the patience goes on; less would let one that drips keep a read for ever.
const PROGRESS: u64 = 16 << 10;

/// What came from one place of several.
pub(super) struct Answer<T> {
    pub(super) place: Place,
    pub(super) value: T,
    /// Others were asked before.
    pub(super) after_others: bool,
}

/// The first answer of `places`. Each is asked when the one before failed or has not answered for as long as `patience`;
/// none is given up before the end. If none works the error is that of the first, which is the one that worked last.
pub(super) async fn first<T, F>(
    places: Vec<Place>,
    patience: Duration,
    read: impl Fn(Arc<dyn BlobSource>) -> F,
) -> Result<Answer<T>, SourceError>
where
    F: Future<Output = Result<T, SourceError>>,
{
    let mut rest = places.into_iter().enumerate();
    let mut asked = FuturesUnordered::new();
    let ask = |(n, place): (usize, Place)| {
        let answer = read(Arc::clone(&place.source));
        async move { (n, place, answer.await) }
    };
    asked.extend(rest.next().map(ask));
    let mut failure: Option<(usize, SourceError)> = None;
    loop {
        let more = rest.len() > 0;
        tokio::select! {
            biased;
            answer = asked.next() => match answer {
                Some((n, place, Ok(value))) => return Ok(Answer { place, value, after_others: n > 0 }),
                Some((n, place, Err(error))) => {
                    tracing::debug!(source = place.source.describe(), error = error.message, "cannot read a blob");
                    if failure.as_ref().is_none_or(|(first, _)| n < *first) {
                        failure = Some((n, error));
                    }
                }
                None => return Err(failure.map_or_else(nowhere, |(_, error)| error)),
            },
            () = sleep(patience), if more => {}
        }
        asked.extend(rest.next().map(ask));
    }
}

/// A range that is being read.
pub(super) struct Reading {
    places: Places,
    patience: Duration,
    class: Class,
    /// What is still to come.
    left: Range<u64>,
    place: Place,
    stream: ByteStream,
    /// Bytes of `stream` before those still to come.
    skip: u64,
    /// Why `stream` ended.
    failure: Option<SourceError>,
    /// Another place, if this one is too slow or failed; and the offset it was asked for.
    other: Option<(u64, BoxFuture<'static, Opened>)>,
    /// The references that got their chance since the last progress.
    tried: Vec<String>,
    /// How long bytes were waited for since the last progress, and how many came.
    waited: Duration,
    progress: u64,
}

type Opened = Result<Answer<ByteStream>, SourceError>;

// === impl Reading ===

impl Reading {
    /// Opens `range` at the first place that answers.
    pub(super) async fn open(
        places: Places,
        patience: Duration,
        range: Range<u64>,
        class: Class,
    ) -> Result<ByteStream, SourceError> {
        let answer = ask(places.list(), patience, range.clone(), class).await?;
        places.answered(&answer);
        places.sends(&answer.place, range.clone());
        let reading = Self {
            places,
            patience,
            class,
            left: range,
            tried: vec![answer.place.reference.clone()],
            place: answer.place,
            stream: answer.value,
            skip: 0,
            failure: None,
            other: None,
            waited: Duration::ZERO,
            progress: 0,
        };
        let step = |reading: Option<Self>| async move {
            let mut reading = reading?;
            match reading.next().await? {
                Ok(bytes) => Some((Ok(bytes), Some(reading))),
                Err(error) => Some((Err(error), None)),
            }
        };
        Ok(stream::unfold(Some(reading), step).boxed())
    }

    async fn next(&mut self) -> Option<Result<bytes::Bytes, SourceError>> {
        while !self.left.is_empty() {
            if self.failure.is_some() && self.other.is_none() && !self.ask_others() {
                return self.failure.take().map(Err);
            }
            let began = Instant::now();
            let (failed, asking) = (self.failure.is_some(), self.other.is_some());
            let may_ask = !asking && !self.untried().is_empty();
            let other = OptionFuture::from(self.other.as_mut().map(|(_, opening)| opening));
            tokio::select! {
                biased;
                piece = self.stream.next(), if !failed => match piece {
                    Some(Ok(bytes)) => {
                        let bytes = self.received(bytes, began.elapsed());
                        if !bytes.is_empty() {
                            return Some(Ok(bytes));
                        }
                    }
                    Some(Err(error)) => self.failure = Some(error),
                    None => self.failure = Some(ended_early(&self.place, self.left.start)),
                },
                Some(opened) = other, if asking => self.switch(opened),
                () = sleep(self.patience.saturating_sub(self.waited)), if may_ask => {
                    self.waited = self.patience;
                    self.ask_others();
                }
            }
        }
        None
    }

    /// Takes note of bytes that came after a wait; what of them is wanted.
    fn received(&mut self, mut bytes: bytes::Bytes, waited: Duration) -> bytes::Bytes {
        let skipped = self.skip.min(bytes.len() as u64);
        self.skip -= skipped;
        let _before = bytes.split_to(usize::try_from(skipped).unwrap_or(bytes.len()));
        let useful = (self.left.end - self.left.start).min(bytes.len() as u64);
        bytes.truncate(usize::try_from(useful).unwrap_or(bytes.len()));
        self.left.start += useful;
        self.waited += waited;
        self.progress += useful;
        if self.progress >= PROGRESS {
            (self.waited, self.progress, self.other) = (Duration::ZERO, 0, None);
            self.tried = vec![self.place.reference.clone()];
        }
        bytes
    }

    fn untried(&self) -> Vec<Place> {
        let mut list = self.places.list();
        list.retain(|place| !self.tried.contains(&place.reference));
        list
    }

    /// Asks the other places for what is left; says whether there are any.
    fn ask_others(&mut self) -> bool {
        let others = self.untried();
        if others.is_empty() {
            return false;
        }
        tracing::debug!(
            source = self.place.source.describe(),
            at = self.left.start,
            "asks another place for the rest"
        );
        let opening = ask(others, self.patience, self.left.clone(), self.class).boxed();
        self.other = Some((self.left.start, opening));
        true
    }

    /// Goes on at another place, if one answered.
    fn switch(&mut self, opened: Opened) {
        let Some((asked, _)) = self.other.take() else { return };
        let Ok(mut answer) = opened else {
            // Each of them had its chance: this one is waited for as long as it takes.
            self.tried.extend(self.untried().into_iter().map(|place| place.reference));
            return;
        };
        answer.after_others = true;
        self.places.answered(&answer);
        self.places.move_back(&self.place);
        self.places.sends(&answer.place, self.left.clone());
        self.tried.push(answer.place.reference.clone());
        (self.place, self.stream) = (answer.place, answer.value);
        self.skip = self.left.start.saturating_sub(asked);
        (self.failure, self.waited, self.progress) = (None, Duration::ZERO, 0);
    }
}

fn ask(
    places: Vec<Place>,
    patience: Duration,
    range: Range<u64>,
    class: Class,
) -> impl Future<Output = Opened> + Send {
    let read = move |source: Arc<dyn BlobSource>| {
        let range = range.clone();
        async move { source.read_range(range, class).await }
    };
    first(places, patience, read)
}

fn nowhere() -> SourceError {
    SourceError::new(SourceErrorKind::NotFound, "no place is known for the blob")
}

fn ended_early(place: &Place, at: u64) -> SourceError {
    let message = format!("{}: the bytes ended early, at {at}", place.source.describe());
    SourceError::new(SourceErrorKind::Protocol, message)
}

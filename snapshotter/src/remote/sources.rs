//! Everywhere a layer's blob can be read from.
//!
//! Images of several registries, repositories and tags share a layer if blob and table of contents are the same. Each of
//! them is a place to read the blob from, and the layer goes on as long as one of them works: a deleted tag or a
//! withdrawn permission of one image does not stop the containers of another. Nor does a place that hangs or lies, which
//! anybody who may pull an image can add: the next place is asked too after a while, new places come last, and one whose
//! bytes did not match goes to the end.

mod failover;
mod places;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    ops::Range,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use store::{BlobSource, ByteStream, Class, SourceError, Tail};

use self::{
    failover::{Reading, first},
    places::Places,
};

/// Longest time that one place may leave a read waiting before the next one is asked too. Longer than most retries take.
const LONGEST_PATIENCE: Duration = Duration::from_secs(5);
/// Shortest such time: a second connection takes some round trips.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(100);

/// The places for one blob, the one that worked last first.
pub(super) struct Sources {
    places: Places,
    patience: Duration,
    /// The blob's length as a manifest told it, if one did.
    size: OnceLock<u64>,
}

/// How long one place may keep a read waiting, so that each gets its chance within half of `read_timeout`.
pub(super) fn patience(read_timeout: Duration) -> Duration {
    let places = u32::try_from(places::MOST).unwrap_or(u32::MAX);
    (read_timeout / 2 / places).clamp(SHORTEST_PATIENCE, LONGEST_PATIENCE)
}

// === impl Sources ===

impl Sources {
    pub(super) fn new(patience: Duration) -> Self {
        Self { places: Places::default(), patience, size: OnceLock::new() }
    }

    /// Adds the place that `reference` names, after those that are there. A known one gets the new source, for its
    /// credentials may be new, and stays where it is.
    pub(super) fn add(&self, reference: &str, source: Arc<dyn BlobSource>) {
        self.places.add(reference, source);
    }

    /// A manifest says that the blob has `size` bytes. It is a hint: nothing is wrong if it has not.
    pub(super) fn set_size(&self, size: u64) {
        // The first manifest is as good as the next.
        let _ = self.size.set(size);
    }

    /// The references, the one that worked last first.
    pub(super) fn references(&self) -> Vec<String> {
        self.places.list().into_iter().map(|place| place.reference).collect()
    }
}

#[async_trait]
impl BlobSource for Sources {
    async fn read_tail(&self, len: u64) -> Result<Tail, SourceError> {
        let read = move |source: Arc<dyn BlobSource>| async move { source.read_tail(len).await };
        let answer = first(self.places.list(), self.patience, read).await?;
        self.places.answered(&answer);
        Ok(answer.value)
    }

    async fn read_range(&self, range: Range<u64>, class: Class) -> Result<ByteStream, SourceError> {
        Reading::open(self.places.clone(), self.patience, range, class).await
    }

    fn origin(&self) -> String {
        self.places.first().map_or_else(|| "nowhere".to_owned(), |place| place.source.origin())
    }

    fn size_hint(&self) -> Option<u64> {
        self.size.get().copied()
    }

    fn distrust(&self) {
        if let Some(place) = self.places.first() {
            self.places.move_back(&place);
            place.source.distrust();
        }
    }

    fn distrust_range(&self, range: Range<u64>) {
        match self.places.sender_of(range.start) {
            Some(place) => {
                self.places.move_back(&place);
                place.source.distrust_range(range);
            }
            None => self.distrust(),
        }
    }

    fn describe(&self) -> String {
        self.places.first().map_or_else(|| "nowhere".to_owned(), |place| place.source.describe())
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.references()).finish()
    }
}

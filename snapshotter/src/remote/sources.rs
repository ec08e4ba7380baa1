//! Everywhere a layer's blob can be read from.
//!
//! Images of several registries, repositories and tags share a layer if blob and table of contents are the same. Each of
//! them is a place to read the blob from, and the layer goes on as long as one of them works: a deleted tag or a
//! withdrawn permission of one image does not stop the containers of another.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use store::{BlobSource, ByteStream, Class, SourceError, SourceErrorKind, Tail};

/// References that are remembered for one layer; the least recently useful one is forgotten first.
const MOST: usize = 4;

/// The places for one blob, the one that worked last first.
#[derive(Default)]
pub(super) struct Sources {
    list: Mutex<Vec<Place>>,
    /// The blob's length as a manifest told it, if one did.
    size: OnceLock<u64>,
}

#[derive(Clone)]
struct Place {
    reference: String,
    source: Arc<dyn BlobSource>,
}

// === impl Sources ===

impl Sources {
    /// Adds the place that `reference` names, or replaces it: its credentials may be new.
    pub(super) fn add(&self, reference: &str, source: Arc<dyn BlobSource>) {
        let mut list = self.list.lock();
        list.retain(|place| place.reference != reference);
        list.insert(0, Place { reference: reference.to_owned(), source });
        list.truncate(MOST);
    }

    /// A manifest says that the blob has `size` bytes. It is a hint: nothing is wrong if it has not.
    pub(super) fn set_size(&self, size: u64) {
        // The first manifest is as good as the next.
        let _ = self.size.set(size);
    }

    /// The references, the one that worked last first.
    pub(super) fn references(&self) -> Vec<String> {
        self.list.lock().iter().map(|place| place.reference.clone()).collect()
    }

    fn places(&self) -> Vec<Place> {
        self.list.lock().clone()
    }

    fn worked(&self, place: &Place) {
        let mut list = self.list.lock();
        if let Some(position) = list.iter().position(|known| known.reference == place.reference) {
            list[..=position].rotate_right(1);
        }
    }

    /// Tries every place; the error is that of the first, which is the one that worked last.
    async fn first<T, F>(&self, read: impl Fn(Arc<dyn BlobSource>) -> F) -> Result<T, SourceError>
    where
        F: Future<Output = Result<T, SourceError>>,
    {
        let mut first_error = None;
        for (tried, place) in self.places().iter().enumerate() {
            match read(Arc::clone(&place.source)).await {
                Ok(value) => {
                    if tried > 0 {
                        self.worked(place);
                    }
                    return Ok(value);
                }
                Err(error) => {
                    tracing::debug!(
                        source = place.source.describe(),
                        error = error.message,
                        "cannot read a blob"
                    );
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error
            .unwrap_or_else(|| SourceError::new(SourceErrorKind::NotFound, "no place is known for the blob")))
    }
}

#[async_trait]
impl BlobSource for Sources {
    async fn read_tail(&self, len: u64) -> Result<Tail, SourceError> {
        self.first(|source| async move { source.read_tail(len).await }).await
    }

    async fn read_range(&self, range: Range<u64>, class: Class) -> Result<ByteStream, SourceError> {
        self.first(|source| {
            let range = range.clone();
            async move { source.read_range(range, class).await }
        })
        .await
    }

    fn origin(&self) -> String {
        self.places().first().map_or_else(|| "nowhere".to_owned(), |place| place.source.origin())
    }

    fn size_hint(&self) -> Option<u64> {
        self.size.get().copied()
    }

    fn distrust(&self) {
        self.places().iter().for_each(|place| place.source.distrust());
    }

    fn describe(&self) -> String {
        self.places().first().map_or_else(|| "nowhere".to_owned(), |place| place.source.describe())
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.references()).finish()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::{StreamExt, stream};

    use super::*;

    struct Fixed(&'static str, Option<SourceErrorKind>);

    impl Fixed {
        fn answer(&self) -> Result<Bytes, SourceError> {
            self.1
                .map_or(Ok(Bytes::from_static(self.0.as_bytes())), |kind| Err(SourceError::new(kind, self.0)))
        }
    }

    #[async_trait]
    impl BlobSource for Fixed {
        async fn read_tail(&self, _: u64) -> Result<Tail, SourceError> {
            self.answer().map(|bytes| Tail { blob_size: bytes.len() as u64, bytes })
        }

        async fn read_range(&self, _: Range<u64>, _: Class) -> Result<ByteStream, SourceError> {
            self.answer().map(|bytes| stream::iter([Ok(bytes)]).boxed())
        }

        fn distrust(&self) {}

        fn describe(&self) -> String {
            self.0.to_owned()
        }
    }

    #[tokio::test]
    async fn the_next_place_is_tried_and_then_remembered() {
        let sources = Sources::default();
        sources.add("good", Arc::new(Fixed("good", None)));
        sources.add("gone", Arc::new(Fixed("gone", Some(SourceErrorKind::NotFound))));
        assert_eq!(sources.references(), ["gone", "good"]);
        assert_eq!(&sources.read_tail(1).await.unwrap().bytes[..], b"good");
        assert_eq!(sources.references(), ["good", "gone"]);
        assert_eq!(sources.describe(), "good");
    }

    #[tokio::test]
    async fn if_none_works_the_first_says_why() {
        let sources = Sources::default();
        assert_eq!(sources.read_tail(1).await.unwrap_err().kind, SourceErrorKind::NotFound);
        sources.add("b", Arc::new(Fixed("b", Some(SourceErrorKind::Forbidden))));
        sources.add("a", Arc::new(Fixed("a", Some(SourceErrorKind::TimedOut))));
        let error = sources.read_range(0..1, Class::Demand).await.err().unwrap();
        assert_eq!((error.kind, error.message.as_str()), (SourceErrorKind::TimedOut, "a"));
    }

    #[test]
    fn few_are_kept_and_each_once() {
        let sources = Sources::default();
        for reference in ["a", "b", "c", "d", "e", "b"] {
            sources.add(reference, Arc::new(Fixed("x", None)));
        }
        assert_eq!(sources.references(), ["b", "e", "d", "c"]);
    }
}

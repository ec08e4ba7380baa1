//! The places of one blob in the order in which they are asked, and which of them sent what.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use parking_lot::Mutex;
use store::BlobSource;

use super::failover::Answer;

/// References that are remembered for one layer.
pub(super) const MOST: usize = 4;
/// Answers that are remembered. Bytes are checked soon after they came, and few requests of a layer are under way.
const MOST_SENT: usize = 256;

/// A place to read the blob from.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) reference: String,
    pub(super) source: Arc<dyn BlobSource>,
}

/// All of them.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    list: Vec<Place>,
    /// Ranges that were asked for, and the reference of the place that answered; the newest last.
    sent: VecDeque<(Range<u64>, String)>,
}

// === impl Places ===

impl Places {
    /// Adds a place as the last one, where it does no harm, or gives a known one its new source. If there are too many,
    /// the last one goes, so that a crowd of new places does not drive out those that work.
    pub(super) fn add(&self, reference: &str, source: Arc<dyn BlobSource>) {
        let mut known = self.0.lock();
        if let Some(place) = known.list.iter_mut().find(|place| place.reference == reference) {
            place.source = source;
            return;
        }
        known.list.truncate(MOST - 1);
        known.list.push(Place { reference: reference.to_owned(), source });
    }

    pub(super) fn list(&self) -> Vec<Place> {
        self.0.lock().list.clone()
    }

    pub(super) fn first(&self) -> Option<Place> {
        self.0.lock().list.first().cloned()
    }

    /// A place that answered when others did not is asked first from now on.
    pub(super) fn answered<T>(&self, answer: &Answer<T>) {
        if answer.after_others {
            let mut known = self.0.lock();
            if let Some(position) = known.position(&answer.place) {
                known.list[..=position].rotate_right(1);
            }
        }
    }

    /// Asks `place` last from now on.
    pub(super) fn move_back(&self, place: &Place) {
        let mut known = self.0.lock();
        if let Some(position) = known.position(place) {
            known.list[position..].rotate_left(1);
        }
    }

    /// Remembers that `place` sends `range`.
    pub(super) fn sends(&self, place: &Place, range: Range<u64>) {
        let mut known = self.0.lock();
        if known.sent.len() >= MOST_SENT {
            known.sent.pop_front();
        }
        known.sent.push_back((range, place.reference.clone()));
    }

    /// The place that was the last to send the byte at `offset`.
    pub(super) fn sender_of(&self, offset: u64) -> Option<Place> {
        let known = self.0.lock();
        let (_, reference) = known.sent.iter().rev().find(|(range, _)| range.contains(&offset))?;
        known.list.iter().find(|place| place.reference == *reference).cloned()
    }
}

// === impl Known ===

impl Known {
    fn position(&self, place: &Place) -> Option<usize> {
        self.list.iter().position(|known| known.reference == place.reference)
    }
}

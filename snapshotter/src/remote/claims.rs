//! Which layers nobody may delete.
//!
//! A layer that a snapshot refers to is claimed. A layer that was opened ahead of its own Prepare is not yet, and is
//! kept for a while all the same: for its Prepare to come, and against a Cleanup that knows snapshots only. When its
//! time is over and no Prepare came, it may go.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use store::LayerKey;

/// Layers and why they stay.
#[derive(Debug)]
pub(super) struct Claims {
    patience: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    claimed: BTreeSet<LayerKey>,
    ahead: HashMap<LayerKey, Instant>,
}

// === impl Claims ===

impl Claims {
    /// `claimed` are the layers of all snapshots; layers opened ahead stay for `patience`.
    pub(super) fn new(claimed: BTreeSet<LayerKey>, patience: Duration) -> Self {
        Self { patience, inner: Mutex::new(Inner { claimed, ahead: HashMap::new() }) }
    }

    /// `key` is being opened, and no snapshot refers to it yet.
    pub(super) fn ahead(&self, key: LayerKey, now: Instant) {
        let mut inner = self.inner.lock();
        if !inner.claimed.contains(&key) {
            inner.ahead.insert(key, now);
        }
    }

    /// A snapshot is about to refer to `key`.
    pub(super) fn claim(&self, key: LayerKey) {
        let mut inner = self.inner.lock();
        inner.ahead.remove(&key);
        inner.claimed.insert(key);
    }

    /// All that may not be deleted.
    pub(super) fn needed(&self) -> BTreeSet<LayerKey> {
        let inner = self.inner.lock();
        inner.claimed.iter().chain(inner.ahead.keys()).copied().collect()
    }

    /// Snapshots refer to `in_use` and nothing else. Those of `there` that may be deleted.
    pub(super) fn unused(
        &self,
        in_use: &BTreeSet<LayerKey>,
        there: impl IntoIterator<Item = LayerKey>,
    ) -> Vec<LayerKey> {
        let mut inner = self.inner.lock();
        inner.claimed.clone_from(in_use);
        there.into_iter().filter(|key| !in_use.contains(key) && !inner.ahead.contains_key(key)).collect()
    }

    /// Layers that were opened ahead and whose time is over; they are forgotten here.
    pub(super) fn expired(&self, now: Instant) -> Vec<LayerKey> {
        let mut inner = self.inner.lock();
        let over = |since: &Instant| now.saturating_duration_since(*since) >= self.patience;
        let keys: Vec<_> = inner.ahead.iter().filter(|(_, since)| over(since)).map(|(key, _)| *key).collect();
        keys.iter().for_each(|key| {
            inner.ahead.remove(key);
        });
        keys
    }
}

#[cfg(test)]
mod tests {
    use estargz::Digest;
    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> LayerKey {
        LayerKey { blob: Digest::of(&[n]), toc: Digest::of(&[n]) }
    }

    #[test]
    fn a_layer_opened_ahead_outlives_a_cleanup_but_not_its_time() {
        let claims = Claims::new(BTreeSet::from([key(1)]), Duration::from_secs(10));
        let start = Instant::now();
        claims.ahead(key(2), start);
        claims.ahead(key(1), start);
        let there = [key(1), key(2), key(3)];
        assert_eq!(claims.unused(&BTreeSet::from([key(1)]), there), [key(3)]);
        assert_eq!(claims.expired(start + Duration::from_secs(9)), []);
        assert_eq!(claims.expired(start + Duration::from_secs(10)), [key(2)]);
        assert_eq!(claims.unused(&BTreeSet::new(), there), there);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Ahead(u8),
        Claim(u8),
        Cleanup(Vec<u8>),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..4u8).prop_map(Step::Ahead),
            (0..4u8).prop_map(Step::Claim),
            proptest::collection::vec(0..4u8, 0..4).prop_map(Step::Cleanup),
            (0..15u64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn what_a_snapshot_refers_to_is_never_given_up(steps in proptest::collection::vec(step(), 0..40)) {
            let claims = Claims::new(BTreeSet::new(), Duration::from_secs(10));
            let (mut now, mut in_use) = (Instant::now(), BTreeSet::new());
            for step in steps {
                let gone = match step {
                    Step::Ahead(n) => { claims.ahead(key(n), now); Vec::new() }
                    Step::Claim(n) => { claims.claim(key(n)); in_use.insert(key(n)); Vec::new() }
                    Step::Cleanup(removed) => {
                        removed.iter().for_each(|n| { in_use.remove(&key(*n)); });
                        claims.unused(&in_use, (0..4).map(key))
                    }
                    Step::Wait(seconds) => { now += Duration::from_secs(seconds); claims.expired(now) }
                };
                prop_assert!(gone.iter().all(|key| !in_use.contains(key)));
            }
            claims.expired(now + Duration::from_secs(10));
            prop_assert_eq!(claims.unused(&BTreeSet::new(), (0..4).map(key)).len(), 4);
        }
    }
}

//! Work that is done once for everyone who wants its result.
//!
//! Each piece of work runs in a task of its own, so that whoever stops waiting does not stop it for the others. It is
//! forgotten when it ends, also if it ends in a panic: the next one who asks starts it anew.

use std::{collections::HashMap, hash::Hash, sync::Arc, time::Duration};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;

/// A result, now or soon. It panics for whoever waits if the work did.
pub(super) type Flight<T> = Shared<BoxFuture<'static, T>>;

/// The work that is going on, or whose result is kept.
pub(super) type Flights<K, T> = Arc<Mutex<HashMap<K, Flight<T>>>>;

/// How long a result is kept.
#[derive(Debug, Clone, Copy)]
pub(super) enum Linger {
    /// Until somebody removes it.
    Always,
    /// So long.
    For(Duration),
}

/// Removes a flight when it is dropped.
struct Landing<K: Eq + Hash, T> {
    flights: Flights<K, T>,
    key: Option<K>,
}

/// Makes `work` the flight of `key`, and drives it. The caller, who holds the lock that `map` is behind, saw to it that
/// there is none.
pub(super) fn launch<K, T>(
    flights: &Flights<K, T>,
    map: &mut HashMap<K, Flight<T>>,
    key: K,
    work: impl Future<Output = T> + Send + 'static,
    linger: impl FnOnce(&T) -> Linger + Send + 'static,
) -> Flight<T>
where
    K: Copy + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    let flight = work.boxed().shared();
    map.insert(key, flight.clone());
    let (flights, driven) = (Arc::clone(flights), flight.clone());
    tokio::spawn(async move {
        let mut landing = Landing { flights, key: Some(key) };
        match linger(&driven.await) {
            Linger::Always => landing.key = None,
            Linger::For(time) if !time.is_zero() => tokio::time::sleep(time).await,
            Linger::For(_) => {}
        }
    });
    flight
}

// === impl Landing ===

impl<K: Eq + Hash, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            // What is removed is dropped once the lock is free again.
            let _flight = self.flights.lock().remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(flights: &Flights<u8, u8>, linger: Linger, fail: bool) -> Flight<u8> {
        let work = async move {
            tokio::task::yield_now().await;
            assert!(!fail, "as the test wants it");
            7
        };
        launch(flights, &mut flights.lock(), 1, work, move |_| linger)
    }

    async fn is_empty(flights: &Flights<u8, u8>) -> bool {
        for _ in 0..100 {
            if flights.lock().is_empty() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }

    #[tokio::test]
    async fn work_that_panics_is_forgotten() {
        let flights = Flights::default();
        let flight = start(&flights, Linger::Always, true);
        assert!(tokio::spawn(flight).await.unwrap_err().is_panic());
        assert!(is_empty(&flights).await);
        assert_eq!(start(&flights, Linger::Always, false).await, 7);
    }

    #[tokio::test]
    async fn a_result_is_kept_as_long_as_it_should() {
        let flights = Flights::default();
        assert_eq!(start(&flights, Linger::For(Duration::ZERO), false).await, 7);
        assert!(is_empty(&flights).await);
        drop(start(&flights, Linger::Always, false));
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(flights.lock().values().next().and_then(|flight| flight.peek().copied()), Some(7));
    }
}

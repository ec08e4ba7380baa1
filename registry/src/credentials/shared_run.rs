//! Slow questions that many ask at one time, such as running a program, are asked once for all of them.
//!
//! Who asks before a run begins may have its answer; who asks after it began gets the next one's, which
//! all who come meanwhile share. So no answer is older than its question, and a storm makes two runs.

use std::{collections::HashMap, future::Future, hash::Hash, sync::Arc};

use parking_lot::Mutex;
use tokio::time::Instant;

/// The runs that are under way, by what they are for.
#[derive(Debug)]
pub(super) struct SharedRuns<K, T> {
    runs: Mutex<HashMap<K, Arc<Run<T>>>>,
}

/// When a run began, and its answer; locked while one is under way.
type Run<T> = tokio::sync::Mutex<Option<(Instant, T)>>;

impl<K, T> Default for SharedRuns<K, T> {
    fn default() -> Self {
        Self { runs: Mutex::default() }
    }
}

impl<K: Clone + Eq + Hash, T: Clone> SharedRuns<K, T> {
    /// The answer of `run`, or of another run for `key` that began after this was called.
    pub(super) async fn ask<F: Future<Output = T>>(&self, key: &K, run: impl FnOnce() -> F) -> T {
        let asked = Instant::now();
        let slot = self.runs.lock().entry(key.clone()).or_default().clone();
        let answer = {
            let mut last = slot.lock().await;
            match &*last {
                Some((began, answer)) if *began >= asked => answer.clone(),
                _ => {
                    let began = Instant::now();
                    let answer = run().await;
                    *last = Some((began, answer.clone()));
                    answer
                }
            }
        };
        self.forget(key, slot);
        answer
    }

    /// An answer is kept while somebody waits for it and no longer: it may be a secret.
    fn forget(&self, key: &K, slot: Arc<Run<T>>) {
        let mut runs = self.runs.lock();
        drop(slot);
        if runs.get(key).is_some_and(|slot| Arc::strong_count(slot) == 1) {
            runs.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering::Relaxed},
        time::Duration,
    };

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn a_storm_makes_two_runs_and_leaves_nothing_behind() {
        let (runs, count) = (SharedRuns::<u8, u32>::default(), AtomicU32::new(0));
        let run = || async {
            let n = count.fetch_add(1, Relaxed) + 1;
            tokio::time::sleep(Duration::from_millis(300)).await;
            n
        };
        let callers = (0..100_u64).map(|n| {
            let runs = &runs;
            async move {
                tokio::time::sleep(Duration::from_millis(n)).await;
                runs.ask(&1, run).await
            }
        });
        let answers = join_all(callers).await;
        assert_eq!(answers[0], 1);
        assert!(answers[1..].iter().all(|answer| *answer == 2), "{answers:?}");
        assert!(runs.runs.lock().is_empty());
        assert_eq!(runs.ask(&1, run).await, 3, "no answer is older than its question");
    }

    #[tokio::test]
    async fn one_who_gives_up_leaves_the_run_to_the_next() {
        let runs = SharedRuns::<u8, u32>::default();
        let slow = runs.ask(&1, || async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            1
        });
        let (gave_up, answer) = tokio::join!(
            tokio::time::timeout(Duration::from_millis(100), slow),
            runs.ask(&1, || async { 2 }),
        );
        assert!(gave_up.is_err());
        assert_eq!(answer, 2);
    }
}

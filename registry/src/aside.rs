//! Work that may wait for a disk, away from the threads that serve everybody.

use std::{io, pin::pin, sync::Arc, time};

use parking_lot::Mutex;
use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard},
    task::spawn_blocking,
    time::{Duration, Instant, timeout},
};

/// How long somebody waits for a disk: longer, and it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// The parts that this is waited for in: a process that was stopped finds one of them over, not all, when it goes on.
const STEPS: u32 = 5;

/// What `work` gives. It is done on a thread that may wait, and to its end, also if nobody waits for it any more.
///
/// # Errors
/// It panicked, or the runtime ends.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    // A panic's own message may quote what was read.
    spawn_blocking(work).await.map_err(|_| io::Error::other("the thread that did it has ended"))
}

/// A question to a disk that many ask, of one thread at a time: a disk that hangs holds that thread and no other, of
/// which there are not many.
///
/// Who asks before the work begins may have its answer, so no answer is older than its question.
#[derive(Debug)]
pub(crate) struct Flight<T> {
    /// Locked while the work is done, by the thread that does it.
    last: Arc<Last<T>>,
    since: Since,
}

/// When the work began last, and its answer while somebody waits for it: it may be a secret.
type Last<T> = AsyncMutex<Option<(time::Instant, T)>>;
/// Since when somebody has the turn.
type Since = Arc<Mutex<Option<Instant>>>;

/// The right to do the work.
pub(crate) struct Turn<T> {
    last: OwnedMutexGuard<Option<(time::Instant, T)>>,
    since: Since,
}

// === impl Flight ===

impl<T> Default for Flight<T> {
    fn default() -> Self {
        Self { last: Arc::default(), since: Since::default() }
    }
}

impl<T: Clone + Send + 'static> Flight<T> {
    /// What `work` gives, done [`aside`] in its turn, or the same work of another that began after this was called.
    ///
    /// # Errors
    /// The work panicked, or is under way for longer than [`PATIENCE`] (`TimedOut`).
    pub(crate) async fn ask(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        // The real clock, also where the runtime's stands still.
        let asked = time::Instant::now();
        let until = self.since.lock().unwrap_or_else(Instant::now) + PATIENCE;
        let step = until.saturating_duration_since(Instant::now()) / STEPS;
        let mut answer = pin!(async {
            let mut turn = self.turn().await;
            match turn.answer_after(asked) {
                Some(answer) => Ok(answer),
                None => aside(move || turn.fly(work)).await,
            }
        });
        for _ in 0..STEPS {
            if let Ok(answer) = timeout(step, &mut answer).await {
                return answer;
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the disk does not answer"))
    }

    /// Whether the work is being done.
    pub(crate) fn is_busy(&self) -> bool {
        self.last.try_lock().is_err()
    }

    /// Waits for the turn without a thread.
    pub(crate) async fn turn(&self) -> Turn<T> {
        let last = self.last.clone().lock_owned().await;
        *self.since.lock() = Some(Instant::now());
        Turn { last, since: self.since.clone() }
    }
}

// === impl Turn ===

impl<T: Clone> Turn<T> {
    /// The answer of work that began after `asked`.
    fn answer_after(&mut self, asked: time::Instant) -> Option<T> {
        let (began, answer) = self.last.take()?;
        let answer = (began > asked).then_some(answer)?;
        self.keep(began, &answer);
        Some(answer)
    }

    fn fly(mut self, work: impl FnOnce() -> T) -> T {
        let began = time::Instant::now();
        let answer = work();
        self.keep(began, &answer);
        answer
    }

    fn keep(&mut self, began: time::Instant, answer: &T) {
        // One of them is the flight's own and one is ours; each who waits for the turn has another.
        let waited_for = Arc::strong_count(OwnedMutexGuard::mutex(&self.last)) > 2;
        *self.last = waited_for.then(|| (began, answer.clone()));
    }
}

impl<T> Drop for Turn<T> {
    fn drop(&mut self) {
        // Before the next one has the turn, or who comes meanwhile would count the time from this one's beginning.
        *self.since.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicU32, Ordering::Relaxed},
        mpsc,
    };

    use futures_util::future::join_all;

    use super::*;

    #[test]
    fn a_disk_that_hangs_holds_one_thread_however_many_ask() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(4)
            .enable_time()
            .build()
            .unwrap();
        let (answer, hangs) = mpsc::channel::<()>();
        let hangs = Arc::new(Mutex::new(hangs));
        let flight = Flight::default();
        let ask = || {
            let hangs = hangs.clone();
            flight.ask(move || hangs.lock().recv().is_ok())
        };
        runtime.block_on(async {
            let searches = join_all((0..6).map(|_| ask()));
            let others = async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let began = time::Instant::now();
                aside(|| ()).await.unwrap();
                began.elapsed()
            };
            let (searches, others) = tokio::join!(searches, others);
            assert!(others < Duration::from_secs(2), "the other threads are free: {others:?}");
            for error in searches.into_iter().map(Result::unwrap_err) {
                assert_eq!(error.to_string(), "the disk does not answer");
            }
            let began = time::Instant::now();
            assert!(ask().await.is_err());
            assert!(began.elapsed() < Duration::from_secs(2), "it is known to hang: {:?}", began.elapsed());
            answer.send(()).unwrap();
            answer.send(()).unwrap();
            while flight.is_busy() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert!(ask().await.unwrap(), "it goes on when the disk does");
        });
    }

    #[tokio::test]
    async fn a_storm_is_answered_by_few_and_no_answer_stays_or_is_older_than_its_question() {
        let (flight, count) = (Flight::default(), Arc::new(AtomicU32::new(0)));
        let ask = || {
            let count = count.clone();
            flight.ask(move || {
                std::thread::sleep(Duration::from_millis(50));
                count.fetch_add(1, Relaxed) + 1
            })
        };
        assert!(join_all((0..100).map(|_| ask())).await.into_iter().all(|answer| answer.is_ok()));
        let done = count.load(Relaxed);
        assert!(done <= 2, "{done}");
        assert!(flight.last.try_lock().unwrap().is_none(), "it may be a secret");
        assert_eq!(ask().await.unwrap(), done + 1);
    }

    #[tokio::test]
    async fn work_that_panics_is_an_error_and_leaves_the_turn_to_the_next() {
        let flight = Flight::default();
        let error = flight.ask(|| panic!("planted")).await.unwrap_err();
        assert!(!format!("{error:?}").contains("planted"));
        assert_eq!(flight.ask(|| 1).await.unwrap(), 1);
    }
}

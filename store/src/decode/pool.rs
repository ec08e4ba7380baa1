//! The decoding threads, and what waits for them, by class.
//!
//! The background's members are inflated and hashed by threads that run only when nobody else wants the processor: the
//! container is starting on the same cores. Such a thread may stand still for seconds, so it must hold nothing that
//! others need: it takes no lock but the queue's, for a moment, and leaves writing (which takes the file's lock in the
//! kernel) to the other threads. A member that somebody waits for is queued again for those and decoded there,
//! whatever the idle thread has done of it.

use std::{
    collections::VecDeque,
    fmt, io,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
    thread,
};

use estargz::decode::Inflater;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::MemberJob;
use crate::{Class, sys};

/// Something for a decoding thread.
pub(crate) enum Task {
    /// Inflate, verify and write a member.
    Decode(Arc<MemberJob>),
    /// Anything else that takes no longer than a member.
    Call(Box<dyn FnOnce() + Send>),
}

/// The decoding threads. They end when this is dropped; what is queued then is dropped.
#[derive(Debug)]
pub(crate) struct Pool(Arc<Queues>);

/// What waits for the threads.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    state: Mutex<State>,
    normal: Condvar,
    idle: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// For the threads of normal priority, by class.
    normal: [VecDeque<Task>; 4],
    /// For those of idle priority.
    idle: VecDeque<Arc<MemberJob>>,
    closed: bool,
}

// === impl Pool ===

impl Pool {
    /// Starts `threads` threads of normal priority, and `idle` of idle priority.
    pub(crate) fn start(threads: usize, idle: usize) -> io::Result<Self> {
        let pool = Self(Arc::default());
        for number in 0..threads.max(1) {
            let queues = Arc::clone(&pool.0);
            thread::Builder::new()
                .name(format!("decode-{number}"))
                .spawn(move || queues.work(Queues::next, MemberJob::run))?;
        }
        for number in 0..idle {
            let queues = Arc::clone(&pool.0);
            thread::Builder::new().name(format!("decode-idle-{number}")).spawn(move || {
                if let Err(error) = sys::run_at_idle_priority() {
                    tracing::warn!(%error, "cannot lower the priority of background decoding");
                }
                queues.work(Queues::next_idle, MemberJob::run_idle);
            })?;
        }
        Ok(pool)
    }

    /// Queues the decoding of a member. May be called again for the same one with a more urgent class.
    pub(crate) fn decode(&self, class: Class, job: Arc<MemberJob>) {
        if class == Class::Background {
            let mut state = self.0.state.lock();
            state.idle.push_back(job);
            drop(state);
            self.0.idle.notify_one();
        } else {
            self.0.push(class, Task::Decode(job));
        }
    }

    /// Queues anything else, for a thread of normal priority.
    pub(crate) fn call(&self, class: Class, call: impl FnOnce() + Send + 'static) {
        self.0.push(class, Task::Call(Box::new(call)));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.closed = true;
        let left = (std::mem::take(&mut state.normal), std::mem::take(&mut state.idle));
        drop(state);
        self.0.normal.notify_all();
        self.0.idle.notify_all();
        drop(left);
    }
}

// === impl Queues ===

impl Queues {
    fn push(&self, class: Class, task: Task) {
        let mut state = self.state.lock();
        if let Some(queue) = state.normal.get_mut(class as usize) {
            queue.push_back(task);
        }
        drop(state);
        self.normal.notify_one();
    }

    fn work(
        &self,
        next: fn(&Self, &mut Inflater) -> Option<Task>,
        decode: fn(&Arc<MemberJob>, &mut Inflater),
    ) {
        let mut inflater = Inflater::new();
        while let Some(task) = next(self, &mut inflater) {
            // A layer that makes the decoder panic must not take the thread from the others.
            let done = panic::catch_unwind(AssertUnwindSafe(|| match task {
                Task::Decode(job) => decode(&job, &mut inflater),
                Task::Call(call) => call(),
            }));
            if done.is_err() {
                tracing::error!("decoding a member panicked");
                inflater = Inflater::new();
            }
            inflater.rest();
        }
    }

    /// Waits for the next task, and holds no buffer meanwhile.
    fn next(&self, inflater: &mut Inflater) -> Option<Task> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(task) = state.normal.iter_mut().find_map(VecDeque::pop_front) {
                return Some(task);
            }
            if inflater.holds_memory() {
                // Without the lock, which others want; something may have come meanwhile.
                MutexGuard::unlocked(&mut state, || inflater.release());
            } else {
                self.normal.wait(&mut state);
            }
        }
    }

    /// Those threads give their buffers away with what they inflated.
    fn next_idle(&self, _: &mut Inflater) -> Option<Task> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.idle.pop_front() {
                return Some(Task::Decode(job));
            }
            self.idle.wait(&mut state);
        }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Decode(_) => "Decode",
            Self::Call(_) => "Call",
        })
    }
}

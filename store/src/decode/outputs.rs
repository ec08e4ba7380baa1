//! The memory that decoding threads inflate long members into, over all of them.
//!
//! It is taken when a thread begins with a member and given back when that is done, so that what waits for a thread holds its
//! compressed bytes only. Whoever has some waits for nothing but the local disk, so that a thread may wait for it. It is not
//! for short members, which must not wait behind long ones, nor for the threads of idle priority, which may stand still: what
//! those inflate counts from the member's first byte on.

use parking_lot::{Condvar, Mutex};

/// A number of bytes to share between threads.
#[derive(Debug)]
pub(crate) struct Outputs {
    limit: u64,
    used: Mutex<u64>,
    freed: Condvar,
    /// Held by the thread that waits, so that those who need less do not overtake it for ever.
    turn: Mutex<()>,
}

/// Some of them; dropping it gives them back.
#[derive(Debug)]
pub(crate) struct Output<'a> {
    outputs: &'a Outputs,
    bytes: u64,
}

// === impl Outputs ===

impl Outputs {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, used: Mutex::default(), freed: Condvar::new(), turn: Mutex::default() }
    }

    /// Waits for `bytes`, or for all of it if it is less.
    pub(crate) fn take(&self, bytes: u64) -> Output<'_> {
        let bytes = bytes.min(self.limit);
        let _turn = self.turn.lock();
        let mut used = self.used.lock();
        while *used + bytes > self.limit {
            self.freed.wait(&mut used);
        }
        *used += bytes;
        Output { outputs: self, bytes }
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> u64 {
        *self.used.lock()
    }
}

// === impl Output ===

impl Drop for Output<'_> {
    fn drop(&mut self) {
        *self.outputs.used.lock() -= self.bytes;
        self.outputs.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering::SeqCst},
        thread,
    };

    use super::*;

    #[test]
    fn threads_share_it_and_all_get_theirs() {
        let (outputs, held, most) = (Outputs::new(100), AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for bytes in [10, 60, 90, 1000] {
                let (outputs, held, most) = (&outputs, &held, &most);
                scope.spawn(move || {
                    for _ in 0..1000 {
                        let taken = outputs.take(bytes);
                        most.fetch_max(held.fetch_add(taken.bytes, SeqCst) + taken.bytes, SeqCst);
                        held.fetch_sub(taken.bytes, SeqCst);
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 100);
        assert_eq!(outputs.used(), 0);
    }

    #[test]
    fn who_needs_much_is_not_overtaken() {
        let outputs = Outputs::new(100);
        let small = outputs.take(10);
        thread::scope(|scope| {
            let large = scope.spawn(|| drop(outputs.take(100)));
            while outputs.turn.try_lock().is_some() {
                thread::yield_now();
            }
            let later = scope.spawn(|| drop(outputs.take(10)));
            thread::sleep(std::time::Duration::from_millis(20));
            assert!(!large.is_finished() && !later.is_finished());
            drop(small);
        });
        assert_eq!(outputs.used(), 0);
    }
}

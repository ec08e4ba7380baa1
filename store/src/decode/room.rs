//! The memory that decoding threads inflate into, over all of them.
//!
//! It is taken when a thread begins with a member and given back when that is done, so that what waits for a thread holds its
//! compressed bytes only. Whoever has room waits for nothing but the local disk, so that a thread may wait for it. Threads of
//! idle priority take none: they may stand still, and what they inflate counts from the member's first byte on.

use parking_lot::{Condvar, Mutex};

/// A number of bytes to share between threads.
#[derive(Debug)]
pub(crate) struct Room {
    limit: u64,
    used: Mutex<u64>,
    freed: Condvar,
    /// Held by the thread that waits, so that those who need little do not overtake it for ever.
    turn: Mutex<()>,
}

/// A part of the room; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    room: &'a Room,
    bytes: u64,
}

// === impl Room ===

impl Room {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, used: Mutex::default(), freed: Condvar::new(), turn: Mutex::default() }
    }

    /// Waits for `bytes`, or for all of it if it is less.
    pub(crate) fn take(&self, bytes: u64) -> Taken<'_> {
        let bytes = bytes.min(self.limit);
        let _turn = self.turn.lock();
        let mut used = self.used.lock();
        while *used + bytes > self.limit {
            self.freed.wait(&mut used);
        }
        *used += bytes;
        Taken { room: self, bytes }
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> u64 {
        *self.used.lock()
    }
}

// === impl Taken ===

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.room.used.lock() -= self.bytes;
        self.room.freed.notify_one();
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
        let (room, held, most) = (Room::new(100), AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for bytes in [10, 60, 90, 1000] {
                let (room, held, most) = (&room, &held, &most);
                scope.spawn(move || {
                    for _ in 0..1000 {
                        let taken = room.take(bytes);
                        most.fetch_max(held.fetch_add(taken.bytes, SeqCst) + taken.bytes, SeqCst);
                        held.fetch_sub(taken.bytes, SeqCst);
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 100);
        assert_eq!(room.used(), 0);
    }

    #[test]
    fn who_needs_much_is_not_overtaken() {
        let room = Room::new(100);
        let small = room.take(10);
        thread::scope(|scope| {
            let large = scope.spawn(|| drop(room.take(100)));
            while room.turn.try_lock().is_some() {
                thread::yield_now();
            }
            let later = scope.spawn(|| drop(room.take(10)));
            thread::sleep(std::time::Duration::from_millis(20));
            assert!(!large.is_finished() && !later.is_finished());
            drop(small);
        });
        assert_eq!(room.used(), 0);
    }
}

//! Counters of what the kernel asked and how it was answered.

use std::{
    ops::Add,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the buckets of [`Stalls::buckets`]; the last bucket has none.
pub const STALL_BOUNDS: [Duration; 13] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
];

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a connection has done since it was mounted.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
            /// Reads that had to wait for bytes to be fetched.
            pub stalls: Stalls,
        }

        impl Add for Counters {
            type Output = Self;

            fn add(self, other: Self) -> Self {
                Self { $($name: self.$name + other.$name,)* stalls: self.stalls + other.stalls }
            }
        }

        /// The counters, being counted.
        #[derive(Debug, Default)]
        pub(crate) struct LiveCounters {
            $(pub(crate) $name: AtomicU64,)*
            waiting: AtomicU64,
            stalled_nanos: AtomicU64,
            longest_nanos: AtomicU64,
            buckets: [AtomicU64; STALL_BOUNDS.len() + 1],
        }

        impl LiveCounters {
            /// What was counted so far.
            pub(crate) fn snapshot(&self) -> Counters {
                Counters { $($name: self.$name.load(Relaxed),)* stalls: self.stalls() }
            }
        }
    };
}

counters! {
    /// Names looked up.
    lookups,
    /// Requests for attributes.
    getattrs,
    /// Requests for a piece of a directory listing, without attributes.
    readdirs,
    /// Requests for a piece of a directory listing with attributes.
    readdirpluses,
    /// Requests for the target of a symbolic link.
    readlinks,
    /// Requests for an extended attribute.
    getxattrs,
    /// Requests for the names of extended attributes.
    listxattrs,
    /// Requests to open a file; the kernel stops asking after the first.
    opens,
    /// Requests to open a directory; the kernel stops asking after the first.
    opendirs,
    /// Requests to flush a file at close; the kernel stops asking after the first.
    flushes,
    /// Requests for the size of the file system.
    statfses,
    /// Requests that would have changed something.
    refused,
    /// Requests for a piece of a file.
    reads,
    /// Reads answered at once.
    hits,
    /// Reads that had to wait for bytes to be fetched.
    misses,
    /// Bytes of files handed to the kernel.
    bytes,
    /// Requests that failed because of a fault (EIO), as opposed to names and attributes that do not exist.
    errors,
}

/// How long reads waited for bytes to be fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stalls {
    /// Reads that wait right now.
    pub waiting: u64,
    /// Sum of the time of all that ended.
    pub total: Duration,
    /// The longest one that ended.
    pub longest: Duration,
    /// How many ended within each of [`STALL_BOUNDS`] (and not within the bound before it), and how many after all.
    pub buckets: [u64; STALL_BOUNDS.len() + 1],
}

// === impl Stalls ===

impl Add for Stalls {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let mut buckets = self.buckets;
        buckets.iter_mut().zip(other.buckets).for_each(|(sum, more)| *sum += more);
        Self {
            waiting: self.waiting + other.waiting,
            total: self.total + other.total,
            longest: self.longest.max(other.longest),
            buckets,
        }
    }
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

// === impl LiveCounters ===

impl LiveCounters {
    /// A read begins to wait.
    pub(crate) fn stall_begins(&self) {
        count(&self.waiting);
    }

    /// A read has waited this long.
    pub(crate) fn stall_ends(&self, waited: Duration) {
        let nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        self.waiting.fetch_sub(1, Relaxed);
        self.stalled_nanos.fetch_add(nanos, Relaxed);
        self.longest_nanos.fetch_max(nanos, Relaxed);
        let bucket = STALL_BOUNDS.partition_point(|&bound| bound < waited);
        self.buckets.get(bucket).into_iter().for_each(count);
    }

    fn stalls(&self) -> Stalls {
        Stalls {
            waiting: self.waiting.load(Relaxed),
            total: Duration::from_nanos(self.stalled_nanos.load(Relaxed)),
            longest: Duration::from_nanos(self.longest_nanos.load(Relaxed)),
            buckets: self.buckets.each_ref().map(|bucket| bucket.load(Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_counted_in_the_first_bucket_that_holds_it() {
        let live = LiveCounters::default();
        for millis in [0, 1, 2, 5, 61_000] {
            live.stall_begins();
            live.stall_ends(Duration::from_millis(millis));
        }
        live.stall_begins();
        let stalls = live.snapshot().stalls;
        assert_eq!(stalls.waiting, 1);
        assert_eq!(stalls.longest, Duration::from_secs(61));
        assert_eq!(stalls.total, Duration::from_millis(61_008));
        assert_eq!(stalls.buckets[..3], [2, 2, 0]);
        assert_eq!(stalls.buckets[13], 1);
        assert_eq!(stalls.buckets.iter().sum::<u64>(), 5);
    }
}

//! What the FUSE connections count.

use std::time::Duration;

use fusefs::STALL_BOUNDS;

use super::{Samples, Source, names};
use crate::connections::Connections;

impl Source for Connections {
    fn sample(&self, samples: &mut Samples) {
        let counters = self.counters();
        let operations = [
            ("lookup", counters.lookups),
            ("getattr", counters.getattrs),
            ("readdir", counters.readdirs),
            ("readdirplus", counters.readdirpluses),
            ("readlink", counters.readlinks),
            ("getxattr", counters.getxattrs),
            ("listxattr", counters.listxattrs),
            ("open", counters.opens),
            ("opendir", counters.opendirs),
            ("flush", counters.flushes),
            ("statfs", counters.statfses),
            ("read", counters.reads),
            ("refused", counters.refused),
        ];
        samples.labelled(&names::FUSE_REQUESTS, operations.map(|(name, value)| (name.to_owned(), value)));
        samples.value(&names::FUSE_READ_BYTES, counters.bytes);
        samples.value(&names::FUSE_ERRORS, counters.errors);
        samples.value(&names::FUSE_WAITING, counters.stalls.waiting);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        samples.value(&names::FUSE_WAITED, millis(counters.stalls.total));
        samples.value(&names::FUSE_LONGEST_STALL, millis(counters.stalls.longest));
        let bounds = STALL_BOUNDS.iter().copied().map(Some).chain([None]);
        samples.histogram(
            &names::FUSE_STALLS,
            counters.stalls.total,
            bounds.zip(counters.stalls.buckets.iter().copied()),
        );
    }
}

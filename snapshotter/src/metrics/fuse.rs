//! What the FUSE connection counts.

use fusefs::Connection;

use super::{Samples, Source, names};

impl Source for Connection {
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
        let waited = u64::try_from(counters.stalls.total.as_millis()).unwrap_or(u64::MAX);
        samples.value(&names::FUSE_WAITED, waited);
    }
}

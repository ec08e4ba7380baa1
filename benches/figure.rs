//! What is measured, with units: the keys of a sample.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The figures of one sample.
pub(crate) type Figures = BTreeMap<Figure, f64>;

/// A figure's unit, as it stands in the record and in tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Bytes,
    Count,
}

macro_rules! figures {
    ($($(#[doc = $doc:literal])* $name:ident: $unit:ident, $title:literal;)*) => {
        /// One thing that is measured. Times count from the request to pull; in a second start from the request
        /// to run.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum Figure { $($(#[doc = $doc])* $name,)* }

        impl Figure {
            /// All of them, in the order of tables.
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            pub(crate) fn unit(self) -> Unit {
                match self { $(Self::$name => Unit::$unit,)* }
            }

            /// A table's heading.
            pub(crate) fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

figures! {
    /// Until the pull was done.
    Pulled: Seconds, "pulled";
    /// Until containerd reported the task as started.
    Started: Seconds, "started";
    /// Until the program was ready; of several containers, the last.
    Ready: Seconds, "ready";
    /// Of several containers: until half of them were ready.
    ReadyMedian: Seconds, "half ready";
    /// Until every file of the image was read.
    WholeRead: Seconds, "whole image read";
    /// Bytes of bodies that the registry had handed to connections by then.
    OriginBytes: Bytes, "bytes";
    /// Requests that the registry had received by then.
    OriginRequests: Count, "requests";
    /// Starling's own account: compressed bytes of demand, read-ahead and planned prefetch.
    WantedBytes: Bytes, "wanted bytes";
    /// Starling's own account: compressed bytes of the chunks that were read, of which the wanted bytes are a multiple.
    ReadBytes: Bytes, "chunks read";
    /// Starling's own account: requests for the wanted bytes.
    WantedRequests: Count, "wanted requests";
    /// Starling's own account: compressed bytes of planned prefetch alone.
    PlannedBytes: Bytes, "of them planned";
    /// Starling's own account: compressed bytes of the background.
    BackgroundBytes: Bytes, "background bytes";
    /// Reads that had to wait for bytes to be fetched.
    Stalls: Count, "stalls";
    /// Upper bound of the bucket that half of the stalls are within.
    StallP50: Seconds, "stall p50";
    /// Upper bound of the bucket that 99 of 100 stalls are within.
    StallP99: Seconds, "stall p99";
    /// The longest stall.
    StallMax: Seconds, "stall max";
    /// All stalls together; several may be waited for at once.
    StallSum: Seconds, "stall sum";
    /// Processor time of the snapshotter's daemon.
    SnapshotterCpu: Seconds, "daemon CPU";
    /// Processor time of containerd, with what it ran and waited for.
    ContainerdCpu: Seconds, "containerd CPU";
    /// Processor time of the registry, which is no part of any contender.
    OriginCpu: Seconds, "registry CPU";
    /// Processor time of the whole machine, the kernel and the program itself included.
    MachineCpu: Seconds, "machine CPU";
    /// Peak of `RssAnon` + `RssShmem` of the snapshotter's daemon.
    SnapshotterMemory: Bytes, "daemon memory";
    /// Peak of `RssAnon` + `RssShmem` of containerd.
    ContainerdMemory: Bytes, "containerd memory";
    /// Disk taken below the roots of containerd and of the snapshotter.
    Disk: Bytes, "disk";
}

impl Figure {
    /// `value` as it stands in a table.
    pub(crate) fn show(self, value: f64) -> String {
        match self.unit() {
            Unit::Seconds if value < 0.1 => format!("{:.1} ms", value * 1e3),
            Unit::Seconds => format!("{value:.2} s"),
            Unit::Bytes => format!("{:.1} MB", value / 1e6),
            Unit::Count => format!("{value:.0}"),
        }
    }
}

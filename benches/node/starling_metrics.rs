//! What `starlingd` tells of itself on its admin socket.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use testkit::peers::starlingd::Starlingd;

use crate::figure::{Figure, Figures};

/// Adds the fetches by class, and the stalls.
pub(super) fn add(daemon: &Starlingd, figures: &mut Figures) -> Result<()> {
    let text = scrape(&daemon.admin())?;
    let total = |name: &str, classes: &[&str]| -> f64 {
        let of_classes =
            samples(&text, name).filter(|(labels, _)| classes.iter().any(|class| labels.contains(class)));
        of_classes.map(|(_, value)| value).sum()
    };
    let wanted = ["\"demand\"", "\"planned\""];
    figures.insert(Figure::WantedBytes, total("starling_fetched_bytes_total", &wanted));
    figures.insert(Figure::WantedRequests, total("starling_fetch_requests_total", &wanted));
    figures.insert(Figure::PlannedBytes, total("starling_fetched_bytes_total", &["\"planned\""]));
    figures.insert(Figure::BackgroundBytes, total("starling_fetched_bytes_total", &["\"background\""]));
    if let Some(bytes) = only(&text, "starling_recorded_bytes") {
        figures.insert(Figure::ReadBytes, bytes);
    }
    let Some(stalls) = Stalls::read(&text) else { return Ok(()) };
    figures.insert(Figure::Stalls, stalls.count);
    figures.insert(Figure::StallSum, stalls.sum);
    figures.insert(Figure::StallMax, stalls.longest);
    figures.insert(Figure::StallP50, stalls.within(0.5));
    figures.insert(Figure::StallP99, stalls.within(0.99));
    Ok(())
}

/// What the daemon says of itself at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DaemonState {
    /// Layers of which something is missing.
    pub(crate) partial_layers: u64,
    /// Layers that are whole.
    pub(crate) complete_layers: u64,
    /// Bytes of the memory budget that are in use.
    pub(crate) in_flight: u64,
}

/// The state of the daemon now.
pub(super) fn state(daemon: &Starlingd) -> Result<DaemonState> {
    let text = scrape(&daemon.admin())?;
    let of = |name: &str, label: &str| {
        let mut found = samples(&text, name).filter(|(labels, _)| labels.contains(label));
        found.next().map_or(0, |(_, value)| value as u64)
    };
    Ok(DaemonState {
        partial_layers: of("starling_layers", "\"partial\""),
        complete_layers: of("starling_layers", "\"complete\""),
        in_flight: of("starling_in_flight_memory_bytes", ""),
    })
}

/// The histogram of reads that waited.
#[derive(Debug, Default, PartialEq)]
struct Stalls {
    count: f64,
    sum: f64,
    longest: f64,
    /// Upper bounds, ascending, with the number of stalls within each.
    buckets: Vec<(f64, f64)>,
}

impl Stalls {
    fn read(text: &str) -> Option<Self> {
        let mut buckets: Vec<(f64, f64)> = samples(text, "starling_fuse_stall_seconds_bucket")
            .filter_map(|(labels, count)| {
                let (_, bound) = labels.split_once("le=\"")?;
                let bound = bound.split('"').next()?;
                Some((if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? }, count))
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        Some(Self {
            count: only(text, "starling_fuse_stall_seconds_count")?,
            sum: only(text, "starling_fuse_stall_seconds_sum")?,
            longest: only(text, "starling_fuse_longest_stall_milliseconds")? / 1e3,
            buckets,
        })
    }

    /// The bound that `share` of the stalls are within, but never more than the longest of them.
    fn within(&self, share: f64) -> f64 {
        let wanted = self.count * share;
        let bucket = self.buckets.iter().find(|(_, count)| *count >= wanted);
        bucket.map_or(self.longest, |(bound, _)| bound.min(self.longest))
    }
}

/// The value of a metric without labels.
fn only(text: &str, name: &str) -> Option<f64> {
    samples(text, name).map(|(_, value)| value).next()
}

/// Labels and value of every sample of the metric `name` in Prometheus' text format.
fn samples<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
    text.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        (labels.is_empty() || labels.starts_with('{')).then(|| Some((labels, value.parse().ok()?)))?
    })
}

fn scrape(socket: &Path) -> Result<String> {
    let mut stream =
        UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("read the metrics")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# TYPE starling_fuse_stall_seconds histogram
starling_fuse_stall_seconds_sum 1.5
starling_fuse_stall_seconds_count 4
starling_fuse_stall_seconds_bucket{le=\"0.001\"} 1
starling_fuse_stall_seconds_bucket{le=\"0.1\"} 3
starling_fuse_stall_seconds_bucket{le=\"+Inf\"} 4
starling_fuse_longest_stall_milliseconds 1250
starling_fetched_bytes_total{class=\"background\"} 7
starling_fetched_bytes_total{class=\"demand\"} 5
";

    #[test]
    fn percentiles_are_bucket_bounds_and_never_beyond_the_longest() {
        let stalls = Stalls::read(TEXT).unwrap();
        assert_eq!((stalls.count, stalls.sum, stalls.longest), (4.0, 1.5, 1.25));
        assert_eq!(stalls.within(0.25), 0.001);
        assert_eq!(stalls.within(0.5), 0.1);
        assert_eq!(stalls.within(0.99), 1.25);
        assert_eq!(Stalls::read(""), None);
    }

    #[test]
    fn samples_of_other_metrics_with_the_same_beginning_are_not_taken() {
        assert_eq!(samples(TEXT, "starling_fuse_stall_seconds").count(), 0);
        let fetched: Vec<_> = samples(TEXT, "starling_fetched_bytes_total").collect();
        assert_eq!(fetched, [("{class=\"background\"}", 7.0), ("{class=\"demand\"}", 5.0)]);
    }
}

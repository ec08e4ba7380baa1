//! Values that others keep, read at each scrape.

use std::{fmt, sync::Arc, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use parking_lot::RwLock;

use super::names::{Kind, Metric};

/// Something that knows values of metrics.
pub trait Source: Send + Sync + 'static {
    /// Adds what it knows. Quick: it is called within a scrape.
    fn sample(&self, samples: &mut Samples);
}

/// Those who are asked.
pub(super) type Sources = Arc<RwLock<Vec<Arc<dyn Source>>>>;

/// One value of a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sample {
    labels: Vec<String>,
    value: u64,
}

/// A histogram as it was counted elsewhere.
#[derive(Debug, Clone)]
struct Distribution {
    metric: &'static Metric,
    sum: f64,
    /// Upper bound of each bucket, and how many are in it and not in the one before.
    buckets: Vec<(f64, u64)>,
}

/// Values of several metrics.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    values: Vec<(&'static Metric, Vec<Sample>)>,
    distributions: Vec<Distribution>,
}

/// Asks all sources.
pub(super) struct Scrape {
    sources: Sources,
}

// === impl Samples ===

impl Samples {
    /// Adds a metric without labels.
    pub fn value(&mut self, metric: &'static Metric, value: u64) {
        self.labelled(metric, [(String::new(), value)]);
    }

    /// Adds a metric with one label.
    pub fn labelled(&mut self, metric: &'static Metric, values: impl IntoIterator<Item = (String, u64)>) {
        let labels = |value: String| if metric.labels.is_empty() { Vec::new() } else { vec![value] };
        let samples = values.into_iter().map(|(label, value)| Sample { labels: labels(label), value });
        self.values.push((metric, samples.collect()));
    }

    /// Adds a histogram: the sum of all values, and for each bucket its upper bound in seconds with the number
    /// of values in it; what no bound holds comes last.
    pub fn histogram(
        &mut self,
        metric: &'static Metric,
        sum: Duration,
        buckets: impl IntoIterator<Item = (Option<Duration>, u64)>,
    ) {
        let bound = |bound: Option<Duration>| bound.map_or(f64::INFINITY, |bound| bound.as_secs_f64());
        let buckets = buckets.into_iter().map(|(upper, count)| (bound(upper), count)).collect();
        self.distributions.push(Distribution { metric, sum: sum.as_secs_f64(), buckets });
    }
}

// === impl Scrape ===

impl Scrape {
    pub(super) fn new(sources: Sources) -> Self {
        Self { sources }
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut samples = Samples::default();
        self.sources.read().iter().for_each(|source| source.sample(&mut samples));
        for (metric, samples) in samples.values.iter().filter(|(_, samples)| !samples.is_empty()) {
            let kind = if metric.kind == Kind::Counter { MetricType::Counter } else { MetricType::Gauge };
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            for sample in samples {
                let labels: Vec<_> =
                    metric.labels.iter().copied().zip(sample.labels.iter().cloned()).collect();
                if labels.is_empty() {
                    encode(metric, sample.value, family)?;
                    break;
                }
                encode(metric, sample.value, family.encode_family(&labels)?)?;
            }
        }
        for Distribution { metric, sum, buckets } in &samples.distributions {
            let count = buckets.iter().map(|(_, count)| count).sum();
            encoder
                .encode_descriptor(metric.name, metric.help, None, MetricType::Histogram)?
                .encode_histogram::<[(&str, &str); 0]>(*sum, count, buckets, None)?;
        }
        Ok(())
    }
}

fn encode(metric: &Metric, value: u64, encoder: MetricEncoder<'_>) -> fmt::Result {
    match metric.kind {
        Kind::Counter => ConstCounter::new(value).encode(encoder),
        Kind::Gauge | Kind::Histogram => {
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder)
        }
    }
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").field("sources", &self.sources.read().len()).finish()
    }
}

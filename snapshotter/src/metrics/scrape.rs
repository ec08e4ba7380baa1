//! Values that others keep, read at each scrape.

use std::{fmt, sync::Arc};

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

/// Values of several metrics.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<(&'static Metric, Vec<Sample>)>);

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
        self.0.push((metric, samples.collect()));
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
        for (metric, samples) in samples.0.iter().filter(|(_, samples)| !samples.is_empty()) {
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

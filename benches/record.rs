//! What a run leaves: every sample with all that is needed to judge it, as JSON.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    contender::Contender,
    figure::{Figure, Figures},
    image::Image,
    machine::{Machine, Versions},
    network::Network,
    startup::scenario::Scenario,
    statistics::{Estimate, estimate},
};

/// A run of `bench startup`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Too few samples to say more than that everything works.
    pub(crate) smoke: bool,
    /// When it began, UTC.
    pub(crate) began: String,
    /// Decides the order of samples.
    pub(crate) seed: u64,
    /// Samples that were asked for of each kind.
    pub(crate) runs: usize,
    pub(crate) machine: Machine,
    pub(crate) versions: Versions,
    /// Contenders that were asked for and cannot take part here, with the reason.
    pub(crate) skipped: BTreeMap<Contender, String>,
    /// What is known of those who cannot be had as published packages.
    pub(crate) recorded_elsewhere: Vec<Mark>,
    pub(crate) samples: Vec<Sample>,
}

/// A figure that was not measured in this run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) contender: String,
    pub(crate) network: String,
    pub(crate) what: String,
    pub(crate) ratio_to_overlayfs: f64,
    pub(crate) note: String,
}

/// What was measured under which circumstances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) image: Image,
    pub(crate) network: Network,
    pub(crate) scenario: Scenario,
    pub(crate) contender: Contender,
}

/// One sample.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sample {
    #[serde(flatten)]
    pub(crate) key: Key,
    /// Its place in the order of the run.
    pub(crate) position: usize,
    pub(crate) figures: Figures,
    /// Why there are no figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
}

/// Reads a record.
pub(crate) fn read_json<R: DeserializeOwned>(path: &Path) -> Result<R> {
    let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("understand {}", path.display()))
}

/// Writes a record.
pub(crate) fn write_json(record: &impl Serialize, path: &Path) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let text = serde_json::to_string_pretty(record)? + "\n";
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

impl Record {
    /// Every circumstance that there are samples of, sorted.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<Key> = self.samples.iter().map(|sample| sample.key).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// The median of `figure` over the samples of `key`, with its interval.
    pub(crate) fn estimate(&self, key: Key, figure: Figure) -> Option<Estimate> {
        let of_key = self.samples.iter().filter(|sample| sample.key == key);
        let values: Vec<f64> = of_key.filter_map(|sample| sample.figures.get(&figure).copied()).collect();
        estimate(&values, self.seed)
    }
}

/// nydus (RAFS v6 through FUSE, fetching everything, not verifying data), whose programs no package registry
/// has: its ratios to overlayfs as they were measured once on the scikit-learn image.
pub(crate) fn nydus() -> Vec<Mark> {
    let mark = |network: Network, what: &str, ratio_to_overlayfs| Mark {
        contender: "nydus".to_owned(),
        network: network.title().to_owned(),
        what: what.to_owned(),
        ratio_to_overlayfs,
        note: "recorded elsewhere on the scikit-learn image, not measured in this run; data not verified"
            .to_owned(),
    };
    vec![
        mark(Network::None, "cold pull to ready", 0.50),
        mark(Network::Far, "cold pull to ready", 0.56),
        mark(Network::None, "pull and read the whole image", 0.40),
    ]
}

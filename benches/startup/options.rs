//! What to measure.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::scenario::Scenario;
use crate::{contender::Contender, image::Image, network::Network, programs::root};

/// What to measure, with what, how often.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Contenders; all of them when not given
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(super) contenders: Vec<Contender>,
    /// Images, built when they are asked for first
    #[arg(long, value_enum, value_delimiter = ',', default_value = "scikit-learn")]
    pub(super) images: Vec<Image>,
    /// Networks between the machine and the registry
    #[arg(long, value_enum, value_delimiter = ',', default_value = "none,far")]
    pub(super) networks: Vec<Network>,
    /// What is done with an image
    #[arg(long, value_enum, value_delimiter = ',', default_value = "start,second")]
    pub(super) scenarios: Vec<Scenario>,
    /// Samples of each kind; 7 when not given, 1 with --smoke
    #[arg(long)]
    runs: Option<usize>,
    /// Decides the random order of samples
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Where the record goes; benches/results/startup.json when not given, target/bench/startup-smoke.json with --smoke
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// One sample of each kind, to see that everything works; the result says so
    #[arg(long)]
    pub(super) smoke: bool,
}

impl Options {
    /// Programs that are needed to build the images, each with the Debian package that has it.
    pub fn builders(&self) -> Vec<(&'static str, &'static str)> {
        self.images.iter().filter_map(|image| image.builder()).collect()
    }

    /// Samples of each kind.
    pub(super) fn runs(&self) -> usize {
        self.runs.unwrap_or(if self.smoke { 1 } else { 7 }).max(1)
    }

    /// The record's file.
    pub(super) fn json(&self) -> PathBuf {
        self.json.clone().unwrap_or_else(|| {
            root().join(if self.smoke {
                "target/bench/startup-smoke.json"
            } else {
                "benches/results/startup.json"
            })
        })
    }

    /// The contenders that were asked for.
    pub(super) fn contenders(&self) -> Vec<Contender> {
        if self.contenders.is_empty() {
            Contender::value_variants().to_vec()
        } else {
            self.contenders.clone()
        }
    }
}

//! What to measure.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::operation::Operation;
use crate::{contender::Contender, programs::root};

/// What to measure, with what, how often.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Contenders
    #[arg(long, value_enum, value_delimiter = ',', default_value = "overlayfs,stargz,stargz-tuned,starling")]
    contenders: Vec<Contender>,
    /// Operations; all of them when not given
    #[arg(long, value_enum, value_delimiter = ',')]
    operations: Vec<Operation>,
    /// Samples of each kind; 7 when not given, 1 with --smoke
    #[arg(long)]
    runs: Option<usize>,
    /// Decides the random order of samples
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Where the record goes; benches/results/datapath.json when not given, target/bench/datapath-smoke.json with --smoke
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// One sample of each kind, to see that everything works; the result says so
    #[arg(long)]
    pub(super) smoke: bool,
}

impl Options {
    pub(super) fn contenders(&self) -> Vec<Contender> {
        self.contenders.clone()
    }

    pub(super) fn operations(&self) -> Vec<Operation> {
        if self.operations.is_empty() {
            Operation::value_variants().to_vec()
        } else {
            self.operations.clone()
        }
    }

    /// Samples of each kind.
    pub(super) fn runs(&self) -> usize {
        self.runs.unwrap_or(if self.smoke { 1 } else { 7 }).max(1)
    }

    /// The record's file.
    pub(super) fn json(&self) -> PathBuf {
        self.json.clone().unwrap_or_else(|| {
            root().join(if self.smoke {
                "target/bench/datapath-smoke.json"
            } else {
                "benches/results/datapath.json"
            })
        })
    }
}

//! How large the image is and where the record goes.

use std::path::PathBuf;

use clap::Args;

use crate::programs::root;

/// How much to measure with.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Layers; 100 when not given, 10 with --smoke
    #[arg(long)]
    layers: Option<usize>,
    /// Small files of each layer; 10000 when not given, 500 with --smoke
    #[arg(long)]
    files: Option<usize>,
    /// Where the record goes; benches/results/memory.json when not given, target/bench/memory-smoke.json with --smoke
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A small image, to see that everything works; the result says so
    #[arg(long)]
    pub(super) smoke: bool,
}

impl Options {
    pub(super) fn layers(&self) -> usize {
        self.layers.unwrap_or(if self.smoke { 10 } else { 100 }).max(1)
    }

    /// Small files of each layer.
    pub(super) fn files(&self) -> usize {
        self.files.unwrap_or(if self.smoke { 500 } else { 10_000 }).max(1)
    }

    /// The record's file.
    pub(super) fn json(&self) -> PathBuf {
        self.json.clone().unwrap_or_else(|| {
            root().join(if self.smoke {
                "target/bench/memory-smoke.json"
            } else {
                "benches/results/memory.json"
            })
        })
    }
}

//! What a run is asked to do.

use std::path::PathBuf;

use clap::Args;

/// How long, how many faults, and which.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How long faults strike, in seconds
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=86_400))]
    pub seconds: u64,
    /// Repeats the plan of an earlier run, which printed it
    #[arg(long)]
    pub seed: Option<u64>,
    /// How often the daemon is killed; about once in two seconds when not given
    #[arg(long)]
    pub kills: Option<usize>,
    /// Write the figures to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Print what would strike when, and end
    #[arg(long)]
    pub plan: bool,
    /// Take starling, starlingd and starling-holder from this directory instead of building them
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
}

// === impl Options ===

impl Options {
    /// How often the daemon is killed.
    pub fn kills(&self) -> usize {
        self.kills.unwrap_or(usize::try_from(self.seconds / 2).unwrap_or(usize::MAX))
    }

    /// The seed that was given, or a new one.
    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(rand::random)
    }
}

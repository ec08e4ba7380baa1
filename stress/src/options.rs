//! What a run is asked to do.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Faults of a kind, which come one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The daemon is killed
    Daemon,
    /// The registry misbehaves
    Registry,
    /// containerd is killed
    Containerd,
    /// The disk is full
    Disk,
    /// Bits flip on disk
    Bits,
}

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
    /// Let only faults of this kind strike; may be given for several
    #[arg(long, value_name = "KIND")]
    pub only: Vec<Kind>,
    /// Fail if the 99th percentile of the daemon's pauses is longer than this, in milliseconds
    #[arg(long, value_name = "MS")]
    pub pause_p99: Option<u32>,
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

// === impl Kind ===

impl Kind {
    /// What its thread is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::Registry => "registry",
            Self::Containerd => "containerd",
            Self::Disk => "disk",
            Self::Bits => "bits",
        }
    }
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

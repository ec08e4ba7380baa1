//! What a run of `bench datapath` leaves.

use clap::ValueEnum as _;
use serde::{Deserialize, Serialize};

use super::operation::Operation;
use crate::{
    contender::Contender,
    machine::{Machine, Versions},
    statistics::{Estimate, estimate},
};

/// A run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// Too few samples to say more than that everything works.
    pub(super) smoke: bool,
    /// When it began, UTC.
    pub(super) began: String,
    /// Decides the order of samples.
    pub(super) seed: u64,
    /// Samples that were asked for of each kind.
    pub(super) runs: usize,
    pub(super) machine: Machine,
    pub(super) versions: Versions,
    pub(super) samples: Vec<Sample>,
}

/// Whether the operation was done just before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// Everything is on disk, nothing in the page cache, nor in that of names.
    Cold,
    /// The same was done just before.
    Warm,
}

/// What was measured under which circumstances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) operation: Operation,
    pub(super) state: State,
    pub(super) contender: Contender,
}

/// One sample.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Sample {
    #[serde(flatten)]
    pub(super) key: Key,
    pub(super) seconds: f64,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold page cache",
            Self::Warm => "warm",
        }
    }
}

impl Record {
    /// A table for each state: operations in rows, contenders in columns, with the ratio to overlayfs.
    pub(super) fn tables(&self) -> String {
        let mut contenders: Vec<Contender> = self.samples.iter().map(|sample| sample.key.contender).collect();
        contenders.sort();
        contenders.dedup();
        let mut text = String::new();
        for state in [State::Cold, State::Warm] {
            let titles: Vec<&str> = contenders.iter().map(|contender| contender.title()).collect();
            text += &format!(
                "\n| {} | {} |\n|---|{}\n",
                state.name(),
                titles.join(" | "),
                "---|".repeat(titles.len())
            );
            for &operation in Operation::value_variants() {
                let cells: Vec<String> = contenders
                    .iter()
                    .map(|&contender| self.cell(Key { operation, state, contender }))
                    .collect();
                if cells.iter().any(|cell| cell != "-") {
                    text += &format!("| {} | {} |\n", operation.title(), cells.join(" | "));
                }
            }
        }
        if self.smoke {
            text += "\nThis is a smoke run: it shows that everything works, its figures prove nothing.\n";
        }
        text
    }

    fn cell(&self, key: Key) -> String {
        let Some(one) = self.estimate(key) else { return "-".to_owned() };
        let interval = if one.samples > 1 {
            format!(" ({} to {})", show(one.low), show(one.high))
        } else {
            String::new()
        };
        let native = self.estimate(Key { contender: Contender::Overlayfs, ..key });
        let ratio = match native {
            Some(native) if key.contender != Contender::Overlayfs => {
                format!(", {:.2} x", one.median / native.median)
            }
            _ => String::new(),
        };
        show(one.median) + &interval + &ratio
    }

    fn estimate(&self, key: Key) -> Option<Estimate> {
        let of_key = self.samples.iter().filter(|sample| sample.key == key);
        estimate(&of_key.map(|sample| sample.seconds).collect::<Vec<f64>>(), self.seed)
    }
}

fn show(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1e3) } else { format!("{seconds:.2} s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_to_overlayfs_in_the_same_state() {
        let sample = |state, contender, seconds| Sample {
            key: Key { operation: Operation::Tar, state, contender },
            seconds,
        };
        let record = Record {
            smoke: true,
            began: String::new(),
            seed: 1,
            runs: 1,
            machine: Machine::this(),
            versions: Versions::this(),
            samples: vec![
                sample(State::Cold, Contender::Overlayfs, 2.0),
                sample(State::Cold, Contender::Starling, 3.0),
                sample(State::Warm, Contender::Starling, 0.5),
            ],
        };
        let tables = record.tables();
        assert!(tables.contains("| tar of the whole image | 2.00 s | 3.00 s, 1.50 x |"), "{tables}");
        assert!(tables.contains("| tar of the whole image | - | 500.0 ms |"), "{tables}");
        assert!(tables.contains("smoke run"));
    }
}

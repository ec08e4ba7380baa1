//! What a run of `bench memory` leaves.

use serde::{Deserialize, Serialize};

use crate::machine::{Machine, Versions};

/// What the daemon may hold at most (`RssAnon` + `RssShmem`), with 100 layers and a million files.
const PROMISE: u64 = 64 << 20;

/// A run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// Too small to say more than that everything works.
    pub(super) smoke: bool,
    /// When it began, UTC.
    pub(super) began: String,
    pub(super) layers: usize,
    /// Small files of all layers together.
    pub(super) files: usize,
    pub(super) machine: Machine,
    pub(super) versions: Versions,
    pub(super) steps: Vec<Stepped>,
}

/// What the daemon was made to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Step {
    /// It has nothing yet.
    Started,
    /// The image was pulled and mounted.
    Attached,
    /// Every large file and every tenth small one was read by eight programs at once.
    Read,
    /// Every directory was listed, every file's attributes asked for.
    Walked,
    /// The background has fetched the rest.
    Fetched,
    /// Nothing happened for a while.
    Rested,
}

/// The daemon's memory in a step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Stepped {
    pub(super) step: Step,
    pub(super) seconds: f64,
    /// The most `RssAnon` + `RssShmem` that was seen.
    pub(super) peak: u64,
    /// `RssAnon` + `RssShmem` at the end of the step.
    pub(super) after: u64,
    /// The part of the memory budget that was in use at the end of the step.
    pub(super) in_flight: u64,
    pub(super) threads: usize,
}

impl Step {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Attached => "image pulled and mounted",
            Self::Walked => "all files listed with attributes",
            Self::Read => "every tenth file read",
            Self::Fetched => "everything fetched",
            Self::Rested => "at rest",
        }
    }
}

impl Stepped {
    /// A row of the table.
    pub(super) fn line(&self) -> String {
        let Self { step, seconds, peak, after, in_flight, threads } = self;
        let [peak, after, in_flight] = [peak, after, in_flight].map(|bytes| mebibytes(*bytes));
        format!("| {} | {seconds:.1} s | {peak} | {after} | {in_flight} | {threads} |", step.title())
    }
}

impl Record {
    /// The most memory in any step.
    pub(super) fn peak(&self) -> u64 {
        self.steps.iter().map(|step| step.peak).max().unwrap_or(0)
    }

    pub(super) fn is_kept(&self) -> bool {
        self.peak() <= PROMISE
    }

    pub(super) fn table(&self) -> String {
        let Self { layers, files, .. } = self;
        let mut text = format!(
            "\n### {layers} layers with {files} files\n\n\
             | step | took | peak | after | of it in flight | threads |\n|---|---|---|---|---|---|\n"
        );
        self.steps.iter().for_each(|step| text += &format!("{}\n", step.line()));
        text += &format!(
            "\nThe peak is {}; at most {} are promised: {}.\n",
            mebibytes(self.peak()),
            mebibytes(PROMISE),
            if self.is_kept() { "kept" } else { "missed" }
        );
        if self.smoke {
            text += "\nThis is a smoke run: it shows that everything works, its figures prove nothing.\n";
        }
        text
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_promise_is_about_the_peak_of_all_steps() {
        let step = |peak: u64| Stepped {
            step: Step::Read,
            seconds: 1.0,
            peak: peak << 20,
            after: 1 << 20,
            in_flight: 0,
            threads: 8,
        };
        let mut record = Record {
            smoke: false,
            began: String::new(),
            layers: 1,
            files: 2,
            machine: Machine::this(),
            versions: Versions::this(),
            steps: vec![step(64), step(10)],
        };
        assert!(record.is_kept() && record.table().contains("| 64.0 MiB | 1.0 MiB |"), "{}", record.table());
        record.steps.push(step(65));
        assert!(!record.is_kept() && record.table().contains("missed"));
    }
}

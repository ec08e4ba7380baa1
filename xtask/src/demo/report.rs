//! The table at the end of the demo.

use anyhow::{Context, Result};
use serde_json::json;

use super::start::{Kind, Sample};

/// Prints medians of `samples` as a table, and as JSON on request.
pub(crate) fn print(samples: &[Sample], as_json: bool) -> Result<()> {
    let mut columns = Vec::new();
    for (kind, name) in [
        (Kind::FullPull, "full pull (overlayfs)"),
        (Kind::Rival, "stargz-snapshotter"),
        (Kind::Lazy, "Starling"),
    ] {
        if samples.iter().any(|sample| sample.kind == kind) {
            columns.push((name, Medians::of(samples, kind)?));
        }
    }
    let runs = columns.first().map_or(0, |(_, medians)| medians.runs);
    let row = |title: &str, cell: &dyn Fn(&Medians) -> String| {
        let cells: Vec<String> = columns.iter().map(|(_, medians)| cell(medians)).collect();
        println!("| {title} | {} |", cells.join(" | "));
    };
    println!();
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    println!("| cold start, median of {runs} | {} |", names.join(" | "));
    println!("|---|{}", "---|".repeat(columns.len()));
    row("pull done", &|medians| format!("{:.2} s", medians.pulled));
    row("program ready", &|medians| format!("{:.2} s", medians.ready));
    row("bytes from the registry until ready", &|medians| format!("{:.1} MB", medians.megabytes));
    row("requests until ready", &|medians| medians.requests.to_string());
    if as_json {
        let figures = columns.iter().map(|(name, medians)| ((*name).to_owned(), medians.json()));
        println!("{}", serde_json::Value::Object(figures.collect()));
    }
    Ok(())
}

struct Medians {
    runs: usize,
    pulled: f64,
    ready: f64,
    megabytes: f64,
    requests: u64,
}

impl Medians {
    fn of(samples: &[Sample], kind: Kind) -> Result<Self> {
        let of_kind: Vec<&Sample> = samples.iter().filter(|sample| sample.kind == kind).collect();
        let median = |figure: fn(&Sample) -> f64| -> Result<f64> {
            let mut figures: Vec<f64> = of_kind.iter().map(|sample| figure(sample)).collect();
            figures.sort_by(f64::total_cmp);
            figures.get(figures.len() / 2).copied().context("no samples: --runs must be at least 1")
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, exact in f64")]
        let requests = median(|sample| sample.requests as f64)? as u64;
        Ok(Self {
            runs: of_kind.len(),
            pulled: median(|sample| sample.pulled.as_secs_f64())?,
            ready: median(|sample| sample.ready.as_secs_f64())?,
            megabytes: median(|sample| sample.bytes as f64 / 1e6)?,
            requests,
        })
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "pulled_seconds": self.pulled,
            "ready_seconds": self.ready,
            "megabytes_to_ready": self.megabytes,
            "requests_to_ready": self.requests,
            "runs": self.runs,
        })
    }
}

//! The table at the end of the demo.

use anyhow::{Context, Result};
use serde_json::json;

use super::start::{Kind, Sample};

/// Prints medians of `samples` as a table, and as JSON on request.
pub(crate) fn print(samples: &[Sample], as_json: bool) -> Result<()> {
    let full = Medians::of(samples, Kind::FullPull)?;
    let lazy = Medians::of(samples, Kind::Lazy)?;
    println!("\n| cold start, median of {} | full pull (overlayfs) | Starling |", full.runs);
    println!("|---|---|---|");
    println!("| pull done | {:.2} s | {:.2} s |", full.pulled, lazy.pulled);
    println!("| program ready | {:.2} s | {:.2} s |", full.ready, lazy.ready);
    println!("| bytes from the registry until ready | {:.1} MB | {:.1} MB |", full.megabytes, lazy.megabytes);
    println!("| requests until ready | {} | {} |", full.requests, lazy.requests);
    println!("\nStarling was ready {:.1} x as soon as the full pull.", full.ready / lazy.ready);
    if as_json {
        println!("{}", json!({ "full_pull": full.json(), "starling": lazy.json() }));
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

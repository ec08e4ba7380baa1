//! The table at the end of the demo.

use anyhow::{Context, Result};
use serde_json::json;

use super::start::{Kind, Sample};

/// Prints medians of `samples`: as a table that is Markdown as well, or as JSON.
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
    if as_json {
        let figures = columns.iter().map(|(name, medians)| ((*name).to_owned(), medians.json()));
        println!("{}", serde_json::Value::Object(figures.collect()));
    } else {
        println!("\n{}", table(&columns));
    }
    Ok(())
}

/// The columns side by side, in words that need no knowledge of containerd, and what they come to.
fn table(columns: &[(&str, Medians)]) -> String {
    let runs = columns.first().map_or(0, |(_, medians)| medians.runs);
    let cells = |cell: &dyn Fn(&Medians) -> String| columns.iter().map(|(_, m)| cell(m)).collect::<Vec<_>>();
    let rows = [
        ("the pull returns after", cells(&|m| format!("{:.2} s", m.pulled))),
        ("the program is ready after", cells(&|m| format!("{:.2} s", m.ready))),
        ("downloaded until then, background included", cells(&|m| format!("{:.1} MB", m.megabytes))),
        ("requests to the registry until then", cells(&|m| m.requests.to_string())),
    ];
    let title = format!("cold start, median of {runs}");
    let first = rows.iter().map(|(name, _)| name.len()).chain([title.len()]).max().unwrap_or(0);
    let widths: Vec<usize> = columns.iter().map(|(name, _)| name.len().max(10)).collect();
    let line = |name: &str, cells: &[String]| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!(" {cell:>width$} |"));
        format!("| {name:<first$} |{}\n", cells.collect::<String>())
    };
    let names: Vec<String> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut text = line(&title, &names);
    let rule = widths.iter().map(|width| format!("{}:|", "-".repeat(width + 1))).collect::<String>();
    text += &format!("|{}|{rule}\n", "-".repeat(first + 2));
    for (name, cells) in &rows {
        text += &line(name, cells);
    }
    let find = |wanted: &str| columns.iter().find(|(name, _)| name.starts_with(wanted)).map(|(_, m)| m);
    if let (Some(full), Some(lazy)) = (find("full pull"), find("Starling")) {
        text += &format!(
            "\nWith Starling the program is ready in {:.0} % of the time; the rest of the image follows meanwhile.",
            100.0 * lazy.ready / full.ready
        );
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_aligned_and_says_what_it_comes_to() {
        let medians = |ready, megabytes| Medians { runs: 3, pulled: 0.5, ready, megabytes, requests: 7 };
        let text = table(&[("full pull (overlayfs)", medians(4.0, 50.0)), ("Starling", medians(2.0, 5.0))]);
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(lines.len(), 6, "{text}");
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{text}");
        assert!(text.contains("ready in 50 % of the time"), "{text}");
    }
}

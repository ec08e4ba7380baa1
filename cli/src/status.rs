//! `starling status`: what a running daemon has, from its admin socket.

use std::path::PathBuf;

use anyhow::Result;
use snapshotter::admin::{CacheStatus, ImageStatus, LayerStatus, OutcomeStatus, Status, ask_status};

use crate::{output, progress::human};

/// Where a daemon with default settings answers people.
pub(crate) const ADMIN_SOCKET: &str = "/run/starling/admin.sock";

/// Show the daemon's layers, how much of each is on disk, and why layers fell back.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The daemon's admin socket, in the directory of its --address.
    #[arg(long, value_name = "SOCKET", default_value = ADMIN_SOCKET)]
    admin: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub(crate) fn run(args: Args) -> Result<()> {
    let status = ask_status(&args.admin)?;
    if args.json { output::print_json(&status) } else { output::print(&lines(&status).join("\n")) }
}

fn lines(status: &Status) -> Vec<String> {
    let mut lines = vec![
        format!(
            "starlingd {}, process {}, up {}, root {}",
            status.version,
            status.pid,
            duration(status.uptime_seconds),
            status.root.display()
        ),
        format!(
            "memory {}, {} of it not cached files",
            human(status.memory.resident_bytes),
            human(status.memory.anonymous_bytes)
        ),
    ];
    lines.push(disk(&status.cache));
    lines.extend(status.ignored_configuration.iter().map(|key| format!("ignored configuration: {key}")));
    lines.push(String::new());
    lines.extend(layer_table(&status.layers));
    lines.extend(status.layers.iter().filter_map(last_error));
    lines.extend(status.images.iter().flat_map(image_lines));
    if !status.registries.is_empty() {
        lines.push(String::new());
    }
    lines.extend(status.registries.iter().map(|registry| {
        let (host, received) = (&registry.host, human(registry.bytes_received));
        format!("{host}: {} requests, {} retries, {received} received", registry.requests, registry.retries)
    }));
    lines
}

fn disk(cache: &CacheStatus) -> String {
    let (taken, quota, free) = (human(cache.bytes), human(cache.quota_bytes), human(cache.free_bytes));
    let mut line = format!("disk {taken} of at most {quota}, {free} free");
    if let Some(why) = &cache.why_not {
        line += &format!("; what is fetched is served and not kept: {why}");
    }
    line
}

fn layer_table(layers: &[LayerStatus]) -> Vec<String> {
    if layers.is_empty() {
        return vec!["no lazy layers".to_owned()];
    }
    let mut rows = vec![
        ["LAYER", "PRESENT", "SIZE", "%", "HITS", "MISSES", "DEMAND", "PLANNED", "BACKGROUND", "STATE"]
            .map(str::to_owned),
    ];
    rows.extend(layers.iter().map(|layer| {
        [
            short(&layer.blob),
            human(layer.files.bytes_present),
            human(layer.files.bytes_total),
            format!("{:.1}", layer.files.percent_present),
            layer.hits.to_string(),
            layer.misses.to_string(),
            human(layer.demand_bytes_fetched),
            human(layer.planned_bytes_fetched),
            human(layer.background_bytes_fetched),
            layer.background.clone(),
        ]
    }));
    aligned(&rows)
}

/// Columns of equal width; the first and the last to the left, numbers to the right.
pub(crate) fn aligned<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            last if last + 1 == N => cell.clone(),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    rows.iter().map(line).collect()
}

fn last_error(layer: &LayerStatus) -> Option<String> {
    let error = layer.last_error.as_deref()?;
    Some(format!("{}: last error: {error}", short(&layer.blob)))
}

fn image_lines(image: &ImageStatus) -> Vec<String> {
    let lazy = image.layers.iter().filter(|layer| matches!(layer.outcome, OutcomeStatus::Lazy { .. }));
    let mut lines = vec![
        String::new(),
        format!("{}: {} of {} layers lazy", image.reference, lazy.count(), image.layers.len()),
    ];
    lines.extend(image.layers.iter().filter_map(|layer| match &layer.outcome {
        OutcomeStatus::Lazy { .. } => None,
        OutcomeStatus::FellBack { code, reason } => {
            Some(format!("  {} fell back ({code}): {reason}", short(&layer.blob)))
        }
    }));
    lines
}

/// A digest as people compare them.
pub(crate) fn short(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).collect()
}

pub(crate) fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) if hours < 48 => format!("{hours} h {minutes} min"),
        (hours, ..) => format!("{} d {} h", hours / 24, hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use snapshotter::admin::{FilesStatus, ImageLayerStatus, MemoryStatus};

    use super::*;

    fn layer() -> LayerStatus {
        LayerStatus {
            key: "k".into(),
            blob: format!("sha256:{}", "ab".repeat(32)),
            toc: String::new(),
            references: Vec::new(),
            places: Vec::new(),
            slot: Some(1),
            files: FilesStatus::new((250, 1000), (1, 4)),
            hits: 7,
            misses: 3,
            demand_bytes_fetched: 1_000_000,
            planned_bytes_fetched: 0,
            background_bytes_fetched: 0,
            requests: 3,
            verify_failures: 0,
            background: "filling".into(),
            last_error: Some("the registry is away".into()),
        }
    }

    #[test]
    fn layers_and_fall_backs_are_shown() {
        let fell_back = OutcomeStatus::FellBack { code: "not-estargz".into(), reason: "no footer".into() };
        let image = ImageStatus {
            reference: "example.org/a:1".into(),
            manifest: None,
            prepared_at: 0,
            layers: vec![ImageLayerStatus { blob: layer().blob, toc: None, outcome: fell_back }],
        };
        let status = Status {
            version: "1".into(),
            pid: 2,
            uptime_seconds: 3725,
            root: "/r".into(),
            address: "/a".into(),
            memory: MemoryStatus::default(),
            cache: CacheStatus {
                bytes: 3_200_000_000,
                quota_bytes: 50_000_000_000,
                free_bytes: 1_000_000,
                why_not: Some("the file system is nearly full".into()),
                ..CacheStatus::default()
            },
            layers: vec![layer()],
            images: vec![image],
            registries: Vec::new(),
            hosts: Vec::new(),
            ignored_configuration: Vec::new(),
        };
        let text = lines(&status).join("\n");
        for words in [
            "up 1 h 2 min",
            "disk 3.2 GB of at most 50.0 GB, 1.0 MB free; what is fetched is served and not kept: the file system is",
            "sha256:abababababab    250 B  1.0 kB  25.0     7       3  1.0 MB      0 B         0 B  filling",
            "sha256:abababababab: last error: the registry is away",
            "example.org/a:1: 0 of 1 layers lazy",
            "fell back (not-estargz): no footer",
        ] {
            assert!(text.contains(words), "{words:?} is not in\n{text}");
        }
    }

    #[test]
    fn durations_have_the_two_units_that_matter() {
        for (seconds, text) in [(59, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (200_000, "2 d 7 h")] {
            assert_eq!(duration(seconds), text);
        }
    }
}

//! `docs/metrics.md`, written from the list of metrics.

use std::fmt::Write;

use super::names;

const HEAD: &str = "# Metrics of `starlingd`

<!-- Generated from snapshotter/src/metrics/names.rs; `UPDATE_DOCS=1 cargo test -p snapshotter` writes it anew. -->

The daemon serves them in Prometheus' text format at `/metrics` on the admin socket, and by HTTP on `metrics_address` if
the configuration sets it. Counters start at zero with the daemon. No label holds a digest, an image or a path; `host` is a
registry that images are pulled from.

| name | type | unit | labels | meaning |
|---|---|---|---|---|
";

/// The whole page.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    for metric in names::ALL {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, labels) = (metric.exported_name(), metric.kind.as_str(), labels.join(", "));
        // A String takes any text.
        let _ = writeln!(page, "| `{name}` | {kind} | {} | {labels} | {} |", metric.unit, metric.help);
    }
    page
}

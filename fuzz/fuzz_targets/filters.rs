//! List's filters: the input is filters, one a line, matched against a snapshot that has every field.

#![no_main]

use libfuzzer_sys::fuzz_target;
use snapshotter::filters::{Fields, Filters};

/// The one module, not the crate, which would bring the network and the kernel along.
#[path = "../../snapshotter/src"]
mod snapshotter {
    pub mod filters;
}

struct Snapshot;

impl Fields for Snapshot {
    fn field(&self, path: &[String]) -> Option<&str> {
        match path.first()?.as_str() {
            "name" => Some("default/1/sha256:ab"),
            "kind" => Some("committed"),
            "parent" => Some(""),
            "labels" => (path.len() > 1).then_some("value"),
            _ => None,
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines: Vec<&str> = text.split('\n').collect();
    if let Ok(filters) = Filters::parse(&lines) {
        // What one of several filters selects is selected, whatever the others are.
        let any = lines.iter().any(|line| Filters::parse(&[line]).is_ok_and(|filter| filter.select(&Snapshot)));
        assert_eq!(filters.select(&Snapshot), any);
    }
});

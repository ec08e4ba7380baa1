//! Whether the transfer service of containerd's configuration unpacks into the snapshotter.

use toml::Value;

use super::{check::Check, document::Document};
use crate::containerd_lines::{TRANSFER, unpack_entry};

/// The snapshotter of pulls that name none.
const ORDINARY: &str = "overlayfs";

const NAME: &str = "unpacking";

pub(super) fn check(document: &Document, name: &str) -> Check {
    let snapshotters = snapshotters(document);
    let ours = snapshotters.contains(&name);
    if !ours && document.version() < 3 {
        return Check::skipped(
            NAME,
            "version 2 is for containerd 1.7, whose transfer service pulls everything whole",
        );
    }
    let ordinary = ours && snapshotters.len() == 1 && name != ORDINARY;
    match (ours, ordinary, snapshotters.as_slice()) {
        (true, false, all) => Check::ok(NAME, format!("unpack_config has {}", all.join(", "))),
        // The first entry in a configuration replaces the built-in one.
        (true, true, _) => Check::warning(
            NAME,
            format!("unpack_config has {name} only: pulls that name no snapshotter fail"),
            document.add(unpack_entry(ORDINARY)),
        ),
        (false, _, []) => Check::failure(
            NAME,
            format!("there is no unpack_config: ctr, nerdctl and starling pull cannot unpack into {name}"),
            document.add([unpack_entry(name), unpack_entry(ORDINARY)].concat()),
        ),
        (false, _, others) => Check::failure(
            NAME,
            format!("unpack_config has {}, and not {name}", others.join(", ")),
            document.add(unpack_entry(name)),
        ),
    }
}

/// The snapshotters that images for Linux are unpacked into, each once.
fn snapshotters(document: &Document) -> Vec<&str> {
    let entries = document.get(&["plugins", TRANSFER, "unpack_config"]).and_then(Value::as_array);
    let for_linux = |entry: &&Value| match entry.get("platform").and_then(Value::as_str) {
        Some(platform) => platform.split('/').next() == Some("linux"),
        None => true,
    };
    let mut names = Vec::new();
    for name in entries.into_iter().flatten().filter(for_linux).filter_map(|entry| entry.get("snapshotter")) {
        names.extend(name.as_str().filter(|name| !names.contains(name)));
    }
    names
}

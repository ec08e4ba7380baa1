//! Whether the CRI plugin of containerd's configuration, which pulls for kubelet, does so lazily.

use toml::Value;

use super::{check::Check, document::Document, proxy_plugin};
use crate::containerd_lines::{CRI_V2, CRI_V3, set};

/// The line that makes the CRI plugin pull by itself and tell which image a layer is of.
const TELLING: &str = "disable_snapshot_annotations = false";
/// Any of these names in `disabled_plugins` ends the CRI plugin; Docker's packages have the short one.
const DISABLED: [&str; 3] = ["cri", CRI_V2, CRI_V3];
/// The number of parallel downloads that the transfer service stands for.
const DEFAULT_DOWNLOADS: i64 = 3;

/// The table with the keys for pulls.
struct Place {
    path: &'static [&'static str],
    header: String,
}

pub(super) fn checks(document: &Document, name: &str) -> Vec<Check> {
    if let Some(disabled) = disabled(document) {
        return vec![Check::skipped("CRI snapshotter", format!("disabled_plugins names {disabled}"))];
    }
    let (place, labels) = (Place::of(document.version()), labels(document, name));
    let there = document.text(&place.key("snapshotter"));
    if there == Some(name) {
        return vec![Check::ok("CRI snapshotter", name), labels];
    }
    let telling = told(document, &place) || silent_reason(document, &place).is_none();
    let mut lines = vec![set("snapshotter", name)];
    lines.extend((!telling).then(|| TELLING.to_owned()));
    let mut remedy = document.set(place.path, &place.header, lines);
    remedy.what = format!("if this is a node of Kubernetes, {}", remedy.what);
    let found = format!("pulls of kubelet use {}", there.unwrap_or("overlayfs"));
    vec![Check::warning("CRI snapshotter", found, remedy)]
}

fn disabled(document: &Document) -> Option<&str> {
    let names = document.get(&["disabled_plugins"]).and_then(Value::as_array).into_iter().flatten();
    names.filter_map(Value::as_str).find(|name| DISABLED.contains(name))
}

/// Whether pulls for kubelet tell which image a layer is of.
fn labels(document: &Document, name: &str) -> Check {
    const NAME: &str = "CRI labels";
    let place = Place::of(document.version());
    if told(document, &place) {
        return Check::ok(NAME, TELLING);
    }
    match silent_reason(document, &place) {
        None if proxy_plugin::annotated(document, name) => {
            Check::ok(NAME, "by the transfer service (containerd 2.1 or newer; 2.0 needs the key)")
        }
        None => Check::skipped(NAME, "pulls go through the transfer service, see image labels"),
        Some(why) => Check::failure(
            NAME,
            format!("pulls of kubelet do not tell which image a layer is of: {why}"),
            document.set(place.path, &place.header, vec![TELLING.to_owned()]),
        ),
    }
}

fn told(document: &Document, place: &Place) -> bool {
    document.get(&place.key("disable_snapshot_annotations")).and_then(Value::as_bool) == Some(false)
}

/// Why the CRI plugin pulls without the transfer service, and so without labels (containerd
/// internal/cri/config/config.go, CheckLocalImagePullConfigs); nothing if it pulls through it.
fn silent_reason(document: &Document, place: &Place) -> Option<&'static str> {
    let get = |key| document.get(&place.key(key));
    let on = |key| get(key).and_then(Value::as_bool) == Some(true);
    let registries = |key: &str| {
        let tables = get("registry").and_then(|registry| registry.get(key));
        tables.and_then(Value::as_table).is_some_and(|tables| !tables.is_empty())
    };
    if document.version() < 3 {
        return Some("disable_snapshot_annotations is not false");
    }
    for key in ["use_local_image_pull", "discard_unpacked_layers", "image_pull_with_sync_fs"] {
        if on(key) {
            return Some(key);
        }
    }
    let downloads = get("max_concurrent_downloads").and_then(Value::as_integer);
    if downloads.is_some_and(|downloads| downloads != DEFAULT_DOWNLOADS) {
        return Some("max_concurrent_downloads");
    }
    ["mirrors", "configs", "auths"].into_iter().find(|key| registries(key))
}

// === impl Place ===

impl Place {
    fn of(version: i64) -> Self {
        if version < 3 {
            Self {
                path: &["plugins", CRI_V2, "containerd"],
                header: format!("plugins.\"{CRI_V2}\".containerd"),
            }
        } else {
            Self { path: &["plugins", CRI_V3], header: format!("plugins.'{CRI_V3}'") }
        }
    }

    fn key<'a>(&self, key: &'a str) -> Vec<&'a str> {
        [self.path, &[key]].concat()
    }
}

//! Whether containerd's configuration has the daemon as a snapshotter, and passes on what it must know.

use std::path::Path;

use toml::Value;

use super::{
    check::{Check, Remedy},
    document::Document,
};
use crate::containerd_lines::{ANNOTATIONS, exported_root, plugin_table, proxy_plugin, set};

/// What the configuration must agree with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The name of the snapshotter.
    pub(super) name: &'a str,
    /// The daemon's socket.
    pub(super) address: &'a Path,
    /// The daemon's root.
    pub(super) root: &'a Path,
}

pub(super) fn checks(document: &Document, wanted: Wanted<'_>) -> Vec<Check> {
    let table = plugin_table(wanted.name);
    if document.get(&["proxy_plugins", wanted.name]).and_then(Value::as_table).is_none() {
        let lines =
            proxy_plugin(wanted.name, wanted.address, wanted.root, passes_annotations(document.version()));
        return vec![Check::failure("proxy plugin", format!("there is no [{table}]"), document.add(lines))];
    }
    vec![
        connected(document, wanted, &table),
        exported(document, wanted, &table),
        labelled(document, wanted, &table),
    ]
}

/// containerd 1.7, which writes version 2, passes none on.
fn passes_annotations(version: i64) -> bool {
    version >= 3
}

/// Whether pulls through the transfer service tell which image a layer is of.
pub(super) fn annotated(document: &Document, name: &str) -> bool {
    document.text(&["proxy_plugins", name, "exports", ANNOTATIONS]) == Some("true")
}

/// It is a snapshotter behind the daemon's socket.
fn connected(document: &Document, wanted: Wanted<'_>, table: &str) -> Check {
    const NAME: &str = "proxy plugin";
    let path = ["proxy_plugins", wanted.name];
    let text = |key| document.text(&[&path[..], &[key]].concat()).unwrap_or("nothing");
    let (kind, there) = (text("type"), text("address"));
    let address = wanted.address.display().to_string();
    let right_type = kind == "snapshot";
    let right_address = there.strip_prefix("unix://").unwrap_or(there) == address;
    if right_type && right_address {
        return Check::ok(NAME, format!("[{table}] is a snapshotter behind {address}"));
    }
    let lines = [(right_type, set("type", "snapshot")), (right_address, set("address", &address))];
    let lines = lines.into_iter().filter(|(right, _)| !right).map(|(_, line)| line).collect();
    let found = format!("[{table}] has the type {kind} and the address {there}");
    Check::failure(NAME, found, document.set(&path, table, lines))
}

/// The CRI plugin, and with it kubelet, measures the right file system.
fn exported(document: &Document, wanted: Wanted<'_>, table: &str) -> Check {
    const NAME: &str = "exported root";
    let path = ["proxy_plugins", wanted.name, "exports"];
    let there = document.text(&[&path[..], &["root"]].concat());
    let root = exported_root(wanted.root);
    match there {
        Some(there) if exported_root(Path::new(there)) == root => Check::ok(NAME, there),
        _ => {
            let found = format!(
                "{}: kubelet would measure the disk for images elsewhere",
                there.unwrap_or("nothing is exported")
            );
            let remedy = document.set(&path, &format!("{table}.exports"), vec![set("root", &root)]);
            Check::warning(NAME, found, remedy)
        }
    }
}

/// Pulls through the transfer service tell which image a layer is of.
fn labelled(document: &Document, wanted: Wanted<'_>, table: &str) -> Check {
    const NAME: &str = "image labels";
    if annotated(document, wanted.name) {
        return Check::ok(
            NAME,
            "the transfer service tells which image a layer is of (containerd 2.1 or newer)",
        );
    }
    if !passes_annotations(document.version()) {
        return Check::skipped(
            NAME,
            "version 2 is for containerd 1.7, where only pulls of Kubernetes and Docker can be lazy",
        );
    }
    let path = ["proxy_plugins", wanted.name, "exports"];
    let there = document.get(&[&path[..], &[ANNOTATIONS]].concat());
    let found = match there {
        Some(value) => format!("{ANNOTATIONS} is {value}, and must be the text \"true\""),
        None => "pulls through the transfer service do not tell which image a layer is of".to_owned(),
    };
    let remedy: Remedy = document.set(&path, &format!("{table}.exports"), vec![set(ANNOTATIONS, "true")]);
    Check::failure(NAME, found, remedy)
}

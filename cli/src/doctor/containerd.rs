//! Whether containerd's configuration lets pulls be lazy.

use std::path::Path;

use anyhow::Result;

use super::{
    check::{Check, Remedy},
    cri,
    document::{Document, add_to},
    proxy_plugin::{self, Wanted},
    transfer,
};
use crate::containerd_lines::{proxy_plugin, unpack_entry};

const NAME: &str = "configuration";

/// Looks at the configuration in the file `path`.
pub(super) fn checks(path: &Path, wanted: Wanted<'_>) -> Vec<Check> {
    judge(Document::load(path), path, wanted)
}

/// What there is to say of a configuration that was read, or could not be.
pub(super) fn judge(document: Result<Document>, path: &Path, wanted: Wanted<'_>) -> Vec<Check> {
    let document = match document {
        Ok(document) => document,
        Err(error) if path.exists() => {
            let remedy = Remedy::say("containerd does not start with it either; run this as root");
            return vec![Check::failure(NAME, format!("{error:#}"), remedy)];
        }
        Err(_) => {
            let found = format!("there is no {}", path.display());
            return vec![Check::failure(NAME, found, add_to(path, whole(wanted)))];
        }
    };
    let version = version(&document);
    if version.remedy.is_some() {
        return vec![version];
    }
    let mut checks = vec![version];
    checks.extend(proxy_plugin::checks(&document, wanted));
    checks.push(transfer::check(&document, wanted.name));
    checks.extend(cri::checks(&document, wanted.name));
    checks
}

/// A version by which plugins have the names that are looked for.
fn version(document: &Document) -> Check {
    let path = document.path().display();
    if document.version() < 2 {
        let found = format!("{path} has version {}, which containerd 2 does not read", document.version());
        let what = "`containerd config migrate` writes plugins by their names of today; above all tables there is then";
        return Check::failure(NAME, found, Remedy::new(what, vec!["version = 3".to_owned()]));
    }
    let imported: Vec<_> = document.imported().map(|path| path.display().to_string()).collect();
    let imports =
        if imported.is_empty() { String::new() } else { format!(", imports {}", imported.join(", ")) };
    Check::ok(NAME, format!("{path}, version {}{imports}", document.version()))
}

/// All that a new configuration needs.
fn whole(wanted: Wanted<'_>) -> Vec<String> {
    let plugin = proxy_plugin(wanted.name, wanted.address, wanted.root, true);
    let head = vec!["version = 3".to_owned()];
    [head, plugin, unpack_entry(wanted.name), unpack_entry("overlayfs")].concat()
}

//! Pages of `docs/` that are written from the code: tests compare them, and write them if `UPDATE_DOCS=1`.

#![cfg(test)]

use std::path::{Path, PathBuf};

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Fails if `docs/<name>` is not `content`.
pub(crate) fn assert_current(name: &str, content: &str) {
    let path = repository().join("docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let written = std::fs::write(&path, content);
        assert!(written.is_ok(), "write {}: {written:?}", path.display());
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == content, "docs/{name} is stale: run UPDATE_DOCS=1 cargo test -p snapshotter");
}

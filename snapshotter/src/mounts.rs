//! The mounts of a snapshot, in the shape of containerd's overlay snapshotter, which BuildKit and Docker read apart.

use std::path::{Path, PathBuf};

use proto::types::Mount;

use crate::{metadata::Kind, overlay::OverlayOptions};

/// The directories of one snapshot.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Where its own files are.
    pub upper: &'a Path,
    /// Overlayfs' scratch directory; an active snapshot has one.
    pub work: &'a Path,
    /// The snapshots below it, uppermost first.
    pub lower: &'a [PathBuf],
}

/// The mounts of an active snapshot or a view. Only views are read-only: containerd takes a read-only last mount of a
/// Prepare as "already unpacked" and skips the layer.
pub fn mounts(kind: Kind, place: Place<'_>, overlay: OverlayOptions) -> Vec<Mount> {
    let writable = kind == Kind::Active;
    match place.lower {
        [] => vec![bind(place.upper, if writable { "rw" } else { "ro" })],
        [parent] if !writable => vec![bind(parent, "ro")],
        lower => {
            let mut options = Vec::new();
            if writable {
                options.push(format!("workdir={}", place.work.display()));
                options.push(format!("upperdir={}", place.upper.display()));
            }
            let lower: Vec<String> = lower.iter().map(|path| path.display().to_string()).collect();
            options.push(format!("lowerdir={}", lower.join(":")));
            options.extend(overlay.options().map(str::to_owned));
            vec![Mount { r#type: "overlay".into(), source: "overlay".into(), target: String::new(), options }]
        }
    }
}

fn bind(source: &Path, access: &str) -> Mount {
    Mount {
        r#type: "bind".into(),
        source: source.display().to_string(),
        target: String::new(),
        options: vec![access.into(), "rbind".into()],
    }
}

#[cfg(test)]
mod tests;

//! An image of sixty layers: what scikit-learn's image holds, spread out.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use walkdir::WalkDir;

use super::{
    parts::{build_once, building, debian_tar, file_tar, run, tar_of},
    python::{SCIKIT_LEARN, config, packages_tar},
};

/// Layers between Debian and the program.
const MIDDLE: u64 = 58;

/// Debian with Python, 58 layers with the directories of the packages, and the program.
///
/// # Errors
/// As [`super::scikit_learn`].
pub fn sixty_layers() -> Result<PathBuf> {
    build_once("sixty-layers", &config(), |scratch, layout| {
        layout.add_gzip_layer(&debian_tar(scratch)?)?;
        let all = building(scratch, "sixty-layers-packages")?;
        run(Command::new("tar").arg("-xf").arg(packages_tar(scratch)?).arg("-C").arg(all.path()))?;
        for files in spread(all.path())?.values() {
            layout.add_gzip_layer(&layer_tar(scratch, all.path(), files)?)?;
        }
        layout.add_gzip_layer(&file_tar(scratch, "program", "program.py", SCIKIT_LEARN)?)
    })
}

/// The files below `root` by layer; those of one directory stay together.
fn spread(root: &Path) -> Result<BTreeMap<u64, Vec<PathBuf>>> {
    let mut layers: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    for entry in WalkDir::new(root).sort_by_file_name() {
        let entry = entry?;
        if entry.file_type().is_dir() {
            continue;
        }
        let path = entry.path().strip_prefix(root)?.to_owned();
        let directory = path.parent().unwrap_or(&path).as_os_str().as_encoded_bytes();
        let sum = directory.iter().fold(0u64, |sum, &byte| (sum * 31 + u64::from(byte)) % 1_000_003);
        layers.entry(sum % MIDDLE).or_default().push(path);
    }
    Ok(layers)
}

/// A tar of `files` of `root`, with the directories above them.
fn layer_tar(scratch: &Path, root: &Path, files: &[PathBuf]) -> Result<PathBuf> {
    let layer = building(scratch, "sixty-layers-layer")?;
    for file in files {
        let target = layer.path().join(file);
        fs::create_dir_all(target.parent().context("a file below the root")?)?;
        fs::hard_link(root.join(file), &target)?;
    }
    let tar = scratch.join("sixty-layers-one.tar");
    tar_of(layer.path(), &tar)?;
    Ok(tar)
}

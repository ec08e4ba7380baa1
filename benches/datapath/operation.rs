//! What is done with the files of a mounted image.

use std::{
    fs::{self, File},
    hint::black_box,
    io::{ErrorKind, Read as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};
use testkit::sample_image::data_path::{LARGE, LARGE_SIZE, SMALL, SMALL_DIRECTORIES, SMALL_EACH};
use walkdir::WalkDir;

const PAGE: usize = 4096;

/// How many pages are read at random: half of the large file's, some of them twice.
const RANDOM_READS: usize = LARGE_SIZE / PAGE / 2;

/// An operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Operation {
    /// Read a file of 256 MiB from its begin to its end, 1 MiB at a time.
    Sequential,
    /// Read 32,768 pages of 4 KiB of the same file at random.
    Random,
    /// Map the same file and read a byte of every page in order.
    Mmap,
    /// Open, read and close 20,000 files of 1 to 8 KiB.
    SmallFiles,
    /// Ask for the attributes of the same files, by name.
    Stat,
    /// Ask for 20,000 names that do not exist, in the same directories.
    Missing,
    /// List every directory of the image and ask for the attributes of all that is in it.
    Find,
    /// Pack the whole image with tar.
    Tar,
}

impl Operation {
    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Sequential => "sequential, 256 MiB",
            Self::Random => "random 4 KiB, 32,768 reads",
            Self::Mmap => "mmap, 256 MiB",
            Self::SmallFiles => "open, read, close 20,000 files",
            Self::Stat => "stat of 20,000 files",
            Self::Missing => "20,000 names that do not exist",
            Self::Find => "find with stat, whole image",
            Self::Tar => "tar of the whole image",
        }
    }

    /// Does it below `tree`, and gives the time that it took.
    pub(crate) fn run(self, tree: &Path) -> Result<Duration> {
        let began = Instant::now();
        match self {
            Self::Sequential => sequential(&tree.join(LARGE))?,
            Self::Random => random(&tree.join(LARGE))?,
            Self::Mmap => mapped(&tree.join(LARGE))?,
            Self::SmallFiles => each_small(tree, |path| {
                black_box(fs::read(path).with_context(|| path.display().to_string())?);
                Ok(())
            })?,
            Self::Stat => each_small(tree, |path| {
                black_box(fs::symlink_metadata(path).with_context(|| path.display().to_string())?);
                Ok(())
            })?,
            Self::Missing => each_small(tree, |path| {
                let missing = path.with_extension("missing");
                let found = fs::symlink_metadata(&missing);
                ensure!(
                    found.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound),
                    "{}: {found:?}",
                    missing.display()
                );
                Ok(())
            })?,
            Self::Find => find(tree)?,
            Self::Tar => tar(tree)?,
        }
        Ok(began.elapsed())
    }
}

fn sequential(path: &Path) -> Result<()> {
    let mut file = File::open(path)?;
    let mut piece = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        match file.read(&mut piece)? {
            0 => break,
            read => done += read,
        }
        black_box(&piece);
    }
    ensure!(done == LARGE_SIZE, "{}: {done} bytes", path.display());
    Ok(())
}

fn random(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    let mut rng = StdRng::seed_from_u64(4);
    let mut page = vec![0; PAGE];
    for _ in 0..RANDOM_READS {
        let at = rng.random_range(0..LARGE_SIZE / PAGE) * PAGE;
        file.read_exact_at(&mut page, at as u64)?;
        black_box(&page);
    }
    Ok(())
}

#[expect(unsafe_code, reason = "a file is mapped")]
fn mapped(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    // SAFETY: the file belongs to an image's layer, which nobody changes while it is mounted.
    let map = unsafe { memmap2::Mmap::map(&file)? };
    let sum = map.iter().step_by(PAGE).fold(0u64, |sum, &byte| sum + u64::from(byte));
    black_box(sum);
    ensure!(map.len() == LARGE_SIZE, "{}: {} bytes", path.display(), map.len());
    Ok(())
}

fn each_small(tree: &Path, mut what: impl FnMut(&Path) -> Result<()>) -> Result<()> {
    let small: PathBuf = tree.join(SMALL);
    for directory in 0..SMALL_DIRECTORIES {
        let directory = small.join(directory.to_string());
        for file in 0..SMALL_EACH {
            what(&directory.join(file.to_string()))?;
        }
    }
    Ok(())
}

fn find(tree: &Path) -> Result<()> {
    let mut seen = 0;
    for entry in WalkDir::new(tree) {
        black_box(entry?.metadata()?);
        seen += 1;
    }
    ensure!(seen > SMALL_DIRECTORIES * SMALL_EACH, "{}: only {seen} names", tree.display());
    Ok(())
}

/// GNU tar reads no file when it writes to `/dev/null`, so somebody else throws the archive away.
fn tar(tree: &Path) -> Result<()> {
    let status = Command::new("bash")
        .args(["-o", "pipefail", "-c", "tar -C \"$1\" -cf - . | cat >/dev/null", "tar"])
        .arg(tree)
        .stdin(Stdio::null())
        .status()
        .context("start tar")?;
    ensure!(status.success(), "tar of {}: {status}", tree.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for directory in 0..SMALL_DIRECTORIES {
            let directory = dir.path().join(SMALL).join(directory.to_string());
            fs::create_dir_all(&directory).unwrap();
            for file in 0..SMALL_EACH {
                fs::write(directory.join(file.to_string()), b"small").unwrap();
            }
        }
        File::create(dir.path().join(LARGE)).unwrap().set_len(LARGE_SIZE as u64).unwrap();
        dir
    }

    #[test]
    fn every_operation_runs_on_a_tree_of_the_images_shape() {
        let tree = tree();
        for operation in Operation::value_variants() {
            let took = operation.run(tree.path()).unwrap();
            assert!(took > Duration::ZERO, "{operation:?}");
        }
    }

    #[test]
    fn a_file_that_is_cut_short_is_noticed() {
        let tree = tree();
        File::options().write(true).open(tree.path().join(LARGE)).unwrap().set_len(4096).unwrap();
        for operation in [Operation::Sequential, Operation::Random, Operation::Mmap] {
            assert!(operation.run(tree.path()).is_err(), "{operation:?}");
        }
        fs::remove_file(tree.path().join(SMALL).join("7/7")).unwrap();
        for operation in [Operation::SmallFiles, Operation::Stat] {
            assert!(operation.run(tree.path()).is_err(), "{operation:?}");
        }
    }
}

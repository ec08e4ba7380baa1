//! An image to measure the data path with: one large file and 20,000 small ones above Debian.

use std::{
    fs::File,
    io::BufWriter,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Result;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{
    parts::{build_once, debian_tar, header},
    python::config,
    weights::Weights,
};

/// The large file, from the image's root.
pub const LARGE: &str = "data/large";

/// Its size.
pub const LARGE_SIZE: usize = 256 << 20;

/// The directories of small files, from the image's root, each with [`SMALL_EACH`] files named by their number.
pub const SMALL: &str = "data/small";

/// How many directories there are.
pub const SMALL_DIRECTORIES: usize = 200;

/// How many files each of them has.
pub const SMALL_EACH: usize = 100;

/// Debian, the large file, and the small files of 1 to 8 KiB: three layers.
///
/// # Errors
/// As [`super::python`].
pub fn data_path() -> Result<PathBuf> {
    build_once("data-path", &config(), |scratch, layout| {
        layout.add_gzip_layer(&debian_tar(scratch)?)?;
        for (name, write) in [("large", write_large as fn(&Path) -> Result<()>), ("small", write_small)] {
            let tar = scratch.join(format!("data-path-{name}.tar"));
            write(&tar)?;
            layout.add_gzip_layer(&tar)?;
            std::fs::remove_file(&tar)?;
        }
        Ok(())
    })
}

fn write_large(path: &Path) -> Result<()> {
    let mut tar = tar::Builder::new(BufWriter::new(File::create(path)?));
    let mut header = header(LARGE_SIZE);
    tar.append_data(&mut header, LARGE, Weights::new(LARGE_SIZE))?;
    Ok(tar.into_inner()?.flush()?)
}

fn write_small(path: &Path) -> Result<()> {
    let mut tar = tar::Builder::new(BufWriter::new(File::create(path)?));
    let mut rng = StdRng::seed_from_u64(3);
    for directory in 0..SMALL_DIRECTORIES {
        for file in 0..SMALL_EACH {
            let size = rng.random_range(1024..8192);
            let name = format!("{SMALL}/{directory}/{file}");
            tar.append_data(&mut header(size), name, Weights::new(size))?;
        }
    }
    Ok(tar.into_inner()?.flush()?)
}

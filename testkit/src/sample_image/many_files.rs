//! An image of many layers with many small files each, to see what a daemon holds in memory for them. Nothing in it
//! runs.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Result;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{
    parts::{build_once, header},
    weights::Weights,
};
use crate::oci_layout::ImageConfig;

/// Files of one directory.
const DIRECTORY_LEN: usize = 100;

/// The size of the one large file that each layer has beside the small ones.
pub const LARGE_SIZE: usize = 4 << 20;

/// The name of that file of a layer, from the image's root.
pub fn large(layer: usize) -> String {
    format!("layer-{layer:03}/large")
}

/// The name of a small file of a layer, from the image's root.
pub fn small(layer: usize, file: usize) -> String {
    format!("layer-{layer:03}/module-{:04}/source-{file:06}.py", file / DIRECTORY_LEN)
}

/// An image of `layers` layers, each of which has a directory `layer-NNN` with `files` files of 64 to 1,200 bytes in
/// directories of a hundred, and one file of [`LARGE_SIZE`] bytes.
///
/// # Errors
/// There is no room for twice the image, or it cannot be written.
pub fn many_files(layers: usize, files: usize) -> Result<PathBuf> {
    let config = ImageConfig { command: vec!["/none".to_owned()], env: Vec::new() };
    build_once(&format!("many-files-{layers}x{files}"), &config, |scratch, layout| {
        let tar = scratch.join("many-files.tar");
        for layer in 0..layers {
            write_tar(&tar, layer, files)?;
            layout.add_gzip_layer(&tar)?;
        }
        Ok(std::fs::remove_file(&tar)?)
    })
}

fn write_tar(path: &Path, layer: usize, files: usize) -> Result<()> {
    let mut tar = tar::Builder::new(BufWriter::new(File::create(path)?));
    let mut rng = StdRng::seed_from_u64(layer as u64);
    for file in 0..files {
        let mut data: Vec<u8> = vec![0; rng.random_range(64..1200)];
        rng.fill(data.as_mut_slice());
        // Half of the bits are always the same: the file compresses, as text does.
        data.iter_mut().for_each(|byte| *byte = b'a' | (*byte & 0x0f));
        tar.append_data(&mut header(data.len()), small(layer, file), data.as_slice())?;
    }
    tar.append_data(&mut header(LARGE_SIZE), large(layer), Weights::new(LARGE_SIZE))?;
    Ok(tar.into_inner()?.flush()?)
}

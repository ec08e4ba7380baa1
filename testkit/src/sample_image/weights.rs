//! An image with the weights of a model: one file of 2 GiB that is read once.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Result;
use rand::{RngCore as _, SeedableRng as _, rngs::StdRng};

use super::{
    parts::{build_once, debian_tar, file_tar},
    python::config,
};

/// The size of the file.
const SIZE: usize = 2 << 30;

/// Reads the file once: in sequence, or every page of it through a mapping with the argument `mmap`.
const PROGRAM: &str = "\
import mmap, os, sys
with open('/weights.bin', 'rb', buffering=0) as weights:
    size = os.fstat(weights.fileno()).st_size
    if sys.argv[1:] == ['mmap']:
        with mmap.mmap(weights.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            print(sum(mapped[at] for at in range(0, size, mmap.PAGESIZE)), file=sys.stderr)
    else:
        piece, done = bytearray(1 << 20), 0
        while count := weights.readinto(piece):
            done += count
        assert done == size, (done, size)
print('ready', flush=True)
";

/// Debian with Python, the weights, and the program: three layers.
///
/// # Errors
/// As [`super::python`], or there is no room for some 6 GB.
pub fn weights() -> Result<PathBuf> {
    build_once("weights", &config(), |scratch, layout| {
        layout.add_gzip_layer(&debian_tar(scratch)?)?;
        let tar = scratch.join("weights.tar");
        write_tar(&tar)?;
        layout.add_gzip_layer(&tar)?;
        std::fs::remove_file(&tar)?;
        layout.add_gzip_layer(&file_tar(scratch, "weights-program", "program.py", PROGRAM)?)
    })
}

fn write_tar(path: &Path) -> Result<()> {
    let mut tar = tar::Builder::new(BufWriter::new(File::create(path)?));
    let mut header = tar::Header::new_ustar();
    header.set_size(SIZE as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "weights.bin", Weights::new(SIZE))?;
    tar.into_inner()?.flush()?;
    Ok(())
}

/// Numbers of 16 bits, the upper half of each from four values, as exponents of trained weights are alike: they
/// compress to about three quarters. Always the same ones.
pub(super) struct Weights {
    rng: StdRng,
    left: usize,
}

impl Weights {
    /// So many bytes of them.
    pub(super) fn new(bytes: usize) -> Self {
        Self { rng: StdRng::seed_from_u64(2), left: bytes }
    }
}

impl std::io::Read for Weights {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let len = buf.len().min(self.left);
        let Some(piece) = buf.get_mut(..len) else { return Ok(0) };
        self.rng.fill_bytes(piece);
        // A piece of odd length only shifts which half the next one begins with.
        piece.iter_mut().skip(1).step_by(2).for_each(|upper| *upper = 0x3c | (*upper & 0x03));
        self.left -= len;
        Ok(len)
    }
}

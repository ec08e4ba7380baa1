//! A disk of the daemon's own, small enough to be filled.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use nix::{
    fcntl::{FallocateFlags, fallocate},
    sys::statvfs::statvfs,
};

/// Room for both images, complete, and then some. The file is sparse.
const BYTES: u64 = 2 << 30;

/// An ext4 file system in a file, mounted.
#[derive(Debug)]
pub(crate) struct Disk {
    mounted: PathBuf,
}

// === impl Disk ===

impl Disk {
    /// A new one on the new directory `target`, in the file `image`. It goes with its mount.
    pub(crate) fn mount(image: &Path, target: &Path) -> Result<Self> {
        File::create(image)?.set_len(BYTES)?;
        fs::create_dir_all(target)?;
        // No room is kept for root, which is who fills it.
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0", "-E", "lazy_itable_init=0"]).arg(image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(target))?;
        fs::remove_dir(target.join("lost+found"))?;
        Ok(Self { mounted: target.to_owned() })
    }

    /// Takes all that is free, in steps: the daemon writes meanwhile.
    pub(crate) fn fill(&self) -> Result<()> {
        let filler = File::options().create(true).append(true).open(self.filler())?;
        let mut len = 0;
        for _ in 0..60 {
            let stat = statvfs(&self.mounted)?;
            let free = stat.blocks_available() * stat.fragment_size();
            if free == 0 {
                break;
            }
            // The last blocks may go to its own metadata.
            let step = if free > 1 << 20 { free - (512 << 10) } else { (free / 2).max(4096) };
            match fallocate(&filler, FallocateFlags::empty(), len, i64::try_from(step)?) {
                Ok(()) => len += i64::try_from(step)?,
                Err(nix::errno::Errno::ENOSPC) => break,
                Err(error) => return Err(error).context("fill the disk"),
            }
        }
        Ok(())
    }

    /// Gives it back.
    pub(crate) fn free(&self) -> Result<()> {
        fs::remove_file(self.filler()).context("empty the disk")
    }

    fn filler(&self) -> PathBuf {
        self.mounted.join(".filler")
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

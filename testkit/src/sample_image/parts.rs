//! What images are put together from.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use super::TAG;
use crate::{
    oci_layout::{ImageConfig, LayoutBuilder},
    requires,
    scratch::Scratch,
};

/// What the Debian packages are of, and where they come from.
const SUITE: &str = "bookworm";
const MIRROR: &str = "http://deb.debian.org/debian";
/// The root file system that most images begin with.
const DEBIAN: &str = "debian";
/// Held while something is built.
const LOCK: &str = ".lock";
/// The extension of what is under construction.
const BUILDING: &str = "building";

/// The tar of the Debian root file system that both images begin with.
///
/// # Errors
/// As the images that begin with it: a missing tool, a failed build, the disk.
pub fn debian() -> Result<PathBuf> {
    let (dir, _lock) = locked()?;
    debian_tar(&dir)
}

/// Why the Debian root file system cannot be had here, if so: it is neither kept from before, nor can it be built.
pub fn missing() -> Option<String> {
    if images_dir().join(format!("{DEBIAN}.tar")).exists() {
        return None;
    }
    requires::root().or_else(|| requires::program("debootstrap", "--version")).or_else(|| {
        // debootstrap downloads with wget as well, so that both meet the same proxy.
        let release = format!("{MIRROR}/dists/{SUITE}/Release");
        let reached = Command::new("wget")
            .args(["--quiet", "--spider", "--tries=1", "--timeout=10", &release])
            .status()
            .is_ok_and(|status| status.success());
        (!reached).then(|| format!("needs {MIRROR}"))
    })
}

/// Removes what a build that was interrupted left behind. Nothing happens while a build runs.
///
/// # Errors
/// Something cannot be unmounted or removed.
pub fn discard_unfinished() -> Result<()> {
    let Ok(lock) = File::open(images_dir().join(LOCK)) else { return Ok(()) };
    let Ok(_lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) else { return Ok(()) };
    for entry in fs::read_dir(images_dir())?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == BUILDING) {
            remove_building(&path)?;
        }
    }
    Ok(())
}

/// Where sample images and what they are made of are kept.
fn images_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/images")
}

/// The directory of the images, for us alone until the lock is dropped.
fn locked() -> Result<(PathBuf, Flock<File>)> {
    let dir = images_dir();
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let dir = dir.canonicalize()?;
    let lock = File::create(dir.join(LOCK))?;
    let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| e).context("lock the images")?;
    Ok((dir, lock))
}

/// Removes a file or directory under construction, and what debootstrap mounted below it.
fn remove_building(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Scratch::adopt(path).clear();
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Builds the image `name` unless it is there; two processes that want it wait for each other.
pub(super) fn build_once(
    name: &str,
    config: &ImageConfig,
    fill: impl FnOnce(&Path, &mut LayoutBuilder) -> Result<()>,
) -> Result<PathBuf> {
    let (dir, _lock) = locked()?;
    let done = dir.join(name);
    if done.is_dir() {
        return Ok(done);
    }
    let building = dir.join(name).with_extension(BUILDING);
    remove_building(&building)?;
    let mut layout = LayoutBuilder::create(&building)?;
    fill(&dir, &mut layout)?;
    layout.finish(TAG, config)?;
    fs::rename(&building, &done)?;
    Ok(done)
}

/// The tar `name` of what `fill` puts into an empty directory, kept for the next image.
pub(super) fn made_once(dir: &Path, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let tar = dir.join(format!("{name}.tar"));
    if tar.exists() {
        return Ok(tar);
    }
    let root = building(dir, &format!("{name}-root"))?;
    fill(root.path())?;
    tar_of(root.path(), &tar)?;
    Ok(tar)
}

/// A new directory to build in, removed when dropped.
pub(super) fn building(dir: &Path, name: &str) -> Result<Scratch> {
    let path = dir.join(name).with_extension(BUILDING);
    remove_building(&path)?;
    fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
    // A root file system is entered by others than its owner.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(Scratch::adopt(&path))
}

/// A Debian root file system with Python as a tar, kept for the next image.
pub(super) fn debian_tar(dir: &Path) -> Result<PathBuf> {
    debian_with(dir, DEBIAN, "python3")
}

/// A Debian root file system with `packages` (separated by commas) as the tar `name`.
pub(super) fn debian_with(dir: &Path, name: &str, packages: &str) -> Result<PathBuf> {
    made_once(dir, name, |root| {
        let log = File::create(dir.join("debootstrap.log"))?;
        run(Command::new("debootstrap")
            .arg("--variant=minbase")
            .arg(format!("--include={packages}"))
            .arg(SUITE)
            .arg(root)
            .arg(MIRROR)
            .stdout(log.try_clone()?)
            .stderr(log))?;
        for leftover in ["var/cache/apt/archives", "var/lib/apt/lists"] {
            for entry in fs::read_dir(root.join(leftover))?.flatten() {
                if entry.file_type()?.is_file() {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(())
    })
}

/// The tar `name` of one file.
pub(super) fn file_tar(dir: &Path, name: &str, path: &str, contents: &str) -> Result<PathBuf> {
    let root = building(dir, &format!("{name}-root"))?;
    let file = root.path().join(path);
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(file, contents)?;
    let tar = dir.join(format!("{name}.tar"));
    tar_of(root.path(), &tar)?;
    Ok(tar)
}

/// Packs `root` with numeric owners and a fixed order; the tar appears only when it is whole.
pub(super) fn tar_of(root: &Path, tar: &Path) -> Result<()> {
    let partial = tar.with_extension(format!("tar.{BUILDING}"));
    run(Command::new("tar")
        .args(["--numeric-owner", "--sort=name", "--xattrs", "--xattrs-include=*", "-C"])
        .arg(root)
        .arg("-cf")
        .arg(&partial)
        .arg("."))?;
    fs::rename(partial, tar)?;
    Ok(())
}

/// Runs a command that must succeed.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("start {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

/// Of a file of `size` bytes in a layer.
pub(super) fn header(size: usize) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size as u64);
    header.set_mode(0o644);
    header
}

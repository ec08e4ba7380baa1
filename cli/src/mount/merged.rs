//! The two mounts: the connection that shows layers, and the overlay that merges them.

use std::{
    fs::File,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use fusefs::{Connection, MountOptions, OpaqueForm, Slot};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};
use snapshotter::overlay::OverlayOptions;
use store::Layer;
use tokio::runtime::Handle;

/// Mount options are one page, with a byte for its end (mount(2)).
const MAX_OPTIONS: usize = 4095;

/// An image's tree, mounted. Dropping it unmounts.
#[derive(Debug)]
pub(super) struct Merged {
    connection: Connection,
    connected: bool,
    target: Option<PathBuf>,
}

// === impl Merged ===

impl Merged {
    /// Shows `layers`, the lowest first, in a connection at `mountpoint`, and merges them at `target`. `empty` is an
    /// empty directory: one layer alone would show its whiteouts, and overlayfs wants two.
    pub(super) fn mount(
        layers: &[Arc<Layer>],
        mountpoint: &Path,
        empty: &Path,
        target: PathBuf,
        runtime: Handle,
    ) -> Result<Self> {
        ensure!(!layers.is_empty(), "the image has no layers");
        let overlay = OverlayOptions::detect(empty);
        let opaque = if overlay.userxattr { OpaqueForm::User } else { OpaqueForm::Trusted };
        let options = MountOptions { opaque, ..MountOptions::default() };
        let connection = Connection::mount(mountpoint, options, runtime)?;
        let mut merged = Self { connection, connected: true, target: None };
        let mut slots = Vec::new();
        for (number, layer) in (1..).zip(layers) {
            let slot = Slot::new(number).context("invariant: slots are counted from one")?;
            merged.connection.attach(slot, Arc::clone(layer))?;
            slots.push(slot);
        }
        let extra: Vec<_> = overlay.options().collect();
        let directory = merged.connection.mountpoint();
        let mut data = options_of(&slots, directory, empty, &extra);
        // Open while the kernel resolves names through it.
        let handle: File;
        if data.len() > MAX_OPTIONS {
            let opened = File::options().read(true).custom_flags(nix::libc::O_PATH).open(directory);
            handle = opened.with_context(|| format!("cannot open {}", directory.display()))?;
            let short = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
            data = options_of(&slots, &short, empty, &extra);
        }
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("starling"), &target, Some("overlay"), flags, Some(data.as_str())).with_context(|| {
            format!("cannot mount an overlay of {} layers at {}", slots.len(), target.display())
        })?;
        merged.target = Some(target);
        Ok(merged)
    }

    /// Unmounts both. What is still used disappears with its last user; its files cannot be read any more.
    pub(super) fn unmount(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let mut in_use = None;
        if let Some(target) = self.target.take() {
            match umount2(&target, MntFlags::empty()) {
                // Somebody else unmounted it.
                Ok(()) | Err(Errno::EINVAL) => {}
                Err(Errno::EBUSY) => {
                    umount2(&target, MntFlags::MNT_DETACH)
                        .with_context(|| format!("cannot unmount {}", target.display()))?;
                    in_use = Some(target);
                }
                Err(errno) => {
                    return Err(errno).with_context(|| format!("cannot unmount {}", target.display()));
                }
            }
        }
        let connected = std::mem::take(&mut self.connected);
        if connected && self.connection.is_served() && self.connection.unmount().is_err() {
            self.connection.unmount_lazily()?;
        }
        match in_use {
            Some(target) => Err(anyhow::anyhow!(
                "{} was in use: it is unmounted, but who uses it gets errors from now on",
                target.display()
            )),
            None => Ok(()),
        }
    }
}

impl Drop for Merged {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("starling: {error:#}");
        }
    }
}

/// The overlay's options: the highest layer first.
fn options_of(slots: &[Slot], directory: &Path, empty: &Path, extra: &[&str]) -> String {
    let layers = slots.iter().rev().map(|slot| directory.join(slot.to_string()).display().to_string());
    let lower = layers.chain([empty.display().to_string()]).collect::<Vec<_>>();
    let mut options = vec![format!("lowerdir={}", lower.join(":"))];
    options.extend(extra.iter().map(|&option| option.to_owned()));
    options.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_layer_comes_first() {
        let slots = [Slot::new(1).unwrap(), Slot::new(2).unwrap()];
        let (directory, empty) = (Path::new("/r/l"), Path::new("/r/empty"));
        assert_eq!(
            options_of(&slots, directory, empty, &["index=off"]),
            "lowerdir=/r/l/2:/r/l/1:/r/empty,index=off"
        );
    }
}

//! Whether something is mounted on top of a FUSE mount.
//!
//! An overlay holds its lower layers without making their mount busy, so the kernel would let it be unmounted below a
//! running container. The list of mounts tells.

use std::path::Path;

/// Whether `mountinfo`, in the form of `/proc/self/mountinfo` (proc_pid_mountinfo(5)), has an overlay with a layer below
/// `mountpoint`, or a second mount of the same file system.
pub(crate) fn in_use(mountinfo: &str, mountpoint: &Path) -> bool {
    let place = mountpoint.display().to_string();
    let below = format!("{place}/");
    // containerd names the layers of a long chain relative to their common directory; the upper directory beside them is
    // a whole path.
    let beside = mountpoint.parent().map(|parent| format!("upperdir={}/", parent.display()));
    let device = |line: &str| line.split(' ').nth(2).map(str::to_owned);
    let own = |line: &&str| line.split(' ').nth(4) == Some(&place);
    let ours = mountinfo.lines().find(own).and_then(device);
    mountinfo.lines().any(|line| {
        let (_, options) = line.split_once(" - ").unwrap_or_default();
        let relative = options.split_once("lowerdir=").is_some_and(|(_, lower)| !lower.starts_with('/'));
        let ours_beside = relative && beside.as_ref().is_some_and(|beside| options.contains(beside));
        let overlay = options.starts_with("overlay ") && (ours_beside || options.contains(&below));
        overlay || (ours.is_some() && device(line) == ours && !own(&line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "40 29 0:50 / /r/l rw - fuse starling rw\n";

    #[test]
    fn overlays_and_binds_on_top_count_and_others_do_not() {
        let check =
            |line: &str| in_use(&format!("29 1 8:1 / / rw - ext4 /dev/a rw\n{OWN}{line}"), Path::new("/r/l"));
        assert!(!check(""));
        assert!(check("41 29 0:51 / /m rw - overlay overlay rw,lowerdir=/r/l/3:/x,upperdir=/u"));
        assert!(check(
            "41 29 0:51 / /m rw - overlay overlay rw,lowerdir=l/3:snapshots/4/fs,upperdir=/r/snapshots/9/fs"
        ));
        assert!(!check(
            "41 29 0:51 / /m rw - overlay overlay rw,lowerdir=l/3:snapshots/4/fs,upperdir=/s/snapshots/9/fs"
        ));
        assert!(check("41 29 0:50 /3 /m ro - fuse starling rw"));
        assert!(!check("41 29 0:51 / /m rw - overlay overlay rw,lowerdir=/r/snapshots/3:/x,upperdir=/u"));
        assert!(!check("41 29 0:52 / /m rw - fuse other rw"));
    }
}

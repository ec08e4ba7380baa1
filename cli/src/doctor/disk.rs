//! Whether the daemon's root can hold snapshots, and has room.

use std::{fs::File, io, os::fd::AsFd, path::Path};

use nix::sys::{
    statfs::{self, FsType},
    statvfs,
};
use snapshotter::{config::Config, overlay};

use super::check::{Check, Remedy};
use crate::progress::human;

/// The daemon leaves no more than this part of a file system free.
const LARGEST_FLOOR: u64 = 20;
/// File systems on which overlayfs cannot write.
const UNFIT: [(FsType, &str); 2] =
    [(statfs::OVERLAYFS_SUPER_MAGIC, "overlayfs"), (statfs::NFS_SUPER_MAGIC, "NFS")];

pub(super) fn checks(root: &Path, config: &Config) -> Vec<Check> {
    // The daemon makes what is missing.
    let there = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    vec![file_system(root, there), room(there, config.cache.min_free.0)]
}

fn file_system(root: &Path, there: &Path) -> Check {
    const NAME: &str = "root";
    let elsewhere =
        || Remedy::say("give starlingd a --root on ext4, or on xfs with ftype=1, and containerd too");
    if let Err(error) = overlay::check(there) {
        return Check::failure(NAME, error.to_string(), elsewhere());
    }
    match kind(there) {
        Err(error) => {
            Check::failure(NAME, format!("cannot look at {}: {error}", there.display()), elsewhere())
        }
        Ok(kind) => match UNFIT.iter().find(|(unfit, _)| *unfit == kind) {
            Some((_, name)) => {
                let found = format!("{} is on {name}, on which containers cannot write", there.display());
                Check::failure(NAME, found, elsewhere())
            }
            None if there == root => {
                Check::ok(NAME, format!("{} is on a file system that fits", root.display()))
            }
            None => Check::ok(NAME, format!("starlingd will make {}", root.display())),
        },
    }
}

fn kind(path: &Path) -> io::Result<FsType> {
    Ok(statfs::fstatfs(File::open(path)?.as_fd())?.filesystem_type())
}

/// Below `min_free` the daemon serves what it fetches without keeping it.
fn room(there: &Path, min_free: u64) -> Check {
    const NAME: &str = "room";
    let Ok(stat) = statvfs::statvfs(there) else {
        return Check::skipped(NAME, format!("cannot look at {}", there.display()));
    };
    let (free, total) =
        (stat.blocks_available() * stat.fragment_size(), stat.blocks() * stat.fragment_size());
    enough(free, min_free.min(total / LARGEST_FLOOR))
}

fn enough(free: u64, floor: u64) -> Check {
    const NAME: &str = "room";
    if free > floor {
        return Check::ok(NAME, format!("{} free", human(free)));
    }
    Check::warning(
        NAME,
        format!("{} free, and {} are to stay so: what is fetched is not kept", human(free), human(floor)),
        Remedy::new(
            "make room, or lower min_free in [cache] of starlingd's configuration; unused layers go with",
            vec!["starling cache prune".to_owned()],
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::{super::check::State, *};

    #[test]
    fn a_root_that_is_not_there_yet_is_judged_by_the_directory_above() {
        let directory = tempfile::tempdir().unwrap();
        let checks = checks(&directory.path().join("a/b"), &Config::default());
        // The directory for temporary files may be on any file system.
        assert_eq!((checks[0].name, checks[1].name), ("root", "room"));
        assert_ne!(checks[1].state, State::Skipped);
    }

    #[test]
    fn little_room_is_told() {
        assert_eq!(enough(2, 1).state, State::Ok);
        assert_eq!(enough(1, 1).state, State::Warning);
    }
}

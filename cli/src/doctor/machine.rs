//! What the kernel can do, and whether this process may look at the rest.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use nix::{sys::utsname, unistd::Uid};
use snapshotter::overlay::{OverlayOptions, in_user_namespace};

use super::check::{Check, Remedy};

const FUSE: &str = "/dev/fuse";
/// The first kernel that repeats requests to the successor of a FUSE server.
const REPEATS_REQUESTS: (u32, u32) = (6, 9);

/// `root` is the daemon's.
pub(super) fn checks(root: &Path) -> Vec<Check> {
    let release = utsname::uname().ok().and_then(|name| Some(name.release().to_str()?.to_owned()));
    let file_systems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    vec![user(), kernel(&release.unwrap_or_default()), fuse(), overlay(&file_systems), namespace(root)]
}

fn user() -> Check {
    const NAME: &str = "user";
    if Uid::effective().is_root() {
        return Check::ok(NAME, "root");
    }
    let found = format!("user {}, who may not look at everything", Uid::effective());
    Check::warning(NAME, found, Remedy::run(&["sudo starling doctor"]))
}

fn kernel(release: &str) -> Check {
    const NAME: &str = "kernel";
    let mut numbers = release.split(['.', '-', '+']).map_while(|number| number.parse::<u32>().ok());
    let version = numbers.next().zip(numbers.next());
    match version {
        Some(version) if version >= REPEATS_REQUESTS => Check::ok(NAME, format!("Linux {release}")),
        _ => Check::warning(
            NAME,
            format!(
                "Linux {release}, before 6.9: a read that the daemon has in hand when it is killed hangs"
            ),
            Remedy::say("upgrade the kernel to 6.9 or newer; docs/semantics.md says what older ones lose"),
        ),
    }
}

fn fuse() -> Check {
    const NAME: &str = "FUSE";
    match File::options().read(true).write(true).open(FUSE) {
        Ok(_) => Check::ok(NAME, format!("{FUSE} opens")),
        Err(error) => {
            let remedy = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    Remedy::say(format!("run this as root, and in a container with {FUSE}"))
                }
                _ => Remedy::new(
                    format!("load the module; a container needs the device too (--device {FUSE})"),
                    vec!["modprobe fuse".to_owned(), "echo fuse > /etc/modules-load.d/fuse.conf".to_owned()],
                ),
            };
            Check::failure(NAME, format!("cannot open {FUSE}: {error}"), remedy)
        }
    }
}

/// `file_systems` is what the kernel says it has; it may load the module when it is first used.
fn overlay(file_systems: &str) -> Check {
    const NAME: &str = "overlayfs";
    if file_systems.lines().any(|line| line.split_whitespace().next_back() == Some("overlay")) {
        return Check::ok(NAME, "the kernel has it");
    }
    let load = ["modprobe overlay", "echo overlay > /etc/modules-load.d/overlay.conf"];
    Check::warning(NAME, "/proc/filesystems does not have overlay", Remedy::run(&load))
}

fn namespace(root: &Path) -> Check {
    const NAME: &str = "user namespace";
    if !in_user_namespace() {
        return Check::ok(NAME, "the machine's own: overlays keep their marks in trusted.overlay.*");
    }
    if OverlayOptions::detect(root).userxattr {
        return Check::ok(NAME, "one of its own: overlays keep their marks in user.overlay.* (userxattr)");
    }
    Check::failure(
        NAME,
        "one of its own, where overlays cannot be mounted with userxattr",
        Remedy::say("use Linux 5.11 or newer, and a --root that is not on tmpfs"),
    )
}

#[cfg(test)]
mod tests {
    use super::{super::check::State, *};

    #[test]
    fn kernels_are_told_apart_by_their_first_two_numbers() {
        for (release, state) in [
            ("6.18.5", State::Ok),
            ("6.9.0-rc1", State::Ok),
            ("6.10-generic", State::Ok),
            ("7.0", State::Ok),
            ("6.8.12-amd64", State::Warning),
            ("5.15", State::Warning),
            ("", State::Warning),
        ] {
            assert_eq!(kernel(release).state, state, "{release}");
        }
    }

    #[test]
    fn overlayfs_is_looked_for_by_its_name() {
        assert_eq!(overlay("nodev\tproc\nnodev\toverlay\n\text4\n").state, State::Ok);
        let missing = overlay("nodev\tnotoverlay\n\text4\n");
        assert_eq!(missing.state, State::Warning);
        assert_eq!(missing.remedy.unwrap().lines[0], "modprobe overlay");
    }
}

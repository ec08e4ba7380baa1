//! Whether the daemon runs, with the socket and the root that containerd is to know, and may be reached by root alone.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt},
        net::UnixStream,
    },
    path::Path,
};

use nix::unistd::Uid;
use snapshotter::{
    admin::{AskError, Status, ask_status},
    config::{ConfigError, Loaded},
};

use super::{
    check::{Check, Remedy},
    proxy_plugin::Wanted,
};
use crate::status::duration;

/// The daemon's own configuration.
pub(super) fn configuration(loaded: &Result<Loaded, ConfigError>) -> Check {
    const NAME: &str = "starlingd's file";
    match loaded {
        Err(error) => {
            Check::failure(NAME, error.to_string(), Remedy::say("docs/configuration.md lists all keys"))
        }
        Ok(loaded) if loaded.warnings.is_empty() => Check::ok(NAME, "every key is known"),
        Ok(loaded) => {
            let lines = loaded.warnings.iter();
            let lines =
                lines.map(|warning| format!("line {}: {}: {}", warning.line, warning.key, warning.why));
            let remedy = Remedy::new("remove what does nothing", lines.collect());
            Check::warning(NAME, format!("{} keys do nothing", loaded.warnings.len()), remedy)
        }
    }
}

/// The daemon's two sockets.
pub(super) fn sockets(wanted: Wanted<'_>, admin: &Path) -> Vec<Check> {
    vec![socket(wanted.address), private(&[wanted.root, admin]), running(ask_status(admin), wanted)]
}

/// Whoever gets at the root or the admin socket sees what images hold.
fn private(paths: &[&Path]) -> Check {
    const NAME: &str = "permissions";
    let mode = |path: &Path| fs::symlink_metadata(path).ok().map(|stat| stat.mode() & 0o777);
    let known: Vec<_> = paths.iter().filter_map(|path| Some((*path, mode(path)?))).collect();
    let open: Vec<_> = known.iter().filter(|(_, mode)| mode & 0o077 != 0).collect();
    if known.is_empty() {
        return Check::skipped(NAME, "neither the daemon's root nor its admin socket is there");
    }
    if open.is_empty() {
        return Check::ok(NAME, "root and admin socket are for their owner only");
    }
    let found: Vec<_> =
        open.iter().map(|(path, mode)| format!("{} has mode {mode:o}", path.display())).collect();
    let commands = open.iter().map(|(path, _)| format!("chmod go= {}", path.display())).collect();
    Check::failure(NAME, format!("{}: others may look", found.join(", ")), Remedy::new("run", commands))
}

/// Start it.
fn start() -> Remedy {
    Remedy::new(
        "start the daemon, with deploy/systemd/starling.service in /etc/systemd/system",
        vec!["systemctl enable --now starling".to_owned()],
    )
}

/// Whoever may connect can make containers read what they like.
fn socket(path: &Path) -> Check {
    const NAME: &str = "socket";
    let shown = path.display();
    let stat = match fs::symlink_metadata(path) {
        Ok(stat) => stat,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Check::failure(NAME, format!("there is no {shown}"), start());
        }
        Err(error) => {
            return Check::failure(
                NAME,
                format!("cannot look at {shown}: {error}"),
                Remedy::say("run this as root"),
            );
        }
    };
    if !stat.file_type().is_socket() {
        let remedy = Remedy::say("remove it, or name the daemon's socket with --address");
        return Check::failure(NAME, format!("{shown} is not a socket"), remedy);
    }
    let (mode, owner) = (stat.mode() & 0o777, stat.uid());
    if mode != 0o600 || (owner != 0 && owner != Uid::effective().as_raw()) {
        let commands = [format!("chown root: {shown}"), format!("chmod 600 {shown}")];
        let found =
            format!("{shown} has mode {mode:o} and belongs to user {owner}: others may use the daemon");
        return Check::failure(NAME, found, Remedy::new("run", commands.into()));
    }
    match UnixStream::connect(path) {
        Ok(_) => Check::ok(NAME, format!("{shown} answers, mode 600")),
        Err(error) => Check::failure(NAME, format!("nobody answers on {shown}: {error}"), start()),
    }
}

fn running(answer: Result<Status, AskError>, wanted: Wanted<'_>) -> Check {
    const NAME: &str = "starlingd";
    let status = match answer {
        Ok(status) => status,
        Err(error) => return Check::failure(NAME, error.to_string(), start()),
    };
    let here = (wanted.address, wanted.root);
    if (status.address.as_path(), status.root.as_path()) != here {
        let (address, root) = (status.address.display(), status.root.display());
        return Check::failure(
            NAME,
            format!("the daemon that runs has the socket {address} and the root {root}"),
            Remedy::new(
                "ask for that one",
                vec![format!("starling doctor --address {address} --root {root}")],
            ),
        );
    }
    let found = format!("{}, process {}, up {}", status.version, status.pid, duration(status.uptime_seconds));
    if status.version != snapshotter::VERSION {
        let remedy = Remedy::run(&["systemctl restart starling"]);
        let found = format!("{found}; starling itself is {}", snapshotter::VERSION);
        return Check::warning(NAME, found, remedy);
    }
    Check::ok(NAME, found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::PermissionsExt, net::UnixListener};

    use super::{super::check::State, *};

    #[test]
    fn a_socket_is_for_its_owner_alone_and_somebody_answers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        assert!(socket(&path).found.contains("there is no"));
        fs::write(&path, "").unwrap();
        assert!(socket(&path).found.contains("is not a socket"));
        fs::remove_file(&path).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let open = socket(&path);
        assert_eq!(
            (open.state, open.remedy.unwrap().lines[1].as_str()),
            (State::Failure, &*format!("chmod 600 {}", path.display()))
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(socket(&path).state, State::Ok);
        drop(listener);
        assert!(socket(&path).found.contains("nobody answers"));
    }

    #[test]
    fn the_root_and_the_admin_socket_are_for_their_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (root, admin) = (directory.path(), directory.path().join("admin.sock"));
        let _listener = UnixListener::bind(&admin).unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        set(root, 0o755);
        set(&admin, 0o600);
        let open = private(&[root, &admin]);
        assert_eq!(
            (open.state, open.remedy.unwrap().lines),
            (State::Failure, vec![format!("chmod go= {}", root.display())])
        );
        set(root, 0o700);
        assert_eq!(private(&[root, &admin]).state, State::Ok);
        assert_eq!(private(&[Path::new("/nowhere/at/all")]).state, State::Skipped);
    }

    #[test]
    fn keys_that_do_nothing_are_told_with_their_lines() {
        use snapshotter::config::Config;

        let parse = |text: &str| Config::parse(text, Path::new("c.toml"));
        assert_eq!(configuration(&parse("")).state, State::Ok);
        assert_eq!(configuration(&parse("nonsense = 1")).state, State::Failure);
        let idle = configuration(&parse("\nhttp_cache_type = \"memory\""));
        assert_eq!(idle.state, State::Warning);
        assert!(idle.remedy.unwrap().lines[0].starts_with("line 2: http_cache_type"));
    }
}

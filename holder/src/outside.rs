//! The way out of a pod: into the cgroups and namespaces of another process, and into the background.
//!
//! Whoever kills a pod kills every process in its cgroup; a process in its namespaces would keep them, and its mounts,
//! alive. The process namespace cannot be left, so that the pod must be in the host's (`hostPID`).

use std::{
    fs::{self, File},
    io::{self, PipeReader, Read, Write},
    path::Path,
};

use nix::{
    sched::{CloneFlags, setns},
    unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid},
};

use crate::doing;

/// Those that a pod can have of its own and that can be left. Mounts last: their change hides the others' files.
const NAMESPACES: [(&str, CloneFlags); 5] = [
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("net", CloneFlags::CLONE_NEWNET),
    ("mnt", CloneFlags::CLONE_NEWNS),
];

/// A cgroup of a process.
#[derive(Debug, PartialEq, Eq)]
struct Membership {
    /// As `/proc/PID/cgroup` has them; empty for the unified hierarchy.
    controllers: String,
    path: String,
}

/// Moves this process, which must have one thread, to where the process is whose directory in `/proc` this is.
pub(crate) fn join(process: &Path) -> io::Result<()> {
    let read = |name: &str| {
        let path = process.join(name);
        fs::read_to_string(&path).map_err(doing(format!("read {}", path.display())))
    };
    if fs::read_link(process.join("ns/pid"))? != fs::read_link("/proc/self/ns/pid")? {
        return Err(io::Error::other(format!(
            "{} has other process ids: run the pod with hostPID",
            process.display()
        )));
    }
    let open = |(name, kind)| {
        let path = process.join("ns").join(name);
        Ok((File::open(&path).map_err(doing(format!("open {}", path.display())))?, name, kind))
    };
    let namespaces = NAMESPACES.into_iter().map(open).collect::<io::Result<Vec<_>>>()?;
    for (namespace, name, kind) in namespaces {
        setns(namespace, kind)
            .map_err(doing(format!("join the {name} namespace of {}", process.display())))?;
    }
    // Both as they look from there.
    let (memberships, mounts) = (read("cgroup")?, read("mountinfo")?);
    for membership in memberships.lines().filter_map(Membership::parse) {
        let Some(place) = membership.place(&mounts) else { continue };
        let path = format!("{place}/cgroup.procs");
        // 0 is whoever writes.
        fs::write(&path, "0").map_err(doing(format!("join the cgroup of {path}")))?;
    }
    std::env::set_current_dir("/")
}

/// Goes on in a process of its own, which outlives whoever waits for this one. Returns when `prepare` is done there.
#[allow(unsafe_code)]
pub(crate) fn in_background<T>(
    prepare: impl FnOnce() -> io::Result<T>,
    run: impl FnOnce(T) -> io::Result<u8>,
) -> io::Result<u8> {
    let (ours, mut theirs) = io::pipe()?;
    // SAFETY: this process has one thread, so that nothing is left in a half-way state in the copy.
    if let ForkResult::Parent { .. } = unsafe { fork() }? {
        drop(theirs);
        return outcome(ours);
    }
    drop(ours);
    let prepared = detach().and_then(|()| prepare());
    let answer = prepared.as_ref().map_or_else(ToString::to_string, |_| String::new());
    // The waiting process may be gone, which is no reason to follow it.
    let _ = theirs.write_all(answer.as_bytes());
    drop(theirs);
    run(prepared?)
}

/// What the process in the background says before it closes the pipe.
fn outcome(mut pipe: PipeReader) -> io::Result<u8> {
    let mut answer = String::new();
    pipe.read_to_string(&mut answer)?;
    if answer.is_empty() { Ok(0) } else { Err(io::Error::other(answer)) }
}

/// Lets go of the pod's terminal and log, and is spared when the node runs out of memory.
fn detach() -> io::Result<()> {
    setsid()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    crate::spared::this_process();
    Ok(dup2_stderr(&null)?)
}

// === impl Membership ===

impl Membership {
    /// `4:memory:/a/b`, or `0::/a/b` for the unified hierarchy.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        Some(Self { controllers, path })
    }

    /// Its directory, by the list of mounts `mountinfo`.
    fn place(&self, mountinfo: &str) -> Option<String> {
        mountinfo.lines().find_map(|line| {
            let (place, file_system) = line.split_once(" - ")?;
            let [mut place, mut file_system] = [place, file_system].map(|part| part.split(' '));
            let (root, mounted) = (place.nth(3)?, place.next()?);
            let (kind, options) = (file_system.next()?, file_system.nth(1)?);
            let ours = if self.controllers.is_empty() {
                kind == "cgroup2"
            } else {
                kind == "cgroup"
                    && self.controllers.split(',').all(|name| options.split(',').any(|option| option == name))
            };
            let below = self.path.strip_prefix(root.trim_end_matches('/')).unwrap_or(&self.path);
            ours.then(|| format!("{mounted}{}", below.trim_end_matches('/')))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        25 22 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        27 25 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
        28 25 0:25 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n\
        29 25 0:26 /pods /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

    fn place(line: &str) -> Option<String> {
        Membership::parse(line)?.place(MOUNTS)
    }

    #[test]
    fn every_hierarchy_has_its_directory() {
        let cpu = place("3:cpu,cpuacct:/kubepods/a:b").unwrap();
        assert_eq!(cpu, "/sys/fs/cgroup/cpu,cpuacct/kubepods/a:b");
        assert_eq!(place("9:name=systemd:/").unwrap(), "/sys/fs/cgroup/systemd");
        assert_eq!(place("0::/init.scope").unwrap(), "/sys/fs/cgroup/unified/init.scope");
        assert_eq!(place("4:memory:/pods/x").unwrap(), "/sys/fs/cgroup/memory/x");
    }

    #[test]
    fn what_is_not_mounted_is_not_joined() {
        assert_eq!(place("8:pids:/"), None);
        assert_eq!(place("nonsense"), None);
    }
}

//! A successor takes the connection over: what its predecessor left unanswered is answered, and nothing is lost.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
};

use fusefs::{Connection, MountOptions, Opened, Predecessor};
use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;
use testkit::{requires, skip_unless};
use tokio::runtime::Runtime;

use crate::{
    fixture::{inside, slot},
    memory::{Content, MemoryLayer, pattern},
};

const SIZE: u64 = 3_000_000;

struct Place {
    path: PathBuf,
    runtime: Runtime,
    _dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = TempDir::with_prefix("starling-fusefs-").unwrap();
        Self { path: dir.path().join("snapshotter/l"), runtime: Runtime::new().unwrap(), _dir: dir }
    }

    fn open(&self, predecessors: Vec<Predecessor>) -> Opened {
        let runtime = self.runtime.handle().clone();
        Connection::open(&self.path, predecessors, MountOptions::default(), runtime).unwrap()
    }

    /// A connection that nobody answers any more.
    fn abandoned(&self) -> Predecessor {
        let opened = self.open(Vec::new());
        assert!(!opened.resumed && opened.dead.is_empty());
        predecessor(&opened.connection)
    }

    fn mounts(&self) -> usize {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let path = self.path.to_str().unwrap();
        table.lines().filter(|line| line.split(' ').nth(4) == Some(path)).count()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        while umount2(&self.path, MntFlags::MNT_DETACH).is_ok() {}
    }
}

/// What a service manager would pass on.
fn predecessor(connection: &Connection) -> Predecessor {
    let (device, state) = connection.hand_over();
    let state = state.to_string().parse().unwrap();
    Predecessor { state, device: device.try_clone_to_owned().unwrap() }
}

fn layer() -> Arc<MemoryLayer> {
    let mut layer = MemoryLayer::new();
    layer.file("dir/file", 0o644, Content::Pattern(SIZE));
    Arc::new(layer)
}

fn read(path: &Path) -> JoinHandle<std::io::Result<Vec<u8>>> {
    let path = path.join("1/dir/file");
    std::thread::spawn(move || std::fs::read(path))
}

fn is_right(bytes: &[u8]) -> bool {
    bytes.len() as u64 == SIZE && bytes.iter().zip(0..).all(|(byte, offset)| *byte == pattern(offset))
}

/// Takes a request as a daemon does that then dies.
fn take_request(device: &OwnedFd) {
    let mut request = vec![0; 2 << 20];
    assert!(nix::unistd::read(device.as_fd(), &mut request).unwrap() > 40);
}

#[test]
fn what_was_taken_and_what_waits_is_answered_by_the_successor() {
    skip_unless!(requires::fuse());
    let place = Place::new();
    let predecessor = place.abandoned();
    let taken = read(&place.path);
    take_request(&predecessor.device);
    let waiting = read(&place.path);
    let Opened { connection, resumed, dead } = place.open(vec![predecessor]);
    assert!(resumed && dead.is_empty() && place.mounts() == 1);
    connection.attach(slot(1), layer()).unwrap();
    assert!(!taken.is_finished() && !waiting.is_finished(), "nobody answers before the layers are there");
    connection.serve().unwrap();
    if has_resend() {
        assert!(is_right(&taken.join().unwrap().unwrap()));
    }
    assert!(is_right(&waiting.join().unwrap().unwrap()));
    connection.unmount().unwrap();
    assert!(!connection.is_served());
}

/// Linux 6.9.
fn has_resend() -> bool {
    let name = nix::sys::utsname::uname().unwrap();
    let mut numbers = name.release().to_str().unwrap().split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let version = [numbers.next().unwrap().unwrap(), numbers.next().unwrap().unwrap_or(0)];
    if version < [6, 9] {
        println!("skipped: requests that were taken, which this kernel does not repeat");
    }
    version >= [6_u32, 9]
}

#[test]
fn a_successor_asks_for_nothing_that_was_not_settled() {
    skip_unless!(requires::fuse());
    let place = Place::new();
    let mut first = place.abandoned();
    let settled = first.state;
    // A predecessor that knew less than this daemon does.
    first.state.init.flags &= 0xffff;
    let fewer = first.state;
    let second = place.open(vec![first]);
    assert!(second.resumed);
    assert_eq!(second.connection.hand_over().1, fewer);
    let Predecessor { device, .. } = predecessor(&second.connection);
    let third = place.open(vec![Predecessor { state: settled, device }]);
    assert_eq!(third.connection.hand_over().1, settled);
    third.connection.unmount().unwrap();
}

#[test]
fn a_connection_that_ended_is_told_and_replaced() {
    skip_unless!(requires::fuse());
    let place = Place::new();
    let ended = place.abandoned();
    umount2(&place.path, MntFlags::empty()).unwrap();
    let state = ended.state;
    let Opened { connection, resumed, dead } = place.open(vec![ended]);
    assert_eq!((resumed, dead), (false, vec![state]));
    connection.attach(slot(1), layer()).unwrap();
    connection.serve().unwrap();
    assert!(is_right(&read(&place.path).join().unwrap().unwrap()));
    connection.unmount().unwrap();
}

#[test]
fn a_connection_that_is_not_mounted_here_any_more_is_served_for_those_who_hold_it() {
    skip_unless!(requires::fuse());
    let place = Place::new();
    let first = place.open(Vec::new()).connection;
    first.attach(slot(1), layer()).unwrap();
    first.serve().unwrap();
    let (_held, old) = inside(&place.path.join("1"));
    let left = predecessor(&first);
    first.unmount_lazily().unwrap();

    let second = place.open(vec![left]);
    assert!(!second.resumed && second.dead.is_empty() && place.mounts() == 1);
    let connection = second.connection;
    connection.attach(slot(1), layer()).unwrap();
    connection.serve().unwrap();
    // Both daemons answer here; only the second could in truth.
    assert!(is_right(&std::fs::read(old.join("dir/file")).unwrap()));
    assert!(connection.counters().lookups > 0 || first.counters().lookups > 0);
    assert!(is_right(&read(&place.path).join().unwrap().unwrap()));
    connection.unmount().unwrap();
}

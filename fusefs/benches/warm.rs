//! How long a warm walk takes beside the same tree on the local file system, both below an overlay. No message is sent,
//! so that the figures are the kernel's: `cargo bench -p fusefs --bench warm`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement ends by panicking")]

// What the tests mount with; they use more of it.
#[allow(dead_code)]
#[path = "../tests/mounted/fixture.rs"]
mod fixture;
#[allow(dead_code)]
#[path = "../tests/mounted/memory.rs"]
mod memory;

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    fixture::mounted,
    memory::{Content, MemoryLayer},
};

const FILES: usize = 20_000;
const PER_DIR: usize = 200;
const SIZE: usize = 2000;
const ROUNDS: usize = 7;

fn name(file: usize) -> String {
    format!("d{:03}/file-{file:05}.txt", file / PER_DIR)
}

fn stat(root: &Path) -> Duration {
    time(|| {
        for file in 0..FILES {
            assert!(root.join(name(file)).symlink_metadata().unwrap().len() > 0);
        }
    })
}

fn open_read_close(root: &Path) -> Duration {
    let mut buf = vec![0; SIZE + 1];
    time(|| {
        for file in 0..FILES {
            assert_eq!(File::open(root.join(name(file))).unwrap().read(&mut buf).unwrap(), SIZE);
        }
    })
}

fn find(root: &Path) -> Duration {
    fn walk(dir: &Path) -> usize {
        let entries = dir.read_dir().unwrap().map(|entry| entry.unwrap());
        entries.map(|entry| if entry.metadata().unwrap().is_dir() { walk(&entry.path()) } else { 1 }).sum()
    }
    time(|| assert_eq!(walk(root), FILES))
}

fn time(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// Times of the native tree and of ours, in turn, so that both meet the same machine.
fn compare(what: &str, native: &Path, ours: &Path, measure: fn(&Path) -> Duration) {
    let cold = [native, ours].map(measure);
    let mut times: [Vec<Duration>; 2] = Default::default();
    for _ in 0..ROUNDS {
        for (times, root) in times.iter_mut().zip([native, ours]) {
            times.push(measure(root));
        }
    }
    times.iter_mut().for_each(|times| times.sort());
    let [native, ours] = times.map(|times| (times[0], times[ROUNDS / 2], times[ROUNDS - 1]));
    println!("{what}: first {:?} native, {:?} ours", cold[0], cold[1]);
    println!("  native min {:?} median {:?} max {:?}", native.0, native.1, native.2);
    println!("  ours   min {:?} median {:?} max {:?}", ours.0, ours.1, ours.2);
    println!("  ours / native: median {:.2}", ours.1.as_secs_f64() / native.1.as_secs_f64());
}

fn native_tree(dir: &Path) -> PathBuf {
    let root = dir.join("tree");
    for file in 0..FILES {
        let path = root.join(name(file));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, vec![b'x'; SIZE]).unwrap();
    }
    root
}

fn main() {
    let mut layer = MemoryLayer::new();
    for file in 0..FILES {
        layer.file(&name(file), 0o644, Content::Bytes(vec![b'x'; SIZE]));
    }
    let Some((mut fixture, layer)) = mounted(layer) else { return };
    let native = native_tree(fixture.dir.path());
    let native = fixture.overlay(&[&native], true);
    let ours = fixture.overlay(&[&layer], true);
    std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    compare("find with stat", &native, &ours, find);
    compare("stat", &native, &ours, stat);
    compare("open, read, close", &native, &ours, open_read_close);
    println!("{:#?}", fixture.connection.counters());
}

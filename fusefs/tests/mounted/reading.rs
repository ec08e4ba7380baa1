//! Bytes: whole files, big files, mmap, reads that come late, fail or hang.

use std::{
    fs::File,
    io::Read,
    os::{fd::AsFd, unix::fs::FileExt},
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use fusefs::MountOptions;
use nix::sys::mman::{MapFlags, ProtFlags};

use crate::{
    fixture::{connect, connect_with, inside, mounted},
    memory::{Content, MemoryLayer, pattern},
};

fn expect_pattern(bytes: &[u8], offset: u64) {
    let wrong = bytes.iter().zip(offset..).find(|&(&byte, at)| byte != pattern(at));
    assert!(wrong.is_none(), "wrong byte {wrong:?} in a read at {offset}");
}

#[test]
fn files_are_read_in_large_pieces_and_once() {
    let mut layer = MemoryLayer::new();
    let size = 8 * 1024 * 1024 + 123;
    layer.file("big", 0o644, Content::Pattern(size)).text("empty", "");
    let Some((fixture, path)) = mounted(layer) else { return };
    let (_held, path) = inside(&path);
    let bytes = std::fs::read(path.join("big")).unwrap();
    assert_eq!(bytes.len() as u64, size);
    expect_pattern(&bytes, 0);
    assert_eq!(std::fs::read(path.join("empty")).unwrap(), b"");
    let cold = fixture.connection.counters();
    assert!(cold.reads < 40, "{cold:?}");
    assert_eq!((cold.misses, cold.errors, cold.hits), (0, 0, cold.reads));
    assert!(cold.opens <= 1 && cold.opendirs <= 1 && cold.flushes <= 1, "{cold:?}");
    for _ in 0..10 {
        expect_pattern(&std::fs::read(path.join("big")).unwrap(), 0);
        assert!(path.join("nothing").metadata().is_err());
        assert_eq!(path.read_dir().unwrap().count(), 2);
    }
    let warm = fixture.connection.counters();
    assert_eq!(warm.lookups, cold.lookups + 1, "the name that does not exist is asked for once");
    assert_eq!(warm.readdirpluses, cold.readdirpluses + 2, "the listing is read once, up to its end");
    assert_eq!((warm.getattrs, warm.opens, warm.flushes), (cold.getattrs, cold.opens, cold.flushes));
    // The kernel may give pages back at any time, and read them once more.
    let unread = || {
        let before = fixture.connection.counters().reads;
        expect_pattern(&std::fs::read(path.join("big")).unwrap(), 0);
        fixture.connection.counters().reads == before
    };
    assert!(warm.reads == cold.reads || (0..10).any(|_| unread()), "{warm:?}");
}

#[test]
fn offsets_past_4_gib_work() {
    let size = 5 * (1 << 30) + 4567;
    let mut layer = MemoryLayer::new();
    layer.file("huge", 0o644, Content::Pattern(size));
    let Some((_fixture, path)) = mounted(layer) else { return };
    let file = File::open(path.join("huge")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), size);
    let mut buf = vec![0; 100_000];
    for offset in [0, (1 << 32) - 50_000, (1 << 32) + 1, size - 100_000] {
        file.read_exact_at(&mut buf, offset).unwrap();
        expect_pattern(&buf, offset);
    }
    assert_eq!(file.read_at(&mut buf, size - 10).unwrap(), 10);
    expect_pattern(&buf[..10], size - 10);
    assert_eq!(file.read_at(&mut buf, size).unwrap(), 0);
    assert_eq!(file.read_at(&mut buf, size + 1_000_000).unwrap(), 0);
}

#[test]
fn memory_maps_show_the_bytes() {
    let size = 3 * 1024 * 1024 + 17;
    let mut layer = MemoryLayer::new();
    layer.file("lib", 0o755, Content::Pattern(size));
    let Some((_fixture, path)) = mounted(layer) else { return };
    let file = File::open(path.join("lib")).unwrap();
    for flags in [MapFlags::MAP_PRIVATE, MapFlags::MAP_SHARED] {
        let length = std::num::NonZeroUsize::new(size as usize).unwrap();
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_EXEC;
        // SAFETY: a new mapping of a file that never changes, read within its length, unmapped once.
        unsafe {
            let map = nix::sys::mman::mmap(None, length, protection, flags, file.as_fd(), 0).unwrap();
            expect_pattern(std::slice::from_raw_parts(map.as_ptr().cast(), size as usize), 0);
            nix::sys::mman::munmap(map, size as usize).unwrap();
        }
    }
}

#[test]
fn a_late_read_is_counted_as_a_stall() {
    let bytes: Vec<u8> = (0..300_000_u32).map(|i| i as u8 ^ (i >> 8) as u8).collect();
    let mut layer = MemoryLayer::new();
    layer.file("late", 0o644, Content::Late(bytes.clone(), Duration::from_millis(30)));
    let Some((fixture, path)) = mounted(layer) else { return };
    assert_eq!(std::fs::read(path.join("late")).unwrap(), bytes);
    let counters = fixture.connection.counters();
    assert!(counters.misses > 0 && counters.hits == 0);
    assert_eq!(counters.bytes, 300_000);
    assert_eq!(counters.stalls.waiting, 0);
    assert_eq!(counters.stalls.buckets.iter().sum::<u64>(), counters.misses);
    assert!(counters.stalls.longest >= Duration::from_millis(30));
    assert!(counters.stalls.total >= counters.stalls.longest);
}

#[test]
fn a_read_that_fails_is_eio_and_never_wrong_bytes() {
    let mut layer = MemoryLayer::new();
    layer.file("failing", 0o644, Content::Failing(10_000)).file("short", 0o644, Content::Short(10_000));
    let Some((fixture, path)) = mounted(layer) else { return };
    for name in ["failing", "short"] {
        let mut read = Vec::new();
        let error = File::open(path.join(name)).unwrap().read_to_end(&mut read).unwrap_err();
        assert_eq!((error.raw_os_error(), read.len()), (Some(libc::EIO), 0), "{name}");
        assert_eq!(path.join(name).metadata().unwrap().len(), 10_000, "{name} kept its length");
    }
    assert!(fixture.connection.counters().errors >= 2);
}

#[test]
fn a_read_that_hangs_is_eio_within_the_deadline() {
    let mut layer = MemoryLayer::new();
    layer.file("hanging", 0o644, Content::Hanging(4096));
    let read_deadline = Duration::from_millis(300);
    let Some(fixture) = connect_with(MountOptions { read_deadline, ..MountOptions::default() }) else {
        return;
    };
    let path = fixture.attach(1, layer);
    let began = Instant::now();
    let error = std::fs::read(path.join("hanging")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    // The kernel may try a page alone after a read-ahead that failed.
    assert!(began.elapsed() >= read_deadline && began.elapsed() < 10 * read_deadline);
    assert_eq!(fixture.connection.counters().stalls.waiting, 0);
}

#[test]
fn a_process_that_waits_for_a_read_can_be_killed() {
    let mut layer = MemoryLayer::new();
    layer.file("hanging", 0o644, Content::Hanging(100_000));
    let (hanging, release) = (layer.hanging.clone(), layer.release.clone());
    let Some((_fixture, path)) = mounted(layer) else { return };
    let mut reader = std::process::Command::new("cat").arg(path.join("hanging")).spawn().unwrap();
    while hanging.load(SeqCst) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let began = Instant::now();
    reader.kill().unwrap();
    reader.wait().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "killed after {:?}", began.elapsed());
    assert!(hanging.load(SeqCst) > 0, "the read itself still waits");
    release.notify_waiters();
}

/// Time that a read of a fresh file takes, for each of `count` files.
fn latencies(paths: impl Iterator<Item = std::path::PathBuf>) -> Vec<Duration> {
    let mut times: Vec<_> = paths
        .map(|path| {
            let began = Instant::now();
            assert_eq!(std::fs::read(path).unwrap().len(), 5000);
            began.elapsed()
        })
        .collect();
    times.sort();
    times
}

#[test]
fn two_thousand_hanging_reads_do_not_slow_another_layer() {
    const HANGING: usize = 2000;
    let mut bad = MemoryLayer::new();
    (0..HANGING).for_each(|i| {
        bad.file(&format!("{i}"), 0o644, Content::Hanging(4096));
    });
    let (hanging, release) = (bad.hanging.clone(), bad.release.clone());
    let mut good = MemoryLayer::new();
    (0..600).for_each(|i| {
        good.file(&format!("hit{i}"), 0o644, Content::Pattern(5000));
        good.file(&format!("miss{i}"), 0o644, Content::Late(vec![1; 5000], Duration::from_millis(2)));
    });
    let Some(fixture) = connect() else { return };
    let (bad, good) = (fixture.attach(1, bad), fixture.attach(2, good));
    let run = |from: usize| {
        ["hit", "miss"].map(|kind| latencies((from..from + 300).map(|i| good.join(format!("{kind}{i}")))))
    };
    let quiet = run(0);

    // Read-ahead makes a background request of it and does not wait: no thread for each.
    let files: Vec<_> = (0..HANGING).map(|i| File::open(bad.join(i.to_string())).unwrap()).collect();
    for file in &files {
        nix::fcntl::posix_fadvise(file, 0, 4096, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_WILLNEED)
            .unwrap();
    }
    let began = Instant::now();
    while hanging.load(SeqCst) < HANGING {
        assert!(began.elapsed() < Duration::from_secs(20), "{} reads hang", hanging.load(SeqCst));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(fixture.connection.counters().stalls.waiting, HANGING as u64);
    let loaded = run(300);
    release.notify_waiters();

    for (kind, quiet, loaded) in [("hit", &quiet[0], &loaded[0]), ("miss", &quiet[1], &loaded[1])] {
        let (quiet, loaded) = ([quiet[150], quiet[297]], [loaded[150], loaded[297]]);
        println!("{kind}: median and p99 without {quiet:?}, beside {HANGING} hanging reads {loaded:?}");
        // The machine that runs tests is busy: what is told apart is waiting for a hanging read or not.
        assert!(loaded[1] < quiet[1] * 5 + Duration::from_millis(100), "{kind}: {quiet:?} {loaded:?}");
        assert!(loaded[0] < quiet[0] * 3 + Duration::from_millis(10), "{kind}: {quiet:?} {loaded:?}");
    }
}

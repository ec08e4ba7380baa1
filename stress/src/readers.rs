//! Threads that read random pieces of random files of an overlay, and compare them.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    judge::{AFTERMATH, HANG, Judge, Moment},
    truth::{Known, Truth},
};

/// Files up to this size are sometimes read whole; of others, pieces of up to this size.
const MOST: u64 = 512 << 10;
/// How long a read that was refused is repeated: faults of the registry follow each other, but leave gaps.
const HEALED_WITHIN: Duration = Duration::from_secs(60);

/// What each reader is doing, for the one who watches them.
#[derive(Debug, Default)]
pub(crate) struct Doing(Mutex<Option<(Instant, String)>>);

// === impl Doing ===

impl Doing {
    /// What takes longer than anything may.
    pub(crate) fn hangs(&self) -> Option<String> {
        let doing = self.0.lock();
        let (since, what) = doing.as_ref()?;
        (since.elapsed() > HANG).then(|| format!("{what} takes {:?} by now", since.elapsed()))
    }

    /// Does something that must come to an end.
    pub(crate) fn bounded<T>(&self, what: impl Into<String>, work: impl FnOnce() -> T) -> T {
        *self.0.lock() = Some((Instant::now(), what.into()));
        let done = work();
        *self.0.lock() = None;
        done
    }
}

/// Reads until the end of the run.
pub(crate) fn read_on(root: &Path, truth: &Truth, seed: u64, judge: &Judge, doing: &Doing) {
    let mut random = StdRng::seed_from_u64(seed);
    while judge.pause(Duration::from_millis(random.random_range(1..8))) {
        let file = truth.any(&mut random);
        let (from, len) = piece(file, &mut random);
        compare(root, truth, file, (from, len), judge, doing);
    }
}

/// Reads `count` pieces.
pub(crate) fn read_some(
    root: &Path,
    truth: &Truth,
    count: usize,
    random: &mut StdRng,
    judge: &Judge,
    doing: &Doing,
) {
    for _ in 0..count {
        let file = truth.any(random);
        let part = piece(file, random);
        if judge.is_ending() {
            return;
        }
        compare(root, truth, file, part, judge, doing);
    }
}

/// Reads all files whole.
pub(crate) fn read_all(root: &Path, truth: &Truth, judge: &Judge, doing: &Doing) {
    for file in truth.files() {
        if !judge.is_ending() {
            compare(root, truth, file, (0, file.len), judge, doing);
        }
    }
}

fn piece(file: &Known, random: &mut StdRng) -> (u64, u64) {
    if file.len <= MOST && random.random_ratio(1, 2) {
        return (0, file.len);
    }
    let from = random.random_range(0..file.len);
    (from, random.random_range(1..=(file.len - from).min(MOST)))
}

/// Reads until it succeeds; a read that fails must have been allowed to.
fn compare(root: &Path, truth: &Truth, file: &Known, part: (u64, u64), judge: &Judge, doing: &Doing) {
    let (from, len) = (part.0, usize::try_from(part.1).unwrap_or(0));
    let path = root.join(&file.path);
    let first = Instant::now();
    loop {
        let (began, since) = (Moment::now(), Instant::now());
        match doing.bounded(format!("reading {}", path.display()), || read(&path, from, len)) {
            Ok(bytes) => {
                match truth.read(file, from, len) {
                    Ok(right) if right == bytes => judge.read(len, since.elapsed()),
                    Ok(_) => judge.fail(format!("wrong bytes in {} at {from}, {len} bytes", path.display())),
                    Err(error) => judge.fail(format!("the archives cannot be read: {error}")),
                }
                return;
            }
            Err(error) => {
                judge.counts.refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let refused = error.raw_os_error() == Some(nix::libc::EIO);
                if !refused || !judge.read_may_fail(began, Moment::now()) {
                    judge.fail(format!("a read of {} at {from} failed: {error}", path.display()));
                    return;
                }
            }
        }
        if first.elapsed() > HEALED_WITHIN {
            judge.fail(format!("{} cannot be read for {HEALED_WITHIN:?}", path.display()));
        }
        if !judge.pause(AFTERMATH / 10) {
            return;
        }
    }
}

/// Reads what the kernel was made to forget.
fn read(path: &PathBuf, from: u64, len: usize) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

/// A thread with a name, which says what it does.
pub(crate) struct Thread {
    pub(crate) name: String,
    pub(crate) doing: Arc<Doing>,
    pub(crate) handle: std::thread::JoinHandle<()>,
}

/// Starts one.
pub(crate) fn spawn(name: &str, work: impl FnOnce(&Doing) + Send + 'static) -> io::Result<Thread> {
    let doing = Arc::new(Doing::default());
    let told = Arc::clone(&doing);
    let handle = std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&told))?;
    Ok(Thread { name: name.to_owned(), doing, handle })
}

//! Readers of every kind, each in a loop: any error and any wrong byte ends the test.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::fs::FileExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use estargz::Digest;
use memmap2::{Mmap, UncheckedAdvice};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use rand::Rng;
use testkit::registry::TestRegistry;

use crate::image::{Layer, archive_in};

/// Threads that read until they are told to stop.
pub(crate) struct Readers {
    stop: Arc<AtomicBool>,
    threads: Vec<(&'static str, JoinHandle<u64>)>,
}

type Files = BTreeMap<String, Vec<u8>>;

/// The same files in the directory `name` instead of `usr`, as a layer of its own.
pub(crate) fn renamed(registry: &TestRegistry, layer: Layer, name: &str) -> Layer {
    let files: Files =
        layer.files.into_iter().map(|(path, bytes)| (path.replacen("usr", name, 1), bytes)).collect();
    Layer::of_archive(registry, &archive_in(name, &files), files)
}

/// Makes the kernel forget a file's bytes, so that the next read asks the daemon.
pub(crate) fn evict(file: &File) {
    posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
}

impl Readers {
    /// Starts one of each kind on layers with the directories `few`, `many` and `large` below `root`.
    pub(crate) fn start(root: &Path, layers: &[Layer]) -> Self {
        let [few, many, large] = [0, 1, 2].map(|n: usize| layers[n].files.clone());
        let mut readers = Self { stop: Arc::default(), threads: Vec::new() };
        let at = |path: &str| root.join(path);
        let first = |files: &Files, n: usize| files.iter().nth(n).map(|(p, b)| (at(p), b.clone())).unwrap();
        let (path, truth) = first(&few, 1);
        readers.spawn("descriptor", descriptor(File::open(path).unwrap(), truth));
        let (path, truth) = first(&few, 2);
        readers.spawn("map", map(File::open(path).unwrap(), truth));
        readers.spawn("directory", directory(&at("few"), &few));
        readers.spawn("names", names(root.to_owned(), many));
        let (path, truth) = first(&large, 0);
        readers.spawn("missing", missing(File::open(path).unwrap(), truth));
        readers
    }

    fn spawn(&mut self, name: &'static str, mut step: impl FnMut(u64) + Send + 'static) {
        let stop = Arc::clone(&self.stop);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let mut count = 0;
            while !stop.load(Relaxed) {
                step(count);
                count += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            count
        });
        self.threads.push((name, thread.unwrap()));
    }

    /// How much each read; fails if one of them failed.
    pub(crate) fn stop(self) -> Vec<(&'static str, u64)> {
        self.stop.store(true, Relaxed);
        self.threads.into_iter().map(|(name, thread)| (name, thread.join().unwrap())).collect()
    }
}

/// Random pieces of a file that stays open.
fn descriptor(file: File, truth: Vec<u8>) -> impl FnMut(u64) {
    move |_| {
        evict(&file);
        let from = rand::rng().random_range(0..truth.len() - 5000);
        let mut bytes = [0; 5000];
        file.read_exact_at(&mut bytes, from as u64).unwrap();
        assert!(bytes == truth[from..from + 5000], "wrong bytes at {from}");
    }
}

/// Random pieces of a file that stays mapped: an error would be SIGBUS.
#[allow(unsafe_code)]
fn map(file: File, truth: Vec<u8>) -> impl FnMut(u64) {
    // SAFETY: layers are read-only, so that the file never changes.
    let map = unsafe { Mmap::map(&file) }.unwrap();
    move |_| {
        // SAFETY: the map is shared and of a file: its pages are read again from there.
        unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) }.unwrap();
        evict(&file);
        let from = rand::rng().random_range(0..truth.len() - 5000);
        assert!(map[from..from + 5000] == truth[from..from + 5000], "wrong bytes at {from}");
    }
}

/// A program whose working directory is in the layer, asked by name for the digest of a file there.
struct Shell(Child);

impl Drop for Shell {
    fn drop(&mut self) {
        // It ends with what it reads from.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn directory(path: &Path, files: &Files) -> impl FnMut(u64) + use<> {
    let script = r#"while read -r name; do sha256sum < "./$name"; done"#;
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(path).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut shell = Shell(command.spawn().unwrap());
    let truth: Vec<_> = files
        .iter()
        .map(|(path, bytes)| {
            (path.split_once('/').unwrap().1.to_owned(), Digest::of(bytes).hex().to_string())
        })
        .collect();
    let mut answers = BufReader::new(shell.0.stdout.take().unwrap()).lines();
    move |count| {
        let (name, digest) = &truth[count as usize % truth.len()];
        writeln!(shell.0.stdin.as_ref().unwrap(), "{name}").unwrap();
        let answer = answers.next().unwrap().unwrap();
        assert_eq!(answer.split(' ').next(), Some(digest.as_str()), "{name}");
    }
}

/// Names that nobody looked up before, those that are there and others, and whole directories.
fn names(root: std::path::PathBuf, files: Files) -> impl FnMut(u64) {
    let files: Vec<_> = files.into_iter().collect();
    move |count| {
        let (path, truth) = &files[count as usize % files.len()];
        assert!(fs::read(root.join(path)).unwrap() == *truth, "wrong bytes in {path}");
        let error = fs::symlink_metadata(root.join(format!("many/none-{count}"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        if count % 50 == 0 {
            let listed = fs::read_dir(root.join("many")).unwrap().map(Result::unwrap).count();
            assert_eq!(listed, files.len());
        }
    }
}

/// A large file from its start: bytes that are not on disk yet.
fn missing(file: File, truth: Vec<u8>) -> impl FnMut(u64) {
    const STEP: usize = 40_000;
    move |count| {
        let from = (count as usize * STEP) % (truth.len() - STEP);
        let mut bytes = vec![0; STEP];
        file.read_exact_at(&mut bytes, from as u64).unwrap();
        assert!(bytes == truth[from..from + STEP], "wrong bytes at {from}");
    }
}

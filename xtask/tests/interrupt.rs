//! `cargo xtask demo` leaves nothing behind, at whatever moment it is interrupted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant, SystemTime},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testkit::{
    RegistryOptions, TestRegistry, requires, sample_image,
    scratch::{Scratch, mounts_below},
    skip_unless,
};

/// Cleaning up takes a few seconds at most, also when a process does not heed SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(20);

fn missing() -> Option<String> {
    requires::fuse().or_else(requires::go).or_else(sample_image::missing).or_else(|| {
        let programs = programs();
        let built = ["starling", "starlingd"].iter().all(|name| programs.join(name).exists());
        (!built).then(|| format!("needs starling and starlingd in {}", programs.display()))
    })
}

/// The programs of the test's own profile.
fn programs() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_xtask")).parent().unwrap().to_owned()
}

/// A demo that keeps its files below `temporary`.
fn demo(temporary: &Path, runs: &str, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["demo", "--runs", runs, "--programs"])
        .arg(programs())
        .args(arguments)
        .env("TMPDIR", temporary)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn wait(child: &mut Child) -> Option<ExitStatus> {
    let began = Instant::now();
    while began.elapsed() < END_LIMIT {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

/// Processes that were given `dir` as their temporary directory, or name it.
fn processes_of(dir: &Path) -> Vec<String> {
    let needle = dir.to_str().unwrap();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let text = |path: PathBuf| {
        fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    };
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()))
        .filter_map(|entry| {
            let command = text(entry.path().join("cmdline"));
            let named = command.contains(needle) || text(entry.path().join("environ")).contains(needle);
            named.then(|| command.replace('\0', " "))
        })
        .collect()
}

fn control_groups_of(name: &str) -> Vec<PathBuf> {
    let root = PathBuf::from("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(&root).unwrap().flatten().map(|entry| entry.path());
    hierarchies
        .chain([root.clone()])
        .map(|hierarchy| hierarchy.join("default").join(name))
        .filter(|group| group.exists())
        .collect()
}

/// A moment of the demo: so long after the line that begins with this.
struct Moment {
    line: &'static str,
    after: Duration,
}

/// Interrupts a demo at `moment` and looks for what is left.
fn interrupted(moment: &Moment, signal: Signal) {
    let scratch = Scratch::new("starling-interrupt-").unwrap();
    // Two runs: the first must not be the last when the signal comes.
    let mut child = demo(scratch.path(), "2", &[]);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = Vec::new();
    loop {
        let Some(line) = lines.next() else { panic!("the demo ended early: {said:#?}") };
        said.push(line.unwrap());
        if said.last().unwrap().starts_with(moment.line) {
            break;
        }
    }
    // The rest is read aside: a full pipe would stop the demo.
    let rest = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
    std::thread::sleep(moment.after);
    let names: Vec<String> = fs::read_dir(scratch.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
    let status = wait(&mut child);
    let what = format!("{signal} {:?} after {:?}", moment.after, moment.line);
    let left = processes_of(scratch.path());
    assert_eq!(left, Vec::<String>::new(), "{what}");
    let status = status.unwrap_or_else(|| panic!("{what}: did not end"));
    assert_eq!((status.code(), status.signal()), (Some(130), None), "{what}: {:#?}", rest.join());
    assert_eq!(mounts_below(scratch.path()), Vec::<PathBuf>::new(), "{what}");
    let files: Vec<_> = fs::read_dir(scratch.path()).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(files, Vec::<PathBuf>::new(), "{what}");
    for name in names {
        assert_eq!(control_groups_of(&name), Vec::<PathBuf>::new(), "{what}");
    }
}

#[test]
fn nothing_is_left_after_an_interrupt() {
    skip_unless!(missing());
    sample_image::python().unwrap();
    let random = || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Duration::from_millis(u64::from(now.subsec_nanos()) / 1000 % 700)
    };
    let moments = [
        ("\n", 0),                  // the very beginning
        ("=== Debian packages", 0), // set-up
        ("=== image", 300),         // conversion
        ("=== 2 cold starts", 500), // pull
        ("full pull", 100),         // the daemon starts
        ("full pull", 900),         // run
        ("full pull", 1500),
    ];
    for (number, (line, millis)) in moments.into_iter().enumerate() {
        let after = Duration::from_millis(millis) + if millis > 0 { random() } else { Duration::ZERO };
        let signal = if number % 2 == 0 { Signal::SIGINT } else { Signal::SIGTERM };
        interrupted(&Moment { line: line.trim_start_matches('\n'), after }, signal);
    }
}

#[test]
fn an_image_of_a_registry_is_shown_and_the_output_is_the_result_alone() {
    skip_unless!(missing(), requires::program("skopeo", "--version"));
    let scratch = Scratch::new("starling-demo-image-").unwrap();
    let registry = TestRegistry::start(RegistryOptions::default()).unwrap();
    let layout = sample_image::python().unwrap();
    registry.add_layout(&layout, sample_image::TAG, "python", "1").unwrap();
    let image = format!("{}/python:1", registry.host());
    let mut child = demo(scratch.path(), "1", &["--json", "--image", &image]);
    let mut errors = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).map(|_| text)
    });
    let output = child.wait_with_output().unwrap();
    let said = errors.join().unwrap().unwrap();
    assert!(output.status.success(), "{said}");
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let (full, lazy) = (&figures["full pull (overlayfs)"], &figures["Starling"]);
    assert!(full["ready_seconds"].as_f64() > Some(0.0) && lazy["ready_seconds"].as_f64() > Some(0.0));
    let pulled = |of: &serde_json::Value| of["pulled_seconds"].as_f64().unwrap();
    assert!(pulled(lazy) < pulled(full), "{figures}");
    assert!(!said.to_lowercase().contains("cgroup"), "{said}");
    assert_eq!(processes_of(scratch.path()), Vec::<String>::new());
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

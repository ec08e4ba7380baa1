//! The program itself: flags, signals, sockets, what it tells the service manager.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixDatagram, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::{SigSet, Signal};
use snapshotter::admin::Status;
use testkit::peers::starlingd::Starlingd;

const PROGRAM: &str = env!("CARGO_BIN_EXE_starlingd");

/// Why the daemon cannot run here.
fn cannot_run() -> bool {
    let why = if !nix::unistd::geteuid().is_root() {
        "mounting takes root"
    } else if !Path::new("/dev/fuse").exists() {
        "there is no /dev/fuse"
    } else {
        return false;
    };
    println!("skipped: {why}");
    true
}

fn get(socket: &Path, page: &str) -> (String, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    write!(stream, "GET {page} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// The lines of a log as objects: every line must be one.
fn logged(bytes: &[u8]) -> Vec<serde_json::Value> {
    String::from_utf8_lossy(bytes).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn version_is_told_under_the_name_that_was_called() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("containerd-stargz-grpc");
    std::os::unix::fs::symlink(PROGRAM, &link).unwrap();
    for flag in ["-version", "--version"] {
        let output = Command::new(&link).arg(flag).output().unwrap();
        let line = format!("containerd-stargz-grpc v{}\n", snapshotter::VERSION);
        assert!(output.status.success());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), line);
    }
}

#[test]
fn a_configuration_that_cannot_be_used_ends_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.toml");
    fs::write(&config, "[blob]\nmax_retry = 1\n").unwrap();
    let missing = directory.path().join("missing.toml");
    for (file, message) in [(&config, "max_retries"), (&missing, "missing.toml")] {
        let output = run(&["-config", file.to_str().unwrap(), "-root", directory.path().to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1));
        let lines = logged(&output.stderr);
        let last = lines.last().unwrap();
        assert_eq!(last["level"], "error");
        assert!(last["error"].as_str().unwrap().contains(message), "{last}");
    }
}

#[test]
fn it_serves_its_admin_socket_and_ends_cleanly_on_signals() {
    if cannot_run() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut daemon = Starlingd::start(Path::new(PROGRAM), directory.path(), "debug = true\n").unwrap();
        let (head, body) = get(&daemon.admin(), "/status");
        assert!(head.contains("200"), "{head}");
        let status: Status = serde_json::from_str(&body).unwrap();
        assert_eq!((status.pid, status.version.as_str()), (daemon.pid(), snapshotter::VERSION));
        assert_eq!((status.root, status.address), (daemon.root(), daemon.address()));
        assert!(status.memory.resident_bytes > 0 && status.layers.is_empty());
        assert!(status.ignored_configuration[0].starts_with("debug:"), "{:?}", status.ignored_configuration);
        assert_eq!(get(&daemon.admin(), "/healthz").1, "ok\n");
        let metrics = get(&daemon.admin(), "/metrics").1;
        assert!(metrics.contains("starling_build_info{version=") && metrics.contains("process_open_fds"));
        assert!(get(&daemon.admin(), "/nothing").0.contains("404"));
        for socket in [daemon.admin(), daemon.address()] {
            assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }

        let asked = Instant::now();
        assert_eq!(daemon.end(signal).unwrap().code(), Some(0));
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(directory.path().to_str().unwrap()), "a mount is left");
        assert!(
            logged(daemon.log().as_bytes())
                .iter()
                .all(|line| line["msg"].is_string() && line["time"].is_string())
        );
    }
}

#[test]
fn metrics_are_served_by_tcp_if_asked_for_and_not_at_all_if_forbidden() {
    if cannot_run() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("metrics_address = \"127.0.0.1:{port}\"\n");
    let daemon = Starlingd::start(Path::new(PROGRAM), directory.path(), &address).unwrap();
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    assert!(page.contains("starling_read_hits_total 0"), "{page}");
    drop(daemon);

    let silent = format!("no_prometheus = true\n{address}");
    let daemon = Starlingd::start(Path::new(PROGRAM), directory.path(), &silent).unwrap();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(get(&daemon.admin(), "/metrics").0.contains("404"));
}

#[test]
fn a_second_daemon_on_the_root_is_refused() {
    if cannot_run() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let daemon = Starlingd::start(Path::new(PROGRAM), directory.path(), "").unwrap();
    let other = directory.path().join("other.sock");
    let output = run(&["--root", daemon.root().to_str().unwrap(), "--address", other.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let lines = logged(&output.stderr);
    let error = lines.last().unwrap()["error"].as_str().unwrap().to_owned();
    assert!(
        error.contains("in use by another daemon") && error.contains(&daemon.pid().to_string()),
        "{error}"
    );
}

#[test]
fn the_service_manager_is_told() {
    if cannot_run() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut child = Command::new(PROGRAM)
        .args(["--root", directory.path().join("root").to_str().unwrap()])
        .args(["--address", directory.path().join("s").to_str().unwrap()])
        .env("NOTIFY_SOCKET", &path)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let hear = || {
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };
    // Kept before anyone can use it, and not watched: the kernel would wake the manager for every request.
    let kept = [hear(), hear()];
    assert!(
        kept.iter().all(|kept| kept.starts_with("FDSTORE=1\nFDPOLL=0\nFDNAME=starling-fuse-1.")),
        "{kept:?}"
    );
    assert_eq!(hear(), "READY=1");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(hear(), "STOPPING=1");
    // Nobody used it.
    for kept in kept {
        assert_eq!(hear(), kept.replace("FDSTORE=1\nFDPOLL=0", "FDSTOREREMOVE=1"));
    }
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_parent_that_blocks_signals_does_not_keep_it_from_ending() {
    if cannot_run() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    // The mask is the thread's: other tests keep theirs.
    let blocked = std::thread::spawn(move || {
        SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]).thread_block().unwrap();
        let mut daemon = Starlingd::start(Path::new(PROGRAM), directory.path(), "").unwrap();
        let asked = Instant::now();
        assert_eq!(daemon.end(Signal::SIGTERM).unwrap().code(), Some(0));
        asked.elapsed()
    });
    assert!(blocked.join().unwrap() < Duration::from_secs(5));
}

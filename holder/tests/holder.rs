//! The program itself, with this test binary as the daemon that it holds.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    io::{Read, Seek, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg},
    },
    unistd::Pid,
};
use tempfile::TempDir;

const HOLDER: &str = env!("CARGO_BIN_EXE_starling-holder");
/// Tells this binary to be a daemon, and where to write what it does.
const AS_DAEMON: &str = "HOLDER_TEST_DAEMON";
/// What kind of daemon.
const BEHAVIOUR: &str = "HOLDER_TEST_BEHAVIOUR";
const LIMIT: Duration = Duration::from_secs(20);

/// The daemon: not a test unless the environment says so.
#[test]
fn daemon() {
    let Some(journal) = std::env::var_os(AS_DAEMON) else { return };
    let mut journal = fs::File::options().create(true).append(true).open(journal).unwrap();
    let kept = kept();
    // In one piece: it is read at any time.
    let mut note = |line: String| journal.write_all(line.as_bytes()).unwrap();
    note(format!("started {} {kept}\n", std::process::id()));
    match std::env::var(BEHAVIOUR).unwrap().as_str() {
        "fails" => std::process::abort(),
        "serves" => {
            if kept == "-" {
                let mut file = tempfile::tempfile().unwrap();
                write!(file, "precious").unwrap();
                tell(b"FDSTORE=1\nFDPOLL=0\nFDNAME=a.treasure\n", Some(&file));
            }
        }
        "gives up" => {
            if kept != "-" {
                tell(b"FDSTOREREMOVE=1\nFDNAME=a.treasure\n", None);
            }
        }
        other => panic!("{other}"),
    }
    tell(b"READY=1\n", None);
    note("serves\n".to_owned());
    thread::sleep(Duration::from_secs(600));
}

/// What was passed on, as the protocol has it.
#[allow(unsafe_code)]
fn kept() -> String {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    if variable("LISTEN_PID") != std::process::id().to_string() {
        assert!(variable("LISTEN_PID").is_empty() && variable("LISTEN_FDS").is_empty());
        return "-".to_owned();
    }
    assert_eq!(variable("LISTEN_FDS"), "1");
    // SAFETY: the holder says that the descriptor is ours.
    let mut file = fs::File::from(unsafe { OwnedFd::from_raw_fd(3) });
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    format!("{}={text}", variable("LISTEN_FDNAMES"))
}

fn tell(text: &[u8], file: Option<&fs::File>) {
    let socket = UnixDatagram::unbound().unwrap();
    socket.connect(std::env::var_os("NOTIFY_SOCKET").unwrap()).unwrap();
    let numbers: Vec<_> = file.iter().map(|file| file.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[][..] } else { &rights[..] };
    let text = [std::io::IoSlice::new(text)];
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &text, control, MsgFlags::empty(), None).unwrap();
}

/// A holder in a directory of its own; ended when dropped.
struct Holder {
    process: Child,
    dir: PathBuf,
}

impl Holder {
    fn start(dir: &TempDir, behaviour: &str, options: &[&str]) -> Self {
        let mut command = Command::new(HOLDER);
        command.arg("--socket").arg(dir.path().join("run/holder.sock")).args(options);
        if !options.contains(&"--keep") {
            command.arg("--").arg(std::env::current_exe().unwrap()).args(["--exact", "daemon"]);
        }
        command.env(AS_DAEMON, dir.path().join("journal")).env(BEHAVIOUR, behaviour);
        Self { process: command.spawn().unwrap(), dir: dir.path().to_owned() }
    }

    fn journal(&self) -> String {
        fs::read_to_string(self.dir.join("journal")).unwrap_or_default()
    }

    /// Process number and descriptors of each start so far.
    fn starts(&self) -> Vec<(i32, String)> {
        let journal = self.journal();
        let start = |line: &str| {
            let (pid, kept) = line.strip_prefix("started ")?.split_once(' ')?;
            Some((pid.parse().ok()?, kept.to_owned()))
        };
        journal.lines().filter_map(start).collect()
    }

    /// Waits until there were so many starts, and gives the last.
    fn start_number(&self, number: usize) -> (i32, String) {
        until(|| self.starts().len() >= number);
        self.starts()[number - 1].clone()
    }

    /// As before, and waits until the last has said all that it has to say: the holder hears that before anything that
    /// happens later, since messages wait in its socket.
    fn serves_number(&self, number: usize) -> (i32, String) {
        self.start_number(number);
        until(|| self.journal().ends_with("serves\n"));
        self.start_number(number)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().cast_signed()), signal).unwrap();
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.process.wait().unwrap()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.end(Signal::SIGTERM);
        }
    }
}

fn until(mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LIMIT, "it does not come about");
        thread::sleep(Duration::from_millis(2));
    }
}

fn kill_process(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// The letter of proc(5) for what a process does.
fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn is_running(pid: i32) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

const TREASURE: &str = "a.treasure=precious";

#[test]
fn a_daemon_that_served_is_started_again_at_once_with_what_it_kept() {
    let dir = TempDir::new().unwrap();
    let holder = Holder::start(&dir, "serves", &[]);
    let (mut pid, kept) = holder.serves_number(1);
    assert_eq!(kept, "-");
    let began = Instant::now();
    for number in 2..12 {
        kill_process(pid);
        let (next, kept) = holder.serves_number(number);
        assert_eq!(kept, TREASURE, "start {number}");
        assert_ne!(next, pid);
        pid = next;
    }
    // Starts in vain would have waited for more than 10 s by then.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[test]
fn only_starts_that_never_served_are_waited_for() {
    let dir = TempDir::new().unwrap();
    let holder = Holder::start(&dir, "fails", &[]);
    let began = Instant::now();
    holder.start_number(8);
    // 10, 20, 40, 80, 160, 320, 640 ms apart at least.
    assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn what_is_given_up_is_not_passed_on() {
    let dir = TempDir::new().unwrap();
    let keeper_dir = TempDir::new().unwrap();
    let keeper = Holder::start(&keeper_dir, "", &["--keep"]);
    let socket = keeper_dir.path().join("run/holder.sock");
    until(|| socket.exists());
    let mut first = Holder::start(&dir, "serves", &["--keeper", socket.to_str().unwrap()]);
    first.serves_number(1);
    first.end(Signal::SIGTERM);

    let second = Holder::start(&dir, "gives up", &["--keeper", socket.to_str().unwrap()]);
    let (pid, kept) = second.serves_number(2);
    assert_eq!(kept, TREASURE);
    kill_process(pid);
    assert_eq!(second.start_number(3).1, "-");
    drop((second, keeper));
}

#[test]
fn a_keeper_outlives_the_holder_and_its_daemon() {
    let dir = TempDir::new().unwrap();
    let keeper_dir = TempDir::new().unwrap();
    let socket = keeper_dir.path().join("run/holder.sock");
    let without =
        Holder::start(&dir, "serves", &["--keeper", socket.to_str().unwrap()]).process.wait().unwrap();
    assert_eq!(without.code(), Some(1), "nobody keeps");
    let keeper = Holder::start(&keeper_dir, "", &["--keep"]);
    until(|| socket.exists());
    let mut first = Holder::start(&dir, "serves", &["--keeper", socket.to_str().unwrap()]);
    let (pid, kept) = first.serves_number(1);
    assert_eq!(kept, "-");
    // It has told the keeper: it was woken by what the daemon said, and has nothing to do any more.
    until(|| state(first.process.id().cast_signed()) == Some('S'));
    first.end(Signal::SIGKILL);
    kill_process(pid);
    let second = Holder::start(&dir, "serves", &["--keeper", socket.to_str().unwrap()]);
    assert_eq!(second.start_number(2).1, TREASURE);
    drop((second, keeper));
}

#[test]
fn signals_reach_the_daemon() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let dir = TempDir::new().unwrap();
        let mut holder = Holder::start(&dir, "serves", &[]);
        let (first, _) = holder.serves_number(1);
        holder.signal(Signal::SIGHUP);
        let (second, kept) = holder.start_number(2);
        assert_eq!(kept, TREASURE);
        assert!(!is_running(first));
        // The test daemon does not catch the signal; starlingd does, and ends with 0.
        assert_eq!(holder.end(signal).code(), Some(128 + Signal::SIGTERM as i32));
        assert!(!is_running(second));
        assert!(!dir.path().join("run/holder.sock").exists());
    }
}

#[test]
fn a_lack_of_memory_hits_the_daemon_and_not_its_holder() {
    let score =
        |pid: u32| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().to_owned();
    let spare = Command::new("sh").args(["-c", "echo -1000 > /proc/self/oom_score_adj"]).output().unwrap();
    if !spare.status.success() {
        return println!("skipped: sparing a process takes CAP_SYS_RESOURCE");
    }
    let dir = TempDir::new().unwrap();
    let holder = Holder::start(&dir, "serves", &[]);
    let (pid, _) = holder.start_number(1);
    assert_eq!(score(holder.process.id()), "-1000");
    assert_eq!(score(pid.cast_unsigned()), score(std::process::id()));
}

#[test]
fn two_holders_do_not_share_a_socket() {
    let dir = TempDir::new().unwrap();
    let holder = Holder::start(&dir, "serves", &[]);
    holder.start_number(1);
    let mut other = Holder::start(&dir, "serves", &[]);
    assert_eq!(other.process.wait().unwrap().code(), Some(1));
    assert_eq!(holder.starts().len(), 1);
}

#[test]
fn a_program_that_is_missing_is_tried_again() {
    let dir = TempDir::new().unwrap();
    let program = dir.path().join("program");
    let mut command = Command::new(HOLDER);
    command.arg("--socket").arg(dir.path().join("holder.sock")).arg(&program);
    let mut holder = Holder { process: command.spawn().unwrap(), dir: dir.path().to_owned() };
    thread::sleep(Duration::from_millis(100));
    // Renamed into its place: a file that is being written cannot be run.
    let new = dir.path().join("new");
    fs::write(
        &new,
        format!("#!/bin/sh\necho started $$ - > {}/journal\nexec sleep 600\n", dir.path().display()),
    )
    .unwrap();
    fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::rename(&new, &program).unwrap();
    let (pid, _) = holder.start_number(1);
    assert!(is_running(pid));
    holder.end(Signal::SIGTERM);
}

#[test]
fn nonsense_is_refused_with_the_usage() {
    let output = Command::new(HOLDER).arg("--keep").arg("x").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage: starling-holder"));
    let version = Command::new(HOLDER).arg("--version").output().unwrap();
    assert!(version.status.success() && version.stdout.starts_with(b"starling-holder v"));
}

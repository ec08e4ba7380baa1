//! The program: started with all descriptors that are kept, as sd_listen_fds(3) has it.

use std::{
    convert::Infallible,
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStringExt,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    sys::{
        signal::{SigHandler, SigSet, Signal, kill, signal},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, execvpe, fork, getpid},
};

use crate::{doing, shelf::Shelf, spared::Before};

/// The first descriptor that is passed on (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;
/// What shells say of a program that cannot be started.
const CANNOT_START: i32 = 127;

/// A running program.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    /// Whether it said that it serves.
    pub(crate) served: bool,
}

// === impl Child ===

impl Child {
    /// Starts `command` from its file, which may be another one than the last time, with all of `shelf`. `socket` is where
    /// it sends to, `before` how this process was spared.
    #[allow(unsafe_code)]
    pub(crate) fn start(
        command: &[CString],
        socket: &Path,
        shelf: &Shelf,
        before: &Before,
    ) -> io::Result<Self> {
        let environment = environment(socket, shelf)?;
        let program = command.first().ok_or(io::ErrorKind::InvalidInput)?;
        let starting = || doing(format!("start {}", program.to_string_lossy()));
        // Where they are in no one's way: the numbers from `FIRST` on may be taken by any of them.
        let above = FIRST + RawFd::try_from(shelf.iter().len()).unwrap_or(RawFd::MAX - FIRST);
        let copies = shelf
            .iter()
            .map(|(_, descriptor)| copy_above(descriptor, above))
            .collect::<nix::Result<Vec<_>>>()
            .map_err(starting())?;
        // SAFETY: this process has one thread, so that nothing is left in a half-way state in the copy.
        match unsafe { fork() }.map_err(starting())? {
            ForkResult::Parent { child } => Ok(Self { pid: child, served: false }),
            ForkResult::Child => {
                before.restore();
                let Err(errno) = become_program(command, environment, &copies);
                eprintln!("starling-holder: cannot start {}: {errno}", program.to_string_lossy());
                // SAFETY: ends this copy at once, without what the original wants to do at its end.
                unsafe { libc::_exit(CANNOT_START) }
            }
        }
    }

    /// How it ended, if it did: its exit code, or 128 and the signal.
    pub(crate) fn end(&self) -> Option<u8> {
        match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => Some(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 | (signal as u8 & 0x7f)),
            // Nothing of that number is ours: it cannot be waited for.
            Err(Errno::ECHILD) => Some(CANNOT_START as u8),
            _ => None,
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // It fails if the child has just ended, which is what was wanted.
        let _ = kill(self.pid, signal);
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }
}

#[allow(unsafe_code)]
fn copy_above(descriptor: &OwnedFd, least: RawFd) -> nix::Result<OwnedFd> {
    let number = fcntl(descriptor, FcntlArg::F_DUPFD_CLOEXEC(least))?;
    // SAFETY: the kernel has just made this descriptor, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// In the new process: does not return unless it fails.
#[allow(unsafe_code)]
fn become_program(
    command: &[CString],
    mut environment: Vec<CString>,
    descriptors: &[OwnedFd],
) -> nix::Result<Infallible> {
    for (number, descriptor) in (FIRST..).zip(descriptors) {
        // SAFETY: replaces whatever has the number in this process, which is about to be another program: all
        // descriptors of this one are closed by that, but for the copy made here.
        Errno::result(unsafe { libc::dup2(descriptor.as_raw_fd(), number) })?;
    }
    if !descriptors.is_empty() {
        let pid = CString::new(format!("LISTEN_PID={}", getpid())).map_err(|_| Errno::EINVAL)?;
        environment.push(pid);
    }
    SigSet::all().thread_unblock()?;
    // Rust programs ignore it, and what is ignored stays so in the next program.
    // SAFETY: there is no handler of ours that could be lost.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    let program: &CStr = command.first().ok_or(Errno::ENOENT)?;
    execvpe(program, command, &environment)
}

/// This process' environment with what tells of descriptors.
fn environment(socket: &Path, shelf: &Shelf) -> io::Result<Vec<CString>> {
    const OURS: [&str; 5] = ["NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "FDSTORE"];
    let mut lines: Vec<Vec<u8>> = std::env::vars_os()
        .filter(|(name, _)| !OURS.iter().any(|ours| name == ours))
        .map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'='))
        .collect();
    lines.push(format!("NOTIFY_SOCKET={}", socket.display()).into_bytes());
    let count = shelf.iter().len();
    if count > 0 {
        let names: Vec<_> = shelf.iter().map(|(name, _)| name.as_str()).collect();
        lines.push(format!("LISTEN_FDS={count}").into_bytes());
        lines.push(format!("LISTEN_FDNAMES={}", names.join(":")).into_bytes());
    }
    lines.into_iter().map(|line| CString::new(line).map_err(io::Error::other)).collect()
}

//! What a holder does all day: waits for messages, signals, and the moment to start the program.

use std::{
    ffi::CString,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};

use crate::{
    child::Child,
    doing,
    message::Request,
    restart::Restart,
    say,
    shelf::Shelf,
    socket::{self, Received, Socket},
    spared::{self, Before},
};

/// The signals that are waited for rather than obeyed.
const SIGNALS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD];

/// A holder at work.
#[derive(Debug)]
pub(crate) struct Holder {
    socket: Socket,
    path: PathBuf,
    shelf: Shelf,
    signals: SignalFd,
    /// None for one that only keeps.
    program: Option<Program>,
    stopping: bool,
}

/// What is run.
#[derive(Debug)]
struct Program {
    command: Vec<CString>,
    /// A holder elsewhere that is told all that this one is told.
    keeper: Option<PathBuf>,
    restart: Restart,
    state: State,
    before: Before,
}

#[derive(Debug)]
enum State {
    Runs(Child),
    /// To be started at that time.
    Waits(Instant),
}

// === impl Holder ===

impl Holder {
    /// One that keeps for others.
    pub(crate) fn keep(socket: &Path) -> io::Result<Self> {
        Self::new(socket, Shelf::default(), None)
    }

    /// One that runs `command`, with what `keeper` has kept from before.
    pub(crate) fn supervise(
        socket: &Path,
        keeper: Option<PathBuf>,
        command: Vec<CString>,
    ) -> io::Result<Self> {
        let mut shelf = Shelf::default();
        if let Some(keeper) = &keeper {
            let kept = socket::fetch(keeper).map_err(doing(format!(
                "fetch what is kept at {} (start it with --keep)",
                keeper.display()
            )))?;
            kept.into_iter().for_each(|(name, descriptor)| shelf.store(&name, vec![descriptor]));
        }
        let state = State::Waits(Instant::now());
        let before = spared::this_process();
        let program = Program { command, keeper, restart: Restart::default(), state, before };
        Self::new(socket, shelf, Some(program))
    }

    fn new(path: &Path, shelf: Shelf, program: Option<Program>) -> io::Result<Self> {
        let signals = SigSet::from_iter(SIGNALS);
        signals.thread_block()?;
        let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let socket = Socket::bind(path)?;
        Ok(Self { socket, path: path.to_owned(), shelf, signals, program, stopping: false })
    }

    /// Holds until a signal says to stop, and the program has ended.
    pub(crate) fn run(mut self) -> io::Result<u8> {
        let code = loop {
            self.wait()?;
            self.obey()?;
            let ended = self.listen()?;
            if let Some(code) = self.tend(ended) {
                break code;
            }
        };
        // The next holder would replace it anyway.
        let _ = std::fs::remove_file(&self.path);
        Ok(code)
    }

    fn wait(&self) -> io::Result<()> {
        let left = match &self.program {
            Some(Program { state: State::Waits(until), .. }) if !self.stopping => {
                // Rounded up, so that the wait is over after it.
                let left = until.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
            _ => PollTimeout::NONE,
        };
        let mut polled = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.socket.descriptor().as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut polled, left) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Heeds what was sent. Gives the exit code of the program if it has ended: looked at first, so that all that it said is
    /// heard before the next one starts.
    fn listen(&mut self) -> io::Result<Option<u8>> {
        let ended = match &self.program {
            Some(Program { state: State::Runs(child), .. }) => child.end(),
            _ => None,
        };
        while let Some(received) = self.socket.receive()? {
            self.heed(received);
        }
        Ok(ended)
    }

    fn heed(&mut self, received: Received) {
        let Received { message, text, descriptors } = received;
        if let Some(Program { state: State::Runs(child), .. }) = &mut self.program
            && message.ready
        {
            child.served = true;
        }
        match message.request {
            Some(Request::Fetch) => {
                for asker in &descriptors {
                    if let Err(error) = socket::hand_out(asker, self.shelf.iter()) {
                        say(format_args!("cannot hand out what is kept: {error}"));
                    }
                }
                return;
            }
            Some(Request::Store(_) | Request::Remove(_)) => self.tell_keeper(&text, &descriptors),
            None => {}
        }
        match message.request {
            Some(Request::Store(name)) => self.shelf.store(&name, descriptors),
            Some(Request::Remove(name)) => self.shelf.remove(&name),
            _ => {}
        }
    }

    fn tell_keeper(&self, text: &[u8], descriptors: &[std::os::fd::OwnedFd]) {
        let Some(keeper) = self.program.as_ref().and_then(|program| program.keeper.as_deref()) else {
            return;
        };
        let descriptors: Vec<_> = descriptors.iter().collect();
        if let Err(error) = socket::send_to(keeper, text, &descriptors) {
            say(format_args!("cannot tell the keeper at {}: {error}", keeper.display()));
        }
    }

    fn obey(&mut self) -> io::Result<()> {
        while let Some(info) = self.signals.read_signal()? {
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            match signal {
                Some(Signal::SIGTERM | Signal::SIGINT) => {
                    self.stopping = true;
                    self.end_program();
                }
                Some(Signal::SIGHUP) => self.end_program(),
                // The end of the program is looked for after this, lest one be missed between.
                _ => {}
            }
        }
        Ok(())
    }

    fn end_program(&self) {
        if let Some(Program { state: State::Runs(child), .. }) = &self.program {
            child.signal(Signal::SIGTERM);
        }
    }

    /// Sees to the program, which may have ended; the exit code when there is nothing left to do.
    fn tend(&mut self, ended: Option<u8>) -> Option<u8> {
        let Some(program) = &mut self.program else { return self.stopping.then_some(0) };
        if let State::Runs(child) = &program.state {
            let code = ended?;
            let wait = program.restart.after(child.served);
            let (pid, served) = (child.pid(), child.served);
            program.state = State::Waits(Instant::now() + wait);
            if self.stopping {
                return Some(code);
            }
            let before = if served { "" } else { " before it served" };
            say(format_args!("process {pid} ended with {code}{before}, the next one starts in {wait:?}"));
        }
        let State::Waits(until) = program.state else { return None };
        if self.stopping {
            return Some(0);
        }
        if Instant::now() >= until {
            program.state = match Child::start(&program.command, &self.path, &self.shelf, &program.before) {
                Ok(child) => State::Runs(child),
                Err(error) => {
                    say(error);
                    State::Waits(Instant::now() + program.restart.after(false))
                }
            };
        }
        None
    }
}

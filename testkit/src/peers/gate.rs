//! A socket between containerd and its plugin that counts calls and strikes at one of them: before it is passed on, when
//! it was, or when it was answered and nobody knows yet.
//!
//! It understands of HTTP/2 (RFC 9113) as much as that takes: the preface, the length, type, flags and stream of frames.
//! A call is a HEADERS frame of the client; its end, of either side, the flag END_STREAM.

use std::{
    fs, io,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    thread,
};

use anyhow::{Context, Result};
use parking_lot::Mutex;

const PREFACE: usize = 24;
const HEAD: usize = 9;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;

/// When to strike, counted from the moment at which it was armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The call does not reach the plugin.
    Before(u32),
    /// The call is with the plugin.
    Within(u32),
    /// The plugin has answered; containerd does not get to know.
    Answered(u32),
}

/// The socket; gone when dropped.
#[derive(Debug)]
pub struct Gate {
    address: PathBuf,
    shared: Arc<Shared>,
}

type Strike = Box<dyn FnOnce() + Send>;

struct Shared {
    plugin: PathBuf,
    state: Mutex<State>,
    closed: OnceLock<()>,
}

#[derive(Default)]
struct State {
    calls: u32,
    armed: Option<(When, Strike)>,
    /// The stream whose end is waited for, and of which connection.
    struck: Option<(u64, u32)>,
    connections: u64,
}

// === impl Gate ===

impl Gate {
    /// Listens on `address` and passes on to `plugin`.
    ///
    /// # Errors
    /// Nothing can be listened on there.
    pub fn open(address: &Path, plugin: &Path) -> Result<Self> {
        let listener = UnixListener::bind(address).context("listen between containerd and its plugin")?;
        let shared =
            Arc::new(Shared { plugin: plugin.to_owned(), state: Mutex::default(), closed: OnceLock::new() });
        let serving = Arc::clone(&shared);
        thread::Builder::new().name("gate".into()).spawn(move || {
            for client in listener.incoming().flatten() {
                if serving.closed.get().is_some() {
                    return;
                }
                // A plugin that is away refuses; so do we, by closing.
                let Ok(plugin) = UnixStream::connect(&serving.plugin) else { continue };
                let _ = pass_both_ways(&serving, client, plugin);
            }
        })?;
        Ok(Self { address: address.to_owned(), shared })
    }

    /// Where containerd connects to.
    pub fn address(&self) -> &Path {
        &self.address
    }

    /// Calls `strike` at `when`, once; calls are counted from now on.
    pub fn arm(&self, when: When, strike: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.state.lock();
        state.calls = 0;
        state.struck = None;
        state.armed = Some((when, Box::new(strike)));
    }

    /// Takes back what was armed; whether it had struck, and how many calls there were.
    pub fn disarm(&self) -> (bool, u32) {
        let mut state = self.shared.state.lock();
        (state.armed.take().is_none(), state.calls)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.shared.closed.set(());
        // Wakes the one who accepts.
        let _ = UnixStream::connect(&self.address);
        let _ = fs::remove_file(&self.address);
    }
}

fn pass_both_ways(shared: &Arc<Shared>, client: UnixStream, plugin: UnixStream) -> io::Result<()> {
    let number = {
        let mut state = shared.state.lock();
        state.connections += 1;
        state.connections
    };
    for (from, to, asks) in [(client.try_clone()?, plugin.try_clone()?, true), (plugin, client, false)] {
        let shared = Arc::clone(shared);
        thread::Builder::new().name("gate".into()).spawn(move || {
            // Either end's end is the other's.
            let _ = pass(&shared, &from, &to, number, asks);
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        })?;
    }
    Ok(())
}

/// Passes frames on until an end, or a strike.
fn pass(
    shared: &Shared,
    mut from: &UnixStream,
    mut to: &UnixStream,
    connection: u64,
    asks: bool,
) -> io::Result<()> {
    if asks {
        let mut preface = [0; PREFACE];
        from.read_exact(&mut preface)?;
        to.write_all(&preface)?;
    }
    loop {
        let mut head = [0; HEAD];
        from.read_exact(&mut head)?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut frame = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        from.read_exact(&mut frame)?;
        let stream = u32::from_be_bytes(stream);
        let ends = flags & END_STREAM != 0 && kind <= HEADERS;
        let begins = asks && kind == HEADERS;
        if shared.strikes_before((connection, stream), asks, begins, ends) {
            return Ok(());
        }
        to.write_all(&head)?;
        to.write_all(&frame)?;
        if asks && ends && shared.strikes_within((connection, stream)) {
            return Ok(());
        }
    }
}

// === impl Shared ===

impl Shared {
    /// To be called before a frame is passed on.
    fn strikes_before(&self, stream: (u64, u32), asks: bool, begins: bool, ends: bool) -> bool {
        let mut state = self.state.lock();
        if begins {
            state.calls += 1;
            let calls = state.calls;
            match state.armed.as_ref().map(|(when, _)| *when) {
                Some(When::Before(at)) if at == calls => return state.strike(),
                Some(When::Within(at) | When::Answered(at)) if at == calls => state.struck = Some(stream),
                _ => {}
            }
        }
        let answered = matches!(state.armed, Some((When::Answered(_), _)));
        !asks && ends && answered && state.struck == Some(stream) && state.strike()
    }

    /// To be called when a call was passed on to its end.
    fn strikes_within(&self, stream: (u64, u32)) -> bool {
        let mut state = self.state.lock();
        let within = matches!(state.armed, Some((When::Within(_), _)));
        within && state.struck == Some(stream) && state.strike()
    }
}

impl State {
    fn strike(&mut self) -> bool {
        if let Some((_, strike)) = self.armed.take() {
            strike();
        }
        true
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("plugin", &self.plugin).finish_non_exhaustive()
    }
}

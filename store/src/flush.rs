//! Recording what was verified: a thread of its own syncs contents and then writes the bits that stand for them.
//!
//! No read waits for it. What it has not come to when the machine fails is fetched again.

use std::{
    collections::HashMap,
    io,
    sync::{
        Weak,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{Layer, StoreConfig};

/// The thread, seen from a layer. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Flusher(Sender<Dirty>);

/// A layer with chunks to record.
#[derive(Debug)]
pub(crate) struct Dirty {
    pub(crate) layer: Weak<Layer>,
    /// There are many of them: do not wait.
    pub(crate) urgent: bool,
}

// === impl Flusher ===

impl Flusher {
    pub(crate) fn start(config: &StoreConfig) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let interval = config.flush_interval;
        thread::Builder::new().name("flush".to_owned()).spawn(move || run(&receiver, interval))?;
        Ok(Self(sender))
    }

    /// A layer has chunks to record.
    pub(crate) fn notify(&self, dirty: Dirty) {
        // The thread ends after the sender only.
        let _ = self.0.send(dirty);
    }
}

fn run(receiver: &Receiver<Dirty>, interval: Duration) {
    while let Ok(first) = receiver.recv() {
        let deadline = Instant::now() + interval;
        let mut urgent = first.urgent;
        // Not by key: a removed layer that somebody still reads is not the one that was opened since.
        let mut layers = HashMap::from([(first.layer.as_ptr(), first.layer)]);
        while !urgent {
            match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(dirty) => {
                    urgent = dirty.urgent;
                    layers.insert(dirty.layer.as_ptr(), dirty.layer);
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        for layer in layers.into_values().filter_map(|layer| layer.upgrade()) {
            layer.flush();
        }
    }
}

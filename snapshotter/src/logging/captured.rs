//! For tests: what is logged by a piece of work.

use std::{
    io::{self, Write},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{Level, subscriber};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines that `work` logs on this thread, at `level`.
pub(crate) fn logged(level: Level, work: impl FnOnce()) -> String {
    let captured = Captured::default();
    let writer = captured.clone();
    tracing::subscriber::with_default(subscriber(level, move || writer.clone()), work);
    let bytes = captured.0.lock();
    String::from_utf8_lossy(&bytes).into_owned()
}

//! For tests: what is logged by a piece of work.

use std::{
    io::{self, Write},
    sync::{Arc, LazyLock},
};

use parking_lot::Mutex;
use tracing::{Dispatch, subscriber::NoSubscriber};

use super::{Level, subscriber};

/// See [`logged`].
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::default()));

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
///
/// While there is but one subscriber, tracing asks the thread that comes to a log line first whether anybody listens,
/// and keeps its answer for all threads (`tracing_core::callsite`): another test that comes there at the same time would
/// silence it. Beside a second subscriber it asks all that there are.
pub(crate) fn logged(level: Level, work: impl FnOnce()) -> String {
    LazyLock::force(&SECOND);
    let captured = Captured::default();
    let writer = captured.clone();
    tracing::subscriber::with_default(subscriber(level, move || writer.clone()), work);
    let bytes = captured.0.lock();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_without_a_subscriber_silences_nobody() {
        let say = || tracing::info!("heard");
        let log = logged(Level::Info, || {
            std::thread::spawn(say).join().unwrap();
            say();
        });
        assert_eq!(log.lines().count(), 1, "{log}");
    }
}

//! Work that may wait for a disk, away from the threads that serve everybody.

use std::io;

use tokio::task::spawn_blocking;

/// What `work` gives. It is done on a thread that may wait, and to its end, also if nobody waits for it any more.
///
/// # Errors
/// It panicked, or the runtime ends.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    // A panic's own message may quote what was read.
    spawn_blocking(work).await.map_err(|_| io::Error::other("the thread that did it has ended"))
}

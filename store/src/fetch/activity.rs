//! Whether anyone waits: the background goes on only while no demand window makes progress.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};

/// Counts the demand windows that make progress, over all layers.
#[derive(Debug, Clone)]
pub(crate) struct Activity(Arc<watch::Sender<usize>>);

/// One demand window. It counts from [`Busy::resume`] to [`Busy::pause`]: one that hangs must not stop the background
/// of all other layers.
#[derive(Debug)]
pub(crate) struct Busy {
    activity: Activity,
    counted: bool,
}

// === impl Activity ===

impl Activity {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    /// A window that does not count yet.
    pub(crate) fn window(&self) -> Busy {
        Busy { activity: self.clone(), counted: false }
    }

    /// Waits until nobody has waited for anything for `pause`.
    pub(crate) async fn quiet_for(&self, pause: Duration) {
        let mut changes = self.0.subscribe();
        // The sender lives as long as this, so that waiting cannot fail.
        while changes.wait_for(|busy| *busy == 0).await.is_ok() {
            if timeout(pause, changes.changed()).await.is_err() {
                return;
            }
        }
    }

    /// Waits until nobody waits.
    pub(crate) async fn quiet(&self) {
        // The sender lives as long as this, so that waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|busy| *busy == 0).await;
    }
}

// === impl Busy ===

impl Busy {
    pub(crate) fn resume(&mut self) {
        if !self.counted {
            self.counted = true;
            self.activity.0.send_modify(|busy| *busy += 1);
        }
    }

    pub(crate) fn pause(&mut self) {
        if self.counted {
            self.counted = false;
            self.activity.0.send_modify(|busy| *busy -= 1);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.pause();
    }
}

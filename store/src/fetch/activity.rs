//! Whether anyone waits: the background goes on only while no demand window makes progress.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// Counts the demand windows that make progress, over all layers.
#[derive(Debug, Clone)]
pub(crate) struct Activity(Arc<watch::Sender<State>>);

#[derive(Debug, Clone, Copy)]
struct State {
    busy: usize,
    /// When one ended last; none if none was.
    quiet_since: Option<Instant>,
}

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
        Self(Arc::new(watch::Sender::new(State { busy: 0, quiet_since: None })))
    }

    /// A window that does not count yet.
    pub(crate) fn window(&self) -> Busy {
        Busy { activity: self.clone(), counted: false }
    }

    /// Waits until nobody has waited for anything for `pause`.
    pub(crate) async fn quiet_for(&self, pause: Duration) {
        let mut changes = self.0.subscribe();
        // The sender lives as long as this, so that waiting cannot fail.
        while let Ok(quiet) = changes.wait_for(|state| state.busy == 0).await.map(|state| state.quiet_since) {
            let Some(since) = quiet else { return };
            if timeout_at(since + pause, changes.changed()).await.is_err() {
                return;
            }
        }
    }

    /// Waits until nobody waits.
    pub(crate) async fn quiet(&self) {
        // The sender lives as long as this, so that waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|state| state.busy == 0).await;
    }
}

// === impl Busy ===

impl Busy {
    pub(crate) fn resume(&mut self) {
        if !self.counted {
            self.counted = true;
            self.activity.0.send_modify(|state| state.busy += 1);
        }
    }

    pub(crate) fn pause(&mut self) {
        if self.counted {
            self.counted = false;
            self.activity.0.send_modify(|state| {
                state.busy -= 1;
                state.quiet_since = Some(Instant::now());
            });
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.pause();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn quiet_is_counted_from_when_the_last_one_ended() {
        let (activity, began) = (Activity::new(), Instant::now());
        activity.quiet_for(PAUSE).await;
        assert_eq!(began.elapsed(), Duration::ZERO, "nobody has ever waited");

        let (mut one, mut two) = (activity.window(), activity.window());
        one.resume();
        two.resume();
        tokio::spawn(async move {
            tokio::time::sleep(PAUSE).await;
            one.pause();
            tokio::time::sleep(PAUSE * 2).await;
            drop(two);
        });
        activity.quiet_for(PAUSE).await;
        assert_eq!(began.elapsed().as_secs(), 4);
        tokio::time::sleep(PAUSE / 2).await;
        activity.quiet_for(PAUSE).await;
        assert_eq!(began.elapsed().as_millis(), 4500, "it has been quiet for long");
        activity.quiet_for(PAUSE * 2).await;
        assert_eq!(began.elapsed().as_secs(), 5);
    }
}

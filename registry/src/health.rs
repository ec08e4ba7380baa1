//! Which of a registry's hosts are worth asking, as experience tells.
//!
//! A host that failed is asked after the others for a while, and for longer each time: one that hangs costs whoever asks
//! it first a wait. When the time is over one reader tries it while the others go on without. A mirror that sent wrong
//! bytes is not asked at all for long; the registry itself always is, for there is nobody else to believe.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A host that fails again and again is tried at least this often.
const MAX_PENALTY: Duration = Duration::from_secs(600);

/// What happened with one host lately.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Failures since it worked; those of requests that were under way together are one.
    failures: u32,
    failing_until: Option<Instant>,
    /// Somebody tries it.
    trying: bool,
    left_out_until: Option<Instant>,
}

// === impl Health ===

impl Health {
    /// The host is about to be asked. If it is not known whether it works again, the others leave it alone for as long
    /// as an answer may take.
    pub(crate) fn asked(&self, patience: Duration) {
        let mut state = self.0.lock();
        if state.failures > 0 && !state.is_failing() {
            state.failing_until = Instant::now().checked_add(patience);
            state.trying = true;
        }
    }

    /// The host answered as it should.
    pub(crate) fn worked(&self) {
        let mut state = self.0.lock();
        (state.failures, state.failing_until, state.trying) = (0, None, false);
    }

    /// The host failed, and is asked last for `penalty`, or longer if it did so before.
    pub(crate) fn failed(&self, penalty: Duration) {
        let mut state = self.0.lock();
        if state.is_failing() && !state.trying {
            return;
        }
        let factor = 1_u32.checked_shl(state.failures).unwrap_or(u32::MAX);
        let penalty = penalty.saturating_mul(factor).min(MAX_PENALTY.max(penalty));
        state.failures = state.failures.saturating_add(1);
        state.failing_until = Instant::now().checked_add(penalty);
        state.trying = false;
    }

    /// The host sent wrong bytes, and is not asked for `penalty`. Whether it was asked until now.
    pub(crate) fn lied(&self, penalty: Duration) -> bool {
        let before = self.is_left_out();
        self.0.lock().left_out_until = Instant::now().checked_add(penalty);
        !before
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.0.lock().is_failing()
    }

    pub(crate) fn is_left_out(&self) -> bool {
        self.0.lock().left_out_until.is_some_and(|until| Instant::now() < until)
    }
}

// === impl State ===

impl State {
    fn is_failing(&self) -> bool {
        self.failing_until.is_some_and(|until| Instant::now() < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PENALTY: Duration = Duration::from_secs(10);
    const PATIENCE: Duration = Duration::from_secs(1);

    async fn pass(time: Duration) {
        tokio::time::advance(time).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_counts_until_its_time_is_over_or_the_host_works_again() {
        let health = Health::default();
        assert!(!health.is_failing());
        health.failed(PENALTY);
        assert!(health.is_failing());
        pass(PENALTY).await;
        assert!(!health.is_failing());
        health.failed(PENALTY);
        health.worked();
        assert!(!health.is_failing());
    }

    #[tokio::test(start_paused = true)]
    async fn each_failure_counts_longer_but_those_that_come_together_are_one() {
        let health = Health::default();
        for _ in 0..20 {
            health.failed(PENALTY);
        }
        pass(PENALTY).await;
        assert!(!health.is_failing());
        health.failed(PENALTY);
        pass(PENALTY).await;
        assert!(health.is_failing(), "twice as long");
        pass(PENALTY).await;
        assert!(!health.is_failing());
        for _ in 0..40 {
            pass(MAX_PENALTY).await;
            assert!(!health.is_failing(), "never longer than the maximum");
            health.failed(PENALTY);
        }
        health.worked();
        health.failed(PENALTY);
        pass(PENALTY).await;
        assert!(!health.is_failing(), "what was before it worked is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn one_tries_while_the_others_go_on_without() {
        let health = Health::default();
        health.asked(PATIENCE);
        assert!(!health.is_failing(), "nothing is known against it");
        health.failed(PENALTY);
        pass(PENALTY).await;
        health.asked(PATIENCE);
        assert!(health.is_failing(), "the others");
        health.failed(PENALTY);
        pass(PENALTY).await;
        assert!(health.is_failing(), "the second failure counts twice");
        pass(PENALTY).await;
        health.asked(PATIENCE);
        health.worked();
        assert!(!health.is_failing());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lie_counts_for_its_whole_time() {
        let health = Health::default();
        assert!(health.lied(PENALTY));
        assert!(!health.lied(PENALTY));
        health.worked();
        assert!(health.is_left_out());
        pass(PENALTY).await;
        assert!(!health.is_left_out());
    }
}

//! When to try again.
//!
//! Exponential delays with jitter, so that a hundred readers that failed together do not come back together; a server's
//! `Retry-After` is a lower bound, for coming back sooner is what gets a client banned. Both the number of attempts and the
//! total time are bounded: a read ends with bytes or an error, never hangs.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};
use rand::Rng;
use store::SourceError;
use tokio::time::Instant;
use tracing::debug;

use crate::{
    counters::Count,
    endpoint::Endpoint,
    error::{Failure, Retry},
    round::Round,
};

/// The limits of one operation's attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts without progress, the first included.
    pub attempts: u32,
    /// Mean delay before the second attempt; doubled before each further one.
    pub first_delay: Duration,
    /// No delay is longer, unless the server asks for it.
    pub max_delay: Duration,
    /// Time for all attempts and delays together, counted anew after progress.
    pub total: Duration,
}

/// The state of one operation's attempts.
#[derive(Debug)]
pub(crate) struct Backoff {
    policy: RetryPolicy,
    failures: u32,
    doubts: u32,
    deadline: Instant,
}

/// An answer that breaks the protocol is asked for again only so often: it rarely changes.
const MAX_DOUBTS: u32 = 2;

/// `pause`, up to twice as long at random: what begins together is not done together again.
pub(crate) fn spread(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(1.0..2.0))
}

// === impl RetryPolicy ===

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 8,
            first_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(5),
            total: Duration::from_secs(60),
        }
    }
}

// === impl Backoff ===

impl Backoff {
    pub(crate) fn new(policy: &RetryPolicy, now: Instant) -> Self {
        Self { policy: policy.clone(), failures: 0, doubts: 0, deadline: now + policy.total }
    }

    /// When the operation must have ended.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether nothing has failed yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.failures == 0 && self.doubts == 0
    }

    /// Waits before the next round over the hosts, or tells why none gave what was wanted.
    pub(crate) async fn after(&mut self, round: Round<'_>) -> Result<(), SourceError> {
        let asked = round.asked();
        self.again(round.into_failure(), asked.as_deref()).await
    }

    /// Waits before the next attempt, or gives the failure back if there is none.
    /// `endpoint` is the host that was asked last.
    pub(crate) async fn again(
        &mut self,
        failure: Failure,
        endpoint: Option<&Endpoint>,
    ) -> Result<(), SourceError> {
        let now = Instant::now();
        if let (Some(StatusCode::TOO_MANY_REQUESTS), Retry::May(Some(after))) =
            (failure.status, failure.retry)
            && let Some(endpoint) = endpoint
        {
            endpoint.ask_for_quiet(now + after.min(self.policy.total));
        }
        let delay = match failure.retry {
            Retry::Never | Retry::NotTls => None,
            Retry::May(after) => self.next(now, after),
            Retry::AtOnce => {
                let first = self.failures == 0;
                self.next(now, None).map(|delay| if first { Duration::ZERO } else { delay })
            }
            Retry::Doubtful => {
                self.doubts += 1;
                if self.doubts <= MAX_DOUBTS { self.next(now, None) } else { None }
            }
        };
        let mut error = failure.error;
        let Some(delay) = delay else {
            let failures = self.failures.max(self.doubts);
            if failures > 1 {
                error.message.push_str(&format!("; gave up after {failures} attempts"));
            }
            return Err(error);
        };
        debug!(error = %error, delay_ms = delay.as_millis(), "trying a registry request again");
        if let Some(endpoint) = endpoint {
            endpoint.counters.add(Count::Retry);
        }
        tokio::time::sleep(delay).await;
        Ok(())
    }

    /// Counts a failure at `now`; how long to wait before the next attempt, `None` if there is none.
    pub(crate) fn next(&mut self, now: Instant, retry_after: Option<Duration>) -> Option<Duration> {
        self.failures += 1;
        if self.failures >= self.policy.attempts {
            return None;
        }
        let factor = 1_u32.checked_shl(self.failures - 1).unwrap_or(u32::MAX);
        let mean = self.policy.first_delay.saturating_mul(factor).min(self.policy.max_delay);
        let longest = mean.mul_f64(1.5).min(self.policy.max_delay);
        let jittered = rand::rng().random_range(mean / 2..=longest);
        let delay = jittered.max(retry_after.unwrap_or_default());
        now.checked_add(delay).is_some_and(|then| then < self.deadline).then_some(delay)
    }
}

/// `Retry-After` in seconds or as a date (RFC 9110, section 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    Some(httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            attempts: 5,
            first_delay: Duration::from_millis(100),
            max_delay: Duration::from_millis(300),
            total: Duration::from_secs(10),
        }
    }

    #[test]
    fn delays_double_up_to_the_maximum_and_end_with_the_attempts() {
        let (policy, now) = (policy(), Instant::now());
        let mut backoff = Backoff::new(&policy, now);
        for mean in [100, 200, 300, 300] {
            let delay = backoff.next(now, None).unwrap().as_millis();
            assert!((mean / 2..=mean * 3 / 2).contains(&delay), "{delay} ms is not about {mean} ms");
            assert!(delay <= 300, "{delay} ms is longer than the maximum");
        }
        assert_eq!(backoff.next(now, None), None);
    }

    #[test]
    fn a_server_can_ask_for_more_but_not_past_the_total() {
        let (policy, now) = (policy(), Instant::now());
        let mut backoff = Backoff::new(&policy, now);
        assert_eq!(backoff.next(now, Some(Duration::from_secs(4))), Some(Duration::from_secs(4)));
        let later = now + Duration::from_secs(4);
        assert_eq!(backoff.next(later, Some(Duration::from_secs(7))), None);
    }

    #[test]
    fn time_ends_the_attempts_too() {
        let (policy, now) = (policy(), Instant::now());
        let mut backoff = Backoff::new(&policy, now);
        assert_eq!(backoff.next(now + Duration::from_secs(11), None), None);
    }

    #[test]
    fn reads_seconds_and_dates() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_240_800);
        let read = |value: &str| {
            let headers =
                [(header::RETRY_AFTER, HeaderValue::from_str(value).unwrap())].into_iter().collect();
            retry_after(&headers, now)
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("Sat, 21 Nov 2026 06:00:30 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(read("Sat, 21 Nov 2026 05:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("soon"), None);
        assert_eq!(read("-1"), None);
    }
}

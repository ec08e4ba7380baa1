//! Logins that were refused, and are passed over for a while.
//!
//! At first for a second or two, then for twice as long each time, so that readers who try again and again
//! do not ask a registry that says no again and again. A source that gives something else is not affected.

use std::time::Duration;

use tokio::time::Instant;

use crate::{backoff::spread, credentials::Credentials};

/// The first pause, and up to twice this at random.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause: a registry that refused good credentials for a while is believed again after it.
const LONGEST: Duration = Duration::from_secs(60);
/// More logins than any image has; the oldest refusal is forgotten.
const MAX_LOGINS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Refused {
    /// The oldest first.
    logins: Vec<Refusal>,
}

#[derive(Debug)]
struct Refusal {
    /// `None` for anonymous access.
    login: Option<Credentials>,
    until: Instant,
    pause: Duration,
}

// === impl Refused ===

impl Refused {
    /// Whether `login` is worth a try.
    pub(super) fn may_try(&self, login: Option<&Credentials>, now: Instant) -> bool {
        !self.logins.iter().any(|refusal| refusal.login.as_ref() == login && now < refusal.until)
    }

    /// `login` was refused.
    pub(super) fn add(&mut self, login: Option<&Credentials>, now: Instant) {
        let earlier = self.logins.iter().position(|refusal| refusal.login.as_ref() == login);
        let pause = match earlier.map(|at| self.logins.remove(at)) {
            // Long enough ago to have been accepted in between.
            Some(earlier) if now < earlier.until + 10 * earlier.pause => (2 * earlier.pause).min(LONGEST),
            _ => FIRST,
        };
        if self.logins.len() >= MAX_LOGINS {
            self.logins.remove(0);
        }
        let until = now + spread(pause);
        self.logins.push(Refusal { login: login.cloned(), until, pause });
    }

    /// Takes back that `login` was refused.
    pub(super) fn forgive(&mut self, login: Option<&Credentials>) {
        self.logins.retain(|refusal| refusal.login.as_ref() != login);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Secret;

    #[tokio::test]
    async fn pauses_grow_and_end() {
        let (mut refused, start) = (Refused::default(), Instant::now());
        let login = Credentials::IdentityToken(Secret::new("a"));
        assert!(refused.may_try(Some(&login), start));
        refused.add(Some(&login), start);
        assert!(!refused.may_try(Some(&login), start + Duration::from_millis(900)));
        assert!(refused.may_try(None, start), "others are not affected");
        assert!(refused.may_try(Some(&login), start + Duration::from_secs(2)));
        let mut now = start;
        for _ in 0..10 {
            now += Duration::from_secs(2);
            refused.add(Some(&login), now);
        }
        assert!(!refused.may_try(Some(&login), now + Duration::from_secs(59)));
        assert!(refused.may_try(Some(&login), now + Duration::from_secs(121)));
        refused.forgive(Some(&login));
        assert!(refused.may_try(Some(&login), now));
    }

    #[tokio::test]
    async fn a_refusal_of_long_ago_counts_as_the_first() {
        let (mut refused, start) = (Refused::default(), Instant::now());
        refused.add(None, start);
        let later = start + Duration::from_secs(60);
        refused.add(None, later);
        assert!(refused.may_try(None, later + Duration::from_secs(2)));
    }

    #[tokio::test]
    async fn no_number_of_logins_is_remembered_without_a_limit() {
        let (mut refused, now) = (Refused::default(), Instant::now());
        for n in 0..1000 {
            refused.add(Some(&Credentials::IdentityToken(Secret::new(n.to_string()))), now);
        }
        assert_eq!(refused.logins.len(), MAX_LOGINS);
    }
}

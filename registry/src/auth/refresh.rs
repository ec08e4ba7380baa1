//! The refresh token that a token service gave with a token, to be used for the next one.
//!
//! Many services take each refresh token once. Repositories that renew together then use them one after the other, or
//! all but the first would be refused.

use parking_lot::Mutex;
use store::SourceErrorKind as Kind;
use tokio::time::{Instant, timeout_at};

use super::{
    Context,
    token::{self, Grant, Request, Token},
};
use crate::{
    credentials::{Credentials, Secret},
    error::Failure,
};

/// One reader tries at most this many refresh tokens that others are given meanwhile.
const MAX_TRIES: usize = 3;

/// The newest refresh token of a host.
#[derive(Debug, Default)]
pub(super) struct Refresh {
    remembered: Mutex<Option<Remembered>>,
    using: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Remembered {
    token: Secret,
    /// For which credentials it was given.
    given_for: Credentials,
    /// The service may take it once only.
    once: bool,
}

// === impl Refresh ===

impl Refresh {
    pub(super) fn forget(&self) {
        *self.remembered.lock() = None;
    }

    /// The service gave `token` for `credentials`, or nothing.
    pub(super) fn remember(&self, credentials: Option<&Credentials>, token: Option<Secret>) {
        let remembered = credentials.cloned().zip(token);
        *self.remembered.lock() =
            remembered.map(|(given_for, token)| Remembered { token, given_for, once: true });
    }

    /// A token for the refresh token that came with an earlier one; `None` if there is none for these credentials or
    /// it is no longer good. An error says that the service is not able to answer now.
    pub(super) async fn token(
        &self,
        request: Request<'_>,
        credentials: Option<&Credentials>,
        context: Context<'_>,
    ) -> Result<Option<Token>, Failure> {
        let Some(first) = self.of(credentials) else { return Ok(None) };
        let _using = match first.once {
            true => Some(self.turn(request, context).await?),
            false => None,
        };
        for _ in 0..MAX_TRIES {
            let Some(tried) = self.of(credentials) else { break };
            match token::post(request, Grant::Refresh(&tried.token), context).await {
                Ok((token, next)) => {
                    self.renewed(tried, next);
                    return Ok(Some(token));
                }
                Err(failure) => match failure.status.map(|status| status.as_u16()) {
                    Some(400 | 401) => self.drop_if_still(&tried),
                    // The refresh token may be as good as before, and what it was given for may be good no more.
                    Some(429 | 502..=504) => return Err(failure),
                    None if matches!(failure.error.kind, Kind::TimedOut | Kind::Unavailable) => {
                        return Err(failure);
                    }
                    _ => break,
                },
            }
        }
        Ok(None)
    }

    async fn turn(
        &self,
        request: Request<'_>,
        context: Context<'_>,
    ) -> Result<tokio::sync::MutexGuard<'_, ()>, Failure> {
        let left = context.deadline.saturating_duration_since(Instant::now());
        let late = |_| Failure::timed_out(request.realm, "other repositories used the refresh token", left);
        timeout_at(context.deadline, self.using.lock()).await.map_err(late)
    }

    fn of(&self, credentials: Option<&Credentials>) -> Option<Remembered> {
        self.remembered.lock().clone().filter(|remembered| Some(&remembered.given_for) == credentials)
    }

    /// A service that gives the same one again, or none, takes it more than once.
    fn renewed(&self, tried: Remembered, next: Option<Secret>) {
        let once = next.as_ref().is_some_and(|next| *next != tried.token);
        let token = next.unwrap_or(tried.token);
        *self.remembered.lock() = Some(Remembered { token, given_for: tried.given_for, once });
    }

    fn drop_if_still(&self, tried: &Remembered) {
        self.remembered.lock().take_if(|remembered| remembered.token == tried.token);
    }
}

//! The search for a login that is accepted: the one that worked last, then all of every source in their
//! order, those that were refused for other scopes of the host after the others, and anonymous access last.
//!
//! A source is asked only when everything before it was refused or passed over. One whose login a token
//! service refused is told so and asked a second time: it may have given a copy that was too old.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use store::SourceErrorKind as Kind;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::{BASIC_LIFETIME, Context, Current, Demand, HostAuth, Scope, Slot, token};
use crate::{
    counters::Count,
    credentials::{CredentialError, CredentialSource, Credentials, Secret, SourceKind},
    error::Failure,
};

/// Credentials, and who gave them.
#[derive(Debug, Clone)]
pub(super) struct Login {
    pub(super) credentials: Credentials,
    pub(super) source: Arc<dyn CredentialSource>,
}

/// What is to be got.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) demand: &'a Demand,
    pub(super) scope: &'a Scope,
    /// Whether anonymous access will do.
    pub(super) anonymous: bool,
}

/// A search under way.
struct Search<'a> {
    auth: &'a HostAuth,
    slot: &'a Slot,
    wanted: Wanted<'a>,
    context: Context<'a>,
    /// What sources failed with.
    notes: Vec<String>,
    /// The first refusal, which is the one of the likeliest login.
    refusal: Option<Failure>,
    /// Whether any source knew anything that the host could take.
    known: bool,
    /// Logins that were refused for other scopes of the host.
    doubted: Vec<Login>,
}

// === impl HostAuth ===

impl HostAuth {
    /// A new authorization; `None` if everything that is known was refused a short time ago.
    pub(super) async fn log_in(
        &self,
        slot: &Slot,
        wanted: Wanted<'_>,
        context: Context<'_>,
    ) -> Result<Option<Current>, Failure> {
        let (notes, refusal, known, doubted) = (Vec::new(), None, false, Vec::new());
        let mut search = Search { auth: self, slot, wanted, context, notes, refusal, known, doubted };
        let found = search.run().await;
        context.endpoint.counters.add(Count::Refresh(matches!(found, Ok(Some(_)))));
        found.map_err(|mut failure| {
            for note in search.notes {
                failure.error.message.push_str("; ");
                failure.error.message.push_str(&note);
            }
            failure
        })
    }
}

// === impl Search ===

impl Search<'_> {
    async fn run(&mut self) -> Result<Option<Current>, Failure> {
        if let Some(found) = self.again().await? {
            return Ok(Some(found));
        }
        let earlier = self.refusal.take();
        for source in &self.context.transport.config.credentials {
            // The second time only if something was refused in the first.
            let before = self.refusal.is_some();
            if let Some(found) = self.ask(source).await? {
                return Ok(Some(found));
            }
            if self.refusal.is_some()
                && !before
                && let Some(found) = self.ask(source).await?
            {
                return Ok(Some(found));
            }
        }
        for login in std::mem::take(&mut self.doubted) {
            if let Some(found) = self.attempt(Some(login)).await? {
                return Ok(Some(found));
            }
        }
        if self.wanted.anonymous
            && matches!(self.wanted.demand, Demand::Bearer { .. })
            && let Some(found) = self.attempt(None).await?
        {
            return Ok(Some(found));
        }
        match earlier.or(self.refusal.take()) {
            Some(refusal) => Err(refusal),
            None if !self.known && matches!(self.wanted.demand, Demand::Basic) => {
                let host = &self.context.endpoint.name;
                Err(Failure::fatal(
                    Kind::Unauthorized,
                    format!(
                        "{host} asks for a user name and password and none are known; log in with docker login"
                    ),
                ))
            }
            None => Ok(None),
        }
    }

    /// Tries the login that worked last, if its source still has it: those before it in the order may have ended, and
    /// are not to be sent again at each renewal. One that was refused for another scope meanwhile has its turn later.
    async fn again(&mut self) -> Result<Option<Current>, Failure> {
        let Some(login) = self.slot.held.lock().worked.clone() else { return Ok(None) };
        let doubted = self.auth.doubted.contains(&login.credentials) && !self.slot.keeps(&login.credentials);
        if doubted || !self.may_try(Some(&login.credentials)) {
            return Ok(None);
        }
        match self.candidates(&login.source).await {
            Some(candidates) if candidates.contains(&login.credentials) => self.attempt(Some(login)).await,
            _ => Ok(None),
        }
    }

    /// Tries what `source` knows, but for what was refused elsewhere on this host, whose turn comes later.
    async fn ask(&mut self, source: &Arc<dyn CredentialSource>) -> Result<Option<Current>, Failure> {
        for credentials in self.candidates(source).await.unwrap_or_default() {
            let login = Login { credentials, source: source.clone() };
            if self.auth.doubted.contains(&login.credentials) && self.may_try(Some(&login.credentials)) {
                self.doubted.push(login);
            } else if let Some(found) = self.attempt(Some(login)).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// What `source` knows; `None` if it failed.
    async fn candidates(&mut self, source: &Arc<dyn CredentialSource>) -> Option<Vec<Credentials>> {
        let query = self.context.query();
        let name = source.describe();
        // A helper that hangs must not use up the time of the request: what comes after it gets half of what is left.
        let now = Instant::now();
        let until = now + self.context.deadline.saturating_duration_since(now) / 2;
        let answer = timeout_at(until, source.candidates(query)).await;
        let late = |_| Err(CredentialError::new(format!("{name} did not answer in time")));
        match answer.unwrap_or_else(late) {
            Ok(candidates) => Some(candidates),
            Err(error) => {
                self.count(Count::Failed(source.kind()));
                warn!(host = query.host, source = name, %error, "a credential source failed");
                self.notes.push(error.to_string());
                None
            }
        }
    }

    /// Tries one login. An error ends the search: it is not about the login.
    async fn attempt(&mut self, login: Option<Login>) -> Result<Option<Current>, Failure> {
        let credentials = login.as_ref().map(|login| &login.credentials);
        if !self.fits(credentials) {
            return Ok(None);
        }
        self.known |= login.is_some();
        if !self.may_try(credentials) {
            return Ok(None);
        }
        let kind = login.as_ref().map_or(SourceKind::Anonymous, |login| login.source.kind());
        match self.header(credentials).await {
            Ok((header, lifetime)) => {
                self.count(Count::Used(kind));
                // With Basic nobody has looked at it yet: `HostAuth::accepted` comes later.
                if let (Demand::Bearer { .. }, Some(credentials)) = (self.wanted.demand, credentials) {
                    self.auth.trust(credentials, self.slot);
                }
                Current::new(&header, lifetime, login).map(Some)
            }
            Err(failure) if refuses(&failure) => {
                self.slot.refused(credentials);
                // Other answers may be about the scope.
                if let Some(credentials) = credentials
                    && failure.status == Some(StatusCode::UNAUTHORIZED)
                {
                    self.auth.doubted.add(credentials);
                }
                match &login {
                    Some(login) => self.context.tell_refused(login),
                    None => self.count(Count::Refused(kind)),
                }
                self.refusal.get_or_insert(failure);
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Whether it was not refused for this scope a short time ago.
    fn may_try(&self, credentials: Option<&Credentials>) -> bool {
        self.slot.held.lock().refused.may_try(credentials, Instant::now())
    }

    fn count(&self, what: Count) {
        self.context.endpoint.counters.add(what);
    }

    /// Whether the host can take such credentials.
    fn fits(&self, credentials: Option<&Credentials>) -> bool {
        match self.wanted.demand {
            Demand::Basic => matches!(credentials, Some(Credentials::Password { .. })),
            Demand::Bearer { .. } => true,
        }
    }

    async fn header(&self, credentials: Option<&Credentials>) -> Result<(Secret, Duration), Failure> {
        let bearer = |token: &Secret| Secret::new(format!("Bearer {}", token.expose()));
        match (self.wanted.demand, credentials) {
            (Demand::Basic, Some(Credentials::Password { username, password })) => {
                Ok((token::basic(username, password), BASIC_LIFETIME))
            }
            (Demand::Bearer { .. }, Some(Credentials::RegistryToken(token))) => {
                Ok((bearer(token), BASIC_LIFETIME))
            }
            (Demand::Bearer { realm, service }, _) => {
                let request = token::Request { realm, service: service.as_deref(), scope: self.wanted.scope };
                let token = token::fetch(self.auth, request, credentials, self.context).await?;
                Ok((bearer(&token.value), token.lifetime))
            }
            (Demand::Basic, _) => Err(Failure::fatal(Kind::Unauthorized, "no password is known")),
        }
    }
}

/// Whether a failure is the token service's answer to the login.
fn refuses(failure: &Failure) -> bool {
    // Services answer 400 to a grant that they do not know or that is no longer good (RFC 6749, 5.2).
    matches!(failure.status, Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST))
}

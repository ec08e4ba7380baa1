//! The search for a login that is accepted: all of every source, in their order, and anonymous access
//! last.
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
        let (notes, refusal, known) = (Vec::new(), None, false);
        let mut search = Search { auth: self, slot, wanted, context, notes, refusal, known };
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
        for source in &self.context.config.credentials {
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
        if self.wanted.anonymous
            && matches!(self.wanted.demand, Demand::Bearer { .. })
            && let Some(found) = self.attempt(None).await?
        {
            return Ok(Some(found));
        }
        match self.refusal.take() {
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

    /// Tries what `source` knows.
    async fn ask(&mut self, source: &Arc<dyn CredentialSource>) -> Result<Option<Current>, Failure> {
        let query = self.context.query();
        let name = source.describe();
        // A helper that hangs must not use up the time of the request.
        let answer = timeout_at(self.context.deadline, source.candidates(query)).await;
        let late = |_| Err(CredentialError::new(format!("{name} did not answer in time")));
        let candidates = match answer.unwrap_or_else(late) {
            Ok(candidates) => candidates,
            Err(error) => {
                self.count(Count::Failed(source.kind()));
                warn!(host = query.host, source = name, %error, "a credential source failed");
                self.notes.push(error.to_string());
                return Ok(None);
            }
        };
        for credentials in candidates {
            let login = Login { credentials, source: source.clone() };
            if let Some(found) = self.attempt(Some(login)).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Tries one login. An error ends the search: it is not about the login.
    async fn attempt(&mut self, login: Option<Login>) -> Result<Option<Current>, Failure> {
        let credentials = login.as_ref().map(|login| &login.credentials);
        if !self.fits(credentials) {
            return Ok(None);
        }
        self.known |= login.is_some();
        if !self.slot.held.lock().refused.may_try(credentials, Instant::now()) {
            return Ok(None);
        }
        let kind = login.as_ref().map_or(SourceKind::Anonymous, |login| login.source.kind());
        match self.header(credentials).await {
            Ok((header, lifetime)) => {
                self.count(Count::Used(kind));
                Current::new(&header, lifetime, login).map(Some)
            }
            Err(failure) if refuses(&failure) => {
                self.slot.held.lock().refused.add(credentials, Instant::now());
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

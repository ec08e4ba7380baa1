//! Tokens: how a host wants to be authenticated to, and what it was given last.
//!
//! What a host asked for once is sent with every later request, so that only the first request of a host
//! is answered 401. Tokens are kept per scope; they are renewed a little before their end by one reader
//! while the others go on with the old one, and after a 401 by one reader while the others wait. A
//! failure is shared by all who waited for it.

mod token;

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::HeaderValue;
use parking_lot::Mutex;
use store::{SourceError, SourceErrorKind as Kind};
use tokio::time::Instant;
use tracing::warn;
use url::Url;

use crate::{
    challenge::{BearerChallenge, Challenge},
    config::RegistryConfig,
    credentials::{CredentialQuery, Credentials, Secret},
    endpoint::{Endpoint, is_loopback},
    error::{Failure, Retry},
    transport::Transport,
};

/// Basic credentials are asked for again after this time, so that a rotated password is noticed.
const BASIC_LIFETIME: Duration = Duration::from_secs(300);
/// Slots of scopes beyond this are forgotten when a new one is needed; a node has hundreds of
/// repositories, not thousands.
const MAX_SLOTS: usize = 4096;

/// What a token allows: access to repositories, in the words of the distribution token specification.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Scope(BTreeSet<String>);

/// What a host's authentication is known to be, and its tokens.
#[derive(Debug, Default)]
pub(crate) struct HostAuth {
    demand: Mutex<Option<Demand>>,
    slots: Mutex<HashMap<Scope, Arc<Slot>>>,
    /// The token service does not take POST.
    get_only: AtomicBool,
    /// A refresh token that the token service gave for these credentials.
    refresh: Mutex<Option<(Credentials, Secret)>>,
}

/// How a host demands to be authenticated to.
#[derive(Debug, Clone)]
enum Demand {
    Basic,
    Bearer { realm: Url, service: Option<String> },
}

/// The header that authenticates a request.
#[derive(Debug, Clone)]
pub(crate) struct Authorization {
    pub(crate) header: HeaderValue,
    /// Tells one token from the next.
    id: u64,
}

/// The newest authorization for a scope.
#[derive(Debug, Default)]
struct Slot {
    held: Mutex<Held>,
    renewing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Held {
    current: Option<Current>,
    /// When the last renewal failed, and how.
    failed: Option<(Instant, Kind, String, Retry)>,
}

#[derive(Debug, Clone)]
struct Current {
    authorization: Authorization,
    renew: Instant,
    end: Instant,
}

/// Everything that a renewal needs to know.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) transport: &'a Transport,
    pub(crate) config: &'a RegistryConfig,
    pub(crate) endpoint: &'a Arc<Endpoint>,
    pub(crate) repository: &'a str,
    pub(crate) scope: &'a Scope,
    pub(crate) deadline: Instant,
}

// === impl Scope ===

impl Scope {
    /// Reading from `repository`.
    pub(crate) fn pull(repository: &str) -> Self {
        Self([format!("repository:{repository}:pull")].into())
    }

    /// Writing to `repository`, and reading from `sources`.
    pub(crate) fn push(repository: &str, sources: &[&str]) -> Self {
        let sources = sources.iter().map(|source| format!("repository:{source}:pull"));
        Self(sources.chain([format!("repository:{repository}:pull,push")]).collect())
    }

    fn with(&self, more: Option<&str>) -> Self {
        let more = more.unwrap_or_default().split(' ').filter(|scope| !scope.is_empty());
        Self(self.0.iter().cloned().chain(more.map(str::to_owned)).collect())
    }
}

// === impl HostAuth ===

impl HostAuth {
    /// What to send without having been asked: nothing, until the host has demanded something.
    pub(crate) async fn authorization(&self, context: Context<'_>) -> Result<Option<Authorization>, Failure> {
        let Some(demand) = self.demand.lock().clone() else { return Ok(None) };
        self.newer_than(None, &demand, None, context).await.map(Some)
    }

    /// What to send after the answer 401 to a request that was sent with `used`.
    pub(crate) async fn challenged(
        &self,
        challenge: Challenge,
        used: Option<&Authorization>,
        context: Context<'_>,
    ) -> Result<Authorization, Failure> {
        let (demand, scope) = match challenge {
            Challenge::Basic => (Demand::Basic, None),
            Challenge::Bearer(bearer) => {
                if bearer.error.is_some() {
                    *self.refresh.lock() = None;
                }
                (Demand::bearer(&bearer, context.endpoint)?, bearer.scope)
            }
        };
        *self.demand.lock() = Some(demand.clone());
        self.newer_than(used.map(|used| used.id), &demand, scope.as_deref(), context).await
    }

    /// The slot's authorization if it is not the one with the id `used`, else a renewed one.
    async fn newer_than(
        &self,
        used: Option<u64>,
        demand: &Demand,
        asked: Option<&str>,
        context: Context<'_>,
    ) -> Result<Authorization, Failure> {
        let slot = self.slot(context.scope);
        let began = Instant::now();
        let _renewing = match slot.usable(used, began) {
            Some((authorization, false)) => return Ok(authorization),
            Some((authorization, true)) => match slot.renewing.try_lock() {
                Ok(guard) => guard,
                Err(_) => return Ok(authorization),
            },
            None => slot.renewing.lock().await,
        };
        if let Some((authorization, false)) = slot.usable(used, Instant::now()) {
            return Ok(authorization);
        }
        if let Some((when, kind, message, retry)) = &slot.held.lock().failed
            && *when > began
        {
            return Err(Failure { error: SourceError::new(*kind, message), retry: *retry, status: None });
        }
        match self.renew(demand, &context.scope.with(asked), context).await {
            Ok(current) => {
                let authorization = current.authorization.clone();
                *slot.held.lock() = Held { current: Some(current), failed: None };
                Ok(authorization)
            }
            Err(failure) => {
                let Failure { error, retry, .. } = &failure;
                slot.held.lock().failed = Some((Instant::now(), error.kind, error.message.clone(), *retry));
                // One that is about to end is better than none.
                slot.usable(used, Instant::now()).map(|(authorization, _)| authorization).ok_or(failure)
            }
        }
    }

    fn slot(&self, scope: &Scope) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if slots.len() >= MAX_SLOTS && !slots.contains_key(scope) {
            slots.clear();
        }
        slots.entry(scope.clone()).or_default().clone()
    }

    async fn renew(&self, demand: &Demand, scope: &Scope, context: Context<'_>) -> Result<Current, Failure> {
        let (credentials, notes) = find_credentials(context).await;
        let renewed = match (demand, credentials) {
            (Demand::Basic, Some(Credentials::Password { username, password })) => {
                Current::new(&token::basic(&username, &password), BASIC_LIFETIME)
            }
            (Demand::Basic, _) => Err(Failure::fatal(
                Kind::Unauthorized,
                format!(
                    "{} asks for a user name and password and none are known; log in with docker login",
                    context.endpoint.name
                ),
            )),
            (Demand::Bearer { .. }, Some(Credentials::RegistryToken(secret))) => {
                Current::new(&Secret::new(format!("Bearer {}", secret.expose())), BASIC_LIFETIME)
            }
            (Demand::Bearer { realm, service }, credentials) => {
                let request = token::Request { realm, service: service.as_deref(), scope };
                let token = token::fetch(self, request, credentials.as_ref(), context).await;
                token.and_then(|token| {
                    Current::new(&Secret::new(format!("Bearer {}", token.value.expose())), token.lifetime)
                })
            }
        };
        renewed.map_err(|mut failure| {
            for note in notes {
                failure.error.message.push_str("; ");
                failure.error.message.push_str(&note);
            }
            failure
        })
    }
}

/// The credentials of the first source that knows some, and what the sources before it failed with.
async fn find_credentials(context: Context<'_>) -> (Option<Credentials>, Vec<String>) {
    let query = CredentialQuery { host: &context.endpoint.name, repository: context.repository };
    let mut notes = Vec::new();
    for source in &context.config.credentials {
        match source.credentials(query).await {
            Ok(Some(found)) => return (Some(found), notes),
            Ok(None) => {}
            Err(error) => {
                warn!(host = query.host, source = source.describe(), error = %error, "a credential source failed");
                notes.push(error.to_string());
            }
        }
    }
    (None, notes)
}

// === impl Demand ===

impl Demand {
    fn bearer(challenge: &BearerChallenge, endpoint: &Endpoint) -> Result<Self, Failure> {
        let refuse = |why: &str| {
            Failure::fatal(Kind::Protocol, format!("{} names a token service that {why}", endpoint.name))
        };
        let realm = Url::parse(&challenge.realm).map_err(|_| refuse("is not a URL"))?;
        match realm.scheme() {
            "https" => {}
            "http" if endpoint.base.scheme() == "http" || is_loopback(&realm) => {}
            "http" => return Err(refuse("would get the credentials in clear text")),
            _ => return Err(refuse("is not reached by HTTP")),
        }
        Ok(Self::Bearer { realm, service: challenge.service.clone() })
    }
}

// === impl Slot ===

impl Slot {
    /// The authorization, if it is still good and not the one with the id `used`, and whether it is time
    /// to renew it.
    fn usable(&self, used: Option<u64>, now: Instant) -> Option<(Authorization, bool)> {
        let held = self.held.lock();
        let current = held.current.as_ref()?;
        let usable = Some(current.authorization.id) != used && now < current.end;
        usable.then(|| (current.authorization.clone(), now >= current.renew))
    }
}

// === impl Current ===

impl Current {
    fn new(header: &Secret, lifetime: Duration) -> Result<Self, Failure> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut header = HeaderValue::from_str(header.expose()).map_err(|_| {
            Failure::fatal(Kind::Protocol, "a token or password has characters that no header can carry")
        })?;
        header.set_sensitive(true);
        let now = Instant::now();
        // A fifth, at most 30 s, is kept for requests on their way and for clocks that differ.
        let early = (lifetime / 5).min(Duration::from_secs(30));
        let authorization = Authorization { header, id: NEXT.fetch_add(1, Relaxed) };
        Ok(Self { authorization, renew: now + (lifetime - early), end: now + lifetime })
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("host", &self.endpoint.name).field("scope", self.scope).finish()
    }
}

//! Tokens: how a host wants to be authenticated to, and what it was given last.
//!
//! What a host asked for once is sent with every later request, so that only the first request of a host
//! is answered 401. Tokens are kept per scope; they are renewed a little before their end in the
//! background, while all readers go on with the old one, and after a 401 by one reader while the others
//! wait. A failure is shared by all who waited for it.
//!
//! A renewal asks every source of credentials anew. A login that was refused is passed over for a while,
//! so that the next one is tried, and anonymous access last; see [`login`].

mod access;
mod doubted;
mod early;
mod forbidden;
mod login;
mod refresh;
mod refused;
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
use url::Url;

pub use self::access::Access;
use self::{
    doubted::Doubted,
    forbidden::Forbidden,
    login::{Login, Wanted},
    refresh::Refresh,
    refused::Refused,
};
use crate::{
    backoff::spread,
    challenge::{BearerChallenge, Challenge},
    counters::Count,
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
    refresh: Refresh,
    doubted: Doubted,
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
    renewing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Held {
    current: Option<Current>,
    /// When the last renewal failed, and how.
    failed: Option<(Instant, Kind, String, Retry)>,
    /// When the last renewal found nothing that was worth a try.
    exhausted: Option<Instant>,
    /// Logins that are passed over.
    refused: Refused,
    /// The login that was used last, unless it was anonymous: the first to try when its token ends.
    worked: Option<Login>,
    /// A login that is used for this scope although it was refused for others.
    kept: Option<Credentials>,
    /// What was done about answers 403.
    forbidden: Forbidden,
}

#[derive(Debug, Clone)]
struct Current {
    authorization: Authorization,
    /// With what it was got; nothing if it is anonymous.
    login: Option<Login>,
    renew: Instant,
    end: Instant,
}

/// An authorization that was refused.
#[derive(Debug, Clone, Copy)]
struct Spent {
    id: u64,
    /// It was new: its login is not good enough.
    new: bool,
}

/// Everything that a renewal needs to know.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) transport: &'a Transport,
    pub(crate) endpoint: &'a Arc<Endpoint>,
    pub(crate) repository: &'a str,
    pub(crate) scope: &'a Scope,
    pub(crate) deadline: Instant,
}

/// An id that is above all that were given before.
fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Relaxed)
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
        self.newer_than(None, &demand, None, context).await
    }

    /// What to send after the answer 401 to a request that was sent with `used`, `None` if there is nothing
    /// better. `new` says that `used` was got for this very request.
    pub(crate) async fn challenged(
        &self,
        challenge: Challenge,
        used: Option<&Authorization>,
        new: bool,
        context: Context<'_>,
    ) -> Result<Option<Authorization>, Failure> {
        let (demand, scope) = match challenge {
            Challenge::Basic => (Demand::Basic, None),
            Challenge::Bearer(bearer) => {
                if bearer.error.is_some() {
                    self.refresh.forget();
                }
                (Demand::bearer(&bearer, context.endpoint)?, bearer.scope)
            }
        };
        *self.demand.lock() = Some(demand.clone());
        let spent = used.map(|used| Spent { id: used.id, new });
        self.newer_than(spent, &demand, scope.as_deref(), context).await
    }

    /// What to send after an answer 401 that does not say what the host wants, which some say only to who sends
    /// nothing: it is taken for what it wanted before.
    pub(crate) async fn unchallenged(
        &self,
        used: &Authorization,
        new: bool,
        context: Context<'_>,
    ) -> Result<Option<Authorization>, Failure> {
        let Some(demand) = self.demand.lock().clone() else { return Ok(None) };
        self.newer_than(Some(Spent { id: used.id, new }), &demand, None, context).await
    }

    /// The slot's authorization if it is not the one that is spent, else a renewed one; `None` if all that
    /// is known was refused.
    async fn newer_than(
        &self,
        spent: Option<Spent>,
        demand: &Demand,
        asked: Option<&str>,
        context: Context<'_>,
    ) -> Result<Option<Authorization>, Failure> {
        let slot = self.slot(context.scope);
        let used = spent.map(|spent| spent.id);
        match self.usable(&slot, used, demand) {
            Some((authorization, due)) => {
                if due {
                    slot.renew_early(demand, context.scope.with(asked), context);
                }
                Ok(Some(authorization))
            }
            None => match self.renew(&slot, spent, demand, asked, context).await {
                Ok(Some(authorization)) => Ok(Some(authorization)),
                // One that is doubtful is better than none.
                failed => slot.insist(used).map_or(failed, |authorization| Ok(Some(authorization))),
            },
        }
    }

    /// A new authorization, or the one that another reader got meanwhile.
    async fn renew(
        &self,
        slot: &Slot,
        spent: Option<Spent>,
        demand: &Demand,
        asked: Option<&str>,
        context: Context<'_>,
    ) -> Result<Option<Authorization>, Failure> {
        let began = Instant::now();
        let _renewing = slot.renewing.lock().await;
        if let Some((authorization, _)) = self.usable(slot, spent.map(|spent| spent.id), demand) {
            return Ok(Some(authorization));
        }
        if let Some(outcome) = slot.ended_since(began) {
            return outcome;
        }
        if let Some(login) = spent.and_then(|spent| slot.give_up(spent, demand)) {
            if matches!(demand, Demand::Basic) {
                self.doubted.add(&login.credentials);
            }
            context.tell_refused(&login);
        }
        let wanted = Wanted { demand, scope: &context.scope.with(asked), anonymous: true };
        match self.log_in(slot, wanted, context).await {
            Ok(Some(current)) => Ok(Some(slot.hold(current))),
            Ok(None) => slot.exhaust(),
            Err(failure) => slot.fail(failure),
        }
    }

    /// What the slot has that may be sent without a look for something else, and whether it is time to renew it.
    fn usable(&self, slot: &Slot, used: Option<u64>, demand: &Demand) -> Option<(Authorization, bool)> {
        let usable = slot.usable(used, Instant::now())?;
        (!self.is_doubtful(&usable.0, slot, demand)).then_some(usable)
    }

    fn slot(&self, scope: &Scope) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if slots.len() >= MAX_SLOTS && !slots.contains_key(scope) {
            slots.clear();
        }
        slots.entry(scope.clone()).or_default().clone()
    }
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

    /// How a renewal ended that another reader made since `began`, if it brought nothing.
    fn ended_since(&self, began: Instant) -> Option<Result<Option<Authorization>, Failure>> {
        let held = self.held.lock();
        match &held.failed {
            Some((when, ..)) if *when > began => return held.failure().map(Err),
            _ => {}
        }
        held.exhausted.filter(|when| *when > began).map(|_| Ok(None))
    }

    /// Passes over the login of an authorization that was refused, if it is the login that is not good
    /// enough and not a token that came to its end. The login, if it is not anonymous.
    fn give_up(&self, spent: Spent, demand: &Demand) -> Option<Login> {
        let mut held = self.held.lock();
        let current = held.current.take_if(|current| {
            let as_it_is = matches!(demand, Demand::Basic) || current.is_registry_token();
            current.authorization.id == spent.id && (spent.new || as_it_is)
        })?;
        held.refused.add(current.credentials(), Instant::now());
        held.kept = None;
        current.login
    }

    /// The authorization, which is kept from now on although it is doubtful, since nothing else was found.
    fn insist(&self, used: Option<u64>) -> Option<Authorization> {
        let (authorization, _) = self.usable(used, Instant::now())?;
        if let Some(login) = self.login_of(&authorization) {
            self.keep(&login.credentials);
        }
        Some(authorization)
    }

    /// A login was refused for this scope.
    fn refused(&self, login: Option<&Credentials>) {
        let mut held = self.held.lock();
        held.refused.add(login, Instant::now());
        held.kept.take_if(|kept| Some(&*kept) == login);
    }

    /// The login behind `used`, if that is still in use.
    fn login_of(&self, used: &Authorization) -> Option<Login> {
        let held = self.held.lock();
        held.current.as_ref().filter(|current| current.authorization.id == used.id)?.login.clone()
    }

    fn is_anonymous(&self) -> bool {
        self.held.lock().current.as_ref().is_some_and(|current| current.login.is_none())
    }

    fn fail(&self, failure: Failure) -> Result<Option<Authorization>, Failure> {
        let SourceError { kind, message, .. } = &failure.error;
        self.held.lock().failed = Some((Instant::now(), *kind, message.clone(), failure.retry));
        Err(failure)
    }

    /// Uses `current` from now on.
    fn hold(&self, current: Current) -> Authorization {
        let (mut held, authorization) = (self.held.lock(), current.authorization.clone());
        held.worked = current.login.clone();
        (held.current, held.failed, held.exhausted) = (Some(current), None, None);
        authorization
    }

    /// Nothing was left to try: what the registry says, or what was said when something was.
    fn exhaust(&self) -> Result<Option<Authorization>, Failure> {
        let mut held = self.held.lock();
        held.exhausted = Some(Instant::now());
        let refused = |failure: &Failure| matches!(failure.error.kind, Kind::Unauthorized | Kind::Forbidden);
        held.failure().filter(refused).map_or(Ok(None), Err)
    }
}

// === impl Held ===

impl Held {
    fn failure(&self) -> Option<Failure> {
        let (_, kind, message, retry) = self.failed.as_ref()?;
        Some(Failure { error: SourceError::new(*kind, message), retry: *retry, status: None })
    }
}

// === impl Current ===

impl Current {
    fn new(header: &Secret, lifetime: Duration, login: Option<Login>) -> Result<Self, Failure> {
        let mut header = HeaderValue::from_str(header.expose()).map_err(|_| {
            Failure::fatal(Kind::Protocol, "a token or password has characters that no header can carry")
        })?;
        header.set_sensitive(true);
        let now = Instant::now();
        // A fifth, at most 30 s, is kept for requests on their way and for clocks that differ, and up to as
        // much again at random: tokens that were given together are not all renewed together.
        let early = spread((lifetime / 5).min(Duration::from_secs(30)));
        let authorization = Authorization { header, id: next_id() };
        Ok(Self { authorization, login, renew: now + (lifetime - early), end: now + lifetime })
    }

    fn credentials(&self) -> Option<&Credentials> {
        self.login.as_ref().map(|login| &login.credentials)
    }

    fn is_registry_token(&self) -> bool {
        matches!(self.credentials(), Some(Credentials::RegistryToken(_)))
    }
}

// === impl Context ===

impl<'a> Context<'a> {
    /// For what credentials are needed.
    fn query(&self) -> CredentialQuery<'a> {
        CredentialQuery { host: &self.endpoint.name, repository: self.repository }
    }

    /// The source of a login that was refused may have kept it for too long.
    fn tell_refused(&self, login: &Login) {
        self.endpoint.counters.add(Count::Refused(login.source.kind()));
        login.source.refused(self.query(), &login.credentials);
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("host", &self.endpoint.name).field("scope", self.scope).finish()
    }
}

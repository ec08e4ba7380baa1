//! The client of all registries: one for the daemon.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use estargz::Digest;
use http::{HeaderMap, Method};
use parking_lot::Mutex;
use store::{BlobSource, SourceError, SourceErrorKind as Kind};
use tokio::time::Instant;
use url::Url;

use crate::{
    auth::Scope,
    backoff::Backoff,
    blob::{BlobKey, BlobReport, BlobState, RemoteBlob},
    config::RegistryConfig,
    counters::HostStats,
    endpoint::Endpoint,
    error::Failure,
    exchange::{Answer, Call},
    payload::Payload,
    reference::Reference,
    round::{Lacking, Round},
    upstreams::{Need, RegistryHosts, Upstreams},
};

/// Reads from and writes to registries. One client serves the whole daemon, so that connections, tokens
/// and the targets of redirects are shared by all layers.
pub struct RegistryClient {
    pub(crate) config: RegistryConfig,
    upstreams: Arc<Upstreams>,
    /// What is known of blobs that somebody holds.
    blobs: Mutex<HashMap<BlobKey, Weak<BlobState>>>,
}

// === impl RegistryClient ===

impl RegistryClient {
    /// A client with these settings. Fails if a certificate file cannot be used.
    pub fn new(config: RegistryConfig) -> Result<Arc<Self>, SourceError> {
        let upstreams = Upstreams::new(&config)?;
        Ok(Arc::new(Self { config, upstreams, blobs: Mutex::default() }))
    }

    /// The blob `digest` of the reference's repository as a ranged byte source. No request is made.
    pub fn blob(self: &Arc<Self>, reference: &Reference, digest: Digest) -> Arc<dyn BlobSource> {
        Arc::new(RemoteBlob::new(self.clone(), reference.clone(), digest))
    }

    /// A whole blob of at most `max_len` bytes, checked against its digest.
    pub async fn fetch_blob(
        self: &Arc<Self>,
        reference: &Reference,
        digest: &Digest,
        max_len: u64,
    ) -> Result<Bytes, SourceError> {
        RemoteBlob::new(self.clone(), reference.clone(), *digest).read_whole(max_len).await
    }

    /// How the blob was read last through this reference's repository; nothing if nobody holds it or has read it.
    pub fn blob_report(&self, reference: &Reference, digest: Digest) -> Option<BlobReport> {
        let key = (reference.host().to_owned(), reference.repository().to_owned(), digest);
        let state = self.blobs.lock().get(&key).and_then(Weak::upgrade)?;
        state.report(reference.repository())
    }

    /// What was asked of each host so far, in the order of their names.
    pub fn stats(&self) -> Vec<HostStats> {
        self.upstreams.stats()
    }

    /// The hosts of every registry that was asked for so far, in the order of their names.
    pub fn hosts(&self) -> Vec<RegistryHosts> {
        self.upstreams.hosts()
    }

    /// The hosts that may be asked for what is needed, in the order of configuration.
    pub(crate) async fn endpoints(
        &self,
        reference: &Reference,
        need: Need,
    ) -> Result<Vec<Arc<Endpoint>>, Failure> {
        self.upstreams.of(reference, need, &self.config).await
    }

    /// A round over the hosts that may be asked for what is needed.
    pub(crate) async fn round<'a>(
        &'a self,
        reference: &Reference,
        need: Need,
        lacking: Option<&'a Lacking>,
    ) -> Result<Round<'a>, Failure> {
        let mut endpoints = self.endpoints(reference, need).await?;
        if need == Need::Push {
            // An upload begins and ends at one host.
            endpoints.truncate(1);
        }
        Ok(Round::new(endpoints, lacking, &self.config))
    }

    /// The host that uploads go to: the first that takes them, as containerd chooses it.
    pub(crate) async fn pushed_to(&self, reference: &Reference) -> Result<Arc<Endpoint>, Failure> {
        let first = self.endpoints(reference, Need::Push).await?.into_iter().next();
        let none = || Failure::fatal(Kind::Protocol, format!("{} has no host to push to", reference.host()));
        first.map(|endpoint| endpoint.current()).ok_or_else(none)
    }

    /// What is known of a blob, shared by all who hold it at the same time.
    pub(crate) fn blob_state(&self, key: BlobKey, new: impl FnOnce() -> BlobState) -> Arc<BlobState> {
        let mut blobs = self.blobs.lock();
        if let Some(state) = blobs.get(&key).and_then(Weak::upgrade) {
            return state;
        }
        if blobs.len() >= 64 && blobs.len().is_power_of_two() {
            blobs.retain(|_, state| state.strong_count() > 0);
        }
        let state = Arc::new(new());
        blobs.insert(key, Arc::downgrade(&state));
        state
    }

    pub(crate) async fn exchange(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        call.endpoint.transport.exchange(call).await
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(&self.config.retry, Instant::now())
    }

    /// One request for `path` below the reference's repository, tried again as configured, until an
    /// answer with a status in `expected` comes.
    pub(crate) async fn request(
        &self,
        request: &Outgoing<'_>,
        expected: &[u16],
    ) -> Result<Answer, SourceError> {
        let mut backoff = self.backoff();
        loop {
            let deadline = request.deadline.unwrap_or_else(|| backoff.deadline());
            let mut round = self.round(request.reference, request.need, None).await?;
            while let Some(endpoint) = round.next() {
                // A mirror's word that there is nothing is not the last one.
                let accepted = |status: &&u16| **status < 300 || round.is_last();
                let accepted: Vec<_> = expected.iter().filter(accepted).copied().collect();
                let outcome = match self.request_once(request, &endpoint, round.answer_by(deadline)).await {
                    Ok(answer) => answer.expect(&accepted).await,
                    Err(failure) => Err(failure),
                };
                if let Some(answer) = round.outcome(outcome) {
                    return Ok(answer);
                }
            }
            backoff.after(round).await?;
        }
    }

    /// One attempt at one host.
    pub(crate) async fn request_once(
        &self,
        request: &Outgoing<'_>,
        endpoint: &Arc<Endpoint>,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let repository = request.reference.repository();
        let call = Call {
            endpoint,
            repository,
            scope: &request.scope,
            method: request.method.clone(),
            url: match &request.target {
                Target::Path(path) => endpoint.url(repository, path),
                Target::Query(path, query) => {
                    let mut url = endpoint.url(repository, path);
                    url.query_pairs_mut().extend_pairs(query);
                    url
                }
                Target::Url(url) => url.clone(),
            },
            headers: request.headers.clone(),
            payload: request.payload.clone(),
            deadline,
        };
        self.exchange(&call).await
    }
}

impl fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryClient").finish_non_exhaustive()
    }
}

/// A request that is not for a blob's bytes.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) reference: &'a Reference,
    /// Which hosts may be asked.
    pub(crate) need: Need,
    pub(crate) scope: Scope,
    pub(crate) method: Method,
    pub(crate) target: Target,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    /// When it must be answered; the retry policy's total time if nothing is said.
    pub(crate) deadline: Option<Instant>,
}

/// Where a request goes.
#[derive(Debug)]
pub(crate) enum Target {
    /// Below `/v2/<repository>/`.
    Path(String),
    /// The same with a query.
    Query(String, Vec<(String, String)>),
    /// A URL that the registry gave.
    Url(Url),
}

impl<'a> Outgoing<'a> {
    pub(crate) fn new(
        reference: &'a Reference,
        need: Need,
        scope: Scope,
        method: Method,
        path: String,
    ) -> Self {
        let (target, headers) = (Target::Path(path), HeaderMap::new());
        Self { reference, need, scope, method, target, headers, payload: Payload::Empty, deadline: None }
    }
}

/// A failure of something that is not a request.
pub(crate) fn refused(message: impl Into<String>) -> SourceError {
    SourceError::new(Kind::Protocol, message)
}

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
    blob::{BlobKey, BlobState, RemoteBlob},
    config::RegistryConfig,
    counters::HostStats,
    endpoint::Endpoint,
    error::Failure,
    exchange::{Answer, Call},
    payload::Payload,
    reference::Reference,
    transport::Transport,
};

/// Reads from and writes to registries. One client serves the whole daemon, so that connections, tokens
/// and the targets of redirects are shared by all layers.
pub struct RegistryClient {
    pub(crate) config: RegistryConfig,
    pub(crate) transport: Transport,
    endpoints: Mutex<HashMap<String, Arc<Endpoint>>>,
    /// What is known of blobs that somebody holds.
    blobs: Mutex<HashMap<BlobKey, Weak<BlobState>>>,
}

// === impl RegistryClient ===

impl RegistryClient {
    /// A client with these settings. Fails if a certificate file cannot be used.
    pub fn new(config: RegistryConfig) -> Result<Arc<Self>, SourceError> {
        let transport = Transport::new(&config)?;
        Ok(Arc::new(Self { config, transport, endpoints: Mutex::default(), blobs: Mutex::default() }))
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

    /// What was asked of each host so far, in the order of their names.
    pub fn stats(&self) -> Vec<HostStats> {
        let endpoints = self.endpoints.lock();
        let mut stats: Vec<_> =
            endpoints.iter().map(|(host, endpoint)| endpoint.counters.snapshot(host)).collect();
        stats.sort_by(|a, b| a.host.cmp(&b.host));
        stats
    }

    pub(crate) fn endpoint(&self, reference: &Reference) -> Result<Arc<Endpoint>, Failure> {
        let mut endpoints = self.endpoints.lock();
        if let Some(endpoint) = endpoints.get(reference.host()) {
            return Ok(endpoint.clone());
        }
        let endpoint = Arc::new(Endpoint::new(reference, &self.config)?);
        endpoints.insert(reference.host().to_owned(), endpoint.clone());
        Ok(endpoint)
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
        self.transport.exchange(call, &self.config).await
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
        let endpoint = self.endpoint(request.reference)?;
        let mut backoff = self.backoff();
        loop {
            let deadline = request.deadline.unwrap_or_else(|| backoff.deadline());
            let outcome = match self.request_once(request, deadline).await {
                Ok(answer) => answer.expect(expected).await,
                Err(failure) => Err(failure),
            };
            match outcome {
                Ok(answer) => return Ok(answer),
                Err(failure) => backoff.again(failure, &endpoint).await?,
            }
        }
    }

    /// One attempt.
    pub(crate) async fn request_once(
        &self,
        request: &Outgoing<'_>,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let endpoint = self.endpoint(request.reference)?;
        let call = Call {
            endpoint: &endpoint,
            repository: request.reference.repository(),
            scope: &request.scope,
            method: request.method.clone(),
            url: match &request.target {
                Target::Path(path) => endpoint.url(request.reference.repository(), path),
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
        f.debug_struct("RegistryClient").field("hosts", &self.endpoints.lock().len()).finish_non_exhaustive()
    }
}

/// A request that is not for a blob's bytes.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) reference: &'a Reference,
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
    /// A URL that the registry gave.
    Url(Url),
}

impl<'a> Outgoing<'a> {
    pub(crate) fn new(reference: &'a Reference, scope: Scope, method: Method, path: String) -> Self {
        let (target, headers) = (Target::Path(path), HeaderMap::new());
        Self { reference, scope, method, target, headers, payload: Payload::Empty, deadline: None }
    }
}

/// A failure of something that is not a request.
pub(crate) fn refused(message: impl Into<String>) -> SourceError {
    SourceError::new(Kind::Protocol, message)
}

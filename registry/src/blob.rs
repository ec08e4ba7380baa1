//! One blob of a repository as a ranged byte source.
//!
//! Most registries send blob requests on to a storage service. The end of that chain is remembered per
//! blob until its signature ends, so that a read costs one request; the first read, and the one after the
//! target was refused, goes through the registry while the others wait for its answer's head. Waiting is
//! bounded: a registry that hangs for one reader does not queue the rest up.

mod reader;
mod tail;

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use estargz::Digest;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, header};
use parking_lot::Mutex;
use store::{BlobSource, ByteStream, Class, SourceError, SourceErrorKind as Kind, Tail};
use tokio::time::{Instant, timeout};
use url::Url;

use crate::{
    auth::Scope,
    client::RegistryClient,
    endpoint::Endpoint,
    error::Failure,
    exchange::{Answer, Call},
    payload::Payload,
    reference::Reference,
};
use reader::RangeReader;

/// How long a read waits for another one to find out where the blob is.
const MAX_WAIT_FOR_ROUTE: Duration = Duration::from_secs(1);
/// The value of [`BlobState::size`] while it is not known.
const UNKNOWN: u64 = u64::MAX;

/// What tells blobs apart: host, repository, digest.
pub(crate) type BlobKey = (String, String, Digest);

/// What is known of a blob.
#[derive(Debug)]
pub(crate) struct BlobState {
    size: AtomicU64,
    route: Mutex<Route>,
    finding: tokio::sync::Mutex<()>,
}

/// Where the blob's bytes are.
#[derive(Debug, Clone)]
enum Route {
    /// Not known: one reader finds out, the others wait.
    Unknown,
    /// Each read asks the registry: it answers itself, or its redirects hold for one request only.
    Registry,
    /// At the end of a redirect.
    Redirected { target: Url, until: Instant },
}

/// A blob of a registry.
#[derive(Clone)]
pub(crate) struct RemoteBlob {
    client: Arc<RegistryClient>,
    reference: Reference,
    digest: Digest,
    state: Arc<BlobState>,
}

/// What to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Everything.
    Whole,
    /// `start..end`
    Part(u64, u64),
    /// The last bytes.
    Last(u64),
}

// === impl RemoteBlob ===

impl RemoteBlob {
    pub(crate) fn new(client: Arc<RegistryClient>, reference: Reference, digest: Digest) -> Self {
        let key = (reference.host().to_owned(), reference.repository().to_owned(), digest);
        let state = client.blob_state(key, BlobState::new);
        Self { client, reference, digest, state }
    }

    /// The whole blob, checked against its digest.
    pub(crate) async fn read_whole(&self, max_len: u64) -> Result<Bytes, SourceError> {
        let endpoint = self.endpoint()?;
        let mut backoff = self.client.backoff();
        loop {
            match self.read_whole_once(max_len, backoff.deadline()).await {
                Ok(bytes) => return Ok(bytes),
                Err(failure) => backoff.again(failure, &endpoint).await?,
            }
        }
    }

    async fn read_whole_once(&self, max_len: u64, deadline: Instant) -> Result<Bytes, Failure> {
        let answer = self.get(Wanted::Whole, deadline).await?.expect(&[200]).await?;
        let url = answer.body.url().clone();
        let bytes = answer.body.read_all(max_len, deadline).await?;
        if Digest::of(&bytes) != self.digest {
            self.distrust();
            return Err(Failure::doubtful(&url, "the bytes do not have the digest that names them"));
        }
        Ok(bytes)
    }

    /// Asks for `wanted`; the answer's status may be an error.
    async fn get(&self, wanted: Wanted, deadline: Instant) -> Result<Answer, Failure> {
        let endpoint = self.endpoint()?;
        let scope = Scope::pull(self.reference.repository());
        let call = Call {
            endpoint: &endpoint,
            repository: self.reference.repository(),
            scope: &scope,
            method: Method::GET,
            url: endpoint.url(self.reference.repository(), &format!("blobs/{}", self.digest)),
            headers: wanted.headers(),
            payload: Payload::Empty,
            deadline,
        };
        if let Some(answer) = self.get_from_target(&call).await? {
            return Ok(answer);
        }
        let unknown = matches!(*self.state.route.lock(), Route::Unknown);
        let _finding = match unknown {
            true => timeout(MAX_WAIT_FOR_ROUTE, self.state.finding.lock()).await.ok(),
            false => None,
        };
        // Whoever held the lock may have found it.
        if unknown && let Some(answer) = self.get_from_target(&call).await? {
            return Ok(answer);
        }
        let answer = self.client.exchange(&call).await?;
        if matches!(answer.status().as_u16(), 200 | 206 | 416) {
            *self.state.route.lock() = Route::of(&answer);
        }
        Ok(answer)
    }

    /// The answer of the remembered target, if there is one and it does not refuse us.
    async fn get_from_target(&self, call: &Call<'_>) -> Result<Option<Answer>, Failure> {
        let Some(target) = self.state.target() else { return Ok(None) };
        let answer = match self.client.transport.exchange_at(call, &target, &self.client.config).await {
            Ok(answer) => answer,
            Err(failure) => {
                self.state.forget(&target);
                return Err(failure);
            }
        };
        // An ended signature is answered 403 by most services and 400, 401, 404 or 410 by some.
        if matches!(answer.status().as_u16(), 300..=399 | 400 | 401 | 403 | 404 | 410) {
            self.state.forget(&target);
            answer.body.discard();
            return Ok(None);
        }
        Ok(Some(answer))
    }

    fn endpoint(&self) -> Result<Arc<Endpoint>, Failure> {
        self.client.endpoint(&self.reference)
    }

    /// The blob's size, if it is known.
    fn size(&self) -> Option<u64> {
        Some(self.state.size.load(Relaxed)).filter(|size| *size != UNKNOWN)
    }

    /// Takes note of the size that an answer tells; an error if it is not what another answer told.
    fn learn_size(&self, url: &Url, size: u64) -> Result<(), Failure> {
        match self.state.size.compare_exchange(UNKNOWN, size, Relaxed, Relaxed) {
            Ok(_) => Ok(()),
            Err(known) if known == size => Ok(()),
            Err(known) => {
                let what = format!("the blob was {known} bytes long and is said to be {size} bytes long now");
                Err(Failure::doubtful(url, what))
            }
        }
    }
}

#[async_trait]
impl BlobSource for RemoteBlob {
    async fn read_tail(&self, len: u64) -> Result<Tail, SourceError> {
        self.tail(len.max(1)).await
    }

    async fn read_range(&self, range: Range<u64>, class: Class) -> Result<ByteStream, SourceError> {
        if range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        if let Some(size) = self.size().filter(|size| range.end > *size) {
            let message = format!("{}: bytes {range:?} lie outside its {size} bytes", self.describe());
            return Err(SourceError::new(Kind::Protocol, message));
        }
        let endpoint = self.endpoint()?;
        let permit = endpoint.permit(class).await;
        endpoint.quiet_over(class).await;
        let mut reader = RangeReader::new(self.clone(), range, permit)?;
        reader.open().await?;
        Ok(reader.into_stream())
    }

    fn distrust(&self) {
        *self.state.route.lock() = Route::Unknown;
    }

    fn describe(&self) -> String {
        format!("{}/{}@{}", self.reference.host(), self.reference.repository(), self.digest)
    }

    fn origin(&self) -> String {
        self.reference.host().to_owned()
    }
}

impl fmt::Debug for RemoteBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RemoteBlob").field(&self.describe()).finish()
    }
}

// === impl BlobState ===

impl BlobState {
    fn new() -> Self {
        Self {
            size: AtomicU64::new(UNKNOWN),
            route: Mutex::new(Route::Unknown),
            finding: tokio::sync::Mutex::new(()),
        }
    }

    /// The remembered target, if it still holds.
    fn target(&self) -> Option<Url> {
        let mut route = self.route.lock();
        let Route::Redirected { target, until } = &*route else { return None };
        if Instant::now() < *until {
            return Some(target.clone());
        }
        *route = Route::Unknown;
        None
    }

    /// Forgets `refused`, unless a newer target has taken its place.
    fn forget(&self, refused: &Url) {
        let mut route = self.route.lock();
        if matches!(&*route, Route::Redirected { target, .. } if target == refused) {
            *route = Route::Unknown;
        }
    }
}

// === impl Route ===

impl Route {
    fn of(answer: &Answer) -> Self {
        match &answer.redirect {
            Some(redirect) if !redirect.lifetime.is_zero() => Self::Redirected {
                target: redirect.target.clone(),
                until: Instant::now() + redirect.lifetime,
            },
            _ => Self::Registry,
        }
    }
}

// === impl Wanted ===

impl Wanted {
    fn headers(self) -> HeaderMap {
        let range = match self {
            Self::Whole => return HeaderMap::new(),
            Self::Part(start, end) => format!("bytes={start}-{}", end.saturating_sub(1)),
            Self::Last(len) => format!("bytes=-{len}"),
        };
        // Digits and punctuation always make a header.
        HeaderValue::try_from(range).map(|value| (header::RANGE, value)).into_iter().collect()
    }
}

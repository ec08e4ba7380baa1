//! One blob of a repository as a ranged byte source.
//!
//! Most registries send blob requests on to a storage service. The end of that chain is remembered per
//! blob until its signature ends, so that a read costs one request; the first read, and the one after the
//! target was refused, goes through the registry while the others wait for its answer's head. Waiting is
//! bounded: a registry that hangs for one reader does not queue the rest up.
//!
//! Each of a registry's hosts has a route of its own. Which host sent which bytes is remembered for a while, so that one
//! whose bytes turn out to be wrong is known.

mod reader;
mod report;
mod routes;
mod tail;

use std::{collections::VecDeque, fmt, ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use estargz::Digest;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, header};
use parking_lot::Mutex;
use store::{BlobSource, ByteStream, Class, SourceError, SourceErrorKind as Kind, Tail};
use tokio::time::{Instant, timeout};

use crate::{
    auth::Scope,
    client::RegistryClient,
    endpoint::Endpoint,
    error::Failure,
    exchange::{Answer, Call},
    payload::Payload,
    reference::Reference,
    round::{Lacking, Round},
    transport::Body,
    upstreams::Need,
};
use reader::RangeReader;
pub use report::BlobReport;
use report::Observed;
use routes::{Route, Routes};

/// How long a read waits for another one to find out where the blob is.
const MAX_WAIT_FOR_ROUTE: Duration = Duration::from_secs(1);
/// Answers whose sender is remembered. Bytes are checked soon after they came, and few requests are under way.
const MAX_SENT: usize = 256;

/// What tells blobs apart: host, repository, digest.
pub(crate) type BlobKey = (String, String, Digest);

/// What is known of a blob.
#[derive(Debug)]
pub(crate) struct BlobState {
    size: Mutex<Option<Size>>,
    routes: Routes,
    finding: tokio::sync::Mutex<()>,
    lacking: Lacking,
    /// Ranges, and the host that was the last to send them; the newest last.
    sent: Mutex<VecDeque<(Range<u64>, Arc<Endpoint>)>>,
    observed: Observed,
}

/// The blob's size as a host told it.
#[derive(Debug, Clone)]
struct Size {
    bytes: u64,
    teller: Arc<Endpoint>,
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
        let mut backoff = self.client.backoff();
        loop {
            let deadline = backoff.deadline();
            let mut round = self.round().await?;
            while let Some(endpoint) = round.next() {
                let read =
                    self.read_whole_from(&endpoint, max_len, round.answer_by(deadline), deadline).await;
                if let Some(bytes) = round.outcome(read) {
                    return Ok(bytes);
                }
            }
            backoff.after(round).await?;
        }
    }

    async fn read_whole_from(
        &self,
        endpoint: &Arc<Endpoint>,
        max_len: u64,
        answer_by: Instant,
        deadline: Instant,
    ) -> Result<Bytes, Failure> {
        let answer = self.get(endpoint, Wanted::Whole, answer_by).await?.expect(&[200]).await?;
        let url = answer.body.url().clone();
        let bytes = answer.body.read_all(max_len, deadline).await?;
        if Digest::of(&bytes) != self.digest {
            self.wrong_bytes_from(endpoint);
            return Err(Failure::doubtful(&url, "the bytes do not have the digest that names them"));
        }
        Ok(bytes)
    }

    /// Asks `endpoint` for `wanted`; the answer's status may be an error.
    async fn get(
        &self,
        endpoint: &Arc<Endpoint>,
        wanted: Wanted,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let answer = self.find(endpoint, wanted, deadline).await?;
        self.state.observed.note(endpoint, wanted, &answer);
        Ok(answer)
    }

    async fn find(
        &self,
        endpoint: &Arc<Endpoint>,
        wanted: Wanted,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let scope = Scope::pull(self.reference.repository());
        let call = Call {
            endpoint,
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
        let unknown = self.state.routes.is_unknown(endpoint.id);
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
            self.state.routes.set(endpoint.id, Route::of(&answer));
        }
        Ok(answer)
    }

    /// The answer of the remembered target, if there is one and it does not refuse us.
    async fn get_from_target(&self, call: &Call<'_>) -> Result<Option<Answer>, Failure> {
        let id = call.endpoint.id;
        let Some((target, trusted)) = self.state.routes.target(id) else { return Ok(None) };
        let transport = &call.endpoint.transport;
        let answer = match transport.exchange_at(call, &target, trusted).await {
            Ok(answer) => answer,
            Err(failure) => {
                self.state.routes.forget(id, &target);
                return Err(failure);
            }
        };
        // An ended signature is answered 403 by most services and 400, 401, 404 or 410 by some.
        if matches!(answer.status().as_u16(), 300..=399 | 400 | 401 | 403 | 404 | 410) {
            self.state.routes.forget(id, &target);
            answer.body.discard();
            return Ok(None);
        }
        Ok(Some(answer))
    }

    async fn round(&self) -> Result<Round<'_>, Failure> {
        self.client.round(&self.reference, Need::Pull, Some(&self.state.lacking)).await
    }

    /// The host that is asked first.
    async fn first_endpoint(&self) -> Result<Arc<Endpoint>, Failure> {
        let round = self.round().await?;
        round.first().ok_or_else(|| round.into_failure())
    }

    /// The blob's size, if it is known.
    fn size(&self) -> Option<u64> {
        self.state.size.lock().as_ref().map(|size| size.bytes)
    }

    /// Takes note of the size that an answer tells; an error if it is not what another answer told. Of the registry
    /// itself and a mirror the registry itself is right.
    fn learn_size(&self, body: &Body, size: u64) -> Result<(), Failure> {
        let teller = body.endpoint().clone();
        let mut known = self.state.size.lock();
        match &*known {
            Some(told) if told.bytes == size => Ok(()),
            Some(told) if teller.is_mirror() || !told.teller.is_mirror() => {
                let bytes = told.bytes;
                let what = format!("the blob was {bytes} bytes long and is said to be {size} bytes long now");
                Err(Failure::doubtful(body.url(), what))
            }
            told => {
                let liar = told.as_ref().map(|told| told.teller.clone());
                *known = Some(Size { bytes: size, teller });
                drop(known);
                if let Some(liar) = liar {
                    liar.sent_wrong_bytes(&self.client.config, &self.describe());
                }
                Ok(())
            }
        }
    }

    /// Takes note that `endpoint` sends `range`.
    fn sends(&self, range: Range<u64>, endpoint: &Arc<Endpoint>) {
        let mut sent = self.state.sent.lock();
        if sent.len() >= MAX_SENT {
            sent.pop_front();
        }
        sent.push_back((range, endpoint.clone()));
    }

    /// Takes note that what came is not what the blob holds, of whoever it came from.
    fn distrust_sender(&self, sender: Option<Arc<Endpoint>>) {
        match sender {
            Some(endpoint) => self.wrong_bytes_from(&endpoint),
            None => self.state.routes.clear(),
        }
    }

    /// Takes note that what `endpoint` sent is not what the blob holds.
    fn wrong_bytes_from(&self, endpoint: &Arc<Endpoint>) {
        endpoint.sent_wrong_bytes(&self.client.config, &self.describe());
        self.state.routes.clear();
        if endpoint.is_mirror() {
            self.state.size.lock().take_if(|size| size.teller.id == endpoint.id);
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
        let endpoint = self.first_endpoint().await?;
        let permit = endpoint.permit(class).await;
        endpoint.quiet_over(class).await;
        let mut reader = RangeReader::new(self.clone(), range, permit);
        reader.open().await?;
        Ok(reader.into_stream())
    }

    fn distrust(&self) {
        let sender = self.state.sent.lock().back().map(|(_, endpoint)| endpoint.clone());
        self.distrust_sender(sender);
    }

    fn distrust_range(&self, range: Range<u64>) {
        let sent = self.state.sent.lock();
        let sender = sent.iter().rev().find(|(sent, _)| sent.contains(&range.start));
        let sender = sender.map(|(_, endpoint)| endpoint.clone());
        drop(sent);
        self.distrust_sender(sender);
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
            size: Mutex::default(),
            routes: Routes::default(),
            finding: tokio::sync::Mutex::new(()),
            lacking: Lacking::default(),
            sent: Mutex::default(),
            observed: Observed::default(),
        }
    }

    /// How it was read last, as a blob of `repository`.
    pub(crate) fn report(&self, repository: &str) -> Option<BlobReport> {
        self.observed.report(repository)
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

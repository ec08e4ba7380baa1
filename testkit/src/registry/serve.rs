//! Connections and routes.

use std::{
    io,
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use nix::sys::socket::{setsockopt, sockopt::SndBuf};
use parking_lot::Mutex;
use serde_json::json;
use tokio::{io::AsyncWrite, sync::Notify};
use tokio_rustls::TlsAcceptor;

use super::{
    Redirect, RegistryOptions,
    auth::{self, Token},
    body::{self, Body, Spoilt},
    contents::Contents,
    fault::{Fault, Rule, Traits, strike},
    log::{Entry, Listener, Log, RequestRecord},
    shaping::Shaper,
    upload,
};

/// All that a registry's connections share.
#[derive(Debug)]
pub(super) struct State {
    pub(super) contents: Mutex<Contents>,
    pub(super) faults: Mutex<Vec<Rule>>,
    pub(super) behaviour: Mutex<RegistryOptions>,
    pub(super) tokens: Mutex<Vec<Token>>,
    pub(super) log: Log,
    pub(super) shaper: Shaper,
    pub(super) leaked_credentials: AtomicU64,
    /// Wakes stalled answers, so that they end.
    pub(super) released: Notify,
    pub(super) address: SocketAddr,
    pub(super) cdn_address: SocketAddr,
}

impl State {
    pub(super) fn new(options: RegistryOptions, address: SocketAddr, cdn_address: SocketAddr) -> Self {
        Self {
            contents: Mutex::default(),
            faults: Mutex::default(),
            tokens: Mutex::default(),
            log: Log::new(),
            shaper: Shaper::new(options.shaping),
            leaked_credentials: AtomicU64::new(0),
            released: Notify::new(),
            behaviour: Mutex::new(options),
            address,
            cdn_address,
        }
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.behaviour.lock().tls { "https" } else { "http" }
    }
}

/// Serves connections for ever.
pub(super) async fn accept(
    listener: std::net::TcpListener,
    which: Listener,
    state: Arc<State>,
    tls: Option<TlsAcceptor>,
) {
    if listener.set_nonblocking(true).is_err() {
        return;
    }
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        if let Some(bytes) = state.shaper.on_the_way() {
            let _ = setsockopt(&stream, SndBuf, &bytes);
        }
        let (state, tls) = (Arc::clone(&state), tls.clone());
        tokio::spawn(async move {
            // The handshake's round trip: a first request does not reach the registry before it.
            state.shaper.delay().await;
            match tls {
                None => connection(stream, which, state).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        connection(stream, which, state).await;
                    }
                }
            }
        });
    }
}

async fn connection<S>(stream: S, which: Listener, state: Arc<State>)
where
    S: tokio::io::AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer(request, which, Arc::clone(&state)));
    // An error is how a client's departure or an injected reset ends a connection: nothing to report.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

/// Answers a request, with the fault that strikes it.
async fn answer(
    request: Request<Incoming>,
    which: Listener,
    state: Arc<State>,
) -> io::Result<Response<Body>> {
    let (parts, incoming) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let text = |name| parts.headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let range = text(header::RANGE).map(str::to_owned);
    let authorization =
        text(header::AUTHORIZATION).and_then(|value| value.split(' ').next()).map(str::to_owned);
    let entry = state.log.add(RequestRecord {
        listener: which,
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        range: range.clone(),
        authorization,
        status: 0,
        bytes_sent: 0,
        at: Duration::ZERO,
    });
    let traits = Traits {
        blob: path.contains("/blobs/sha256:") || path.starts_with("/cdn/"),
        at_cdn: which == Listener::Cdn,
        manifest: path.contains("/manifests/"),
        referrers: path.contains("/referrers/") || path.contains("/manifests/sha256-"),
        token: path == "/token",
        head: parts.method == Method::HEAD,
        suffix: range.as_ref().is_some_and(|range| range.starts_with("bytes=-")),
        range: range.is_some(),
    };
    state.shaper.delay().await;
    let fault = strike(&mut state.faults.lock(), traits);
    let released = state.released.notified();
    match fault {
        Some(Fault::Reset) => return Err(io::ErrorKind::ConnectionReset.into()),
        Some(Fault::Stall) => {
            released.await;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Some(Fault::Status(status)) => {
            entry.answered(status);
            return Ok(body::empty(
                StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            ));
        }
        Some(Fault::RetryAfter(status, seconds)) => {
            entry.answered(status);
            let mut response =
                body::empty(StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE));
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            return Ok(response);
        }
        _ => {}
    }
    let received = incoming.collect().await.map_err(io::Error::other)?.to_bytes();
    let response = route(&parts, received, which, &state, &entry, fault);
    entry.answered(response.status().as_u16());
    Ok(response)
}

fn route(
    parts: &http::request::Parts,
    received: Bytes,
    which: Listener,
    state: &Arc<State>,
    entry: &Entry,
    fault: Option<Fault>,
) -> Response<Body> {
    let path = parts.uri.path();
    let query = parts.uri.query().unwrap_or("");
    if path == "/token" {
        let form =
            if parts.method == Method::POST { received } else { Bytes::copy_from_slice(query.as_bytes()) };
        return auth::token(state, &parts.method, &parts.headers, &form);
    }
    if let Some(rest) = path.strip_prefix("/cdn/") {
        return signed(rest, query, parts, which, state, entry, fault);
    }
    let Some(rest) = path.strip_prefix("/v2/") else { return body::empty(StatusCode::NOT_FOUND) };
    if let Some(refused) = state.behaviour.lock().peer.refuse(parts) {
        return refused;
    }
    let (repository, what) = split(rest);
    if let Some(challenge) = auth::challenge(state, &parts.headers, repository) {
        return challenge;
    }
    match what {
        What::Base => body::json(StatusCode::OK, &json!({})),
        What::Tags => {
            let tags = state.contents.lock().tags(repository);
            body::json(StatusCode::OK, &json!({ "name": repository, "tags": tags }))
        }
        What::Manifest(reference) if parts.method == Method::PUT => {
            upload::manifest(state, repository, reference, &parts.headers, received)
        }
        What::Manifest(reference) => manifest(state, repository, reference, entry, &parts.method),
        What::Referrers(subject) => referrers(state, repository, subject, query),
        What::Upload(number) => upload::blob(state, repository, number, &parts.method, query, &received),
        What::Blob(digest) => match redirect(state, digest) {
            Some(response) if parts.method == Method::GET => response,
            _ => blob(state, digest, parts, entry, fault),
        },
        What::Unknown => body::empty(StatusCode::NOT_FOUND),
    }
}

enum What<'a> {
    Base,
    Tags,
    Manifest(&'a str),
    Blob(&'a str),
    Upload(&'a str),
    Referrers(&'a str),
    Unknown,
}

/// A path below `/v2/` as repository and what is asked of it; a repository's name may hold slashes.
fn split(path: &str) -> (&str, What<'_>) {
    if path.is_empty() {
        return ("", What::Base);
    }
    if let Some((repository, number)) = path.split_once("/blobs/uploads") {
        return (repository, What::Upload(number.trim_start_matches('/')));
    }
    if let Some((repository, digest)) = path.rsplit_once("/blobs/") {
        return (repository, What::Blob(digest));
    }
    if let Some((repository, reference)) = path.rsplit_once("/manifests/") {
        return (repository, What::Manifest(reference));
    }
    if let Some((repository, subject)) = path.rsplit_once("/referrers/") {
        return (repository, What::Referrers(subject));
    }
    match path.strip_suffix("/tags/list") {
        Some(repository) => (repository, What::Tags),
        None => ("", What::Unknown),
    }
}

fn manifest(
    state: &State,
    repository: &str,
    reference: &str,
    entry: &Entry,
    method: &Method,
) -> Response<Body> {
    let Some(manifest) = state.contents.lock().manifest(repository, reference).cloned() else {
        let errors = json!({ "errors": [{ "code": "MANIFEST_UNKNOWN", "message": "no such manifest" }] });
        return body::json(StatusCode::NOT_FOUND, &errors);
    };
    if method == Method::GET {
        entry.sent(manifest.bytes.len() as u64);
    }
    let mut response = body::full(StatusCode::OK, &manifest.media_type, manifest.bytes);
    if let Ok(value) = manifest.digest.parse() {
        response.headers_mut().insert("docker-content-digest", value);
    }
    response
}

/// What refers to `subject`, as an index.
fn referrers(state: &State, repository: &str, subject: &str, query: &str) -> Response<Body> {
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    if state.behaviour.lock().no_referrers {
        return body::empty(StatusCode::NOT_FOUND);
    }
    let mut parameters = url::form_urlencoded::parse(query.as_bytes());
    let wanted = parameters.find(|(key, _)| key == "artifactType").map(|(_, value)| value.into_owned());
    let listed = state.contents.lock().referrers(repository, subject, wanted.as_deref());
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": listed });
    body::full(StatusCode::OK, INDEX, index.to_string().into())
}

/// The redirect that a blob request is answered with, if that is how the registry behaves.
fn redirect(state: &State, digest: &str) -> Option<Response<Body>> {
    let Redirect::Signed { status, lifetime, hops } = state.behaviour.lock().redirect else { return None };
    let expires = now_millis() + u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX / 2);
    let location =
        format!("http://{}/cdn/{hops}/{digest}?signature=planted-secret&until={expires}", state.cdn_address);
    let mut response = body::empty(StatusCode::from_u16(status).unwrap_or(StatusCode::TEMPORARY_REDIRECT));
    response.headers_mut().insert(header::LOCATION, location.parse().ok()?);
    Some(response)
}

/// A blob at a signed address: `<hops left>/<digest>?…&until=<milliseconds since 1970>`.
fn signed(
    rest: &str,
    query: &str,
    parts: &http::request::Parts,
    which: Listener,
    state: &Arc<State>,
    entry: &Entry,
    fault: Option<Fault>,
) -> Response<Body> {
    if parts.headers.contains_key(header::AUTHORIZATION) {
        state.leaked_credentials.fetch_add(1, Ordering::Relaxed);
        return body::empty(StatusCode::BAD_REQUEST);
    }
    let until = query.rsplit_once("until=").and_then(|(_, until)| until.parse::<u64>().ok()).unwrap_or(0);
    if which != Listener::Cdn || until < now_millis() || parts.method != Method::GET {
        return body::empty(StatusCode::FORBIDDEN);
    }
    let (hops, digest) = rest.split_once('/').unwrap_or(("0", rest));
    match hops.parse::<u8>() {
        Ok(hops @ 1..) => {
            let mut response = body::empty(StatusCode::TEMPORARY_REDIRECT);
            if let Ok(location) = format!("../{}/{digest}?{query}", hops - 1).parse() {
                response.headers_mut().insert(header::LOCATION, location);
            }
            response
        }
        _ => blob(state, digest, parts, entry, fault),
    }
}

/// A blob, whole or the range that was asked for.
fn blob(
    state: &Arc<State>,
    digest: &str,
    parts: &http::request::Parts,
    entry: &Entry,
    fault: Option<Fault>,
) -> Response<Body> {
    let Some(blob) = state.contents.lock().blob(digest) else {
        let errors = json!({ "errors": [{ "code": "BLOB_UNKNOWN", "message": "no such blob" }] });
        return body::json(StatusCode::NOT_FOUND, &errors);
    };
    let len = blob.len();
    let asked = match fault {
        Some(Fault::IgnoreRange) => Asked::Whole,
        _ => asked_range(&parts.headers, len),
    };
    let (mut range, mut status) = match asked {
        Asked::Whole => (0..len, StatusCode::OK),
        Asked::Part(range) => (range, StatusCode::PARTIAL_CONTENT),
        Asked::Unsatisfiable => {
            let mut response = body::empty(StatusCode::RANGE_NOT_SATISFIABLE);
            if let Ok(value) = format!("bytes */{len}").parse() {
                response.headers_mut().insert(header::CONTENT_RANGE, value);
            }
            return response;
        }
    };
    let mut shift = 0;
    let mut spoilt = Spoilt::default();
    match fault {
        Some(Fault::Truncate(bytes)) => spoilt.cut_after = Some(bytes),
        Some(Fault::StallBody(bytes)) => spoilt.stall_after = Some(bytes),
        Some(Fault::FlipBit(at)) => spoilt.flip_at = Some(at),
        Some(Fault::Shorten(bytes)) => range.end = range.end.saturating_sub(bytes).max(range.start),
        Some(Fault::ShiftContentRange(by)) => shift = by,
        _ => {}
    }
    let mut response = body::empty(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, header::HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/octet-stream"));
    if status == StatusCode::PARTIAL_CONTENT {
        let value = format!("bytes {}-{}/{len}", range.start + shift, (range.end + shift).saturating_sub(1));
        match value.parse() {
            Ok(value) => drop(headers.insert(header::CONTENT_RANGE, value)),
            Err(_) => status = StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
    if fault != Some(Fault::Chunked) {
        headers.insert(header::CONTENT_LENGTH, (range.end - range.start).into());
    }
    *response.status_mut() = status;
    if parts.method == Method::GET {
        *response.body_mut() = body::blob(Arc::clone(state), entry.clone(), blob, range, spoilt);
    }
    response
}

enum Asked {
    Whole,
    Part(Range<u64>),
    Unsatisfiable,
}

/// What the `Range` header asks for (RFC 9110 section 14.1.2), one range only.
fn asked_range(headers: &HeaderMap, len: u64) -> Asked {
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok()?.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.split_once('-')) else { return Asked::Whole };
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) => first..last.saturating_add(1).min(len),
        (Ok(first), Err(_)) => first..len,
        (Err(_), Ok(suffix)) => len.saturating_sub(suffix)..len,
        (Err(_), Err(_)) => return Asked::Whole,
    };
    if range.start >= range.end { Asked::Unsatisfiable } else { Asked::Part(range) }
}

fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

//! HTTP as the rest of the crate uses it: one connection pool, no automatic redirects, bounded waiting.
//!
//! HTTP/1.1 only: an HTTP/2 client shares one TCP connection per host, whose window bounds the speed of
//! all its ranges together, while HTTP/1.1 opens a connection for each concurrent read. Manifests and
//! tokens use the same pool, so that the first blob read finds a warm connection.

use std::{fs, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use reqwest::{Certificate, Client, ClientBuilder, Request, RequestBuilder, Response, redirect::Policy};
use store::SourceErrorKind as Kind;
use tokio::time::{Instant, timeout};
use url::Url;

use crate::{
    config::RegistryConfig,
    counters::Count,
    endpoint::{Endpoint, is_loopback},
    error::Failure,
};

/// The clients of the whole daemon.
#[derive(Debug)]
pub(crate) struct Transport {
    /// Uses the proxies that the environment names.
    proxied: Client,
    /// For loopback hosts, which no proxy could reach (as Go's `ProxyFromEnvironment` decides).
    direct: Client,
    idle: Duration,
}

/// A body whose silence is bounded and whose bytes are counted.
#[derive(Debug)]
pub(crate) struct Body {
    response: Response,
    endpoint: Arc<Endpoint>,
    idle: Duration,
    /// Time waited for the network, and bytes received in it, since the last look at the speed.
    waited: Duration,
    received: usize,
}

/// Connections to a host that are kept for later. Each holds a buffer of up to 400 KiB for the next answer.
const IDLE_CONNECTIONS: usize = 8;
/// A server that sends less than this within one idle time-out is as good as silent; without this bound
/// one byte now and then would keep a read alive for ever.
const MIN_BYTES_PER_IDLE: usize = 1024;
/// Bodies of redirects and errors up to this size are read so that the connection can be used again.
const MAX_DISCARD: usize = 16 * 1024;

// === impl Transport ===

impl Transport {
    pub(crate) fn new(config: &RegistryConfig) -> Result<Self, Failure> {
        let build = |builder: ClientBuilder| {
            builder.build().map_err(|error| {
                Failure::fatal(
                    Kind::Protocol,
                    format!("cannot set up the HTTP client: {}", error.without_url()),
                )
            })
        };
        Ok(Self {
            proxied: build(builder(config)?)?,
            direct: build(builder(config)?.no_proxy())?,
            idle: config.idle_timeout,
        })
    }

    pub(crate) fn request(&self, method: http::Method, url: Url) -> RequestBuilder {
        let client = if is_loopback(&url) { &self.direct } else { &self.proxied };
        client.request(method, url)
    }

    /// Sends `request` and waits for the head of the answer, not longer than the idle time-out nor past
    /// `deadline`.
    pub(crate) async fn send(&self, request: Request, deadline: Instant) -> Result<Response, Failure> {
        let url = request.url().clone();
        let limit = self.idle.min(deadline.saturating_duration_since(Instant::now()));
        match timeout(limit, self.send_unbounded(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::timed_out(&url, "no answer", limit)),
        }
    }

    /// Sends `request` and waits for the head of the answer as long as it takes.
    pub(crate) async fn send_unbounded(&self, request: Request) -> Result<Response, Failure> {
        let url = request.url().clone();
        let client = if is_loopback(&url) { &self.direct } else { &self.proxied };
        client.execute(request).await.map_err(|error| Failure::transport(&url, error))
    }

    pub(crate) fn body(&self, response: Response, endpoint: &Arc<Endpoint>) -> Body {
        let endpoint = endpoint.clone();
        Body { response, endpoint, idle: self.idle, waited: Duration::ZERO, received: 0 }
    }

    pub(crate) fn idle(&self) -> Duration {
        self.idle
    }
}

fn builder(config: &RegistryConfig) -> Result<ClientBuilder, Failure> {
    let mut builder = Client::builder()
        .http1_only()
        .redirect(Policy::none())
        .referer(false)
        .user_agent(&config.user_agent)
        .connect_timeout(config.connect_timeout)
        .pool_idle_timeout(Duration::from_secs(60))
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .tcp_keepalive(Duration::from_secs(30));
    for path in &config.ca_files {
        let unusable = |why: String| {
            let path = path.display();
            Failure::fatal(Kind::Protocol, format!("cannot use the certificate authority file {path}: {why}"))
        };
        let pem = fs::read(path).map_err(|error| unusable(error.to_string()))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| unusable(error.to_string()))?;
        if certificates.is_empty() {
            return Err(unusable("there is no PEM certificate in it".to_owned()));
        }
        for certificate in certificates {
            builder = builder.add_root_certificate(certificate);
        }
    }
    Ok(builder)
}

/// Reads what is left of an answer that is not needed, in the background, so that its connection can be
/// used again; a large one is cut off instead.
pub(crate) fn discard(mut response: Response) {
    if response.content_length() == Some(0) {
        return;
    }
    tokio::spawn(async move {
        let drain = async {
            let mut left = MAX_DISCARD;
            while let Ok(Some(chunk)) = response.chunk().await {
                match left.checked_sub(chunk.len()) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        };
        let _ = timeout(Duration::from_secs(2), drain).await;
    });
}

// === impl Body ===

impl Body {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn headers(&self) -> &http::HeaderMap {
        self.response.headers()
    }

    pub(crate) fn url(&self) -> &Url {
        self.response.url()
    }

    /// The length that the server announced, if it did.
    pub(crate) fn announced(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// The next piece, `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        let began = Instant::now();
        let chunk = match timeout(self.idle, self.response.chunk()).await {
            Err(_) => return Err(Failure::timed_out(self.url(), "the answer's body stalled", self.idle)),
            Ok(Err(error)) => return Err(Failure::transport(self.url(), error)),
            Ok(Ok(None)) => return Ok(None),
            Ok(Ok(Some(chunk))) => chunk,
        };
        self.endpoint.counters.add(Count::Received(chunk.len() as u64));
        self.waited += began.elapsed();
        self.received = self.received.saturating_add(chunk.len());
        if self.waited >= self.idle {
            if self.received < MIN_BYTES_PER_IDLE {
                return Err(Failure::timed_out(self.url(), "the answer's body trickled", self.waited));
            }
            (self.waited, self.received) = (Duration::ZERO, 0);
        }
        Ok(Some(chunk))
    }

    /// The whole body, if it is at most `max` bytes long and arrives before `deadline`.
    pub(crate) async fn read_all(mut self, max: u64, deadline: Instant) -> Result<Bytes, Failure> {
        let too_long = |url: &Url| Failure::doubtful(url, format!("the answer is longer than {max} bytes"));
        if self.announced().is_some_and(|len| len > max) {
            return Err(too_long(self.url()));
        }
        let mut all = BytesMut::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let chunk = match timeout(left, self.chunk()).await {
                Ok(chunk) => chunk?,
                Err(_) => {
                    return Err(Failure::timed_out(self.url(), "the answer's body was not complete", left));
                }
            };
            let Some(chunk) = chunk else { return Ok(all.freeze()) };
            if (all.len() as u64).saturating_add(chunk.len() as u64) > max {
                return Err(too_long(self.url()));
            }
            all.extend_from_slice(&chunk);
        }
    }

    /// Gives up the rest.
    pub(crate) fn discard(self) {
        discard(self.response);
    }
}

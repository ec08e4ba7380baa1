//! HTTP as the rest of the crate uses it: one connection pool for all hosts that are connected to in the same way, no
//! automatic redirects, bounded waiting.
//!
//! HTTP/1.1 wherever a server speaks it: an HTTP/2 client shares one TCP connection per host, whose window bounds
//! the speed of all its ranges together, while HTTP/1.1 opens a connection for each concurrent read. Manifests
//! and tokens use the same pool, so that the first blob read finds a warm connection.

mod tls;

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use parking_lot::Mutex;
use reqwest::{Client, ClientBuilder, Request, RequestBuilder, Response, redirect::Policy};
use store::SourceErrorKind as Kind;
use tokio::time::{Instant, timeout};
use url::Url;

use crate::{
    aside::aside,
    config::RegistryConfig,
    counters::Count,
    endpoint::{Endpoint, is_loopback},
    error::{Failure, refuses_http1},
    hosts::Connection,
};

/// The clients for all hosts that are connected to in the same way.
#[derive(Debug)]
pub(crate) struct Transport {
    clients: Clients,
    /// For hosts that speak nothing but HTTP/2; made when there is one.
    http2: OnceLock<Clients>,
    only_http2: Mutex<HashSet<Authority>>,
    pub(crate) config: RegistryConfig,
    connection: Connection,
    idle: Duration,
}

/// A host and its port.
type Authority = (Option<String>, Option<u16>);

#[derive(Debug)]
struct Clients {
    /// Uses the proxies that the environment names.
    proxied: Client,
    /// For loopback hosts, which no proxy could reach (as Go's `ProxyFromEnvironment` decides).
    direct: Client,
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
    pub(crate) fn new(config: &RegistryConfig, connection: &Connection) -> Result<Self, Failure> {
        Ok(Self {
            clients: Clients::new(config, connection, true)?,
            http2: OnceLock::new(),
            only_http2: Mutex::default(),
            config: config.clone(),
            connection: connection.clone(),
            idle: connection.silence.unwrap_or(config.idle_timeout),
        })
    }

    pub(crate) fn request(&self, method: http::Method, url: Url) -> RequestBuilder {
        self.clients.of(&url).request(method, url)
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
        let authority = (url.host_str().map(str::to_owned), url.port_or_known_default());
        if self.only_http2.lock().contains(&authority) {
            return execute(self.http2().await?, request)
                .await
                .map_err(|error| Failure::transport(&url, error));
        }
        // Only TLS tells before a byte of the request was sent. A stream cannot be sent again, but what is asked
        // for before a stream is no stream.
        let again = if url.scheme() == "https" { request.try_clone() } else { None };
        let error = match execute(&self.clients, request).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        match again.filter(|_| refuses_http1(&error)) {
            Some(request) => {
                self.only_http2.lock().insert(authority);
                execute(self.http2().await?, request).await.map_err(|error| Failure::transport(&url, error))
            }
            None => Err(Failure::transport(&url, error)),
        }
    }

    async fn http2(&self) -> Result<&Clients, Failure> {
        if let Some(clients) = self.http2.get() {
            return Ok(clients);
        }
        let (config, connection) = (self.config.clone(), self.connection.clone());
        // This reads certificates.
        let made = aside(move || Clients::new(&config, &connection, false)).await;
        let clients = made.map_err(|error| Failure::passing(Kind::Unavailable, error.to_string()))??;
        Ok(self.http2.get_or_init(|| clients))
    }

    pub(crate) fn body(&self, response: Response, endpoint: &Arc<Endpoint>) -> Body {
        let endpoint = endpoint.clone();
        Body { response, endpoint, idle: self.idle, waited: Duration::ZERO, received: 0 }
    }

    pub(crate) fn idle(&self) -> Duration {
        self.idle
    }
}

// === impl Clients ===

impl Clients {
    fn new(config: &RegistryConfig, connection: &Connection, http1: bool) -> Result<Self, Failure> {
        let build = |builder: ClientBuilder| {
            builder.build().map_err(|error| {
                Failure::fatal(
                    Kind::Protocol,
                    format!("cannot set up the HTTP client: {}", error.without_url()),
                )
            })
        };
        Ok(Self {
            proxied: build(builder(config, connection, http1)?)?,
            direct: build(builder(config, connection, http1)?.no_proxy())?,
        })
    }

    fn of(&self, url: &Url) -> &Client {
        if is_loopback(url) { &self.direct } else { &self.proxied }
    }
}

async fn execute(clients: &Clients, request: Request) -> Result<Response, reqwest::Error> {
    clients.of(request.url()).execute(request).await
}

fn builder(config: &RegistryConfig, connection: &Connection, http1: bool) -> Result<ClientBuilder, Failure> {
    let mut builder = Client::builder()
        .redirect(Policy::none())
        .referer(false)
        .user_agent(&config.user_agent)
        .pool_idle_timeout(Duration::from_secs(60))
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .tcp_keepalive(Duration::from_secs(30));
    builder = if http1 { builder.http1_only() } else { builder.http2_adaptive_window(true) };
    let limit = connection.connect_timeout.unwrap_or(config.connect_timeout);
    if !limit.is_zero() {
        builder = builder.connect_timeout(limit);
    }
    tls::configure(builder, config, connection)
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

    /// The host that was asked.
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
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

//! What stands before large registries: requests for blobs are sent on to a storage service, by an address that is
//! signed and good for seconds. Everything else goes to the registry behind it.
//!
//! The storage service reads the registry's own files, as an object store that the registry writes to. It is a judge:
//! an address without a good signature is refused, one that has ended too, and credentials are counted.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use aws_lc_rs::hmac;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use url::form_urlencoded;

use crate::{
    http_service::{Answer, HttpService, empty},
    peers::docker_registry::DockerRegistry,
    token_service::TokenService,
};

/// The front and its storage service; ended when dropped.
#[derive(Debug)]
pub struct SigningFront {
    front: HttpService,
    storage: HttpService,
    seen: Arc<Seen>,
}

/// What came to the storage service.
#[derive(Debug, Default)]
struct Seen {
    signed: AtomicU64,
    served: AtomicU64,
    ended: AtomicU64,
    unsigned: AtomicU64,
    credentials: AtomicU64,
}

/// The registry behind the front.
struct Behind {
    registry: SocketAddr,
    storage: SocketAddr,
    key: Arc<hmac::Key>,
    lifetime: Duration,
    seen: Arc<Seen>,
}

struct Storage {
    blobs: PathBuf,
    key: Arc<hmac::Key>,
    seen: Arc<Seen>,
}

// === impl SigningFront ===

impl SigningFront {
    /// Starts both before `registry`, which is reached in clear text, with the certificate of `tokens`. Addresses
    /// are good for `lifetime` and do not say so.
    ///
    /// # Errors
    /// No key or port can be had.
    pub fn start(registry: &DockerRegistry, tokens: &TokenService, lifetime: Duration) -> Result<Self> {
        let key = Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>()));
        let seen = Arc::new(Seen::default());
        let store = Storage { blobs: registry.blobs(), key: Arc::clone(&key), seen: Arc::clone(&seen) };
        let tls = || tokens.certificate().acceptor(false).map(Some);
        // Another host, not only another port: Go's client passes credentials on to the same host.
        let storage = HttpService::start("127.0.0.2", tls()?, move |parts, _| {
            store.answer(parts).unwrap_or_else(|| empty(StatusCode::NOT_FOUND))
        })?;
        let behind = Behind {
            registry: SocketAddr::from(([127, 0, 0, 1], registry.port())),
            storage: storage.address(),
            key,
            lifetime,
            seen: Arc::clone(&seen),
        };
        let front = HttpService::start("127.0.0.1", tls()?, move |parts, _| {
            behind.answer(parts).unwrap_or_else(|_| empty(StatusCode::BAD_GATEWAY))
        })?;
        Ok(Self { front, storage, seen })
    }

    /// Its address, as images name it.
    pub fn host(&self) -> String {
        self.front.address().to_string()
    }

    /// How many addresses were signed.
    pub fn signed(&self) -> u64 {
        self.seen.signed.load(Relaxed)
    }

    /// How many requests the storage service answered with bytes.
    pub fn served(&self) -> u64 {
        self.seen.served.load(Relaxed)
    }

    /// How many it refused because the address had ended.
    pub fn ended(&self) -> u64 {
        self.seen.ended.load(Relaxed)
    }

    /// How many it refused because the address was not signed.
    pub fn unsigned(&self) -> u64 {
        self.seen.unsigned.load(Relaxed)
    }

    /// How many came to it with credentials.
    pub fn credentials(&self) -> u64 {
        self.seen.credentials.load(Relaxed)
    }

    /// Where the storage service is.
    pub fn storage(&self) -> SocketAddr {
        self.storage.address()
    }
}

// === impl Behind ===

impl Behind {
    fn answer(&self, parts: &Parts) -> Result<Answer> {
        let blob = parts.uri.path().rsplit_once("/blobs/sha256:").map(|(_, hex)| hex);
        match blob {
            Some(hex) if parts.method == Method::GET => {
                // Who may read it is the registry's to say.
                let answer = self.ask(&Method::HEAD, parts)?;
                if answer.status() == StatusCode::OK { self.sign(hex) } else { Ok(answer) }
            }
            _ => self.ask(&parts.method, parts),
        }
    }

    fn sign(&self, hex: &str) -> Result<Answer> {
        let until = (now() + self.lifetime).as_millis();
        let path = format!("/{hex}");
        let signature = hex::encode(hmac::sign(&self.key, format!("{path} {until}").as_bytes()));
        let location = format!("https://{}{path}?token={until}&signature={signature}", self.storage);
        let mut answer = empty(StatusCode::TEMPORARY_REDIRECT);
        answer.headers_mut().insert(header::LOCATION, location.parse()?);
        self.seen.signed.fetch_add(1, Relaxed);
        Ok(answer)
    }

    /// The registry's own answer; asked by HTTP/1.0, where the end of the connection is that of the body.
    fn ask(&self, method: &Method, parts: &Parts) -> Result<Answer> {
        let target = parts.uri.path_and_query().context("a path")?;
        let mut text = format!("{method} {target} HTTP/1.0\r\nHost: {}\r\n", self.registry);
        for name in [header::AUTHORIZATION, header::ACCEPT] {
            for value in parts.headers.get_all(&name) {
                text += &format!("{name}: {}\r\n", value.to_str()?);
            }
        }
        let mut stream = TcpStream::connect(self.registry)?;
        stream.write_all((text + "\r\n").as_bytes())?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").context("no head")?;
        let head = std::str::from_utf8(bytes.get(..end).unwrap_or_default())?.to_owned();
        let body = Bytes::from(bytes).slice(end + 4..);
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?;
        let mut answer = Answer::new(body.into());
        *answer.status_mut() = status.parse()?;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let name: HeaderName = name.parse()?;
            // The length of what HEAD leaves out is not that of an answer to GET.
            let of_body = name == header::CONTENT_LENGTH && parts.method != Method::HEAD;
            if name != header::CONNECTION && !of_body {
                answer.headers_mut().append(name, HeaderValue::from_str(value.trim())?);
            }
        }
        Ok(answer)
    }
}

// === impl Storage ===

impl Storage {
    /// `None` if there is no such blob.
    fn answer(&self, parts: &Parts) -> Option<Answer> {
        if parts.headers.contains_key(header::AUTHORIZATION) {
            self.seen.credentials.fetch_add(1, Relaxed);
            return Some(empty(StatusCode::BAD_REQUEST));
        }
        let path = parts.uri.path();
        let query = parts.uri.query().unwrap_or_default().as_bytes();
        let field = |name: &str| {
            form_urlencoded::parse(query).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
        };
        let until = field("token").unwrap_or_default();
        let signature = field("signature").and_then(|hex| hex::decode(hex).ok()).unwrap_or_default();
        if hmac::verify(&self.key, format!("{path} {until}").as_bytes(), &signature).is_err() {
            self.seen.unsigned.fetch_add(1, Relaxed);
            return Some(empty(StatusCode::FORBIDDEN));
        }
        if until.parse::<u128>().ok()? < now().as_millis() {
            self.seen.ended.fetch_add(1, Relaxed);
            return Some(empty(StatusCode::FORBIDDEN));
        }
        // The path is signed: it is a digest and leads nowhere else.
        let file = self.blob(path.strip_prefix('/')?)?;
        let answer = part(&file, parts)?;
        self.seen.served.fetch_add(1, Relaxed);
        Some(answer)
    }

    fn blob(&self, hex: &str) -> Option<File> {
        File::open(self.blobs.join(hex.get(..2)?).join(hex).join("data")).ok()
    }
}

/// The whole file, or the one range that is asked for.
fn part(file: &File, parts: &Parts) -> Option<Answer> {
    let len = file.metadata().ok()?.len();
    let asked =
        parts.headers.get(header::RANGE).and_then(|value| value.to_str().ok()?.strip_prefix("bytes="));
    let range = match asked.and_then(|range| range.split_once('-')) {
        None => 0..len,
        Some(("", suffix)) => len.saturating_sub(suffix.parse().ok()?)..len,
        Some((first, "")) => first.parse().ok()?..len,
        Some((first, last)) => first.parse().ok()?..last.parse::<u64>().ok()?.saturating_add(1).min(len),
    };
    if range.is_empty() {
        return Some(empty(StatusCode::RANGE_NOT_SATISFIABLE));
    }
    let mut bytes = vec![0; usize::try_from(range.end - range.start).ok()?];
    file.read_exact_at(&mut bytes, range.start).ok()?;
    let mut answer = Answer::new(Bytes::from(bytes).into());
    if asked.is_some() {
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        let value = format!("bytes {}-{}/{len}", range.start, range.end - 1).parse().ok()?;
        answer.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    Some(answer)
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

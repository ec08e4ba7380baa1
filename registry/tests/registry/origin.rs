//! A scripted HTTP/1.1 server: a closure answers each request, and the answer may be broken at will.
//!
//! It is written on plain sockets, because what is tested are answers that an HTTP library would refuse
//! to send.

use std::{
    collections::HashMap,
    ops::Range,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::TryStreamExt;
use registry::{Reference, RegistryClient, RegistryConfig, RetryPolicy};
use store::{BlobSource, Class, SourceError};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
    task::JoinHandle,
};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    length: Length,
    delay: Duration,
    /// Stop after this many bytes of the body.
    cut: Option<(usize, Cut)>,
}

#[derive(Debug, Clone, Copy)]
enum Length {
    Honest,
    Claimed(usize),
    Chunked,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    Close,
    Stall,
    /// One byte each half second.
    Trickle,
}

type Script = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

/// The server; it ends when this is dropped.
pub(crate) struct Origin {
    pub(crate) host: String,
    log: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

// === impl Seen ===

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The range that is asked for in a blob of `size` bytes, if one is.
    pub(crate) fn range(&self, size: usize) -> Option<Range<usize>> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        if first.is_empty() {
            return Some(size.saturating_sub(last.parse().unwrap())..size);
        }
        let end = if last.is_empty() { size } else { last.parse::<usize>().unwrap() + 1 };
        Some(first.parse().unwrap()..end.min(size))
    }
}

// === impl Reply ===

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        let (headers, body) = (Vec::new(), Vec::new());
        Self { status, headers, body, length: Length::Honest, delay: Duration::ZERO, cut: None }
    }

    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::status(200) }
    }

    /// What a correct server answers to `seen` for `blob`.
    pub(crate) fn blob(seen: &Seen, blob: &[u8]) -> Self {
        match seen.range(blob.len()) {
            Some(range) if range.is_empty() => {
                Self::status(416).header("content-range", &format!("bytes */{}", blob.len()))
            }
            Some(range) => Self::part(blob, range),
            None => Self::ok(blob),
        }
    }

    /// 206 with this part of `blob`.
    pub(crate) fn part(blob: &[u8], range: Range<usize>) -> Self {
        let value = format!("bytes {}-{}/{}", range.start, range.end - 1, blob.len());
        Self { body: blob[range].to_vec(), ..Self::status(206) }.header("content-range", &value)
    }

    pub(crate) fn redirect(location: &str) -> Self {
        Self::status(307).header("location", location)
    }

    pub(crate) fn bearer(host: &str) -> Self {
        let value =
            format!("Bearer realm=\"http://{host}/token\",service=\"test\",scope=\"repository:a/b:pull\"");
        Self::status(401).header("www-authenticate", &value)
    }

    pub(crate) fn is_ok(&self) -> bool {
        matches!(self.status, 200 | 206)
    }

    /// Sets a header, in place of one with the same name.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    pub(crate) fn cut(mut self, after: usize, how: Cut) -> Self {
        self.cut = Some((after, how));
        self
    }

    pub(crate) fn chunked(mut self) -> Self {
        self.length = Length::Chunked;
        self
    }

    pub(crate) fn claiming(mut self, length: usize) -> Self {
        self.length = Length::Claimed(length);
        self
    }

    pub(crate) fn with_body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    async fn write(self, head: bool, to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<bool> {
        tokio::time::sleep(self.delay).await;
        let mut text = format!("HTTP/1.1 {} Status\r\n", self.status);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        match self.length {
            Length::Honest => text.push_str(&format!("content-length: {}\r\n\r\n", self.body.len())),
            Length::Claimed(length) => text.push_str(&format!("content-length: {length}\r\n\r\n")),
            Length::Chunked => text.push_str("transfer-encoding: chunked\r\n\r\n"),
        }
        to.write_all(text.as_bytes()).await?;
        if head {
            return Ok(true);
        }
        let (send, how) = match self.cut {
            Some((after, how)) => (self.body.get(..after).unwrap_or(&self.body), Some(how)),
            None => (self.body.as_slice(), None),
        };
        if matches!(self.length, Length::Chunked) {
            for piece in send.chunks(1000) {
                to.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
                to.write_all(piece).await?;
                to.write_all(b"\r\n").await?;
            }
            if how.is_none() {
                to.write_all(b"0\r\n\r\n").await?;
            }
        } else {
            to.write_all(send).await?;
        }
        to.flush().await?;
        match how {
            None => return Ok(!matches!(self.length, Length::Claimed(_))),
            Some(Cut::Close) => {}
            Some(Cut::Stall) => tokio::time::sleep(Duration::from_secs(600)).await,
            Some(Cut::Trickle) => {
                for byte in self.body.iter().skip(send.len()) {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    to.write_all(&[*byte]).await?;
                    to.flush().await?;
                }
            }
        }
        Ok(false)
    }
}

// === impl Origin ===

impl Origin {
    pub(crate) async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with_host(move |_| Box::new(script)).await
    }

    /// The script may need to know the server's own address.
    pub(crate) async fn start_with_host(
        make: impl FnOnce(&str) -> Box<dyn Fn(&Seen) -> Reply + Send + Sync>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let script = Arc::from(make(&host));
        let log = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(accept(listener, log.clone(), script, None));
        Self { host, log, task }
    }

    /// On the loopback address of IPv6; `None` where there is none.
    pub(crate) async fn start_v6(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Option<Self> {
        let listener = TcpListener::bind("[::1]:0").await.ok()?;
        let host = listener.local_addr().unwrap().to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(accept(listener, log.clone(), Arc::new(script), None));
        Some(Self { host, log, task })
    }

    pub(crate) async fn start_tls(
        acceptor: tokio_rustls::TlsAcceptor,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(accept(listener, log.clone(), Arc::new(script), Some(acceptor)));
        Self { host, log, task }
    }

    /// All requests so far.
    pub(crate) fn log(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }

    /// The requests whose path begins with `prefix`.
    pub(crate) fn count(&self, prefix: &str) -> usize {
        self.log().iter().filter(|seen| seen.path.starts_with(prefix)).count()
    }

    pub(crate) fn reference(&self) -> Reference {
        format!("{}/a/b:tag", self.host).parse().unwrap()
    }

    /// A blob of this server with a client of its own.
    pub(crate) fn blob(&self, content: &[u8]) -> Arc<dyn BlobSource> {
        self.blob_with(quick(), content)
    }

    pub(crate) fn blob_with(&self, config: RegistryConfig, content: &[u8]) -> Arc<dyn BlobSource> {
        RegistryClient::new(config).unwrap().blob(&self.reference(), estargz::Digest::of(content))
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    log: Arc<Mutex<Vec<Seen>>>,
    script: Script,
    tls: Option<tokio_rustls::TlsAcceptor>,
) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (log, script, tls) = (log.clone(), script.clone(), tls.clone());
        connections.spawn(async move {
            match tls {
                None => serve(socket, log, script).await,
                Some(acceptor) => {
                    if let Ok(socket) = acceptor.accept(socket).await {
                        serve(socket, log, script).await;
                    }
                }
            }
        });
    }
}

/// What a connection with TLS begins with.
const TLS_HANDSHAKE: u8 = 22;

async fn serve(socket: impl AsyncRead + AsyncWrite + Unpin, log: Arc<Mutex<Vec<Seen>>>, script: Script) {
    let mut socket = BufReader::new(socket);
    if socket.fill_buf().await.is_ok_and(|bytes| bytes.first() == Some(&TLS_HANDSHAKE)) {
        // As servers say it who do not know TLS.
        let read = socket.buffer().len();
        socket.consume(read);
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
        let _ = socket.shutdown().await;
        return;
    }
    while let Some(seen) = read_request(&mut socket).await {
        let reply = script(&seen);
        let head = seen.method == "HEAD";
        log.lock().unwrap().push(seen);
        if !reply.write(head, &mut socket).await.unwrap_or(false) {
            return;
        }
    }
}

async fn read_request(from: &mut (impl AsyncBufReadExt + Unpin)) -> Option<Seen> {
    let mut line = String::new();
    from.read_line(&mut line).await.ok()?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |value: &String| value.parse().unwrap());
    let mut body = vec![0; length];
    from.read_exact(&mut body).await.ok()?;
    Some(Seen { method, path, headers, body })
}

/// Settings with which failures end soon.
pub(crate) fn quick() -> RegistryConfig {
    RegistryConfig {
        idle_timeout: Duration::from_secs(2),
        connect_timeout: Duration::from_secs(2),
        retry: RetryPolicy {
            attempts: 4,
            first_delay: Duration::from_millis(10),
            max_delay: Duration::from_millis(50),
            total: Duration::from_secs(10),
        },
        ..RegistryConfig::anonymous()
    }
}

/// Bytes that tell one offset from another.
pub(crate) fn content(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

/// Reads a range to its end, as a reader that waits does.
pub(crate) async fn read(blob: &Arc<dyn BlobSource>, range: Range<u64>) -> Result<Vec<u8>, SourceError> {
    let stream = blob.read_range(range, Class::Demand).await?;
    let pieces: Vec<Bytes> = stream.try_collect().await?;
    Ok(pieces.concat())
}

/// The clock does not jump to the next thing that is due while this lives, at most for ten seconds of real time: then
/// a test that waits for something fails.
pub(crate) fn hold_clock() -> Arc<()> {
    let held = Arc::new(());
    let left = Arc::downgrade(&held);
    tokio::task::spawn_blocking(move || {
        let began = std::time::Instant::now();
        while left.strong_count() > 0 && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    held
}

/// A file in a directory that lives as long as the test's variable.
pub(crate) fn file(text: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, text).unwrap();
    (directory, path)
}

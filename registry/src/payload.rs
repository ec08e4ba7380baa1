//! Bodies of requests, which can be sent more than once.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::header;
use reqwest::{RequestBuilder, Response};
use store::SourceErrorKind as Kind;
use tokio::{
    fs::File,
    io::AsyncReadExt,
    time::{Instant, timeout},
};
use url::Url;

use crate::{
    counters::Count,
    error::Failure,
    exchange::{Call, build},
    transport::Transport,
};

/// Pieces in which files are read and sent.
const PIECE: usize = 256 * 1024;

/// The body of a request.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    /// None.
    Empty,
    /// These bytes.
    Bytes(Bytes),
    /// A whole file of this length.
    File {
        /// Where it is.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
    },
}

impl Payload {
    fn len(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    /// Sends the request with this body. The server may take as long as it likes to answer while the
    /// body is on its way; it is given up when nothing was taken and nothing answered for the idle
    /// time-out.
    pub(crate) async fn send(
        &self,
        transport: &Transport,
        builder: RequestBuilder,
        url: &Url,
        call: &Call<'_>,
    ) -> Result<Response, Failure> {
        let sent = Arc::new(AtomicU64::new(0));
        let pieces = self.pieces().await.map_err(|cause| {
            let mut failure = Failure::fatal(Kind::Unavailable, "cannot read the file to upload");
            failure.error = failure.error.caused_by(cause);
            failure
        })?;
        let counted = {
            let sent = sent.clone();
            pieces.inspect(move |piece| {
                if let Ok(piece) = piece {
                    sent.fetch_add(piece.len() as u64, Relaxed);
                }
            })
        };
        let builder =
            builder.header(header::CONTENT_LENGTH, self.len()).body(reqwest::Body::wrap_stream(counted));
        let request = build(builder, url)?;
        let mut answer = std::pin::pin!(transport.send_unbounded(request));
        let mut before = 0;
        let answer = loop {
            let left = call.deadline.saturating_duration_since(Instant::now());
            match timeout(transport.idle().min(left), &mut answer).await {
                Ok(answer) => break answer,
                Err(_) if sent.load(Relaxed) > before && !left.is_zero() => before = sent.load(Relaxed),
                Err(_) => break Err(Failure::timed_out(url, "no answer to an upload", transport.idle())),
            }
        };
        call.endpoint.counters.add(Count::Sent(sent.load(Relaxed)));
        answer
    }

    async fn pieces(&self) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static + use<>> {
        let (bytes, file) = match self {
            Self::Empty => (Bytes::new(), None),
            Self::Bytes(bytes) => (bytes.clone(), None),
            Self::File { path, .. } => (Bytes::new(), Some(File::open(path).await?)),
        };
        Ok(stream::try_unfold((bytes, file), |(mut bytes, mut file)| async move {
            if !bytes.is_empty() {
                let piece = bytes.split_to(PIECE.min(bytes.len()));
                return Ok(Some((piece, (bytes, file))));
            }
            let Some(open) = &mut file else { return Ok(None) };
            let mut piece = Vec::with_capacity(PIECE);
            let read = open.take(PIECE as u64).read_to_end(&mut piece).await?;
            Ok((read > 0).then(|| (Bytes::from(piece), (bytes, file))))
        }))
    }
}

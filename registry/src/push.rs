//! Writing to a registry (OCI distribution-spec, "Push"): blobs, then the manifests that name them.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use estargz::{Digest, Sha256};
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, Method, header};
use store::{SourceError, SourceErrorKind as Kind};
use tokio::time::Instant;
use url::Url;

use crate::{
    auth::Scope,
    client::{Outgoing, RegistryClient, Target, refused},
    exchange::{Answer, same_origin},
    payload::Payload,
    reference::Reference,
    upstreams::Need,
};

/// What came of an attempt to mount a blob from another repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounted {
    /// The blob is in the repository now.
    Yes,
    /// The registry wants it uploaded.
    No,
}

/// Time for one upload: a floor, and a slow link's time for its bytes.
fn time_for(len: u64) -> std::time::Duration {
    std::time::Duration::from_secs(300 + len / (100 * 1024))
}

// === impl RegistryClient ===

impl RegistryClient {
    /// The size of a blob that the repository has; `None` if it does not have it.
    pub async fn blob_exists(
        &self,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<Option<u64>, SourceError> {
        let scope = Scope::push(reference.repository(), &[]);
        let path = format!("blobs/{digest}");
        let request = Outgoing::new(reference, Need::Push, scope, Method::HEAD, path);
        // A storage service may refuse HEAD on a URL signed for GET: then the blob counts as missing.
        let answer = self.request(&request, &[200, 403, 404, 405]).await?;
        let length =
            answer.header(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        match answer.status().as_u16() {
            200 => Ok(Some(length.unwrap_or(0))),
            403 if answer.trusted => Err(answer.into_failure().await.into()),
            _ => Ok(None),
        }
    }

    /// Takes a blob over from `source`, another repository of the same registry.
    pub async fn mount(
        &self,
        reference: &Reference,
        digest: &Digest,
        source: &str,
    ) -> Result<Mounted, SourceError> {
        let scope = Scope::push(reference.repository(), &[source]);
        let mut request = Outgoing::new(reference, Need::Push, scope, Method::POST, String::new());
        let query = [("mount", digest.to_string()), ("from", source.to_owned())];
        let query = query.map(|(name, value)| (name.to_owned(), value)).to_vec();
        request.target = Target::Query("blobs/uploads/".to_owned(), query);
        let answer = self.request(&request, &[201, 202, 404, 405]).await?;
        if answer.status().as_u16() == 201 {
            return Ok(Mounted::Yes);
        }
        // The registry opened an upload instead; it is not kept open. Nothing depends on that.
        if let Ok(session) = self.session(reference, &answer).await {
            self.cancel(reference, session).await;
        }
        Ok(Mounted::No)
    }

    /// Uploads a file whose digest is known.
    pub async fn upload_file(
        &self,
        reference: &Reference,
        digest: &Digest,
        path: &Path,
    ) -> Result<(), SourceError> {
        let metadata = tokio::fs::metadata(path).await.map_err(|cause| {
            SourceError::new(Kind::Unavailable, format!("cannot read {}: {cause}", path.display()))
                .caused_by(cause)
        })?;
        let payload = Payload::File { path: path.to_owned(), len: metadata.len() };
        self.upload(reference, digest, payload, metadata.len()).await
    }

    /// Uploads bytes; gives their digest.
    pub async fn upload_bytes(&self, reference: &Reference, bytes: Bytes) -> Result<Digest, SourceError> {
        let digest = Digest::of(&bytes);
        let len = bytes.len() as u64;
        self.upload(reference, &digest, Payload::Bytes(bytes), len).await?;
        Ok(digest)
    }

    /// Uploads a stream of unknown length and digest, in pieces; gives both.
    pub async fn upload_stream<S>(
        &self,
        reference: &Reference,
        stream: S,
    ) -> Result<(Digest, u64), SourceError>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send,
    {
        let mut stream = std::pin::pin!(stream);
        let (mut hasher, mut sent, mut held) = (Sha256::new(), 0_u64, BytesMut::new());
        let mut session = self.open_session(reference).await?;
        while let Some(bytes) = stream.next().await {
            let bytes = bytes.map_err(|cause| {
                SourceError::new(Kind::Unavailable, format!("cannot read what is to be uploaded: {cause}"))
                    .caused_by(cause)
            })?;
            hasher.update(&bytes);
            held.extend_from_slice(&bytes);
            while held.len() >= self.config.upload_chunk.max(1) {
                let piece = held.split_to(self.config.upload_chunk.max(1)).freeze();
                let len = piece.len() as u64;
                session = self.append(reference, session, sent, piece).await?;
                sent += len;
            }
        }
        let digest = hasher.finish();
        let rest = held.freeze();
        let size = sent + rest.len() as u64;
        if sent > 0 && !rest.is_empty() {
            session = self.append(reference, session, sent, rest).await?;
            self.close(reference, session, &digest, Bytes::new()).await?;
        } else {
            self.close(reference, session, &digest, rest).await?;
        }
        Ok((digest, size))
    }

    /// Uploads a manifest or index under the reference's tag, or without one under its digest; gives
    /// its digest.
    pub async fn put_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Digest, SourceError> {
        let digest = Digest::of(&bytes);
        if let Some(pinned) = reference.digest().filter(|pinned| *pinned != digest) {
            return Err(refused(format!(
                "the manifest for {reference} has the digest {digest} instead of {pinned}"
            )));
        }
        let selector = reference.tag().map_or_else(|| digest.to_string(), str::to_owned);
        let scope = Scope::push(reference.repository(), &[]);
        let path = format!("manifests/{selector}");
        let mut request = Outgoing::new(reference, Need::Push, scope, Method::PUT, path);
        let media_type = HeaderValue::from_str(media_type)
            .map_err(|_| refused(format!("{media_type:?} is not a media type")))?;
        request.headers.insert(header::CONTENT_TYPE, media_type);
        request.payload = Payload::Bytes(bytes);
        self.request(&request, &[200, 201, 202]).await?;
        Ok(digest)
    }

    /// One upload in one request. A session that broke cannot be relied on: each attempt opens a new one.
    async fn upload(
        &self,
        reference: &Reference,
        digest: &Digest,
        payload: Payload,
        len: u64,
    ) -> Result<(), SourceError> {
        let mut backoff = self.backoff();
        loop {
            let mut url = self.open_session(reference).await?;
            let endpoint = self.pushed_to(reference).await?;
            url.query_pairs_mut().append_pair("digest", &digest.to_string());
            let mut request = self.to_session(reference, Method::PUT, url);
            request.payload = payload.clone();
            let deadline = Instant::now() + time_for(len);
            let failure = match self.request_once(&request, &endpoint, deadline).await {
                Ok(answer) => match answer.expect(&[201, 204]).await {
                    Ok(_) => return Ok(()),
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            backoff.again(failure, Some(&endpoint)).await?;
        }
    }

    async fn open_session(&self, reference: &Reference) -> Result<Url, SourceError> {
        let scope = Scope::push(reference.repository(), &[]);
        let path = "blobs/uploads/".to_owned();
        let request = Outgoing::new(reference, Need::Push, scope, Method::POST, path);
        let answer = self.request(&request, &[202]).await?;
        self.session(reference, &answer).await
    }

    async fn append(
        &self,
        reference: &Reference,
        session: Url,
        offset: u64,
        piece: Bytes,
    ) -> Result<Url, SourceError> {
        let last = offset + (piece.len() as u64).saturating_sub(1);
        let mut request = self.to_session(reference, Method::PATCH, session);
        request.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        request.headers.extend(
            HeaderValue::try_from(format!("{offset}-{last}")).map(|value| (header::CONTENT_RANGE, value)),
        );
        request.deadline = Some(Instant::now() + time_for(piece.len() as u64));
        request.payload = Payload::Bytes(piece);
        let answer = self.request(&request, &[202]).await?;
        self.session(reference, &answer).await
    }

    async fn close(
        &self,
        reference: &Reference,
        mut session: Url,
        digest: &Digest,
        rest: Bytes,
    ) -> Result<(), SourceError> {
        session.query_pairs_mut().append_pair("digest", &digest.to_string());
        let mut request = self.to_session(reference, Method::PUT, session);
        request.deadline = Some(Instant::now() + time_for(rest.len() as u64));
        request.payload = Payload::Bytes(rest);
        self.request(&request, &[201, 204]).await.map(drop)
    }

    async fn cancel(&self, reference: &Reference, session: Url) {
        let request = self.to_session(reference, Method::DELETE, session);
        if let Ok(endpoint) = self.pushed_to(reference).await {
            let _ = self.request_once(&request, &endpoint, Instant::now() + self.config.idle_timeout).await;
        }
    }

    fn to_session<'a>(&self, reference: &'a Reference, method: Method, session: Url) -> Outgoing<'a> {
        let scope = Scope::push(reference.repository(), &[]);
        let request = Outgoing::new(reference, Need::Push, scope, method, String::new());
        Outgoing { target: Target::Url(session), ..request }
    }

    /// The URL of an upload that the registry opened. It gets our credentials, so it must be the
    /// registry's own.
    async fn session(&self, reference: &Reference, answer: &Answer) -> Result<Url, SourceError> {
        let endpoint = self.pushed_to(reference).await?;
        let location = answer.header(header::LOCATION).and_then(|value| value.to_str().ok());
        let url = location.and_then(|location| answer.body.url().join(location).ok());
        match url {
            Some(url) if same_origin(&url, &endpoint.base) => Ok(url),
            Some(_) => Err(refused(format!("{} wants uploads sent to another host", endpoint.name))),
            None => Err(refused(format!("{} does not say where to upload to", endpoint.name))),
        }
    }
}

//! Bodies of answers: small ones at once, blobs piece by piece through the shaper, cut or spoilt on request.

use std::{io, ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::stream;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use serde_json::Value;

use super::{contents::Blob, log::Entry, serve::State};

/// An answer's body.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What is handed to the connection at a time, in bytes.
const PIECE: u64 = 128 << 10;

/// How a blob's body is spoilt.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spoilt {
    /// Close the connection after so many bytes.
    pub(super) cut_after: Option<u64>,
    /// Send nothing more after so many bytes.
    pub(super) stall_after: Option<u64>,
    /// Flip a bit at this offset, modulo the length.
    pub(super) flip_at: Option<u64>,
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}

/// An answer with `bytes` as its body.
pub(super) fn full(status: StatusCode, content_type: &str, bytes: Bytes) -> Response<Body> {
    let mut response = empty(status);
    if let Ok(value) = content_type.parse() {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response.headers_mut().insert(header::CONTENT_LENGTH, bytes.len().into());
    *response.body_mut() = Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
    response
}

/// An answer with a JSON body.
pub(super) fn json(status: StatusCode, value: &Value) -> Response<Body> {
    full(status, "application/json", value.to_string().into())
}

/// The bytes of `range` of `blob`, at the pace of the shaper.
pub(super) fn blob(state: Arc<State>, entry: Entry, blob: Blob, range: Range<u64>, spoilt: Spoilt) -> Body {
    let sending = Sending { state, entry, blob, next: range.start, range, spoilt };
    let pieces = stream::unfold(Some(sending), |sending| async move {
        let mut sending = sending?;
        match sending.piece().await {
            Ok(Some(bytes)) => Some((Ok(Frame::data(bytes)), Some(sending))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    StreamBody::new(pieces).boxed_unsync()
}

struct Sending {
    state: Arc<State>,
    entry: Entry,
    blob: Blob,
    range: Range<u64>,
    next: u64,
    spoilt: Spoilt,
}

impl Sending {
    /// The next piece; `None` at the end; an error closes the connection.
    async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        let sent = self.next - self.range.start;
        let mut end = self.range.end.min(self.next + PIECE);
        if self.spoilt.cut_after.is_some_and(|cut| sent >= cut) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if self.spoilt.stall_after.is_some_and(|stall| sent >= stall) {
            self.state.released.notified().await;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        for limit in [self.spoilt.cut_after, self.spoilt.stall_after].into_iter().flatten() {
            end = end.min(self.range.start + limit);
        }
        if self.next >= self.range.end {
            return Ok(None);
        }
        let mut bytes = self.blob.read(self.next..end)?;
        if let Some(flip) = self.spoilt.flip_at {
            let at = self.range.start + flip % (self.range.end - self.range.start).max(1);
            if (self.next..end).contains(&at) {
                let mut spoilt = bytes.to_vec();
                let index = usize::try_from(at - self.next).unwrap_or(0);
                if let Some(byte) = spoilt.get_mut(index) {
                    *byte ^= 1;
                }
                bytes = spoilt.into();
            }
        }
        self.state.shaper.send(bytes.len()).await;
        self.next = end;
        self.entry.sent(bytes.len() as u64);
        Ok(Some(bytes))
    }
}

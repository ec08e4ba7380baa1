//! Pushes: blobs in one or several pieces, mounts, manifests.

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header};
use url::form_urlencoded;

use super::{
    body::{self, Body},
    contents::digest_of,
    serve::State,
};

/// A step of a blob's upload: POST begins, PATCH adds, PUT ends.
pub(super) fn blob(
    state: &State,
    repository: &str,
    number: &str,
    method: &Method,
    query: &str,
    received: &[u8],
) -> Response<Body> {
    let parameter = |name: &str| {
        form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    };
    let mut contents = state.contents.lock();
    if *method == Method::POST {
        if let Some(digest) = parameter("mount").filter(|digest| contents.blob(digest).is_some()) {
            return at(StatusCode::CREATED, &format!("/v2/{repository}/blobs/{digest}"));
        }
        contents.next_upload += 1;
        let number = contents.next_upload;
        contents.uploads.insert(number, Vec::new());
        if let Some(digest) = parameter("digest") {
            contents.uploads.remove(&number);
            return finish(&mut contents, repository, received.to_vec(), &digest);
        }
        return at(StatusCode::ACCEPTED, &format!("/v2/{repository}/blobs/uploads/{number}"));
    }
    let Some(mut upload) = number.parse().ok().and_then(|number: u64| contents.uploads.remove(&number))
    else {
        return body::empty(StatusCode::NOT_FOUND);
    };
    upload.extend_from_slice(received);
    if *method == Method::PUT {
        return finish(&mut contents, repository, upload, &parameter("digest").unwrap_or_default());
    }
    let last = upload.len().saturating_sub(1);
    contents.uploads.insert(number.parse().unwrap_or(0), upload);
    let mut response = at(StatusCode::ACCEPTED, &format!("/v2/{repository}/blobs/uploads/{number}"));
    if let Ok(value) = format!("0-{last}").parse() {
        response.headers_mut().insert(header::RANGE, value);
    }
    response
}

/// Stores a manifest.
pub(super) fn manifest(
    state: &State,
    repository: &str,
    reference: &str,
    headers: &HeaderMap,
    received: Bytes,
) -> Response<Body> {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let subject = serde_json::from_slice::<serde_json::Value>(&received)
        .ok()
        .and_then(|manifest| Some(manifest.pointer("/subject/digest")?.as_str()?.to_owned()));
    let digest = state.contents.lock().add_manifest(repository, reference, media_type, received);
    let mut response = at(StatusCode::CREATED, &format!("/v2/{repository}/manifests/{digest}"));
    if let Ok(value) = digest.parse() {
        response.headers_mut().insert("docker-content-digest", value);
    }
    let subject = subject.filter(|_| !state.behaviour.lock().no_referrers);
    if let Some(value) = subject.and_then(|subject| subject.parse().ok()) {
        response.headers_mut().insert("oci-subject", value);
    }
    response
}

fn finish(
    contents: &mut super::contents::Contents,
    repository: &str,
    upload: Vec<u8>,
    digest: &str,
) -> Response<Body> {
    if digest_of(&upload) != digest {
        return body::empty(StatusCode::BAD_REQUEST);
    }
    contents.add_blob(upload.into());
    let mut response = at(StatusCode::CREATED, &format!("/v2/{repository}/blobs/{digest}"));
    if let Ok(value) = digest.parse() {
        response.headers_mut().insert("docker-content-digest", value);
    }
    response
}

fn at(status: StatusCode, location: &str) -> Response<Body> {
    let mut response = body::empty(status);
    if let Ok(value) = location.parse() {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

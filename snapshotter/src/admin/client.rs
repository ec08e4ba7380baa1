//! Asking a running daemon.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::de::DeserializeOwned;

use super::{CachedLayer, CredentialStatus, Pruned, Status, Verified};
use crate::profile::Document;

/// A daemon answers from memory; one that takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(10);
/// Credential providers may have to ask a cloud.
const PROVIDER_PATIENCE: Duration = Duration::from_secs(120);
/// What has to do with the disk takes longer: gigabytes are deleted, or read.
const DISK_PATIENCE: Duration = Duration::from_secs(600);
/// A status has some hundred bytes for each layer and image.
const MOST_BYTES: u64 = 256 << 20;

/// A daemon did not say what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody answers there.
    #[error("cannot reach the daemon on {path}: is starlingd running, and are you root?")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The daemon does not know what it was asked for.
    #[error("{0}")]
    Unknown(String),
    /// The answer is not what a daemon says.
    #[error("what answers on {path} is not starlingd, or is of another version: {answer}")]
    Unexpected {
        /// The socket.
        path: PathBuf,
        /// The beginning of the answer.
        answer: String,
    },
}

/// The status of the daemon whose admin socket is `socket`.
///
/// # Errors
/// No daemon answers, or not with a status.
pub fn ask_status(socket: &Path) -> Result<Status, AskError> {
    let body = ask(socket, "/status")?;
    understood(socket, &body)
}

/// The metrics of the daemon whose admin socket is `socket`, as text.
///
/// # Errors
/// No daemon answers, or it serves no metrics.
pub fn ask_metrics(socket: &Path) -> Result<String, AskError> {
    ask(socket, "/metrics")
}

/// What the daemon whose admin socket is `socket` knows of the order in which `image` is read.
///
/// # Errors
/// No daemon answers, or it knows nothing of the image.
pub fn ask_profile(socket: &Path, image: &str) -> Result<Document, AskError> {
    let query: String = url::form_urlencoded::byte_serialize(image.as_bytes()).collect();
    let body = ask(socket, &format!("/profile?image={query}"))?;
    understood(socket, &body)
}

/// Which sources of credentials the daemon whose admin socket is `socket` asks for `image`, and what they know.
///
/// # Errors
/// No daemon answers, or `image` is no name of an image.
pub fn ask_credentials(socket: &Path, image: &str) -> Result<Vec<CredentialStatus>, AskError> {
    let query: String = url::form_urlencoded::byte_serialize(image.as_bytes()).collect();
    let page = format!("/credentials?image={query}");
    understood(socket, &ask_how(socket, "GET", &page, PROVIDER_PATIENCE)?)
}

/// The layers that the daemon whose admin socket is `socket` has on disk.
///
/// # Errors
/// No daemon answers, or not with layers.
pub fn ask_cache(socket: &Path) -> Result<Vec<CachedLayer>, AskError> {
    understood(socket, &ask_how(socket, "GET", "/cache", DISK_PATIENCE)?)
}

/// Has the daemon delete layers that no snapshot refers to until all layers take no more than `keep` bytes.
///
/// # Errors
/// No daemon answers.
pub fn ask_prune(socket: &Path, keep: u64) -> Result<Pruned, AskError> {
    understood(socket, &ask_how(socket, "POST", &format!("/cache/prune?keep={keep}"), DISK_PATIENCE)?)
}

/// Has the daemon look at some chunks of the layer `key` again, from the chunk `from` on.
///
/// # Errors
/// No daemon answers, or it does not know the layer.
pub fn ask_verify(socket: &Path, key: &str, from: u32) -> Result<Verified, AskError> {
    let key: String = url::form_urlencoded::byte_serialize(key.as_bytes()).collect();
    let page = format!("/cache/verify?layer={key}&from={from}");
    understood(socket, &ask_how(socket, "POST", &page, DISK_PATIENCE)?)
}

fn understood<T: DeserializeOwned>(socket: &Path, body: &str) -> Result<T, AskError> {
    serde_json::from_str(body)
        .map_err(|error| AskError::Unexpected { path: socket.to_owned(), answer: error.to_string() })
}

fn ask(socket: &Path, page: &str) -> Result<String, AskError> {
    ask_how(socket, "GET", page, PATIENCE)
}

fn ask_how(socket: &Path, method: &str, page: &str, patience: Duration) -> Result<String, AskError> {
    let answer = exchange(socket, method, page, patience)
        .map_err(|source| AskError::Unreachable { path: socket.to_owned(), source })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    match head.split(' ').nth(1) {
        Some("200") => return Ok(body.to_owned()),
        // An unknown page has no text, an unknown image a reason.
        Some("404") if !body.is_empty() => return Err(AskError::Unknown(body.to_owned())),
        _ => {}
    }
    Err(AskError::Unexpected { path: socket.to_owned(), answer: answer.chars().take(200).collect() })
}

/// HTTP/1.0: the answer ends with the connection and is in one piece.
fn exchange(socket: &Path, method: &str, page: &str, patience: Duration) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{method} {page} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(MOST_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use super::*;

    #[test]
    fn what_is_no_daemon_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        assert!(ask_status(&path).unwrap_err().to_string().contains("is starlingd running"));
        let listener = UnixListener::bind(&path).unwrap();
        let other = thread::spawn(move || {
            for answer in ["HTTP/1.0 404 Not Found\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n{}", "hello"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 64];
                assert!(stream.read(&mut request).unwrap() > 0);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        for words in ["404", "missing field", "hello"] {
            let error = ask_status(&path).unwrap_err().to_string();
            assert!(error.contains("is not starlingd") && error.contains(words), "{error}");
        }
        other.join().unwrap();
    }
}

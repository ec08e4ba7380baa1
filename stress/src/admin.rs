//! What the daemon says of itself on its admin socket.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A daemon's admin socket.
#[derive(Debug, Clone)]
pub(crate) struct Admin(PathBuf);

// === impl Admin ===

impl Admin {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self(socket)
    }

    /// The value of the metric `name`, summed over its labels.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        let text = ask(&self.0, "GET", "/metrics")?;
        let values = text.lines().filter_map(|line| {
            let (key, value) = line.rsplit_once(' ')?;
            (key.split('{').next()? == name).then(|| value.parse::<f64>().ok())?
        });
        Ok(values.sum())
    }

    /// The layer with this blob: its key.
    pub(crate) fn layer(&self, blob: &str) -> Result<String> {
        let layers: Value = serde_json::from_str(&ask(&self.0, "GET", "/cache")?)?;
        let found = layers.as_array().into_iter().flatten().find(|layer| layer["blob"] == blob);
        let key =
            found.and_then(|layer| layer["key"].as_str()).context("the daemon does not know the layer")?;
        Ok(key.to_owned())
    }

    /// Has the whole layer `key` looked at again; how many chunks were damaged.
    pub(crate) fn verify(&self, key: &str) -> Result<u64> {
        let (mut from, mut damaged) = (0, 0);
        loop {
            let page = format!("/cache/verify?layer={key}&from={from}");
            let done: Value = serde_json::from_str(&ask(&self.0, "POST", &page)?)?;
            damaged += done["damaged"].as_array().map_or(0, |chunks| chunks.len() as u64);
            match done["next"].as_u64() {
                Some(next) => from = next,
                None => return Ok(damaged),
            }
        }
    }
}

fn ask(socket: &Path, method: &str, page: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket).context("connect to the admin socket")?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "{method} {page} HTTP/1.0\r\nHost: admin\r\nContent-Length: 0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("read from the admin socket")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a head")?;
    ensure!(head.split(' ').nth(1) == Some("200"), "{page}: {answer}");
    Ok(body.to_owned())
}

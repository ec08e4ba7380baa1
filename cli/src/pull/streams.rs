//! The streams beside a transfer: containerd reports progress on one and asks for credentials on another.

use std::{
    collections::HashMap,
    process,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use prost::Name;
use prost_types::Any;
use proto::{
    streaming::{StreamInit, streaming_client::StreamingClient},
    types::transfer::{AuthRequest, AuthResponse, AuthType, Progress as Report},
};
use registry::{CredentialQuery, CredentialSource, Credentials, Reference};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::containerd::{Containerd, said};
use crate::progress::{Bar, Progress, human};

/// A stream that containerd knows by its id.
#[derive(Debug)]
pub(super) struct Stream {
    id: String,
    to: mpsc::Sender<Any>,
    from: Streaming<Any>,
}

/// A message with the name of its type. containerd's library writes the bare name, without a host.
pub(super) fn to_any<M: Name>(message: &M) -> Any {
    Any { type_url: M::full_name(), value: message.encode_to_vec() }
}

fn from_any<M: Name + Default>(any: &Any) -> Option<M> {
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    if name == M::full_name() { M::decode(any.value.as_slice()).ok() } else { None }
}

// === impl Stream ===

impl Stream {
    /// Opens a stream; containerd has it when this returns.
    pub(super) async fn open(containerd: &Containerd, purpose: &str) -> Result<Self> {
        let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let id = format!("starling-{purpose}-{}-{nanoseconds}", process::id());
        let (to, messages) = mpsc::channel(16);
        to.send(to_any(&StreamInit { id: id.clone() })).await.context("a stream ended early")?;
        let answer = StreamingClient::new(containerd.channel()).stream(ReceiverStream::new(messages)).await;
        let mut from = answer.map_err(said)?.into_inner();
        from.message().await.map_err(said)?.context("containerd closed a stream at once")?;
        Ok(Self { id, to, from })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }
}

/// Answers containerd's questions for credentials until it has no more.
pub(super) async fn give_credentials(
    mut stream: Stream,
    reference: Reference,
    sources: Vec<Arc<dyn CredentialSource>>,
    progress: Progress,
) {
    while let Ok(Some(message)) = stream.from.message().await {
        let Some(request) = from_any::<AuthRequest>(&message) else { continue };
        let found = find(&request.host, &reference, &sources, &progress).await;
        if stream.to.send(to_any(&response(found, &progress))).await.is_err() {
            return;
        }
    }
}

async fn find(
    host: &str,
    reference: &Reference,
    sources: &[Arc<dyn CredentialSource>],
    progress: &Progress,
) -> Option<Credentials> {
    // containerd names the host that serves; credentials are kept for the name in the reference.
    let host = if host == reference.api_host() { reference.host() } else { host };
    for source in sources {
        match source.credentials(CredentialQuery { host, repository: reference.repository() }).await {
            Ok(Some(found)) => return Some(found),
            Ok(None) => {}
            Err(error) => progress.line(&format!("{}: {error}", source.describe())),
        }
    }
    None
}

fn response(credentials: Option<Credentials>, progress: &Progress) -> AuthResponse {
    let (kind, username, secret) = match credentials {
        Some(Credentials::Password { username, password }) => (AuthType::Credentials, username, password),
        Some(Credentials::IdentityToken(token)) => (AuthType::Refresh, String::new(), token),
        Some(Credentials::RegistryToken(_)) => {
            // containerd's registry client drops headers that it is sent here.
            progress.line("containerd cannot use a registry token; going on without credentials");
            return AuthResponse::default();
        }
        None => return AuthResponse::default(),
    };
    AuthResponse {
        auth_type: kind.into(),
        secret: secret.expose().to_owned(),
        username,
        ..AuthResponse::default()
    }
}

/// Shows what containerd downloads and unpacks until it has nothing more to say.
pub(super) async fn show_progress(mut stream: Stream, progress: Progress) {
    let mut bars = HashMap::new();
    while let Ok(Some(message)) = stream.from.message().await {
        if let Some(report) = from_any::<Report>(&message) {
            show(&report, &mut bars, &progress);
        }
    }
}

fn show(report: &Report, bars: &mut HashMap<String, Bar>, progress: &Progress) {
    let total = u64::try_from(report.total).unwrap_or(0);
    match report.event.as_str() {
        "downloading" | "extracting" => {
            let what = || format!("{} {}", report.event, short(&report.name));
            let bar = bars.entry(report.name.clone()).or_insert_with(|| progress.bytes(what(), total));
            bar.set(u64::try_from(report.progress).unwrap_or(0));
        }
        "complete" | "extracted" => {
            bars.remove(&report.name);
            // Documents are small and many; layers are what people wait for.
            if report.name.starts_with("layer-") {
                let done = if report.event == "complete" { "downloaded" } else { "unpacked" };
                progress.line(&format!("{} {done}, {}", short(&report.name), human(total)));
            }
        }
        _ => {}
    }
}

/// `layer-sha256:<64 digits>` with twelve digits.
fn short(name: &str) -> String {
    match name.split_once("sha256:") {
        Some((kind, digits)) => format!("{kind}sha256:{}", digits.chars().take(12).collect::<String>()),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use registry::{Secret, StaticCredentials};

    use super::*;

    #[test]
    fn types_have_containerds_names() {
        let any = to_any(&StreamInit { id: "x".into() });
        assert_eq!(any.type_url, "containerd.services.streaming.v1.StreamInit");
        assert_eq!(from_any::<StreamInit>(&any).unwrap().id, "x");
        assert!(from_any::<AuthRequest>(&any).is_none());
        let hosted = Any { type_url: format!("type.googleapis.com/{}", any.type_url), ..any };
        assert_eq!(from_any::<StreamInit>(&hosted).unwrap().id, "x");
    }

    #[tokio::test]
    async fn credentials_are_those_of_the_name_in_the_reference() {
        let password =
            |password: &str| Credentials::Password { username: "me".into(), password: Secret::new(password) };
        let hosts = vec![("docker.io".to_owned(), password("a")), ("mirror:5000".to_owned(), password("b"))];
        let sources: Vec<Arc<dyn CredentialSource>> = vec![Arc::new(StaticCredentials { hosts })];
        let reference: Reference = "busybox".parse().unwrap();
        let progress = Progress::new(true);
        for (host, secret) in [(reference.api_host(), "a"), ("mirror:5000", "b"), ("other", "")] {
            let answer = response(find(host, &reference, &sources, &progress).await, &progress);
            assert_eq!(answer.secret, secret);
            let kind = if secret.is_empty() { AuthType::None } else { AuthType::Credentials };
            assert_eq!(answer.auth_type(), kind);
        }
    }
}

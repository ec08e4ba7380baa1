//! kubelet's credential-provider plugins: its configuration file and the programs that it names.
//!
//! The rules are kubelet's (k8s.io/kubernetes `pkg/credentialprovider/plugin`): all providers with a
//! pattern for the image are asked, and of their answers all logins that match it are tried. An answer is
//! kept as long as the plugin says, for the image, its registry or everything. Other than kubelet we read
//! the configuration again when it has changed, and ask a plugin again when its login was refused.
//!
//! A plugin that needs a pod's service account cannot be asked here and is left out: no pod is known.

mod cache;
mod config;
mod duration;
mod protocol;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::warn;

use self::{
    cache::{Cache, Found},
    config::{Loaded, Provider},
};
use super::{
    CredentialError, CredentialQuery, CredentialSource, Credentials, SourceKind, keyring::Keyring,
    program::Program, shared_run::SharedRuns,
};
use crate::aside::Flight;

/// How long a plugin may take; it may have to ask a cloud's metadata service. A read waits for it.
const PLUGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// kubelet's credential-provider plugins as a source of credentials.
#[derive(Debug)]
pub struct KubeletPlugins {
    config: PathBuf,
    programs: PathBuf,
    timeout: Duration,
    reading: Flight<Result<Arc<[Provider]>, CredentialError>>,
    /// Never locked while the configuration is read.
    loaded: Arc<Mutex<Option<Loaded>>>,
    cache: Cache,
    running: SharedRuns<(String, String), Result<Found, CredentialError>>,
}

// === impl KubeletPlugins ===

impl KubeletPlugins {
    /// `config` and `programs` are what kubelet is given with `--image-credential-provider-config` (a file,
    /// or a directory of files) and `--image-credential-provider-bin-dir`.
    pub fn new(config: impl Into<PathBuf>, programs: impl Into<PathBuf>) -> Self {
        Self {
            config: config.into(),
            programs: programs.into(),
            timeout: PLUGIN_TIMEOUT,
            reading: Flight::default(),
            loaded: Arc::default(),
            cache: Cache::default(),
            running: SharedRuns::default(),
        }
    }

    /// The same with another time-out for plugins.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The providers of the configuration, read again if it has changed; those of before if the disk hangs.
    async fn providers(&self) -> Result<Arc<[Provider]>, CredentialError> {
        let (loaded, config) = (self.loaded.clone(), self.config.clone());
        let read = self.reading.ask(move || {
            let known = loaded.lock().clone();
            let current = Loaded::read(&config, known)?;
            let providers = current.providers.clone();
            *loaded.lock() = Some(current);
            Ok(providers)
        });
        read.await.unwrap_or_else(|cause| {
            let known = self.loaded.lock().as_ref().map(|loaded| loaded.providers.clone());
            known.ok_or_else(|| config::unread(&self.config, cause))
        })
    }

    /// What `provider` knows for the image: remembered, or asked now.
    async fn ask(&self, provider: &Provider, query: CredentialQuery<'_>) -> Result<Found, CredentialError> {
        if let Some(found) = self.cache.get(&provider.name, query, Instant::now()) {
            return Ok(found);
        }
        let image = image(query);
        let run = || async {
            // Another run may have ended while this one waited.
            if let Some(found) = self.cache.get(&provider.name, query, Instant::now()) {
                return Ok(found);
            }
            let (found, keep) = self.run(provider, &image).await?;
            if let Some(keep) = keep {
                self.cache.put(&provider.name, query, keep, found.clone(), Instant::now());
            }
            Ok(found)
        };
        self.running.ask(&(provider.name.clone(), image.clone()), run).await
    }

    async fn run(
        &self,
        provider: &Provider,
        image: &str,
    ) -> Result<(Found, Option<cache::Keep>), CredentialError> {
        let path: PathBuf = self.programs.join(&provider.name);
        let program = Program {
            what: "credential provider",
            path: path.as_os_str(),
            arguments: &provider.arguments,
            environment: &provider.environment,
            limit: self.timeout,
        };
        let answer = program.run(&protocol::request(&provider.api_version, image)).await?;
        if !answer.succeeded {
            return Err(failed(&path, image, "failed"));
        }
        protocol::response(&answer.output, provider)
            .map_err(|why| failed(&path, image, &format!("gave an answer that {why}")))
    }
}

#[async_trait]
impl CredentialSource for KubeletPlugins {
    fn describe(&self) -> String {
        format!("kubelet's credential providers of {}", self.config.display())
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Kubelet
    }

    async fn credentials(&self, query: CredentialQuery<'_>) -> Result<Option<Credentials>, CredentialError> {
        Ok(self.candidates(query).await?.into_iter().next())
    }

    async fn candidates(&self, query: CredentialQuery<'_>) -> Result<Vec<Credentials>, CredentialError> {
        let (mut logins, mut failure) = (Vec::new(), None);
        for provider in self.providers().await?.iter().filter(|provider| provider.serves(query)) {
            match self.ask(provider, query).await {
                Ok(found) => logins.extend(found.iter().cloned()),
                Err(error) => {
                    // The other providers may know the image.
                    warn!(provider = provider.name, host = query.host, %error, "a credential provider failed");
                    failure = failure.or(Some(error));
                }
            }
        }
        let found = Keyring::new(logins).lookup(query.host, query.repository);
        match failure {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    }

    fn refused(&self, _: CredentialQuery<'_>, credentials: &Credentials) {
        self.cache.forget(credentials, Instant::now());
    }
}

/// What a plugin is asked for: the image's name without tag and digest, as kubelet has it.
fn image(query: CredentialQuery<'_>) -> String {
    format!("{}/{}", query.host, query.repository)
}

fn failed(path: &Path, image: &str, how: &str) -> CredentialError {
    let path = path.display();
    CredentialError::new(format!(
        "the credential provider {path} {how} for {image}; run it by hand to see why"
    ))
}

#[cfg(test)]
mod tests;

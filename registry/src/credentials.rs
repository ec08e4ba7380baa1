//! Where credentials come from.
//!
//! Sources are asked in order whenever a token is about to be fetched, so that a rotated credential
//! needs no restart. What they know is tried in their order until something is accepted, and anonymous
//! access last. A source that fails is skipped with a warning: an anonymous read may succeed, and if it
//! does not, the error says which source failed.

mod docker;
mod entry;
mod explain;
mod helper_protocol;
mod keyring;
mod kind;
mod kubelet;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod password_file;
mod pattern;
mod program;
mod remembered;
mod shared_run;

use std::{fmt, io, sync::Arc};

use async_trait::async_trait;

pub use docker::DockerConfig;
pub use explain::{Knowledge, SourceReport, explain};
pub use kind::SourceKind;
pub use kubelet::KubeletPlugins;
#[cfg(feature = "kubernetes")]
pub use kubernetes::{ClusterAccess, ClusterError, KubernetesSecrets};
pub use password_file::PasswordFile;
pub use remembered::{Login, Pull, RememberedCredentials};

/// A text that must not appear in logs, messages or metrics.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// What authenticates us to a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user name and password (or access token used as one).
    Password {
        /// The user's name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// An OAuth refresh token, which the token service turns into access tokens.
    IdentityToken(Secret),
    /// A token to be sent to the registry as it is.
    RegistryToken(Secret),
}

/// For what credentials are needed.
#[derive(Debug, Clone, Copy)]
pub struct CredentialQuery<'a> {
    /// The host of the image's name (`docker.io`, not the host that serves it), with its port.
    pub host: &'a str,
    /// The repository's path.
    pub repository: &'a str,
}

/// A place that may know credentials.
#[async_trait]
pub trait CredentialSource: Send + Sync + fmt::Debug {
    /// What this is, for messages; never holds a secret.
    fn describe(&self) -> String;

    /// Its class, for counters.
    fn kind(&self) -> SourceKind {
        SourceKind::Other
    }

    /// The credentials for `query`, `None` if this source has none.
    async fn credentials(&self, query: CredentialQuery<'_>) -> Result<Option<Credentials>, CredentialError>;

    /// Everything for `query` that this source has, the likeliest first.
    async fn candidates(&self, query: CredentialQuery<'_>) -> Result<Vec<Credentials>, CredentialError> {
        Ok(self.credentials(query).await?.into_iter().collect())
    }

    /// Credentials of this source, perhaps kept from earlier, were refused for `query`.
    fn refused(&self, _query: CredentialQuery<'_>, _credentials: &Credentials) {}
}

/// A credential source failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct CredentialError {
    message: String,
    #[source]
    cause: Option<Arc<io::Error>>,
}

/// The same credentials for every repository of some hosts, from our own configuration.
#[derive(Debug, Clone, Default)]
pub struct StaticCredentials {
    /// Pairs of a host, as images name it, and its credentials.
    pub hosts: Vec<(String, Credentials)>,
}

// === impl Secret ===

impl Secret {
    /// Marks `text` as secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for a request's header or body and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

// === impl Credentials ===

impl Credentials {
    /// What they are, without the secret: `password of <user>`, `identity token` or `registry token`.
    pub fn describe(&self) -> String {
        match self {
            // Some clouds have a fixed user name; where it is a secret's id it still opens nothing.
            Self::Password { username, .. } => format!("password of {username}"),
            Self::IdentityToken(_) => "identity token".to_owned(),
            Self::RegistryToken(_) => "registry token".to_owned(),
        }
    }
}

// === impl CredentialError ===

impl CredentialError {
    /// An error with a message that says what failed and what to do, without any secret.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), cause: None }
    }

    /// `what` cannot be read.
    fn unread(what: fmt::Arguments<'_>, cause: io::Error) -> Self {
        let message = match cause.kind() {
            io::ErrorKind::TimedOut => format!("cannot read {what}: {cause}"),
            _ => format!("cannot read {what}"),
        };
        Self::new(message).caused_by(cause)
    }

    /// The same with the I/O error that caused it.
    #[must_use]
    pub fn caused_by(mut self, cause: io::Error) -> Self {
        self.cause = Some(Arc::new(cause));
        self
    }
}

// === impl StaticCredentials ===

#[async_trait]
impl CredentialSource for StaticCredentials {
    fn describe(&self) -> String {
        "static configuration".to_owned()
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Configuration
    }

    async fn credentials(&self, query: CredentialQuery<'_>) -> Result<Option<Credentials>, CredentialError> {
        Ok(self.hosts.iter().find(|(host, _)| host == query.host).map(|(_, credentials)| credentials.clone()))
    }
}

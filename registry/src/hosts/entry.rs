//! What can be said of one host of a registry.

use std::{fmt, path::PathBuf, time::Duration};

use super::location::Location;

/// One host as a file describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct HostEntry {
    /// Where it is; `None` for the registry itself.
    pub(crate) location: Option<Location>,
    /// What it may be asked for.
    pub(crate) capabilities: Capabilities,
    /// Files with certificate authorities to trust beside the system's, if the file names any.
    pub(crate) ca: Option<Vec<PathBuf>>,
    /// Certificates that we show.
    pub(crate) clients: Vec<KeyPair>,
    /// Whether any certificate is good enough, if the file says so or says not.
    pub(crate) skip_verify: Option<bool>,
    /// Sent with every request to this host.
    pub(crate) headers: Headers,
    /// How long connecting may take.
    pub(crate) dial_timeout: Option<Duration>,
}

/// What a host may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Capabilities {
    /// Manifests and blobs by their digests.
    pub(crate) pull: bool,
    /// What a tag means: such a host is believed.
    pub(crate) resolve: bool,
    /// Uploads.
    pub(crate) push: bool,
    /// Lists of what refers to an image.
    pub(crate) referrers: bool,
}

/// A certificate of ours and its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct KeyPair {
    /// The file with the certificate.
    pub(crate) certificate: PathBuf,
    /// The file with the key; `None` if it is in the same one.
    pub(crate) key: Option<PathBuf>,
}

/// Headers for one host. Their values are often keys: they are never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Headers(pub(crate) Vec<(String, String)>);

// === impl HostEntry ===

impl HostEntry {
    /// Whether the file says anything of TLS: a host that is then named with `http` is tried with TLS first.
    pub(crate) fn speaks_of_tls(&self) -> bool {
        self.ca.is_some() || !self.clients.is_empty() || self.skip_verify.is_some()
    }
}

// === impl Capabilities ===

impl Capabilities {
    /// Everything.
    pub(crate) const ALL: Self = Self { pull: true, resolve: true, push: true, referrers: true };
    /// Nothing.
    pub(crate) const NONE: Self = Self { pull: false, resolve: false, push: false, referrers: false };
    /// Reading images by tag and digest.
    pub(crate) const READ: Self = Self { pull: true, resolve: true, push: false, referrers: false };

    /// Adds what a file calls `name`; `false` if that means nothing.
    #[must_use]
    pub(crate) fn add(&mut self, name: &str) -> bool {
        match name.to_lowercase().as_str() {
            "pull" => self.pull = true,
            "resolve" => self.resolve = true,
            "push" => self.push = true,
            "referrers" => self.referrers = true,
            _ => return false,
        }
        true
    }
}

impl Default for Capabilities {
    fn default() -> Self {
        Self::ALL
    }
}

// === impl Headers ===

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

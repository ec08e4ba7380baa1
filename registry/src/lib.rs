//! One blob of an OCI registry as a ranged byte source, and what else a registry is asked for.
//!
//! [`RegistryClient`] is made once per daemon and holds what is worth sharing: connections, tokens, targets of
//! redirects, experience with mirrors. It gives a blob as a [`store::BlobSource`]; what a blob holds, and whether its
//! bytes are right, is not known here beyond the digests of whole blobs. [`ImageSource`] lets the same code
//! read images from registries and from `oci-layout` directories.
//!
//! Invariants: every answer is bounded in size and time; credentials and configured headers go to the
//! registry's own origin and its token service only; no message holds a secret or a signed URL.

#![forbid(unsafe_code)]

mod aside;
mod auth;
mod backoff;
mod blob;
mod challenge;
mod client;
mod config;
mod content_range;
mod counters;
mod credentials;
mod endpoint;
mod error;
mod exchange;
mod expiry;
mod health;
mod hosts;
mod image;
mod layout;
mod manifest;
mod payload;
mod push;
mod reference;
mod referrers;
mod regular_file;
mod round;
mod stamp;
mod transport;
mod upstreams;

pub use auth::Access;
pub use backoff::RetryPolicy;
pub use blob::BlobReport;
pub use challenge::{BearerChallenge, Challenge};
pub use client::RegistryClient;
pub use config::{HostConfig, Mirror, RegistryConfig, Scheme};
pub use content_range::ContentRange;
pub use counters::{HostStats, LoginStats};
#[cfg(feature = "kubernetes")]
pub use credentials::{ClusterAccess, ClusterError, KubernetesSecrets};
pub use credentials::{
    CredentialError, CredentialQuery, CredentialSource, Credentials, DockerConfig, Knowledge, KubeletPlugins,
    Login, PasswordFile, Pull, RememberedCredentials, Secret, SourceKind, SourceReport, StaticCredentials,
    explain as explain_credentials,
};
pub use image::{Fetched, ImageSource, RegistryImage, open_image};
pub use layout::{InvalidLayout, OciLayout};
pub use manifest::{Descriptor, Index, Manifest, ManifestError, Parsed, Platform, media_type};
pub use push::Mounted;
pub use reference::{InvalidReference, Reference};
pub use referrers::Referrer;
pub use upstreams::{HostStanding, RegistryHosts, Standing};

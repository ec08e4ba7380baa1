//! A registry to test against: OCI distribution as far as clients use it, with faults, authentication,
//! redirects, latency and bandwidth set at run time, and a log of every request.
//!
//! It runs on threads of its own, so a test may be synchronous or not, and it stops when it is dropped. Blobs
//! are served from memory or from files. It is a judge, so it checks what it is asked: a redirect target that
//! receives credentials counts it in [`TestRegistry::leaked_credentials`].

mod auth;
mod body;
mod contents;
mod fault;
mod log;
mod peer;
mod serve;
mod shaping;
mod upload;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::sync::oneshot;

pub use self::{
    auth::Auth,
    fault::{Fault, On},
    log::{Listener, RequestRecord},
    peer::Peer,
    shaping::Shaping,
};
use self::{contents::Contents, serve::State};
use crate::{loopback_certificate, registry_process::Traffic};

/// How a registry behaves from its start; `tls`, `http2_only` and `peer` stay, the rest can be changed.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// What it asks for before it answers.
    pub auth: Auth,
    /// Where blobs come from.
    pub redirect: Redirect,
    /// Delay and bandwidth.
    pub shaping: Shaping,
    /// Behave as a registry of before OCI 1.1, which knows nothing of referrers.
    pub no_referrers: bool,
    /// Serve HTTPS (HTTP/1.1 and HTTP/2) with a certificate of a private authority.
    pub tls: bool,
    /// With `tls`: refuse HTTP/1.1.
    pub http2_only: bool,
    /// Behave as a mirror of many registries.
    pub peer: Peer,
}

/// Whether blob requests are answered with a redirect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Redirect {
    /// Blobs are served at once.
    #[default]
    None,
    /// To a second host, by a signed address.
    Signed {
        /// The redirect's status: 307, 302 or 308.
        status: u16,
        /// How long the address is good for; 403 after that.
        lifetime: Duration,
        /// Redirects on the way before the last, each relative to the host it is on.
        hops: u8,
    },
}

/// A running registry.
#[derive(Debug)]
pub struct TestRegistry {
    state: Arc<State>,
    address: SocketAddr,
    certificate: Option<String>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

// === impl TestRegistry ===

impl TestRegistry {
    /// Starts a registry on a free port of the loopback address.
    ///
    /// # Errors
    /// No port or thread can be had.
    pub fn start(options: RegistryOptions) -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("listen")?;
        Self::start_on(listener, options)
    }

    /// Starts a registry on `listener`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_on(listener: std::net::TcpListener, options: RegistryOptions) -> Result<Self> {
        // Another host, not only another port: Go's client passes credentials on to the same host.
        let cdn = std::net::TcpListener::bind("127.0.0.2:0").context("listen")?;
        let (address, cdn_address) = (listener.local_addr()?, cdn.local_addr()?);
        let identity = if options.tls { Some(loopback_certificate::issue()?) } else { None };
        let acceptor = identity.as_ref().map(|identity| identity.acceptor(options.http2_only)).transpose()?;
        let certificate = identity.map(|identity| identity.authority_pem);
        let state = Arc::new(State::new(options, address, cdn_address));
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("runtime")?;
        let serving = Arc::clone(&state);
        let thread = std::thread::Builder::new().name("test-registry".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve::accept(listener, Listener::Registry, Arc::clone(&serving), acceptor) => {}
                    () = serve::accept(cdn, Listener::Cdn, serving, None) => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        })?;
        Ok(Self { state, address, certificate, stop: Some(stop), thread: Some(thread) })
    }

    /// `host:port`, as it stands in a reference.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// `host:port` of the host that redirects point to.
    pub fn cdn_host(&self) -> String {
        self.state.cdn_address.to_string()
    }

    /// The private authority's certificate (PEM), when the registry serves HTTPS.
    pub fn authority(&self) -> Option<&str> {
        self.certificate.as_deref()
    }

    /// Stores a blob and gives its digest.
    pub fn add_blob(&self, bytes: impl Into<Bytes>) -> String {
        self.contents().add_blob(bytes.into())
    }

    /// Stores a manifest under a tag, gives its digest.
    pub fn add_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: impl Into<Bytes>,
    ) -> String {
        self.contents().add_manifest(repository, tag, media_type, bytes.into())
    }

    /// Stores the image that an `oci-layout` directory holds under `layout_tag`, blobs served from its files.
    ///
    /// # Errors
    /// The directory is not a layout, or holds no such tag.
    pub fn add_layout(&self, layout: &Path, layout_tag: &str, repository: &str, tag: &str) -> Result<String> {
        self.contents().add_layout(layout, layout_tag, repository, tag)
    }

    /// Changes whether referrers are known.
    pub fn set_no_referrers(&self, no_referrers: bool) {
        self.state.behaviour.lock().no_referrers = no_referrers;
    }

    /// Forgets a tag.
    pub fn delete_tag(&self, repository: &str, tag: &str) {
        self.contents().delete_tag(repository, tag);
    }

    /// The manifest that a tag or digest names.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<Bytes> {
        self.contents().manifest(repository, reference).map(|manifest| manifest.bytes.clone())
    }

    /// A blob that is held in memory or in a file.
    pub fn blob(&self, digest: &str) -> Option<Bytes> {
        let blob = self.contents().blob(digest)?;
        blob.read(0..blob.len()).ok()
    }

    /// Makes the next `times` requests that match `on` fail with `fault`; all of them when `times` is `None`.
    pub fn inject(&self, on: On, fault: Fault, times: Option<u32>) {
        self.state.faults.lock().push(fault::Rule { on, fault, left: times });
    }

    /// Takes every fault back.
    pub fn clear_faults(&self) {
        self.state.faults.lock().clear();
        self.state.released.notify_waiters();
    }

    /// Changes what is asked for before an answer; tokens given out so far lose their value.
    pub fn set_auth(&self, auth: Auth) {
        self.state.tokens.lock().clear();
        self.state.behaviour.lock().auth = auth;
    }

    /// Changes where blobs come from.
    pub fn set_redirect(&self, redirect: Redirect) {
        self.state.behaviour.lock().redirect = redirect;
    }

    /// Changes delay and bandwidth.
    pub fn set_shaping(&self, shaping: Shaping) {
        self.state.shaper.set(shaping);
    }

    /// Every request so far, in order of arrival.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.state.log.records()
    }

    /// Forgets the requests so far.
    pub fn clear_requests(&self) {
        self.state.log.clear();
    }

    /// Bytes of bodies sent since the start or the last [`Self::clear_requests`].
    pub fn bytes_sent(&self) -> u64 {
        self.state.log.bytes_sent()
    }

    /// The requests so far, in figures.
    pub fn traffic(&self) -> Traffic {
        let records = self.state.log.records();
        Traffic {
            requests: records.len() as u64,
            blob_requests: records.iter().filter(|record| record.is_blob()).count() as u64,
            bytes: records.iter().map(|record| record.bytes_sent).sum(),
        }
    }

    /// How often a redirect's target was sent credentials.
    pub fn leaked_credentials(&self) -> u64 {
        self.state.leaked_credentials.load(Ordering::Relaxed)
    }

    fn contents(&self) -> parking_lot::MutexGuard<'_, Contents> {
        self.state.contents.lock()
    }
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        self.clear_faults();
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

//! A certificate of a private authority.

use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio_rustls::TlsAcceptor;

use crate::loopback_certificate::{self, Certificate};

/// A server's identity, good for the loopback address.
pub(super) struct Identity {
    pub(super) authority_pem: String,
    pub(super) acceptor: TlsAcceptor,
}

impl Identity {
    pub(super) fn new(http2_only: bool) -> Result<Self> {
        let Certificate { authority_pem, certificate, key } = loopback_certificate::issue()?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .context("the server's certificate")?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        if !http2_only {
            config.alpn_protocols.push(b"http/1.1".to_vec());
        }
        Ok(Self { authority_pem, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }
}

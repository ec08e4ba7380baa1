//! A certificate for servers on the loopback address, signed by an authority of its own.

use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio_rustls::TlsAcceptor;

/// A name that TLS tests may give the loopback address; the certificate is good for it, too.
pub const NAME: &str = "registry.test";

/// A server's certificate and what belongs to it.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) authority_pem: String,
    pub(crate) certificate: rcgen::Certificate,
    pub(crate) key: KeyPair,
}

/// Makes an authority and has it sign a certificate.
pub(crate) fn issue() -> Result<Certificate> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate()?;
    let authority_pem = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate()?;
    let names = ["127.0.0.1", "127.0.0.2", "localhost", NAME].map(str::to_owned);
    let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
    Ok(Certificate { authority_pem, certificate, key })
}

// === impl Certificate ===

impl Certificate {
    /// What a server shakes hands with.
    pub(crate) fn acceptor(&self, http2_only: bool) -> Result<TlsAcceptor> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![self.certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der())),
            )
            .context("the server's certificate")?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        if !http2_only {
            config.alpn_protocols.push(b"http/1.1".to_vec());
        }
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

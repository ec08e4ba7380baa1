//! A certificate for servers on the loopback address, signed by an authority of its own.

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

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
    let names = ["127.0.0.1", "localhost", NAME].map(str::to_owned);
    let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
    Ok(Certificate { authority_pem, certificate, key })
}

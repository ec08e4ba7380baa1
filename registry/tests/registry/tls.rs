//! TLS with a private certificate authority.

use std::sync::Arc;

use registry::{HostConfig, RegistryClient, RegistryConfig, Scheme};
use store::SourceErrorKind as Kind;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

use crate::origin::{Origin, Reply, content, file, quick, read};

/// A server certificate for 127.0.0.1 and the authority that signed it, as PEM.
fn certificates() -> (TlsAcceptor, String) {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .signed_by(&key, &rcgen::Issuer::from_params(&authority, &authority_key))
        .unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(
        tokio_rustls::rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![certificate.der().clone()], key)
    .unwrap();
    (TlsAcceptor::from(Arc::new(config)), authority_certificate.pem())
}

fn over_tls(origin: &Origin) -> RegistryConfig {
    let mut config = quick();
    let https = HostConfig { scheme: Some(Scheme::Https), ..HostConfig::default() };
    config.hosts.insert(origin.host.clone(), https);
    config
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_configured_and_only_then() {
    let blob = content(10_000);
    let (acceptor, pem) = certificates();
    let served = blob.clone();
    let origin = Origin::start_tls(acceptor, move |seen| Reply::blob(seen, &served)).await;
    let error = read(&origin.blob_with(over_tls(&origin), &blob), 0..10).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.contains("certificate authority"), "{error}");
    assert!(!error.message.contains("attempts"), "not tried again: {error}");
    let (_directory, path) = file(pem);
    let mut config = over_tls(&origin);
    config.ca_files = vec![path];
    assert_eq!(read(&origin.blob_with(config, &blob), 0..10_000).await.unwrap(), blob);
}

#[tokio::test]
async fn unusable_authority_files_are_refused_by_name() {
    let (_directory, path) = file("not a certificate");
    for path in [path, "/nonexistent/ca.pem".into()] {
        let config = RegistryConfig { ca_files: vec![path.clone()], ..quick() };
        let error = RegistryClient::new(config).unwrap_err();
        assert!(error.message.contains(&path.display().to_string()), "{error}");
    }
}

/// A token service in clear text would show the password of a registry that is reached with TLS.
#[tokio::test]
async fn a_token_service_in_clear_text_is_refused_after_tls() {
    let (acceptor, pem) = certificates();
    let origin = Origin::start_tls(acceptor, |_| {
        Reply::status(401).header("www-authenticate", "Bearer realm=\"http://192.0.2.1/token\"")
    })
    .await;
    let (_directory, path) = file(pem);
    let mut config = over_tls(&origin);
    config.ca_files = vec![path];
    let error = read(&origin.blob_with(config, b"x"), 0..1).await.unwrap_err();
    assert!(error.kind == Kind::Protocol && error.message.contains("clear text"), "{error}");
}

//! TLS with a private certificate authority.

use std::sync::Arc;

use registry::{HostConfig, RegistryClient, RegistryConfig, Scheme};
use store::SourceErrorKind as Kind;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
        server::WebPkiClientVerifier,
    },
};

use crate::{
    mirrors::CertsD,
    origin::{Origin, Reply, content, file, quick, read},
};

/// A server certificate for 127.0.0.1 and the authority that signed it, as PEM.
pub(crate) fn certificates() -> (TlsAcceptor, String) {
    let (acceptor, authority, _) = mutual(false);
    (acceptor, authority)
}

/// The same with a certificate for a client and its key, which the server wants to see if it is `strict`.
fn mutual(strict: bool) -> (TlsAcceptor, String, (String, String)) {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::from_params(&authority, &authority_key);
    let issue = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &issuer).unwrap(), key)
    };
    let ((server, key), (client, client_key)) = (issue("127.0.0.1"), issue("client.example"));
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = if strict {
        let mut roots = tokio_rustls::rustls::RootCertStore::empty();
        roots.add(authority_certificate.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let config = builder.with_single_cert(vec![server.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    (acceptor, authority_certificate.pem(), (client.pem(), client_key.serialize_pem()))
}

async fn start(acceptor: TlsAcceptor, blob: &[u8]) -> Origin {
    let served = blob.to_vec();
    Origin::start_tls(acceptor, move |seen| Reply::blob(seen, &served)).await
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

#[tokio::test]
async fn an_authority_in_a_registrys_directory_is_trusted_for_that_registry() {
    let blob = content(1000);
    let (acceptor, pem) = certificates();
    let origin = start(acceptor, &blob).await;
    let server = format!("server = \"https://{}\"", origin.host);
    let certs = CertsD::new(&origin.host, &server);
    let source = origin.blob_with(certs.config(), &blob);
    let error = read(&source, 0..10).await.unwrap_err();
    assert!(error.message.contains("certificate authority"), "{error}");
    // Docker's way, then containerd's; each counts without a new start.
    certs.put(&origin.host, "own.crt", &pem);
    certs.says(&origin.host, "");
    read(&source, 0..10).await.unwrap();
    certs.says(&origin.host, &format!("{server}\nca = \"missing.pem\""));
    read(&source, 0..10).await.expect("what cannot be used does not replace what works");
    certs.put(&origin.host, "other.pem", &pem);
    certs.says(&origin.host, &format!("{server}\nca = [\"other.pem\"]"));
    read(&source, 0..10).await.unwrap();
    certs.says(&origin.host, &format!("{server}\nskip_verify = true"));
    read(&source, 0..10).await.unwrap();
}

/// A certificate that takes another one's place in its file is used for the next connection.
#[tokio::test]
async fn a_renewed_authority_counts_without_a_new_start() {
    let blob = content(1000);
    let ((_, old), (acceptor, new)) = (certificates(), certificates());
    let origin = start(acceptor, &blob).await;
    let certs = CertsD::new(&origin.host, &format!("server = \"https://{}\"\nca = \"ca.pem\"", origin.host));
    certs.put(&origin.host, "ca.pem", &old);
    let source = origin.blob_with(certs.config(), &blob);
    assert!(read(&source, 0..10).await.is_err());
    certs.put(&origin.host, "ca.pem", &new);
    read(&source, 0..10).await.unwrap();
}

#[tokio::test]
async fn a_server_that_wants_our_certificate_sees_it() {
    let blob = content(1000);
    let (acceptor, authority, (certificate, key)) = mutual(true);
    let origin = start(acceptor, &blob).await;
    let server = format!("server = \"https://{}\"\nca = \"ca.pem\"\n", origin.host);
    let certs = CertsD::new(&origin.host, &server);
    for (name, text) in [
        ("ca.pem", &authority),
        ("ca.crt", &authority),
        ("c.cert", &certificate),
        ("c.key", &key),
        ("both.pem", &format!("{certificate}{key}")),
    ] {
        certs.put(&origin.host, name, text);
    }
    let read = async || read(&origin.blob_with(certs.config(), &blob), 0..10).await;
    assert!(read().await.is_err());
    for client in ["\"both.pem\"", "[\"both.pem\"]", "[[\"c.cert\", \"c.key\"]]", "[[\"both.pem\", \"\"]]"] {
        certs.says(&origin.host, &format!("{server}client = {client}"));
        assert_eq!(read().await.unwrap(), blob[..10], "{client}");
    }
    certs.says(&origin.host, "");
    assert_eq!(read().await.unwrap(), blob[..10], "as Docker names the files");
    certs.says(&origin.host, &format!("{server}client = \"ca.pem\""));
    let error = read().await.unwrap_err();
    assert!(error.message.contains("ca.pem") && error.message.contains("key"), "{error}");
}

#[tokio::test]
async fn a_registry_on_this_machine_may_speak_tls_without_a_word_of_it() {
    let blob = content(1000);
    let (acceptor, _) = certificates();
    let origin = start(acceptor, &blob).await;
    let source = origin.blob(&blob);
    assert_eq!(read(&source, 0..10).await.unwrap(), blob[..10]);
    assert_eq!(source.read_tail(10).await.unwrap().bytes, blob[990..]);
    assert_eq!(origin.log().len(), 2);
}

/// `http` with settings for TLS, as people write it who are not sure.
#[tokio::test]
async fn tls_is_tried_first_where_clear_text_is_named_with_settings_for_tls() {
    let blob = content(1000);
    let (acceptor, _) = certificates();
    let served = blob.clone();
    let origins = [start(acceptor, &blob).await, Origin::start(move |seen| Reply::blob(seen, &served)).await];
    for origin in origins {
        let text = format!("server = \"http://{}\"\nskip_verify = true", origin.host);
        let certs = CertsD::new(&origin.host, &text);
        let source = origin.blob_with(certs.config(), &blob);
        for _ in 0..2 {
            assert_eq!(read(&source, 0..10).await.unwrap(), blob[..10]);
        }
        assert_eq!(origin.log().len(), 2);
    }
}

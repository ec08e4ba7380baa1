//! A token service for Debian's registry: tokens of a few seconds (JWT, signed by a certificate that the registry
//! knows) for one user, by GET and by POST, with TLS by a private authority.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header, request::Parts};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::{
    http_service::{Answer, HttpService, empty},
    loopback_certificate::{self, Certificate},
};

/// The one user.
pub const USER: &str = "robot";
/// Their password.
pub const PASSWORD: &str = "good for tokens";
/// What the registry calls itself.
pub(crate) const SERVICE: &str = "tests";
/// What the service calls itself.
pub(crate) const ISSUER: &str = "token service of the tests";
/// For how long the registry takes a token after its end, whatever it says: tokens that shall live for seconds end a
/// minute before they are given.
const LEEWAY: Duration = Duration::from_secs(60);

/// The service; ended when dropped.
#[derive(Debug)]
pub struct TokenService {
    service: HttpService,
    certificate: Certificate,
    signer_pem: String,
    issued: Arc<AtomicU64>,
}

/// What tokens are signed with.
struct Signer {
    key: EcdsaKeyPair,
    /// The certificate, as it stands in a token's head.
    certificate: String,
    lifetime: Duration,
    issued: Arc<AtomicU64>,
}

// === impl TokenService ===

impl TokenService {
    /// Starts it. Tokens live for `lifetime`, or up to a second less, as with clocks that differ.
    ///
    /// # Errors
    /// No key or port can be had.
    pub fn start(lifetime: Duration) -> Result<Self> {
        let certificate = loopback_certificate::issue()?;
        let key = KeyPair::generate()?;
        let signed_by = CertificateParams::new(Vec::new())?.self_signed(&key)?;
        let issued = Arc::new(AtomicU64::new(0));
        let signer = Signer {
            key: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.serialize_der())
                .context("the key that signs tokens")?,
            certificate: STANDARD.encode(signed_by.der()),
            lifetime,
            issued: Arc::clone(&issued),
        };
        let acceptor = certificate.acceptor(false)?;
        let service = HttpService::start("127.0.0.1", Some(acceptor), move |parts, body| {
            signer.answer(parts, body).unwrap_or_else(|_| empty(StatusCode::INTERNAL_SERVER_ERROR))
        })?;
        Ok(Self { service, certificate, signer_pem: signed_by.pem(), issued })
    }

    /// The authority (PEM) of the service's own certificate and of those who share it.
    pub fn authority(&self) -> &str {
        &self.certificate.authority_pem
    }

    /// How many tokens were given.
    pub fn issued(&self) -> u64 {
        self.issued.load(Relaxed)
    }

    /// Where tokens are to be had.
    pub(crate) fn realm(&self) -> String {
        format!("https://{}/token", self.service.address())
    }

    /// The service's certificate, which other servers on the loopback address may share.
    pub(crate) fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The certificate (PEM) by which the registry knows tokens.
    pub(crate) fn signer_pem(&self) -> &str {
        &self.signer_pem
    }
}

// === impl Signer ===

impl Signer {
    fn answer(&self, parts: &Parts, body: &[u8]) -> Result<Answer> {
        let query = if parts.method == Method::POST {
            body
        } else {
            parts.uri.query().unwrap_or_default().as_bytes()
        };
        let field = |name: &str| {
            form_urlencoded::parse(query).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
        };
        let given = if parts.method == Method::POST {
            field("username").zip(field("password"))
        } else {
            basic(parts)
        };
        if given != Some((USER.to_owned(), PASSWORD.to_owned())) {
            return Ok(empty(StatusCode::UNAUTHORIZED));
        }
        let scopes: Vec<String> = form_urlencoded::parse(query)
            .filter(|(key, _)| key == "scope")
            .flat_map(|(_, value)| value.split(' ').map(str::to_owned).collect::<Vec<_>>())
            .collect();
        let token = self.token(&scopes)?;
        self.issued.fetch_add(1, Relaxed);
        let answer =
            json!({ "token": token, "access_token": token, "expires_in": self.lifetime.as_secs().max(1) });
        let mut answer = Answer::new(Bytes::from(answer.to_string()).into());
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(answer)
    }

    /// A token to pull from what `scopes` name.
    fn token(&self, scopes: &[String]) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let access: Vec<Value> = scopes
            .iter()
            .filter_map(|scope| scope.strip_prefix("repository:")?.rsplit_once(':'))
            .map(|(name, _)| json!({ "type": "repository", "name": name, "actions": ["pull"] }))
            .collect();
        let head = json!({ "typ": "JWT", "alg": "ES256", "x5c": [self.certificate] });
        let begin = now.saturating_sub(LEEWAY * 2).as_secs();
        let claims = json!({
            "iss": ISSUER,
            "sub": USER,
            "aud": SERVICE,
            "iat": begin,
            "nbf": begin,
            "exp": (now + self.lifetime).saturating_sub(LEEWAY).as_secs(),
            "jti": format!("{:016x}", rand::random::<u64>()),
            "access": access,
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&head), encode(&claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).context("sign a token")?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn basic(parts: &Parts) -> Option<(String, String)> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let decoded = STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

//! Tokens and credentials.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::future::join_all;
use registry::{Credentials, DockerConfig, RegistryClient, RegistryConfig, Secret, StaticCredentials};
use store::SourceErrorKind as Kind;

use crate::origin::{Origin, Reply, Seen, content, file, quick, read};

/// A registry with its own token service: tokens are numbered, only the newest valid one is taken.
struct Tokens {
    issued: AtomicU64,
    /// Tokens below this one are refused.
    valid: AtomicU64,
    expires: u64,
    /// Statuses that the token service answers to POST and GET before it gives tokens.
    post: u16,
    get: u16,
    /// The `Authorization` that GET must carry.
    basic: Option<String>,
    /// Given with tokens.
    refresh: Option<&'static str>,
}

impl Tokens {
    fn new() -> Self {
        let (issued, valid) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { issued, valid, expires: 300, post: 200, get: 200, basic: None, refresh: None }
    }

    async fn start(self, blob: Vec<u8>) -> (Origin, Arc<Self>) {
        let tokens = Arc::new(self);
        let service = tokens.clone();
        let origin = Origin::start_with_host(move |host| {
            let host = host.to_owned();
            Box::new(move |seen: &Seen| service.answer(&host, seen, &blob))
        })
        .await;
        (origin, tokens)
    }

    fn answer(&self, host: &str, seen: &Seen, blob: &[u8]) -> Reply {
        if seen.path.starts_with("/token") {
            let status = if seen.method == "POST" { self.post } else { self.get };
            let wrong = seen.method == "GET" && self.basic.as_deref() != seen.header("authorization");
            return match status {
                200 if wrong => Reply::status(401),
                200 => {
                    let id = self.issued.fetch_add(1, Relaxed) + 1;
                    let refresh = self
                        .refresh
                        .map(|token| format!(",\"refresh_token\":\"{token}\""))
                        .unwrap_or_default();
                    Reply::ok(format!("{{\"token\":\"t{id}\",\"expires_in\":{}{refresh}}}", self.expires))
                }
                status => Reply::status(status),
            };
        }
        let token = seen
            .header("authorization")
            .and_then(|value| value.strip_prefix("Bearer t")?.parse::<u64>().ok());
        match token {
            Some(id) if id >= self.valid.load(Relaxed) => Reply::blob(seen, blob),
            Some(_) => Reply::bearer(host).header(
                "www-authenticate",
                &format!("Bearer realm=\"http://{host}/token\",service=\"test\",error=\"invalid_token\""),
            ),
            None => Reply::bearer(host),
        }
    }
}

fn with(credentials: Credentials, host: &str) -> RegistryConfig {
    let hosts = vec![(host.to_owned(), credentials)];
    RegistryConfig { credentials: vec![Arc::new(StaticCredentials { hosts })], ..quick() }
}

fn password() -> Credentials {
    Credentials::Password { username: "me".into(), password: Secret::new("p:w") }
}

fn form(seen: &Seen) -> std::collections::HashMap<String, String> {
    url::form_urlencoded::parse(&seen.body).into_owned().collect()
}

#[tokio::test]
async fn anonymous_tokens_are_got_by_get() {
    let blob = content(1000);
    let (origin, _) = Tokens::new().start(blob.clone()).await;
    let source = origin.blob(&blob);
    assert_eq!(read(&source, 0..1000).await.unwrap(), blob);
    assert_eq!(read(&source, 0..10).await.unwrap(), &blob[..10]);
    let log = origin.log();
    assert_eq!(log.len(), 4, "refused, token, served, served");
    assert_eq!(log[1].method, "GET");
    assert_eq!(log[1].path, "/token?service=test&scope=repository%3Aa%2Fb%3Apull");
}

#[tokio::test]
async fn a_storm_of_readers_makes_one_token_request() {
    let blob = content(100_000);
    let (origin, tokens) = Tokens::new().start(blob.clone()).await;
    let client = RegistryClient::new(quick()).unwrap();
    // Different blobs do not wait for each other; the token is the repository's.
    let sources: Vec<_> = (0..100_u32)
        .map(|n| client.blob(&origin.reference(), estargz::Digest::of(&n.to_be_bytes())))
        .collect();
    for bytes in join_all(sources.iter().map(|source| read(source, 0..100_000))).await {
        assert_eq!(bytes.unwrap(), blob);
    }
    assert_eq!(tokens.issued.load(Relaxed), 1);
    // All tokens so far become invalid: the next storm makes one more.
    tokens.valid.store(2, Relaxed);
    for bytes in join_all(sources.iter().map(|source| read(source, 0..10))).await {
        assert_eq!(bytes.unwrap().len(), 10);
    }
    assert_eq!(tokens.issued.load(Relaxed), 2);
    assert_eq!(client.stats()[0].token_requests, 2);
}

#[tokio::test]
async fn a_failing_token_service_is_asked_once_by_a_storm() {
    let mut tokens = Tokens::new();
    tokens.get = 403;
    let (origin, _) = tokens.start(Vec::new()).await;
    let client = RegistryClient::new(quick()).unwrap();
    let sources: Vec<_> = (0..50_u32)
        .map(|n| client.blob(&origin.reference(), estargz::Digest::of(&n.to_be_bytes())))
        .collect();
    for outcome in join_all(sources.iter().map(|source| read(source, 0..10))).await {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind, Kind::Forbidden);
        assert!(error.message.contains("docker login"), "{error}");
    }
    assert!(origin.count("/token") <= 5, "{}", origin.count("/token"));
}

#[tokio::test]
async fn tokens_are_renewed_before_they_end() {
    let blob = content(1000);
    let tokens = Tokens { expires: 2, ..Tokens::new() };
    let (origin, tokens) = tokens.start(blob.clone()).await;
    let source = origin.blob(&blob);
    for n in 0..8_u64 {
        read(&source, n..1000).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let refused = origin
        .log()
        .iter()
        .filter(|seen| seen.path.contains("/blobs/") && seen.header("authorization").is_none())
        .count();
    assert_eq!(refused, 1, "only the first request is sent without a token");
    assert!((2..=4).contains(&tokens.issued.load(Relaxed)), "{}", tokens.issued.load(Relaxed));
}

#[tokio::test]
async fn a_password_is_posted_first() {
    let blob = content(1000);
    let (origin, _) = Tokens::new().start(blob.clone()).await;
    let source = origin.blob_with(with(password(), &origin.host), &blob);
    assert_eq!(read(&source, 0..1000).await.unwrap(), blob);
    let log = origin.log();
    assert_eq!((log.len(), log[1].method.as_str(), log[1].path.as_str()), (3, "POST", "/token"));
    let form = form(&log[1]);
    assert_eq!(
        (form["grant_type"].as_str(), form["username"].as_str(), form["password"].as_str()),
        ("password", "me", "p:w")
    );
    assert_eq!((form["service"].as_str(), form["scope"].as_str()), ("test", "repository:a/b:pull"));
    assert!(!log[1].path.contains("p:w"));
}

#[tokio::test]
async fn token_services_without_post_get_a_get_and_are_remembered() {
    let blob = content(1000);
    for status in [400, 401, 404, 405] {
        let basic = format!("Basic {}", BASE64_STANDARD.encode("me:p:w"));
        let tokens = Tokens { post: status, basic: Some(basic), ..Tokens::new() };
        let (origin, tokens) = tokens.start(blob.clone()).await;
        let source = origin.blob_with(with(password(), &origin.host), &blob);
        read(&source, 0..1000).await.unwrap();
        tokens.valid.store(2, Relaxed);
        read(&source, 0..1000).await.unwrap();
        let methods: Vec<_> = origin
            .log()
            .into_iter()
            .filter(|seen| seen.path.starts_with("/token"))
            .map(|seen| seen.method)
            .collect();
        assert_eq!(methods, ["POST", "GET", "GET"], "{status}");
    }
}

#[tokio::test]
async fn identity_tokens_and_refresh_tokens_are_exchanged() {
    let blob = content(1000);
    let tokens = Tokens { refresh: Some("r1"), ..Tokens::new() };
    let (origin, tokens) = tokens.start(blob.clone()).await;
    let identity = Credentials::IdentityToken(Secret::new("id"));
    let source = origin.blob_with(with(identity, &origin.host), &blob);
    read(&source, 0..1000).await.unwrap();
    tokens.valid.store(tokens.issued.load(Relaxed) + 1, Relaxed);
    read(&source, 0..1000).await.unwrap();
    let forms: Vec<_> = origin.log().iter().filter(|seen| seen.path == "/token").map(form).collect();
    assert!(forms.iter().all(|form| form["grant_type"] == "refresh_token"));
    // The challenge named an error, so that the remembered refresh token is not trusted either.
    assert_eq!(forms.iter().map(|form| form["refresh_token"].as_str()).collect::<Vec<_>>(), ["id", "id"]);
}

#[tokio::test]
async fn a_refresh_token_is_used_when_its_access_token_ends() {
    let blob = content(1000);
    let tokens = Tokens { refresh: Some("r1"), expires: 1, ..Tokens::new() };
    let (origin, _) = tokens.start(blob.clone()).await;
    let source = origin.blob_with(with(password(), &origin.host), &blob);
    read(&source, 0..1000).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    read(&source, 0..1000).await.unwrap();
    let grants: Vec<_> = origin
        .log()
        .iter()
        .filter(|seen| seen.path == "/token")
        .map(|seen| form(seen)["grant_type"].clone())
        .collect();
    assert_eq!(grants, ["password", "refresh_token"]);
}

#[tokio::test]
async fn registry_tokens_are_sent_as_they_are() {
    let blob = content(1000);
    let (origin, _) = Tokens::new().start(blob.clone()).await;
    let token = Credentials::RegistryToken(Secret::new("t7"));
    let source = origin.blob_with(with(token, &origin.host), &blob);
    assert_eq!(read(&source, 0..1000).await.unwrap(), blob);
    assert_eq!(origin.count("/token"), 0);
}

#[tokio::test]
async fn basic_credentials_are_sent_after_the_first_challenge() {
    let blob = content(1000);
    let served = blob.clone();
    let expected = format!("Basic {}", BASE64_STANDARD.encode("me:p:w"));
    let origin = Origin::start(move |seen| match seen.header("authorization") {
        Some(sent) if sent == expected => Reply::blob(seen, &served),
        _ => Reply::status(401).header("www-authenticate", "Basic realm=\"x\""),
    })
    .await;
    let source = origin.blob_with(with(password(), &origin.host), &blob);
    for _ in 0..3 {
        assert_eq!(read(&source, 0..1000).await.unwrap(), blob);
    }
    assert_eq!(origin.log().len(), 4);
    let anonymous = read(&origin.blob(&blob), 0..1000).await.unwrap_err();
    assert_eq!(anonymous.kind, Kind::Unauthorized);
    assert!(anonymous.message.contains("docker login"), "{anonymous}");
}

#[tokio::test]
async fn a_token_that_is_refused_again_is_an_error_with_the_reason() {
    let (origin, tokens) = Tokens::new().start(Vec::new()).await;
    tokens.valid.store(1_000_000, Relaxed);
    let error = read(&origin.blob(b"x"), 0..1).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unauthorized);
    assert!(error.message.contains("invalid_token"), "{error}");
    assert_eq!(tokens.issued.load(Relaxed), 1);
}

#[tokio::test]
async fn a_rotated_password_in_the_docker_configuration_needs_no_restart() {
    let blob = content(1000);
    let accepted = Arc::new(Mutex::new("one".to_owned()));
    let (served, current) = (blob.clone(), accepted.clone());
    let origin = Origin::start(move |seen| {
        let expected = format!("Basic {}", BASE64_STANDARD.encode(format!("me:{}", current.lock().unwrap())));
        match seen.header("authorization") {
            Some(sent) if sent == expected => Reply::blob(seen, &served),
            _ => Reply::status(401).header("www-authenticate", "Basic realm=\"x\""),
        }
    })
    .await;
    let config = |password: &str| {
        let auth = BASE64_STANDARD.encode(format!("me:{password}"));
        format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, origin.host)
    };
    let (_directory, path) = file(config("one"));
    let settings = RegistryConfig { credentials: vec![Arc::new(DockerConfig::new(&path))], ..quick() };
    let source = origin.blob_with(settings, &blob);
    assert_eq!(read(&source, 0..1000).await.unwrap(), blob);
    "two".clone_into(&mut accepted.lock().unwrap());
    assert_eq!(read(&source, 0..1000).await.unwrap_err().kind, Kind::Unauthorized);
    std::fs::write(&path, config("two")).unwrap();
    assert_eq!(read(&source, 0..1000).await.unwrap(), blob);
}

#[tokio::test]
async fn a_failing_credential_source_is_named_and_anonymous_reading_goes_on() {
    let blob = content(1000);
    let (origin, _) = Tokens::new().start(blob.clone()).await;
    let (_directory, path) = file("{");
    let settings = RegistryConfig { credentials: vec![Arc::new(DockerConfig::new(&path))], ..quick() };
    assert_eq!(read(&origin.blob_with(settings.clone(), &blob), 0..1000).await.unwrap(), blob);
    let basic = Origin::start(|_| Reply::status(401).header("www-authenticate", "Basic realm=\"x\"")).await;
    let error = read(&basic.blob_with(settings, &blob), 0..1000).await.unwrap_err();
    assert!(error.message.contains("is not a Docker configuration"), "{error}");
}

#[tokio::test]
async fn broken_token_services_are_errors_within_bounded_time() {
    for answer in ["", "{}", "[]", "{\"token\":\"a\\nb\"}", "large", "redirect"] {
        let origin = Origin::start_with_host(move |host| {
            let host = host.to_owned();
            Box::new(move |seen: &Seen| match (seen.path.starts_with("/token"), answer) {
                (false, _) => Reply::bearer(&host),
                (true, "large") => Reply::ok(vec![b' '; 2 << 20]),
                (true, "redirect") => Reply::redirect("http://127.0.0.1:1/"),
                (true, text) => Reply::ok(text),
            })
        })
        .await;
        let began = std::time::Instant::now();
        let error = read(&origin.blob(b"x"), 0..1).await.unwrap_err();
        assert_eq!(error.kind, Kind::Protocol, "{answer}: {error}");
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

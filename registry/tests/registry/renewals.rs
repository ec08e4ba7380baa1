//! Tokens that are renewed before their end, and tokens that end before they said.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::join_all;
use registry::{
    CredentialError, CredentialQuery, CredentialSource, Credentials, RegistryClient, RegistryConfig, Secret,
};
use store::SourceErrorKind as Kind;
use tokio::time::Instant;

use crate::origin::{Origin, Reply, Seen, content, hold_clock, quick, read};

/// A registry that takes its newest token only.
#[derive(Default)]
struct Service {
    newest: AtomicU64,
    /// The token service takes requests and does not answer.
    hangs: AtomicBool,
}

/// A source of one login for all hosts.
#[derive(Debug)]
struct Always(Credentials);

#[async_trait::async_trait]
impl CredentialSource for Always {
    fn describe(&self) -> String {
        "one login".to_owned()
    }

    async fn credentials(&self, _: CredentialQuery<'_>) -> Result<Option<Credentials>, CredentialError> {
        Ok(Some(self.0.clone()))
    }
}

// === impl Service ===

impl Service {
    /// `to_ended` is what tokens that have ended are answered; `None` is a challenge.
    async fn start(blob: &[u8], to_ended: Option<u16>) -> (Origin, Arc<Self>) {
        let (service, blob) = (Arc::new(Self::default()), blob.to_vec());
        let known = service.clone();
        let origin = Origin::start_with_host(move |host| {
            let host = host.to_owned();
            Box::new(move |seen: &Seen| {
                let newest = known.newest.load(Relaxed);
                if seen.path.starts_with("/token") {
                    let delay = if known.hangs.load(Relaxed) { 3600 } else { 0 };
                    return Reply::ok(format!("{{\"token\":\"t{newest}\",\"expires_in\":300}}"))
                        .after(Duration::from_secs(delay));
                }
                match (seen.header("authorization"), to_ended) {
                    (Some(sent), _) if *sent == format!("Bearer t{newest}") => Reply::blob(seen, &blob),
                    (Some(_), Some(status)) => Reply::status(status),
                    _ => Reply::bearer(&host),
                }
            })
        })
        .await;
        (origin, service)
    }
}

fn password() -> Credentials {
    Credentials::Password { username: "me".into(), password: Secret::new("p") }
}

/// Settings with one login for all hosts.
fn with(login: Credentials) -> RegistryConfig {
    RegistryConfig { credentials: vec![Arc::new(Always(login))], ..quick() }
}

#[tokio::test(start_paused = true)]
async fn a_token_service_that_hangs_holds_up_nobody_whose_token_is_good() {
    let _clock = hold_clock();
    let blob = content(1000);
    let (origin, service) = Service::start(&blob, None).await;
    // No connection to the registry may seem silent when the clock is turned.
    let settings = RegistryConfig { idle_timeout: Duration::from_secs(20), ..quick() };
    let source = origin.blob_with(settings, &blob);
    read(&source, 0..10).await.unwrap();
    // The end is near, whenever the early renewal was to begin.
    tokio::time::advance(Duration::from_secs(275)).await;
    service.hangs.store(true, Relaxed);
    let began = Instant::now();
    for n in 0..10 {
        assert_eq!(read(&source, n..n + 10).await.unwrap(), &blob[n as usize..n as usize + 10]);
    }
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    // The one that was asked for fails, and is not asked for again at once.
    while origin.count("/token") < 2 {
        tokio::task::yield_now().await;
    }
    tokio::time::advance(Duration::from_secs(11)).await;
    for n in 0..10 {
        read(&source, n..n + 10).await.unwrap();
    }
    assert_eq!(origin.count("/token"), 2);
    // It works again: the token is renewed before its end.
    service.hangs.store(false, Relaxed);
    tokio::time::advance(Duration::from_secs(11)).await;
    while origin.count("/token") < 3 {
        read(&source, 0..10).await.unwrap();
    }
}

#[tokio::test]
async fn a_token_that_ended_early_is_renewed_after_an_answer_401_without_a_challenge() {
    let blob = content(1000);
    let (origin, service) = Service::start(&blob, Some(401)).await;
    let source = origin.blob(&blob);
    for newest in 0..5 {
        service.newest.store(newest, Relaxed);
        assert_eq!(read(&source, 0..1000).await.unwrap(), blob, "{newest}");
    }
    assert_eq!(origin.count("/token"), 5);
}

#[tokio::test]
async fn a_token_that_ended_early_is_renewed_with_its_login_after_an_answer_403() {
    let blob = content(1000);
    let (origin, service) = Service::start(&blob, Some(403)).await;
    let source = origin.blob_with(with(password()), &blob);
    read(&source, 0..1000).await.unwrap();
    service.newest.store(1, Relaxed);
    let readers = (0..20_u64).map(|n| read(&source, n..1000));
    for (n, bytes) in join_all(readers).await.into_iter().enumerate() {
        assert_eq!(bytes.unwrap(), &blob[n..]);
    }
    assert_eq!(origin.count("/token"), 2, "a storm is one renewal");
    // One that ends at once is not renewed at once, but soon.
    service.newest.store(2, Relaxed);
    assert_eq!(read(&source, 0..10).await.unwrap_err().kind, Kind::Forbidden);
    tokio::time::sleep(Duration::from_millis(4100)).await;
    read(&source, 0..10).await.unwrap();
    assert_eq!(origin.count("/token"), 3);
}

/// A token service that takes an identity token, and each refresh token, once. Tokens live for a second.
struct Once {
    refresh: AtomicU64,
    /// That many requests are answered 503.
    failing: AtomicU64,
}

// === impl Once ===

impl Once {
    async fn start(blob: &[u8]) -> (Origin, Arc<Self>) {
        let service = Arc::new(Self { refresh: AtomicU64::new(0), failing: AtomicU64::new(0) });
        let (known, blob) = (service.clone(), blob.to_vec());
        let origin = Origin::start_with_host(move |host| {
            let host = host.to_owned();
            Box::new(move |seen: &Seen| match seen.header("authorization") {
                _ if seen.path.starts_with("/token") => known.token(seen),
                Some(_) => Reply::blob(seen, &blob),
                None => Reply::bearer(&host),
            })
        })
        .await;
        (origin, service)
    }

    fn token(&self, seen: &Seen) -> Reply {
        if self.failing.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
            return Reply::status(503);
        }
        let good = self.refresh.load(Relaxed);
        let sent = url::form_urlencoded::parse(&seen.body).find(|(key, _)| key == "refresh_token");
        if sent.is_none_or(|(_, sent)| sent != format!("r{good}")) {
            return Reply::status(401);
        }
        self.refresh.store(good + 1, Relaxed);
        let answer = format!("{{\"token\":\"t\",\"expires_in\":1,\"refresh_token\":\"r{}\"}}", good + 1);
        Reply::ok(answer).after(Duration::from_millis(50))
    }
}

#[tokio::test]
async fn refresh_tokens_that_are_good_once_are_used_by_one_repository_after_the_other() {
    let blob = content(1000);
    let (origin, service) = Once::start(&blob).await;
    let identity = Credentials::IdentityToken(Secret::new("r0"));
    let client = RegistryClient::new(with(identity)).unwrap();
    let source = |repository: &str| {
        let reference = format!("{}/{repository}:tag", origin.host).parse().unwrap();
        client.blob(&reference, estargz::Digest::of(&blob))
    };
    let (one, two) = (source("one"), source("two"));
    read(&one, 0..10).await.unwrap();
    read(&two, 0..10).await.unwrap();
    for failing in [0, 0, 1, 0] {
        tokio::time::sleep(Duration::from_millis(1100)).await;
        service.failing.store(failing, Relaxed);
        let (one, two) = tokio::join!(read(&one, 0..10), read(&two, 0..10));
        assert_eq!((one.unwrap(), two.unwrap()), (blob[..10].to_vec(), blob[..10].to_vec()), "{failing}");
    }
    assert_eq!(service.refresh.load(Relaxed), 10);
    assert_eq!(origin.count("/token"), 10 + 1, "nothing is sent that is good no more");
}

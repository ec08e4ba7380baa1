//! Which of several logins is used, and what becomes of those that are refused.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::future::join_all;
use registry::{
    CredentialError, CredentialQuery, CredentialSource, Credentials, RegistryClient, RegistryConfig, Secret,
};
use store::SourceErrorKind as Kind;

use crate::origin::{Origin, Reply, Seen, content, quick, read};

/// A source of logins, written down, that notes what it is told.
#[derive(Debug, Default)]
struct Listed {
    logins: Mutex<Vec<Credentials>>,
    /// What it has once something of it was refused.
    next: Mutex<Option<Vec<Credentials>>>,
    asked: AtomicU64,
    refused: Mutex<Vec<Credentials>>,
}

impl Listed {
    fn new(users: &[&str]) -> Arc<Self> {
        Arc::new(Self {
            logins: Mutex::new(users.iter().map(|user| login(user)).collect()),
            ..Self::default()
        })
    }

    /// One that gives `then` once its first logins were refused.
    fn stale(users: &[&str], then: &[&str]) -> Arc<Self> {
        let source = Self::new(users);
        *source.next.lock().unwrap() = Some(then.iter().map(|user| login(user)).collect());
        source
    }

    fn asked(&self) -> u64 {
        self.asked.load(Relaxed)
    }
}

#[async_trait::async_trait]
impl CredentialSource for Listed {
    fn describe(&self) -> String {
        "a list".to_owned()
    }

    async fn credentials(&self, query: CredentialQuery<'_>) -> Result<Option<Credentials>, CredentialError> {
        Ok(self.candidates(query).await?.into_iter().next())
    }

    async fn candidates(&self, _: CredentialQuery<'_>) -> Result<Vec<Credentials>, CredentialError> {
        self.asked.fetch_add(1, Relaxed);
        Ok(self.logins.lock().unwrap().clone())
    }

    fn refused(&self, _: CredentialQuery<'_>, credentials: &Credentials) {
        self.refused.lock().unwrap().push(credentials.clone());
        if let Some(next) = self.next.lock().unwrap().take() {
            *self.logins.lock().unwrap() = next;
        }
    }
}

fn login(user: &str) -> Credentials {
    Credentials::Password { username: user.into(), password: Secret::new("p") }
}

fn basic(user: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:p")))
}

fn with(sources: &[Arc<Listed>]) -> RegistryConfig {
    let dynamic = |source: &Arc<Listed>| source.clone() as Arc<dyn CredentialSource>;
    RegistryConfig { credentials: sources.iter().map(dynamic).collect(), ..quick() }
}

/// A registry with Basic authentication that answers with a status to each user; 200 is the blob.
async fn basic_registry(blob: &[u8], answers: &[(&str, u16)]) -> (Origin, Arc<Mutex<HashMap<String, u16>>>) {
    let answers = answers.iter().map(|(user, status)| (basic(user), *status)).collect();
    let answers: Arc<Mutex<HashMap<String, u16>>> = Arc::new(Mutex::new(answers));
    let (blob, known) = (blob.to_vec(), answers.clone());
    let origin = Origin::start(move |seen| {
        let user = seen.header("authorization").and_then(|sent| known.lock().unwrap().get(sent).copied());
        match user {
            Some(200) => Reply::blob(seen, &blob),
            Some(403) => Reply::status(403),
            _ => Reply::status(401).header("www-authenticate", "Basic realm=\"x\""),
        }
    })
    .await;
    (origin, answers)
}

/// Whose token is what: `t-<user>`, and `t-` for everybody.
async fn token_registry(
    blob: &[u8],
    given: &'static [&'static str],
    taken: &'static [&'static str],
) -> Origin {
    let blob = blob.to_vec();
    Origin::start_with_host(move |host| {
        let host = host.to_owned();
        Box::new(move |seen: &Seen| {
            if seen.path.starts_with("/token") {
                let form: HashMap<String, String> =
                    url::form_urlencoded::parse(&seen.body).into_owned().collect();
                let user = match seen.header("authorization") {
                    Some(sent) => {
                        given.iter().find(|user| basic(user) == sent).map(|user| (*user).to_owned())
                    }
                    None => Some(form.get("username").cloned().unwrap_or_default()),
                };
                return match user.filter(|user| given.contains(&user.as_str())) {
                    Some(user) => Reply::ok(format!("{{\"token\":\"t-{user}\",\"expires_in\":300}}")),
                    None => Reply::status(401),
                };
            }
            let user = seen.header("authorization").and_then(|value| value.strip_prefix("Bearer t-"));
            match user {
                Some(user) if taken.contains(&user) => Reply::blob(seen, &blob),
                _ => Reply::bearer(&host),
            }
        })
    })
    .await
}

fn sent(origin: &Origin) -> Vec<String> {
    let header = |seen: &Seen| seen.header("authorization").unwrap_or_default().to_owned();
    origin.log().iter().filter(|seen| seen.path.contains("/blobs/")).map(header).collect()
}

#[tokio::test]
async fn every_login_is_tried_in_the_order_of_sources_until_one_is_taken() {
    let blob = content(1000);
    let (origin, _) = basic_registry(&blob, &[("c", 200), ("d", 200)]).await;
    let (first, second) = (Listed::new(&["a", "b"]), Listed::new(&["c", "d"]));
    let source = origin.blob_with(with(&[first.clone(), second.clone()]), &blob);
    assert_eq!(read(&source, 0..1000).await.unwrap(), blob);
    assert_eq!(sent(&origin), [String::new(), basic("a"), basic("b"), basic("c")]);
    assert_eq!(*first.refused.lock().unwrap(), [login("a"), login("b")]);
    assert!(second.refused.lock().unwrap().is_empty());
    // What was taken is sent at once from then on.
    read(&source, 0..10).await.unwrap();
    assert_eq!(sent(&origin).len(), 5);
}

#[tokio::test]
async fn a_login_that_the_token_service_refuses_is_followed_by_the_next() {
    let blob = content(1000);
    let origin = token_registry(&blob, &["b"], &["b"]).await;
    let source = origin.blob_with(with(&[Listed::new(&["a"]), Listed::new(&["b"])]), &blob);
    assert_eq!(read(&source, 0..1000).await.unwrap(), blob);
    assert_eq!(sent(&origin), ["", "Bearer t-b"]);
}

#[tokio::test]
async fn a_login_whose_token_the_registry_refuses_is_followed_by_the_next() {
    let blob = content(1000);
    let origin = token_registry(&blob, &["a", "b"], &["b"]).await;
    let source = origin.blob_with(with(&[Listed::new(&["a", "b"])]), &blob);
    assert_eq!(read(&source, 0..1000).await.unwrap(), blob);
    assert_eq!(sent(&origin), ["", "Bearer t-a", "Bearer t-b"]);
}

#[tokio::test]
async fn anonymous_access_is_tried_last() {
    let blob = content(1000);
    // The credentials have expired, and the image is for everybody.
    let origin = token_registry(&blob, &[""], &[""]).await;
    let source = origin.blob_with(with(&[Listed::new(&["expired"])]), &blob);
    assert_eq!(read(&source, 0..1000).await.unwrap(), blob);
    assert_eq!(sent(&origin), ["", "Bearer t-"]);
    // It is not for everybody: the refusal of the credentials is what is told.
    let origin = token_registry(&blob, &[], &[]).await;
    let source = origin.blob_with(with(&[Listed::new(&["expired"])]), &blob);
    let error = read(&source, 0..1000).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unauthorized);
    assert!(!error.message.contains("no credentials are known"), "{error}");
}

#[tokio::test]
async fn a_source_that_gave_a_copy_too_old_is_asked_again_for_the_same_read() {
    let blob = content(1000);
    let (origin, _) = basic_registry(&blob, &[("new", 200)]).await;
    let stale = Listed::stale(&["old"], &["new"]);
    let source = origin.blob_with(with(std::slice::from_ref(&stale)), &blob);
    assert_eq!(read(&source, 0..1000).await.unwrap(), blob);
    let origin = token_registry(&blob, &["new"], &["new"]).await;
    let stale = Listed::stale(&["old"], &["new"]);
    let source = origin.blob_with(with(std::slice::from_ref(&stale)), &blob);
    assert_eq!(read(&source, 0..1000).await.unwrap(), blob);
    assert_eq!(*stale.refused.lock().unwrap(), [login("old")]);
}

#[tokio::test]
async fn credentials_that_expire_under_reads_are_replaced_without_a_failed_read() {
    let blob = content(1000);
    for status in [401, 403] {
        let (origin, answers) = basic_registry(&blob, &[("one", 200)]).await;
        let stale = Listed::stale(&["one"], &["two"]);
        let source = origin.blob_with(with(std::slice::from_ref(&stale)), &blob);
        assert_eq!(read(&source, 0..1000).await.unwrap(), blob);
        *answers.lock().unwrap() = [(basic("one"), status), (basic("two"), 200)].into();
        let readers = (0..100_u64).map(|n| read(&source, n..1000));
        for (n, bytes) in join_all(readers).await.into_iter().enumerate() {
            assert_eq!(bytes.unwrap(), &blob[n..], "{status}");
        }
        assert_eq!(*stale.refused.lock().unwrap(), [login("one")], "{status}: a storm is one refresh");
        assert!(stale.asked() <= 3, "{status}: {}", stale.asked());
    }
}

#[tokio::test]
async fn an_answer_403_stays_what_it_is_if_nothing_else_is_known() {
    let blob = content(1000);
    let (origin, answers) = basic_registry(&blob, &[("a", 403)]).await;
    let listed = Listed::new(&["a"]);
    let client = RegistryClient::new(with(std::slice::from_ref(&listed))).unwrap();
    let sources: Vec<_> = (0..50_u32)
        .map(|n| client.blob(&origin.reference(), estargz::Digest::of(&n.to_be_bytes())))
        .collect();
    for outcome in join_all(sources.iter().map(|source| read(source, 0..10))).await {
        assert_eq!(outcome.unwrap_err().kind, Kind::Forbidden);
    }
    assert!(listed.asked() <= 4, "sources are not asked for every 403: {}", listed.asked());
    // The login is still in use.
    *answers.lock().unwrap() = [(basic("a"), 200)].into();
    read(&sources[0], 0..10).await.unwrap();
}

#[tokio::test]
async fn a_registry_that_refuses_everything_is_not_asked_again_and_again() {
    let origin = token_registry(b"", &["a", "b", ""], &[]).await;
    let listed = Listed::new(&["a", "b"]);
    let client = RegistryClient::new(with(std::slice::from_ref(&listed))).unwrap();
    let source = client.blob(&origin.reference(), estargz::Digest::of(b"x"));
    for _ in 0..30 {
        assert_eq!(read(&source, 0..1).await.unwrap_err().kind, Kind::Unauthorized);
    }
    let tokens = origin.count("/token");
    assert!(tokens <= 6, "{tokens} token requests for 30 reads");
    // After a pause they are believed again.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    read(&source, 0..1).await.unwrap_err();
    assert!(origin.count("/token") > tokens);
}

#[tokio::test]
async fn a_failing_source_is_passed_over_and_told_if_nothing_else_helps() {
    #[derive(Debug)]
    struct Broken;

    #[async_trait::async_trait]
    impl CredentialSource for Broken {
        fn describe(&self) -> String {
            "a broken source".to_owned()
        }

        async fn credentials(&self, _: CredentialQuery<'_>) -> Result<Option<Credentials>, CredentialError> {
            Err(CredentialError::new("the broken source is broken"))
        }
    }

    let blob = content(1000);
    let (origin, _) = basic_registry(&blob, &[("a", 200)]).await;
    let settings = |listed: &[Arc<Listed>]| {
        let mut settings = with(listed);
        settings.credentials.insert(0, Arc::new(Broken));
        settings
    };
    let source = origin.blob_with(settings(&[Listed::new(&["a"])]), &blob);
    assert_eq!(read(&source, 0..1000).await.unwrap(), blob);
    let error = read(&origin.blob_with(settings(&[]), &blob), 0..10).await.unwrap_err();
    assert!(error.message.contains("the broken source is broken"), "{error}");
}

/// A registry that takes the newest token only, and a token service that refuses `ended` from the token `end` on.
async fn rotating_registry(blob: &[u8], newest: Arc<AtomicU64>, end: u64) -> Origin {
    let blob = blob.to_vec();
    Origin::start_with_host(move |host| {
        let host = host.to_owned();
        Box::new(move |seen: &Seen| {
            let newest = newest.load(Relaxed);
            if seen.path.starts_with("/token") {
                return match was_sent_by("ended", seen) && newest >= end {
                    true => Reply::status(401),
                    false => Reply::ok(format!("{{\"token\":\"t{newest}\",\"expires_in\":300}}")),
                };
            }
            match seen.header("authorization") {
                Some(sent) if *sent == format!("Bearer t{newest}") => Reply::blob(seen, &blob),
                _ => Reply::bearer(&host),
            }
        })
    })
    .await
}

fn was_sent_by(user: &str, seen: &Seen) -> bool {
    let mut form = url::form_urlencoded::parse(&seen.body);
    seen.header("authorization") == Some(basic(user).as_str())
        || form.any(|(key, value)| key == "username" && value == user)
}

/// An account is locked when a password that has ended is sent again and again.
#[tokio::test]
async fn a_login_that_has_ended_is_not_sent_while_another_works() {
    let (blob, newest) = (content(1000), Arc::new(AtomicU64::new(0)));
    let origin = rotating_registry(&blob, newest.clone(), 0).await;
    let client = RegistryClient::new(with(&[Listed::new(&["ended"]), Listed::new(&["good"])])).unwrap();
    let ended = || origin.log().iter().filter(|seen| was_sent_by("ended", seen)).count();
    let digest = estargz::Digest::of(&blob);
    let first = client.blob(&origin.reference(), digest);
    read(&first, 0..10).await.unwrap();
    let before = ended();
    assert!(before > 0);
    // Long enough for it to be believed again.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    newest.store(1, Relaxed);
    read(&first, 0..10).await.unwrap();
    assert_eq!(ended(), before, "a renewal begins with what worked last");
    let other = format!("{}/c/d:tag", origin.host).parse().unwrap();
    read(&client.blob(&other, digest), 0..10).await.unwrap();
    assert_eq!(ended(), before, "nor is it sent first for another repository");
}

/// The same where the registry itself looks at the password.
#[tokio::test]
async fn a_refused_password_comes_last_for_all_repositories_until_it_is_taken() {
    let blob = content(1000);
    let (origin, answers) = basic_registry(&blob, &[("good", 200)]).await;
    let client = RegistryClient::new(with(&[Listed::new(&["ended"]), Listed::new(&["good"])])).unwrap();
    let sent_for = async |repository: &str| {
        let before = sent(&origin).len();
        let reference = format!("{}/{repository}:tag", origin.host).parse().unwrap();
        let source = client.blob(&reference, estargz::Digest::of(&blob));
        assert_eq!(read(&source, 0..10).await.unwrap(), &blob[..10], "{repository}");
        sent(&origin).split_off(before)
    };
    assert_eq!(sent_for("first").await, [String::new(), basic("ended"), basic("good")]);
    assert_eq!(sent_for("second").await, [basic("good")]);
    // Long enough for it to be believed again.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(sent_for("third").await, [basic("good")]);
    // Now the other one has ended.
    *answers.lock().unwrap() = [(basic("ended"), 200)].into();
    assert_eq!(sent_for("fourth").await, [basic("good"), basic("ended")]);
    assert_eq!(sent_for("fifth").await, [basic("ended")]);
    for repository in ["first", "second", "third"] {
        assert_eq!(sent_for(repository).await, [basic("ended")], "{repository}: nor where it was good");
    }
}

#[tokio::test]
async fn a_login_that_ends_is_sent_for_one_of_the_repositories_that_used_it() {
    let (blob, newest) = (content(1000), Arc::new(AtomicU64::new(0)));
    let origin = rotating_registry(&blob, newest.clone(), 1).await;
    let client = RegistryClient::new(with(&[Listed::new(&["ended"]), Listed::new(&["good"])])).unwrap();
    let read_all = async || {
        for repository in ["first", "second", "third", "fourth"] {
            let reference = format!("{}/{repository}:tag", origin.host).parse().unwrap();
            let source = client.blob(&reference, estargz::Digest::of(&blob));
            assert_eq!(read(&source, 0..10).await.unwrap(), &blob[..10], "{repository}");
        }
    };
    read_all().await;
    let before = origin.log().len();
    newest.store(1, Relaxed);
    read_all().await;
    let log = origin.log().split_off(before);
    let ended = log.iter().filter(|seen| was_sent_by("ended", seen)).count();
    // By POST and by GET.
    assert!((1..=2).contains(&ended), "{ended}");
}

#[tokio::test]
async fn sources_that_hang_leave_time_for_the_others() {
    #[derive(Debug)]
    struct Hanging;

    #[async_trait::async_trait]
    impl CredentialSource for Hanging {
        fn describe(&self) -> String {
            "a hanging source".to_owned()
        }

        async fn credentials(&self, _: CredentialQuery<'_>) -> Result<Option<Credentials>, CredentialError> {
            std::future::pending().await
        }
    }

    let blob = content(1000);
    let (origin, _) = basic_registry(&blob, &[("a", 200)]).await;
    let mut settings = with(&[Listed::new(&["a"])]);
    settings.retry.total = Duration::from_secs(4);
    settings.retry.attempts = 1;
    settings.credentials.splice(0..0, [Arc::new(Hanging) as Arc<dyn CredentialSource>, Arc::new(Hanging)]);
    let source = origin.blob_with(settings, &blob);
    assert_eq!(read(&source, 0..1000).await.unwrap(), blob);
}

#[tokio::test]
async fn one_repository_refusing_a_login_does_not_take_it_from_another() {
    let blob = content(1000);
    let served = blob.clone();
    let origin = Origin::start(move |seen| {
        let allowed = match seen.header("authorization") {
            Some(sent) if seen.path.starts_with("/v2/a/b/") => sent == basic("team"),
            Some(sent) => sent == basic("all"),
            None => false,
        };
        if allowed {
            Reply::blob(seen, &served)
        } else {
            Reply::status(401).header("www-authenticate", "Basic realm=\"x\"")
        }
    })
    .await;
    let client = RegistryClient::new(with(&[Listed::new(&["all", "team"])])).unwrap();
    let (one, two) = (origin.reference(), format!("{}/c/d:tag", origin.host).parse().unwrap());
    for _ in 0..2 {
        for reference in [&one, &two] {
            let source = client.blob(reference, estargz::Digest::of(&blob));
            assert_eq!(read(&source, 0..1000).await.unwrap(), blob);
        }
    }
    // The login that was refused for one repository comes last for the other, and is right.
    assert_eq!(origin.log().len(), 3 + 2 + 2, "the next time both are right at once");
}

//! Redirects to storage services: remembered, refreshed, and never given our credentials.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;
use registry::{Credentials, HostConfig, Secret, StaticCredentials};
use store::SourceErrorKind as Kind;

use crate::origin::{Origin, Reply, content, quick, read};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A storage service, and a registry that sends blob requests there with the query of `sign`.
async fn redirecting(blob: &[u8], sign: impl Fn() -> String + Send + Sync + 'static) -> (Origin, Origin) {
    let blob = blob.to_vec();
    let storage = Origin::start(move |seen| Reply::blob(seen, &blob)).await;
    let target = format!("http://{}/data", storage.host);
    let registry = Origin::start(move |_| Reply::redirect(&format!("{target}?{}", sign()))).await;
    (registry, storage)
}

#[tokio::test]
async fn the_target_is_remembered_for_a_blob() {
    let blob = content(10_000);
    let (registry, storage) = redirecting(&blob, || format!("Expires={}", now() + 600)).await;
    let source = registry.blob(&blob);
    source.read_tail(100).await.unwrap();
    for start in 0..5 {
        assert_eq!(read(&source, start..9000).await.unwrap(), &blob[start as usize..9000]);
    }
    assert_eq!((registry.log().len(), storage.log().len()), (1, 6));
}

#[tokio::test]
async fn a_target_that_ends_is_asked_for_anew_before_it_is_refused() {
    let blob = content(10_000);
    let (registry, storage) = redirecting(&blob, || format!("Expires={}", now() + 2)).await;
    let source = registry.blob(&blob);
    read(&source, 0..1).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2100)).await;
    read(&source, 0..1).await.unwrap();
    assert_eq!((registry.log().len(), storage.log().len()), (2, 2));
}

#[tokio::test]
async fn a_target_that_must_not_be_kept_is_used_once() {
    let blob = content(10_000);
    let (registry, storage) = redirecting(&blob, || "Expires=1".to_owned()).await;
    let source = registry.blob(&blob);
    for _ in 0..3 {
        read(&source, 0..1).await.unwrap();
    }
    assert_eq!((registry.log().len(), storage.log().len()), (3, 3));
}

/// The storage service refuses a signature that ended early; all readers find that out at once.
#[tokio::test]
async fn a_refused_target_is_refreshed_once_for_all_readers() {
    let blob = content(10_000);
    for refusal in [401, 403] {
        let good = Arc::new(AtomicU64::new(0));
        let (served, accepted) = (blob.clone(), good.clone());
        let storage = Origin::start(move |seen| {
            let version = seen.path.split_once("v=").unwrap().1.parse::<u64>().unwrap();
            if version == accepted.load(Relaxed) {
                Reply::blob(seen, &served)
            } else {
                Reply::status(refusal)
            }
        })
        .await;
        let (target, signed) = (storage.host.clone(), good.clone());
        let registry = Origin::start(move |_| {
            let version = signed.load(Relaxed);
            Reply::redirect(&format!("http://{target}/data?v={version}")).after(Duration::from_millis(50))
        })
        .await;
        let source = registry.blob(&blob);
        read(&source, 0..1).await.unwrap();
        good.store(1, Relaxed);
        for bytes in join_all((0..50).map(|n| read(&source, n..9000 + n))).await {
            assert_eq!(bytes.unwrap().len(), 9000);
        }
        assert_eq!(registry.log().len(), 2, "{refusal}");
    }
}

#[tokio::test]
async fn a_fresh_target_that_refuses_is_an_error() {
    let storage = Origin::start(|_| Reply::status(403).with_body(b"<Secret>planted</Secret>")).await;
    let target = format!("http://{}/data?sig=planted", storage.host);
    let registry = Origin::start(move |_| Reply::redirect(&target)).await;
    let error = read(&registry.blob(b"x"), 0..1).await.unwrap_err();
    assert_eq!((error.kind, registry.log().len()), (Kind::Forbidden, 1));
    assert!(!format!("{error} {error:?}").contains("planted"), "{error:?}");
    assert!(error.message.contains(&storage.host), "{error}");
}

#[tokio::test]
async fn signed_urls_do_not_show_in_errors() {
    let storage = Origin::start(|_| Reply::status(200)).await;
    let target = format!("http://{}/data?sig=planted", storage.host);
    drop(storage);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let registry = Origin::start(move |_| Reply::redirect(&target)).await;
    let error = read(&registry.blob(b"x"), 0..1).await.unwrap_err();
    let mut text = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(&error);
    while let Some(deeper) = cause {
        text.push_str(&format!("{deeper} {deeper:?}"));
        cause = deeper.source();
    }
    assert!(!text.contains("planted"), "{text}");
}

/// The storage service and the hops before it see neither credentials nor configured headers.
#[tokio::test]
async fn credentials_and_headers_go_to_the_registry_only() {
    let blob = content(10_000);
    let served = blob.clone();
    let storage = Origin::start(move |seen| match seen.path.as_str() {
        "/hop" => Reply::redirect("/data"),
        _ => Reply::blob(seen, &served),
    })
    .await;
    let target = format!("http://{}/hop", storage.host);
    let registry = Origin::start(move |seen| match seen.header("authorization") {
        None => Reply::status(401).header("www-authenticate", "Basic realm=\"x\""),
        Some(_) if seen.path.contains("manifests") => Reply::redirect(&target.replace("hop", "manifest")),
        Some(_) => Reply::redirect(&target),
    })
    .await;
    let mut config = quick();
    let headers = vec![("X-Secret".to_owned(), "planted".to_owned())];
    config.hosts.insert(registry.host.clone(), HostConfig { headers, ..HostConfig::default() });
    let password = Credentials::Password { username: "u".into(), password: Secret::new("planted") };
    config.credentials = vec![Arc::new(StaticCredentials { hosts: vec![(registry.host.clone(), password)] })];
    let client = registry::RegistryClient::new(config).unwrap();
    let source = client.blob(&registry.reference(), estargz::Digest::of(&blob));
    assert_eq!(read(&source, 0..10_000).await.unwrap(), blob);
    assert_eq!(read(&source, 5..6).await.unwrap(), &blob[5..6]);
    source.distrust();
    assert_eq!(read(&source, 5..6).await.unwrap(), &blob[5..6]);
    client.manifest(&registry.reference()).await.unwrap();
    assert!(registry.log().iter().all(|seen| seen.header("x-secret") == Some("planted")));
    assert!(registry.log().iter().any(|seen| seen.header("authorization").is_some()));
    for seen in storage.log() {
        assert!(!format!("{seen:?}").contains("planted"), "{seen:?}");
        assert_eq!(seen.header("authorization"), None);
    }
    assert_eq!(storage.log().len(), 6);
}

#[tokio::test]
async fn nothing_is_sent_to_the_registry_by_a_chain_that_had_left_it() {
    let blob = content(100);
    let served = blob.clone();
    let (back, leave) =
        (Arc::new(std::sync::Mutex::new(String::new())), Arc::new(std::sync::Mutex::new(String::new())));
    let to = back.clone();
    let storage = Origin::start(move |_| Reply::redirect(&to.lock().unwrap())).await;
    *leave.lock().unwrap() = format!("http://{}/", storage.host);
    let registry = Origin::start(move |seen| match seen.path.as_str() {
        "/again" => Reply::blob(seen, &served),
        _ if seen.header("authorization").is_none() => {
            Reply::status(401).header("www-authenticate", "Basic realm=\"x\"")
        }
        _ => Reply::redirect(&leave.lock().unwrap()),
    })
    .await;
    *back.lock().unwrap() = format!("http://{}/again", registry.host);
    let mut config = quick();
    let password = Credentials::Password { username: "u".into(), password: Secret::new("p") };
    config.credentials = vec![Arc::new(StaticCredentials { hosts: vec![(registry.host.clone(), password)] })];
    let source = registry.blob_with(config, &blob);
    // The second read goes to the remembered end of the chain.
    for _ in 0..2 {
        assert_eq!(read(&source, 0..100).await.unwrap(), blob);
    }
    let again: Vec<_> = registry.log().into_iter().filter(|seen| seen.path == "/again").collect();
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(|seen| seen.header("authorization").is_none()), "{again:?}");
    assert_eq!(storage.log().len(), 1);
}

#[tokio::test]
async fn chains_and_relative_redirects_are_followed_up_to_a_limit() {
    let blob = content(1000);
    for (hops, works) in [(1, true), (10, true), (11, false), (1000, false)] {
        let served = blob.clone();
        let registry = Origin::start(move |seen| {
            let hop = seen.path.rsplit_once("hop").map_or(0, |(_, n)| n.parse::<usize>().unwrap());
            if hop == hops {
                Reply::blob(seen, &served)
            } else {
                Reply::redirect(&format!("../x/hop{}", hop + 1))
            }
        })
        .await;
        let outcome = read(&registry.blob(&blob), 0..1000).await;
        match outcome {
            Ok(bytes) => assert!(works && bytes == blob),
            Err(error) => {
                assert!(!works && error.kind == Kind::Protocol && registry.log().len() == 11, "{error}")
            }
        }
    }
}

#[tokio::test]
async fn useless_redirects_are_errors() {
    let long = format!("http://x/{}", "y".repeat(20_000));
    for location in ["", "http://", "ftp://example.com/x", "file:///etc/passwd", &long] {
        let target = location.to_owned();
        let registry =
            Origin::start(
                move |_| if target.is_empty() { Reply::status(307) } else { Reply::redirect(&target) },
            )
            .await;
        let error = read(&registry.blob(b"x"), 0..1).await.unwrap_err();
        assert_eq!(error.kind, Kind::Protocol, "{location}: {error}");
    }
}

#[tokio::test]
async fn a_registry_that_answers_itself_is_read_in_parallel() {
    let blob = content(10_000);
    let (served, first) = (blob.clone(), AtomicUsize::new(0));
    let registry = Origin::start(move |seen| {
        let delay = if first.fetch_add(1, Relaxed) == 0 { 0 } else { 500 };
        Reply::blob(seen, &served).after(Duration::from_millis(delay))
    })
    .await;
    let source = registry.blob(&blob);
    read(&source, 0..1).await.unwrap();
    let began = std::time::Instant::now();
    join_all((0..20).map(|_| read(&source, 0..10_000)))
        .await
        .into_iter()
        .for_each(|bytes| assert_eq!(bytes.unwrap(), blob));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

/// One reader hangs while it finds out where the blob is: the others wait only for a moment.
#[tokio::test]
async fn a_hanging_first_answer_does_not_queue_the_others_up() {
    let blob = content(10_000);
    let (served, first) = (blob.clone(), AtomicUsize::new(0));
    let registry = Origin::start(move |seen| {
        let delay = if first.fetch_add(1, Relaxed) == 0 { 600 } else { 0 };
        Reply::blob(seen, &served).after(Duration::from_secs(delay))
    })
    .await;
    let mut config = quick();
    config.idle_timeout = Duration::from_secs(8);
    let source = registry.blob_with(config, &blob);
    let hanging = tokio::spawn({
        let source = source.clone();
        async move { read(&source, 0..1).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = std::time::Instant::now();
    for bytes in join_all((0..50).map(|_| read(&source, 0..10_000))).await {
        assert_eq!(bytes.unwrap(), blob);
    }
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    hanging.abort();
}

#[tokio::test]
async fn distrust_goes_back_to_the_registry() {
    let blob = content(10_000);
    let (registry, _storage) = redirecting(&blob, || format!("Expires={}", now() + 600)).await;
    let source = registry.blob(&blob);
    read(&source, 0..1).await.unwrap();
    source.distrust();
    read(&source, 0..1).await.unwrap();
    assert_eq!(registry.log().len(), 2);
}

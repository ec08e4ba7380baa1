//! Demand does not wait for others.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use registry::RegistryClient;
use store::Class;

use crate::origin::{Cut, Origin, Reply, content, quick};

#[tokio::test]
async fn background_is_bounded_and_demand_is_not_behind_it() {
    let blob = content(10_000);
    let served = blob.clone();
    let origin = Origin::start(move |seen| {
        let good = Reply::blob(seen, &served);
        if seen.header("range") == Some("bytes=0-9999") { good.cut(5000, Cut::Stall) } else { good }
    })
    .await;
    let mut config = quick();
    config.background_connections = 3;
    config.ahead_connections = 2;
    config.idle_timeout = Duration::from_secs(60);
    let client = RegistryClient::new(config).unwrap();
    let source = client.blob(&origin.reference(), estargz::Digest::of(&blob));
    source.read_tail(1).await.unwrap();
    let hanging: Vec<_> = [Class::Background, Class::Prefetch, Class::ReadAhead]
        .into_iter()
        .cycle()
        .take(30)
        .map(|class| {
            let source = source.clone();
            tokio::spawn(async move {
                let mut stream = source.read_range(0..10_000, class).await.unwrap();
                while stream.next().await.is_some() {}
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(origin.log().len(), 1 + 3 + 2, "three in the background, two ahead");
    let began = Instant::now();
    let bytes = crate::origin::read(&source, 1..10_000).await.unwrap();
    assert_eq!(bytes, &blob[1..]);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    hanging.iter().for_each(|task| task.abort());
    // Permits come back when their readers go.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(source.read_range(1..2, Class::Background).await.is_ok());
}

/// A rate limit is left to those who wait for bytes.
#[tokio::test]
async fn after_429_background_keeps_quiet_and_demand_does_not() {
    let blob = content(10_000);
    let served = blob.clone();
    let origin = Origin::start(move |seen| match seen.header("range") {
        Some("bytes=0-0") => Reply::status(429).header("retry-after", "2"),
        _ => Reply::blob(seen, &served),
    })
    .await;
    let client = RegistryClient::new(quick()).unwrap();
    let source = client.blob(&origin.reference(), estargz::Digest::of(&blob));
    source.read_tail(1).await.unwrap();
    let refused = tokio::spawn({
        let source = source.clone();
        async move { source.read_range(0..1, Class::Demand).await.is_err() }
    });
    while origin.log().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    crate::origin::read(&source, 0..10_000).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(source.read_range(5..10, Class::Background).await.is_ok());
    assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
    refused.abort();
}

#[tokio::test]
async fn counters_tell_what_was_done() {
    let blob = content(10_000);
    let served = blob.clone();
    let first = std::sync::atomic::AtomicBool::new(true);
    let origin = Origin::start(move |seen| {
        let good = Reply::blob(seen, &served);
        if first.swap(false, std::sync::atomic::Ordering::Relaxed) { Reply::status(503) } else { good }
    })
    .await;
    let client = RegistryClient::new(quick()).unwrap();
    let source = client.blob(&origin.reference(), estargz::Digest::of(&blob));
    crate::origin::read(&source, 0..5000).await.unwrap();
    let stats = client.stats();
    assert_eq!((stats.len(), stats[0].host.as_str()), (1, origin.host.as_str()));
    assert_eq!((stats[0].requests, stats[0].retries, stats[0].bytes_received), (2, 1, 5000));
}

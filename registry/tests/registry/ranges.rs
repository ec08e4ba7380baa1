//! Reading tails and ranges from servers with different ideas of ranges.

use store::{Class, SourceErrorKind as Kind};

use crate::origin::{Origin, Reply, content, quick, read};

#[tokio::test]
async fn a_tail_costs_one_request() {
    let blob = content(100_000);
    let served = blob.clone();
    let origin = Origin::start(move |seen| Reply::blob(seen, &served)).await;
    let tail = origin.blob(&blob).read_tail(1000).await.unwrap();
    assert_eq!((tail.blob_size, &tail.bytes[..]), (100_000, &blob[99_000..]));
    let log = origin.log();
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].header("range"), Some("bytes=-1000"));
    assert_eq!(log[0].header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn a_tail_longer_than_the_blob_is_the_blob() {
    let blob = content(500);
    let served = blob.clone();
    let origin = Origin::start(move |seen| Reply::blob(seen, &served)).await;
    let tail = origin.blob(&blob).read_tail(1000).await.unwrap();
    assert_eq!((tail.blob_size, &tail.bytes[..]), (500, &blob[..]));
}

#[tokio::test]
async fn ranges_are_read_to_the_byte() {
    let blob = content(100_000);
    let served = blob.clone();
    let origin = Origin::start(move |seen| Reply::blob(seen, &served)).await;
    let source = origin.blob(&blob);
    for range in [0..1, 0..100_000, 99_999..100_000, 12_345..67_890] {
        assert_eq!(
            read(&source, range.clone()).await.unwrap(),
            &blob[range.start as usize..range.end as usize]
        );
    }
    assert_eq!(read(&source, 5..5).await.unwrap(), b"");
    assert_eq!(origin.log().len(), 4);
}

#[tokio::test]
async fn a_range_past_the_known_end_is_refused_without_a_request() {
    let blob = content(1000);
    let served = blob.clone();
    let origin = Origin::start(move |seen| Reply::blob(seen, &served)).await;
    let source = origin.blob(&blob);
    source.read_tail(10).await.unwrap();
    let error = read(&source, 900..1001).await.unwrap_err();
    assert_eq!((error.kind, origin.log().len()), (Kind::Protocol, 1));
}

/// The sizes learned from a suffix range that is refused in different ways; then offsets are asked for.
#[tokio::test]
async fn servers_without_suffix_ranges_are_asked_by_offset() {
    let blob = content(2 << 20);
    for how in ["400", "416", "501", "405", "prefix", "whole", "chunked whole", "garbage"] {
        let served = blob.clone();
        let origin = Origin::start(move |seen| {
            if !seen.header("range").is_some_and(|range| range.starts_with("bytes=-")) {
                return Reply::blob(seen, &served);
            }
            match how {
                "prefix" => Reply::part(&served, 0..1001),
                "whole" => Reply::ok(served.clone()),
                "chunked whole" => Reply::ok(served.clone()).chunked(),
                "garbage" => Reply::part(&served, 0..10).header("content-range", "bytes x"),
                status => Reply::status(status.parse().unwrap()),
            }
        })
        .await;
        let source = origin.blob(&blob);
        let tail = source.read_tail(1000).await.unwrap_or_else(|error| panic!("{how}: {error}"));
        assert_eq!((tail.blob_size, &tail.bytes[..]), (2 << 20, &blob[(2 << 20) - 1000..]), "{how}");
        assert!(origin.log().len() <= 3, "{how}: {}", origin.log().len());
    }
}

#[tokio::test]
async fn a_host_that_refused_suffix_ranges_is_not_asked_for_them_again() {
    let blobs = [content(10_000), content(20_000)];
    let served = blobs.clone();
    let origin = Origin::start(move |seen| {
        let wanted =
            served.iter().find(|blob| seen.path.ends_with(&estargz::Digest::of(blob).to_string())).unwrap();
        match seen.header("range") {
            Some(range) if range.starts_with("bytes=-") => Reply::status(400),
            _ => Reply::blob(seen, wanted),
        }
    })
    .await;
    let client = registry::RegistryClient::new(quick()).unwrap();
    for blob in &blobs {
        let tail = client.blob(&origin.reference(), estargz::Digest::of(blob)).read_tail(100).await.unwrap();
        assert_eq!(&tail.bytes[..], &blob[blob.len() - 100..]);
    }
    assert_eq!(origin.log().iter().filter(|seen| seen.header("range") == Some("bytes=-100")).count(), 1);
}

#[tokio::test]
async fn a_server_without_ranges_is_reported_unless_the_blob_is_small() {
    let (small, large) = (content(1 << 20), content((1 << 20) + 1));
    for chunked in [false, true] {
        for blob in [&small, &large] {
            let served = blob.clone();
            let origin = Origin::start(move |_| {
                let reply = Reply::ok(served.clone());
                if chunked { reply.chunked() } else { reply }
            })
            .await;
            match origin.blob(blob).read_tail(77).await {
                Ok(tail) => {
                    assert_eq!(blob.len(), small.len(), "a large blob is not read whole");
                    assert_eq!(
                        (tail.blob_size as usize, &tail.bytes[..]),
                        (small.len(), &small[small.len() - 77..])
                    );
                }
                Err(error) => assert_eq!((error.kind, blob.len()), (Kind::RangesUnsupported, large.len())),
            }
        }
    }
}

#[tokio::test]
async fn a_range_of_a_whole_answer_is_skipped_to() {
    let blob = content(300_000);
    for chunked in [false, true] {
        let served = blob.clone();
        let origin = Origin::start(move |_| {
            let reply = Reply::ok(served.clone());
            if chunked { reply.chunked() } else { reply }
        })
        .await;
        let source = origin.blob(&blob);
        assert_eq!(read(&source, 123_456..234_567).await.unwrap(), &blob[123_456..234_567]);
        assert_eq!(read(&source, 0..300_000).await.unwrap(), blob);
    }
}

#[tokio::test]
async fn skipping_is_bounded() {
    let blob = content(300_000);
    let served = blob.clone();
    let origin = Origin::start(move |_| Reply::ok(served.clone())).await;
    let mut config = quick();
    config.max_skip = 100_000;
    let source = origin.blob_with(config, &blob);
    assert_eq!(read(&source, 100_000..100_001).await.unwrap(), &blob[100_000..100_001]);
    assert_eq!(read(&source, 100_001..100_002).await.unwrap_err().kind, Kind::RangesUnsupported);
}

#[tokio::test]
async fn ranges_rounded_to_blocks_are_cut_to_what_was_asked_for() {
    let blob = content(100_000);
    let served = blob.clone();
    let origin = Origin::start(move |seen| {
        let wanted = seen.range(served.len()).unwrap();
        Reply::part(&served, wanted.start / 4096 * 4096..wanted.end.next_multiple_of(4096).min(served.len()))
    })
    .await;
    assert_eq!(read(&origin.blob(&blob), 5000..50_000).await.unwrap(), &blob[5000..50_000]);
}

#[tokio::test]
async fn a_server_that_gives_less_than_asked_is_asked_for_the_rest() {
    let blob = content(300_000);
    for (piece, requests) in [(70_000, 5), (1, 3)] {
        let served = blob.clone();
        let origin = Origin::start(move |seen| {
            let wanted = seen.range(served.len()).unwrap();
            Reply::part(&served, wanted.start..wanted.end.min(wanted.start + piece))
        })
        .await;
        match read(&origin.blob(&blob), 0..300_000).await {
            Ok(bytes) => assert!(piece > 1 && bytes == blob),
            Err(error) => assert!(piece == 1 && error.kind == Kind::Protocol, "{error}"),
        }
        assert_eq!(origin.log().len(), requests);
    }
}

#[tokio::test]
async fn chunked_answers_without_a_length_are_read() {
    let blob = content(100_000);
    let served = blob.clone();
    let origin = Origin::start(move |seen| Reply::blob(seen, &served).chunked()).await;
    let source = origin.blob(&blob);
    let tail = source.read_tail(5000).await.unwrap();
    assert_eq!((tail.blob_size, &tail.bytes[..]), (100_000, &blob[95_000..]));
    assert_eq!(read(&source, 1..99_999).await.unwrap(), &blob[1..99_999]);
}

#[tokio::test]
async fn an_empty_blob_has_an_empty_tail() {
    for refuse in [false, true] {
        let origin = Origin::start(move |_| {
            if refuse { Reply::status(416).header("content-range", "bytes */0") } else { Reply::ok("") }
        })
        .await;
        let tail = origin.blob(b"").read_tail(100).await.unwrap();
        assert_eq!((tail.blob_size, tail.bytes.len()), (0, 0));
    }
}

#[tokio::test]
async fn two_holders_of_a_blob_share_what_is_known_of_it() {
    let blob = content(1000);
    let served = blob.clone();
    let origin = Origin::start(move |seen| Reply::blob(seen, &served)).await;
    let client = registry::RegistryClient::new(quick()).unwrap();
    let digest = estargz::Digest::of(&blob);
    let (one, two) = (client.blob(&origin.reference(), digest), client.blob(&origin.reference(), digest));
    one.read_tail(10).await.unwrap();
    assert!(two.read_range(0..1001, Class::Demand).await.is_err());
    assert_eq!(origin.log().len(), 1);
}

//! Servers and connections that fail: right bytes, or a clean error within bounded time.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use store::SourceErrorKind as Kind;

use crate::origin::{Cut, Origin, Reply, content, quick, read};

/// A server that answers the first `bad` requests with `reply` and then as it should.
async fn recovering(
    blob: &[u8],
    bad: usize,
    reply: impl Fn(Reply) -> Reply + Send + Sync + 'static,
) -> Origin {
    let (blob, seen_so_far) = (blob.to_vec(), AtomicUsize::new(0));
    Origin::start(move |seen| {
        let good = Reply::blob(seen, &blob);
        if seen_so_far.fetch_add(1, Relaxed) < bad { reply(good) } else { good }
    })
    .await
}

#[tokio::test]
async fn a_broken_body_is_resumed_from_the_byte_where_it_broke() {
    let blob = content(1 << 20);
    let origin = recovering(&blob, 2, |good| good.cut(300_000, Cut::Close)).await;
    assert_eq!(read(&origin.blob(&blob), 0..1 << 20).await.unwrap(), blob);
    let ranges: Vec<_> = origin.log().iter().map(|seen| seen.header("range").unwrap().to_owned()).collect();
    assert_eq!(ranges, ["bytes=0-1048575", "bytes=300000-1048575", "bytes=600000-1048575"]);
}

#[tokio::test]
async fn a_broken_chunked_body_is_resumed_too() {
    let blob = content(100_000);
    let origin = recovering(&blob, 1, |good| good.chunked().cut(50_000, Cut::Close)).await;
    assert_eq!(read(&origin.blob(&blob), 0..100_000).await.unwrap(), blob);
    assert_eq!(origin.log().len(), 2);
}

#[tokio::test]
async fn a_broken_tail_is_resumed() {
    let blob = content(100_000);
    let origin = recovering(&blob, 1, |good| good.cut(10_000, Cut::Close)).await;
    let tail = origin.blob(&blob).read_tail(60_000).await.unwrap();
    assert_eq!(&tail.bytes[..], &blob[40_000..]);
    assert_eq!(origin.log()[1].header("range"), Some("bytes=50000-99999"));
}

#[tokio::test]
async fn progress_gives_new_attempts() {
    let blob = content(2 << 20);
    let origin = recovering(&blob, usize::MAX, |good| good.cut(100_000, Cut::Close)).await;
    assert_eq!(read(&origin.blob(&blob), 0..2 << 20).await.unwrap(), blob);
    assert!(origin.log().len() > 20);
}

#[tokio::test]
async fn passing_failures_are_tried_again() {
    let blob = content(1000);
    for status in [408, 429, 500, 502, 503, 504] {
        let origin = recovering(&blob, 2, move |_| Reply::status(status)).await;
        assert_eq!(read(&origin.blob(&blob), 0..1000).await.unwrap(), blob, "{status}");
        assert_eq!(origin.log().len(), 3, "{status}");
    }
}

#[tokio::test]
async fn lasting_failures_end_with_their_kind_and_say_what_the_registry_said() {
    let body = br#"{"errors":[{"code":"SOMETHING","message":"is wrong"}]}"#;
    for (status, kind, requests) in [
        (400, Kind::Protocol, 1),
        (401, Kind::Unauthorized, 1),
        (403, Kind::Forbidden, 1),
        (404, Kind::NotFound, 1),
        (429, Kind::Unavailable, 4),
        (500, Kind::Unavailable, 4),
        (501, Kind::Protocol, 1),
    ] {
        let origin = recovering(b"", usize::MAX, move |_| Reply::status(status).with_body(body)).await;
        let error = read(&origin.blob(b"x"), 0..1).await.unwrap_err();
        assert_eq!((error.kind, origin.log().len()), (kind, requests), "{status}: {error}");
        assert!(error.message.contains("SOMETHING (is wrong)"), "{error}");
        assert!(error.message.contains(&origin.host), "{error}");
    }
}

#[tokio::test]
async fn retry_after_is_obeyed_in_seconds_and_as_a_date() {
    let blob = content(1000);
    for date in [false, true] {
        let origin = recovering(&blob, 1, move |_| {
            let then = SystemTime::now() + Duration::from_secs(2);
            let value = if date { httpdate::fmt_http_date(then) } else { "1".to_owned() };
            Reply::status(429).header("retry-after", &value)
        })
        .await;
        let began = Instant::now();
        assert_eq!(read(&origin.blob(&blob), 0..1000).await.unwrap(), blob);
        assert!(began.elapsed() >= Duration::from_millis(950), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_server_that_asks_for_more_patience_than_there_is_ends_the_read_at_once() {
    let origin = recovering(b"", usize::MAX, |_| Reply::status(503).header("retry-after", "3600")).await;
    let began = Instant::now();
    let error = read(&origin.blob(b"x"), 0..1).await.unwrap_err();
    assert_eq!((error.kind, origin.log().len()), (Kind::Unavailable, 1));
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let origin = Origin::start(|_| Reply::status(200)).await;
    let source = origin.blob(b"x");
    drop(origin);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let error = read(&source, 0..1).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.contains("cannot connect") && error.message.contains("4 attempts"), "{error}");
}

#[tokio::test]
async fn silence_times_out_before_the_answer_and_within_a_body() {
    let blob = content(10_000);
    let mut config = quick();
    config.idle_timeout = Duration::from_millis(200);
    for head in [false, true] {
        let origin = recovering(&blob, usize::MAX, move |good| {
            if head { good.after(Duration::from_secs(600)) } else { good.cut(100, Cut::Stall) }
        })
        .await;
        let began = Instant::now();
        let error = read(&origin.blob_with(config.clone(), &blob), 0..10_000).await.unwrap_err();
        assert_eq!(error.kind, Kind::TimedOut, "{error}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_stalled_body_is_resumed() {
    let blob = content(10_000);
    let mut config = quick();
    config.idle_timeout = Duration::from_millis(300);
    let origin = recovering(&blob, 1, |good| good.cut(4000, Cut::Stall)).await;
    assert_eq!(read(&origin.blob_with(config, &blob), 0..10_000).await.unwrap(), blob);
    assert_eq!(origin.log()[1].header("range"), Some("bytes=4000-9999"));
}

#[tokio::test]
async fn a_trickle_is_as_good_as_silence() {
    let blob = content(10_000);
    let mut config = quick();
    config.idle_timeout = Duration::from_secs(1);
    config.retry.attempts = 2;
    let origin = recovering(&blob, usize::MAX, |good| good.cut(10, Cut::Trickle)).await;
    let began = Instant::now();
    let error = read(&origin.blob_with(config, &blob), 0..10_000).await.unwrap_err();
    assert_eq!(error.kind, Kind::TimedOut, "{error}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

/// Each of these answers is wrong in one way; none may give a byte that is not the wanted one.
#[tokio::test]
async fn wrong_answers_are_detected() {
    let blob = content(10_000);
    let range = |value: &'static str| move |good: Reply| good.header("content-range", value);
    type Spoil = Box<dyn Fn(Reply) -> Reply + Send + Sync>;
    let cases: Vec<(&str, Spoil)> = vec![
        ("later start", Box::new(range("bytes 2001-3000/10000"))),
        ("other end", Box::new(range("bytes 2000-2998/10000"))),
        ("other total", Box::new(range("bytes 2000-2999/10001"))),
        ("end before start", Box::new(range("bytes 2000-1999/10000"))),
        ("end past total", Box::new(range("bytes 2000-10999/10000"))),
        ("garbage", Box::new(range("bananas"))),
        ("unsatisfied", Box::new(range("bytes */10000"))),
        ("encoded", Box::new(|good| good.header("content-encoding", "gzip"))),
        ("no range", Box::new(|_| Reply::status(206).with_body(&[0; 1000]))),
        (
            "multipart",
            Box::new(|_| {
                Reply::status(206)
                    .header("content-type", "multipart/byteranges; boundary=x")
                    .with_body(&[0; 1000])
            }),
        ),
        ("longer", Box::new(|good| good.with_body(&[0; 1001]))),
        ("longer without length", Box::new(|good| good.with_body(&[0; 1001]).chunked())),
        ("length of another range", Box::new(|good| good.claiming(500))),
        ("shorter whole", Box::new(|_| Reply::ok(vec![0; 2000]))),
        ("other whole", Box::new(|_| Reply::ok(vec![0; 9999]))),
        ("416", Box::new(|_| Reply::status(416).header("content-range", "bytes */1000"))),
        ("204", Box::new(|_| Reply::status(204))),
    ];
    for (name, spoil) in cases {
        let (served, first) = (blob.clone(), AtomicUsize::new(0));
        let origin = Origin::start(move |seen| {
            let good = Reply::blob(seen, &served);
            if first.fetch_add(1, Relaxed) == 0 { good } else { spoil(good) }
        })
        .await;
        let source = origin.blob(&blob);
        assert_eq!(source.read_tail(10).await.unwrap().blob_size, 10_000);
        let began = Instant::now();
        let error = match read(&source, 2000..3000).await {
            Err(error) => error,
            Ok(bytes) => {
                panic!("{name}: {} bytes were taken, right: {}", bytes.len(), bytes == blob[2000..3000])
            }
        };
        assert_eq!(error.kind, Kind::Protocol, "{name}: {error}");
        assert!(began.elapsed() < Duration::from_secs(5), "{name}");
        assert!(origin.log().len() <= 4, "{name}: {} requests", origin.log().len());
    }
}

#[tokio::test]
async fn a_wrong_answer_once_is_an_accident() {
    let blob = content(10_000);
    let origin = recovering(&blob, 1, |good| good.header("content-range", "bytes 0-0/10000")).await;
    assert_eq!(read(&origin.blob(&blob), 2000..3000).await.unwrap(), &blob[2000..3000]);
}

#[tokio::test]
async fn a_body_shorter_than_its_range_without_length_is_resumed_or_ends() {
    let blob = content(10_000);
    for bad in [1, usize::MAX] {
        let origin = recovering(&blob, bad, |good| good.with_body(&content(10_000)[..500]).chunked()).await;
        match read(&origin.blob(&blob), 0..10_000).await {
            Ok(bytes) => assert!(bad == 1 && bytes == blob),
            Err(error) => assert_eq!((bad, error.kind), (usize::MAX, Kind::Unavailable)),
        }
    }
}

#[tokio::test]
async fn answers_that_are_not_http_are_errors() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, b"SSH-2.0-nothing\r\n").await;
        }
    });
    let client = registry::RegistryClient::new(quick()).unwrap();
    let reference = format!("{host}/a/b").parse().unwrap();
    let error = client.blob(&reference, estargz::Digest::of(b"x")).read_tail(1).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
}

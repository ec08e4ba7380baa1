//! The client against the shared test registry: every fault, with and without redirects, and the kinds of
//! authentication, from a push to the last byte read.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use estargz::Digest;
use futures_util::future::join_all;
use registry::{
    Credentials, ImageSource, Reference, RegistryClient, RegistryConfig, Secret, StaticCredentials,
    media_type,
};
use store::{BlobSource, SourceErrorKind as Kind};
use testkit::registry::{Auth, Fault, Listener, On, Redirect, RegistryOptions, Shaping, TestRegistry};

use crate::origin::{content, file, quick, read};

const SIZE: u64 = 300_000;

fn impatient() -> RegistryConfig {
    RegistryConfig { idle_timeout: Duration::from_millis(300), ..quick() }
}

fn signed(lifetime: Duration, hops: u8) -> Redirect {
    Redirect::Signed { status: 307, lifetime, hops }
}

fn started(auth: Auth, redirect: Redirect) -> TestRegistry {
    TestRegistry::start(RegistryOptions { auth, redirect, ..RegistryOptions::default() }).unwrap()
}

fn reference(registry: &TestRegistry) -> Reference {
    format!("{}/a/b:tag", registry.host()).parse().unwrap()
}

fn source(registry: &TestRegistry, config: RegistryConfig, blob: &[u8]) -> Arc<dyn BlobSource> {
    RegistryClient::new(config).unwrap().blob(&reference(registry), Digest::of(blob))
}

fn logged_in(registry: &TestRegistry, credentials: Credentials) -> RegistryConfig {
    let hosts = vec![(registry.host(), credentials)];
    RegistryConfig { credentials: vec![Arc::new(StaticCredentials { hosts })], ..quick() }
}

fn password() -> Credentials {
    Credentials::Password { username: "me".into(), password: Secret::new("secret") }
}

/// Every fault ends in the right bytes or an error of the right kind, soon; a fault that passes always
/// ends in the right bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_ends_in_right_bytes_or_an_error() {
    let faults = [
        (Fault::Status(401), Some(Kind::Unauthorized)),
        (Fault::Status(403), Some(Kind::Forbidden)),
        (Fault::Status(404), Some(Kind::NotFound)),
        (Fault::Status(416), Some(Kind::Protocol)),
        (Fault::Status(429), Some(Kind::Unavailable)),
        (Fault::RetryAfter(429, 1), Some(Kind::Unavailable)),
        (Fault::Status(500), Some(Kind::Unavailable)),
        (Fault::RetryAfter(503, 1), Some(Kind::Unavailable)),
        (Fault::Reset, Some(Kind::Unavailable)),
        (Fault::Truncate(0), Some(Kind::Unavailable)),
        // The server may drop what it has not written yet, so that some attempts give nothing.
        (Fault::Truncate(70_000), Some(Kind::Unavailable)),
        (Fault::Shorten(1), Some(Kind::Protocol)),
        (Fault::ShiftContentRange(1), Some(Kind::Protocol)),
        (Fault::IgnoreRange, None),
        (Fault::Stall, Some(Kind::TimedOut)),
        (Fault::StallBody(10), Some(Kind::TimedOut)),
        (Fault::Chunked, None),
    ];
    let blob = content(SIZE as usize);
    let cases = faults.iter().flat_map(|fault| [(fault, false), (fault, true)]);
    join_all(cases.map(|((fault, lasting), redirected)| {
        let (blob, fault) = (blob.clone(), fault.clone());
        async move {
            let redirect = if redirected { signed(Duration::from_secs(600), 0) } else { Redirect::None };
            let registry = started(Auth::None, redirect);
            registry.add_blob(blob.clone());
            let source = source(&registry, impatient(), &blob);
            assert_eq!(source.read_tail(100).await.unwrap().bytes, &blob[SIZE as usize - 100..]);
            let on = if redirected { On::BlobAtCdn } else { On::BlobAtRegistry };
            let name = format!("{fault:?}, redirected: {redirected}");
            registry.inject(on, fault.clone(), Some(1));
            let began = Instant::now();
            match (read(&source, 1000..SIZE - 1).await, fault.clone()) {
                (Ok(bytes), _) => assert_eq!(bytes, &blob[1000..SIZE as usize - 1], "{name}"),
                // A registry that says no once is believed; a redirect's target is not.
                (Err(error), Fault::Status(401..=416)) if !redirected => {
                    assert!(Some(error.kind) == *lasting, "{name}: {error}")
                }
                (Err(error), Fault::Status(416)) => assert!(Some(error.kind) == *lasting, "{name}: {error}"),
                (Err(error), _) => panic!("{name}: {error}"),
            }
            registry.clear_faults();
            registry.inject(on, fault, None);
            match (read(&source, 1000..SIZE - 1).await, lasting) {
                (Ok(bytes), None | Some(Kind::Unavailable)) => {
                    assert_eq!(bytes, &blob[1000..SIZE as usize - 1], "{name}")
                }
                (Err(error), Some(kind)) => assert_eq!(error.kind, *kind, "{name}: {error}"),
                (outcome, _) => panic!("{name}: {outcome:?}"),
            }
            assert!(began.elapsed() < Duration::from_secs(15), "{name}: {:?}", began.elapsed());
        }
    }))
    .await;
}

/// So that the store can tell how fast the link is. What came in two answers, or with bytes that nobody wants, does not say it.
#[tokio::test]
async fn the_end_of_a_blob_says_how_it_came() {
    let (blob, len) = (content(700 << 10), 512 << 10);
    let shaping = Shaping { latency: Duration::from_millis(300), bits_per_second: Some(4_000_000) };
    let registry = TestRegistry::start(RegistryOptions { shaping, ..RegistryOptions::default() }).unwrap();
    registry.add_blob(blob.clone());
    let arrival = source(&registry, quick(), &blob).read_tail(len).await.unwrap().arrival.unwrap();
    let (waited, took) = (arrival.time.start - arrival.asked, arrival.time.end - arrival.time.start);
    assert!(waited >= Duration::from_millis(300), "the first byte came after {waited:?}");
    assert!(arrival.bytes < len, "the first bytes were there before");
    assert!(took >= Duration::from_millis(350), "{} bytes came in {took:?} at 500 kB/s", arrival.bytes);

    registry.set_shaping(Shaping::default());
    for fault in [Fault::StallBody(100_000), Fault::IgnoreRange] {
        registry.inject(On::SuffixRange, fault.clone(), Some(1));
        let tail = source(&registry, impatient(), &blob).read_tail(len).await.unwrap();
        assert_eq!(tail.bytes, &blob[(700 << 10) - len as usize..], "{fault:?}");
        assert_eq!(tail.arrival, None, "{fault:?}");
    }
}

#[tokio::test]
async fn a_refused_suffix_range_costs_two_more_requests_at_most() {
    let blob = content(2 << 20);
    for fault in [Fault::Status(416), Fault::Status(400), Fault::Status(501), Fault::IgnoreRange] {
        let registry = started(Auth::None, Redirect::None);
        registry.add_blob(blob.clone());
        registry.inject(On::SuffixRange, fault.clone(), None);
        let tail = source(&registry, quick(), &blob).read_tail(5000).await.unwrap();
        assert_eq!((tail.blob_size, &tail.bytes[..]), (2 << 20, &blob[(2 << 20) - 5000..]), "{fault:?}");
        assert!(registry.requests().len() <= 3, "{fault:?}");
        registry.inject(On::Blob, Fault::IgnoreRange, None);
        let error = source(&registry, quick(), &blob).read_tail(5000).await.unwrap_err();
        assert_eq!(error.kind, Kind::RangesUnsupported, "{fault:?}");
    }
}

#[tokio::test]
async fn flipped_bits_are_found_where_there_is_a_digest() {
    let registry = started(Auth::None, Redirect::None);
    let blob = content(1000);
    registry.add_blob(blob.clone());
    let client = RegistryClient::new(quick()).unwrap();
    registry.inject(On::Blob, Fault::FlipBit(77), Some(1));
    assert_eq!(client.fetch_blob(&reference(&registry), &Digest::of(&blob), 1000).await.unwrap(), blob);
    registry.inject(On::Blob, Fault::FlipBit(77), None);
    let error = client.fetch_blob(&reference(&registry), &Digest::of(&blob), 1000).await.unwrap_err();
    assert_eq!(error.kind, Kind::Protocol);
}

/// Tokens and signed addresses that end every second: no read fails, nothing leaks, and the number of
/// token requests and refreshes follows the time, not the number of reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_lived_tokens_and_addresses_are_renewed_under_load() {
    let login = Some(("me".to_owned(), "secret".to_owned()));
    let bearer = Auth::Bearer { login, lifetime: Duration::from_secs(2), post: true, identity_token: None };
    let registry = started(bearer, signed(Duration::from_secs(1), 2));
    let blob = content(SIZE as usize);
    registry.add_blob(blob.clone());
    let client = RegistryClient::new(logged_in(&registry, password())).unwrap();
    let source = client.blob(&reference(&registry), Digest::of(&blob));
    let end = Instant::now() + Duration::from_secs(5);
    let mut reads = 0;
    while Instant::now() < end {
        for bytes in join_all((0..20).map(|n| read(&source, n * 1000..n * 1000 + 10_000))).await {
            assert_eq!(bytes.unwrap().len(), 10_000);
            reads += 1;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let requests = registry.requests();
    let tokens = requests.iter().filter(|request| request.path.contains("token")).count();
    let at_registry =
        requests.iter().filter(|request| request.listener == Listener::Registry && request.is_blob()).count();
    assert_eq!(registry.leaked_credentials(), 0);
    assert!(reads > 200 && tokens <= 5, "{reads} reads, {tokens} tokens");
    assert!(at_registry <= 60, "{reads} reads, {at_registry} requests at the registry");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_readers_make_one_token_request() {
    let bearer =
        Auth::Bearer { login: None, lifetime: Duration::from_secs(300), post: false, identity_token: None };
    let registry = started(bearer.clone(), Redirect::None);
    let client = RegistryClient::new(quick()).unwrap();
    let blobs: Vec<_> = (0..100_usize).map(|n| content(10_000 + n)).collect();
    let sources: Vec<_> = blobs
        .iter()
        .map(|blob| {
            registry.add_blob(blob.clone());
            client.blob(&reference(&registry), Digest::of(blob))
        })
        .collect();
    let tokens = || registry.requests().iter().filter(|request| request.path.contains("token")).count();
    for outcome in join_all(sources.iter().map(|source| source.read_tail(100))).await {
        outcome.unwrap();
    }
    assert_eq!(tokens(), 1);
    // The registry forgets its tokens: all hundred are refused at once.
    registry.set_auth(bearer);
    for outcome in join_all(sources.iter().map(|source| read(source, 0..100))).await {
        outcome.unwrap();
    }
    assert_eq!(tokens(), 2);
}

#[tokio::test]
async fn images_are_pushed_and_read_back_with_every_kind_of_authentication() {
    let login = Some(("me".to_owned(), "secret".to_owned()));
    let hour = Duration::from_secs(3600);
    let bearer =
        |post, identity_token| Auth::Bearer { login: login.clone(), lifetime: hour, post, identity_token };
    let cases = [
        (Auth::None, None),
        (Auth::Basic { user: "me".into(), password: "secret".into() }, Some(password())),
        (bearer(true, None), Some(password())),
        (bearer(false, None), Some(password())),
        (bearer(true, Some("idt".to_owned())), Some(Credentials::IdentityToken(Secret::new("idt")))),
    ];
    for (auth, credentials) in cases {
        let registry = started(auth.clone(), signed(hour, 1));
        let config = credentials.map_or_else(quick, |credentials| logged_in(&registry, credentials));
        let client = RegistryClient::new(RegistryConfig { upload_chunk: 100_000, ..config }).unwrap();
        push_and_read(&registry, &client, &format!("{auth:?}")).await;
        assert_eq!(registry.leaked_credentials(), 0, "{auth:?}");
        if auth != Auth::None {
            let anonymous = RegistryClient::new(quick()).unwrap();
            let error = anonymous.manifest(&reference(&registry)).await.unwrap_err();
            assert_eq!(error.kind, Kind::Unauthorized, "{error}");
        }
    }
}

async fn push_and_read(registry: &TestRegistry, client: &Arc<RegistryClient>, name: &str) {
    let (reference, layer, config) = (reference(registry), content(345_678), b"{}".as_slice());
    let (_directory, path) = file(&layer);
    client
        .upload_file(&reference, &Digest::of(&layer), &path)
        .await
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let pieces = config.chunks(1).map(|piece| Ok(Bytes::copy_from_slice(piece)));
    let (config_digest, size) =
        client.upload_stream(&reference, futures_util::stream::iter(pieces)).await.unwrap();
    assert_eq!((config_digest, size), (Digest::of(config), 2));
    assert_eq!(client.blob_exists(&reference, &Digest::of(b"missing")).await.unwrap(), None);
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": { "mediaType": media_type::OCI_CONFIG, "digest": config_digest, "size": 2 },
        "layers": [{ "mediaType": media_type::OCI_LAYER_GZIP, "digest": Digest::of(&layer), "size": layer.len() }],
    });
    let bytes = Bytes::from(manifest.to_string());
    let digest = client.put_manifest(&reference, media_type::OCI_MANIFEST, bytes.clone()).await.unwrap();
    let image = client.image(reference);
    let fetched = image.manifest(None).await.unwrap();
    assert_eq!((fetched.digest, fetched.bytes), (digest, bytes));
    let (_, manifest) = image.platform_manifest(&registry::Platform::current()).await.unwrap();
    assert_eq!(image.fetch_blob(&manifest.config.digest, 100).await.unwrap(), config);
    let blob = image.blob(manifest.layers[0].digest);
    assert_eq!(blob.read_tail(1 << 20).await.unwrap().bytes, layer);
    assert_eq!(read(&blob, 5..300_000).await.unwrap(), &layer[5..300_000]);
}

#[tokio::test]
async fn the_test_registrys_authority_is_trusted_when_configured() {
    let registry = TestRegistry::start(RegistryOptions { tls: true, ..RegistryOptions::default() }).unwrap();
    let blob = content(10_000);
    registry.add_blob(blob.clone());
    let (_directory, path) = file(registry.authority().unwrap());
    let mut config = RegistryConfig { ca_files: vec![path], ..quick() };
    config.hosts.entry(registry.host()).or_default().scheme = Some(registry::Scheme::Https);
    assert_eq!(read(&source(&registry, config, &blob), 0..10_000).await.unwrap(), blob);
}

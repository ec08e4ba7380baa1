//! A week of tokens and signed addresses that end, under reads.
//!
//! The clock of client, registry, token service and storage service is one that the test turns: a simulated week
//! takes seconds, and nothing of it depends on how busy the machine is. One turn of it comes after each read, so that
//! the moments of a request stay moments and only the time between requests is shortened.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, UNIX_EPOCH},
};

use futures_util::future::join_all;
use parking_lot::Mutex;
use registry::{Credentials, RegistryClient, RegistryConfig, RetryPolicy, Secret, StaticCredentials};
use tokio::{sync::Notify, time::Instant};

use crate::origin::{Origin, Reply, Seen, content, hold_clock, read};

const HOUR: Duration = Duration::from_secs(3600);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a token is good for.
const TOKEN: Duration = Duration::from_secs(300);
/// How long a signed address is good for.
const ADDRESS: Duration = Duration::from_secs(120);
/// One turn of the clock.
const TURN: Duration = Duration::from_secs(20);
/// The blobs' size.
const SIZE: usize = 100_000;
/// Blobs, and readers of each.
const BLOBS: usize = 2;
const READERS: usize = 2;
/// When the simulated week begins, in seconds since 1970.
const BEGIN: u64 = 1_795_240_800;

/// The token service and who signs addresses; both on the test's clock.
struct Issuer {
    began: Instant,
    /// When each token and each address ends, by its number.
    tokens: Mutex<HashMap<u64, Instant>>,
    addresses: Mutex<HashMap<u64, Instant>>,
    /// The one refresh token that is good.
    refresh: AtomicU64,
    refreshed: AtomicU64,
    tokens_refused: AtomicU64,
    addresses_refused: AtomicU64,
    credentials_at_storage: AtomicU64,
}

// === impl Issuer ===

impl Issuer {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            tokens: Mutex::default(),
            addresses: Mutex::default(),
            refresh: AtomicU64::new(0),
            refreshed: AtomicU64::new(0),
            tokens_refused: AtomicU64::new(0),
            addresses_refused: AtomicU64::new(0),
            credentials_at_storage: AtomicU64::new(0),
        }
    }

    /// Seconds since 1970 on the test's clock.
    fn now(&self) -> u64 {
        BEGIN + self.began.elapsed().as_secs()
    }

    fn registry(&self, host: &str, storage: &str, seen: &Seen) -> Reply {
        if seen.path == "/token" {
            return self.token(seen);
        }
        let token = seen.header("authorization").and_then(|value| value.strip_prefix("Bearer t"));
        let end = token.and_then(|id| self.tokens.lock().get(&id.parse().ok()?).copied());
        if end.is_some_and(|end| Instant::now() < end) {
            return self.sign(storage, seen);
        }
        let error = if token.is_some() { ",error=\"invalid_token\"" } else { "" };
        self.tokens_refused.fetch_add(u64::from(token.is_some()), Relaxed);
        Reply::status(401).header(
            "www-authenticate",
            &format!("Bearer realm=\"http://{host}/token\",service=\"test\"{error}"),
        )
    }

    /// A token for the password or the refresh token, which is good once. Every third claims to live twice as long
    /// as it does, every fifth does not say.
    fn token(&self, seen: &Seen) -> Reply {
        let form: HashMap<_, _> = url::form_urlencoded::parse(&seen.body).collect();
        let field = |name: &str| form.get(name).map(|value| value.as_ref());
        let refresh = self.refresh.load(Relaxed);
        match field("grant_type") {
            Some("password") if (field("username"), field("password")) == (Some("me"), Some("secret")) => {}
            Some("refresh_token") if field("refresh_token") == Some(format!("r{refresh}").as_str()) => {
                self.refreshed.fetch_add(1, Relaxed);
            }
            _ => return Reply::status(401),
        }
        self.refresh.store(refresh + 1, Relaxed);
        let mut tokens = self.tokens.lock();
        let id = tokens.len() as u64;
        tokens.insert(id, Instant::now() + TOKEN);
        let lifetime = match id {
            id if id % 3 == 2 => format!(",\"expires_in\":{}", TOKEN.as_secs() * 2),
            id if id % 5 == 4 => String::new(),
            _ => format!(",\"expires_in\":{}", TOKEN.as_secs()),
        };
        Reply::ok(format!("{{\"access_token\":\"t{id}\",\"refresh_token\":\"r{}\"{lifetime}}}", refresh + 1))
    }

    /// Every second address says when it ends.
    fn sign(&self, storage: &str, seen: &Seen) -> Reply {
        let mut addresses = self.addresses.lock();
        let id = addresses.len() as u64;
        addresses.insert(id, Instant::now() + ADDRESS);
        let end = if id.is_multiple_of(2) {
            format!("&Expires={}", self.now() + ADDRESS.as_secs())
        } else {
            String::new()
        };
        let digest = seen.path.rsplit('/').next().unwrap();
        let date = UNIX_EPOCH + Duration::from_secs(self.now());
        Reply::redirect(&format!("http://{storage}/{digest}?id={id}{end}"))
            .header("date", &httpdate::fmt_http_date(date))
    }

    fn storage(&self, blobs: &HashMap<String, Vec<u8>>, seen: &Seen) -> Reply {
        self.credentials_at_storage.fetch_add(u64::from(seen.header("authorization").is_some()), Relaxed);
        let (path, query) = seen.path.split_once('?').unwrap();
        let id: u64 = query.split('&').next().unwrap().strip_prefix("id=").unwrap().parse().unwrap();
        if self.addresses.lock().get(&id).is_some_and(|end| Instant::now() < *end) {
            return Reply::blob(seen, &blobs[path.trim_start_matches('/')]);
        }
        self.addresses_refused.fetch_add(1, Relaxed);
        Reply::status(403)
    }
}

/// Turns the clock after each read, and every few milliseconds of real time where all readers wait, until `end`.
async fn turn_until(end: Instant, turn: Arc<Notify>) {
    let left = Arc::downgrade(&turn);
    // As long as a thread like this one runs, the clock does not jump by itself to the next thing that is due. It ends
    // with the test, also with one that fails.
    tokio::task::spawn_blocking(move || {
        while let Some(turn) = left.upgrade() {
            turn.notify_one();
            drop(turn);
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    while Instant::now() < end {
        turn.notified().await;
        tokio::time::advance(TURN).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_week_of_tokens_and_addresses_that_end_fails_no_read() {
    let began = std::time::Instant::now();
    let issuer = Arc::new(Issuer::new());
    let contents: Vec<_> = (0..BLOBS).map(|n| content(SIZE + n)).collect();
    let blobs: HashMap<_, _> =
        contents.iter().map(|blob| (estargz::Digest::of(blob).to_string(), blob.clone())).collect();
    let at_storage = issuer.clone();
    let storage = Origin::start(move |seen| at_storage.storage(&blobs, seen)).await;
    let (at_registry, storage_host) = (issuer.clone(), storage.host.clone());
    let registry = Origin::start_with_host(move |host| {
        let host = host.to_owned();
        Box::new(move |seen: &Seen| at_registry.registry(&host, &storage_host, seen))
    })
    .await;
    let password = Credentials::Password { username: "me".into(), password: Secret::new("secret") };
    let hosts = vec![(registry.host.clone(), password)];
    let client = RegistryClient::new(RegistryConfig {
        credentials: vec![Arc::new(StaticCredentials { hosts })],
        // A turn of the clock must not look like a host that is silent.
        connect_timeout: HOUR,
        idle_timeout: HOUR,
        retry: RetryPolicy { total: HOUR, ..RetryPolicy::default() },
        ..RegistryConfig::anonymous()
    })
    .unwrap();

    // What is configured for the host is read from the disk before the clock turns: later what is known will do.
    let clock = hold_clock();
    read(&client.blob(&registry.reference(), estargz::Digest::of(&contents[0])), 0..1000).await.unwrap();
    drop(clock);

    let (turn, end) = (Arc::new(Notify::new()), Instant::now() + WEEK);
    let readers = (0..BLOBS * READERS).map(|reader| {
        let blob = &contents[reader % BLOBS];
        let source = client.blob(&registry.reference(), estargz::Digest::of(blob));
        let turn = &turn;
        async move {
            let mut reads = 0_u64;
            while Instant::now() < end {
                let start = (reads as usize * 7919 + reader * 31) % (SIZE - 1000);
                let bytes = read(&source, start as u64..start as u64 + 1000).await;
                let after = Instant::now() - (end - WEEK);
                assert_eq!(
                    bytes.unwrap_or_else(|error| panic!("after {after:?}: {error}")),
                    &blob[start..start + 1000]
                );
                reads += 1;
                turn.notify_one();
            }
            reads
        }
    });
    let (reads, ()) = tokio::join!(join_all(readers), turn_until(end, turn.clone()));

    let reads: u64 = reads.iter().sum();
    let (tokens, addresses) = (issuer.tokens.lock().len(), issuer.addresses.lock().len());
    let refused = (issuer.tokens_refused.load(Relaxed), issuer.addresses_refused.load(Relaxed));
    println!(
        "{:?} for {WEEK:?}: {reads} reads, {tokens} tokens ({} by refresh tokens, {} refused), {addresses} addresses ({} \
         refused)",
        began.elapsed(),
        issuer.refreshed.load(Relaxed),
        refused.0,
        refused.1
    );
    let lives = |of: Duration| (WEEK.as_secs() / of.as_secs()) as usize;
    // What has ended is replaced by the next read, which comes a turn later.
    assert!((lives(TOKEN + TURN * 2)..lives(TOKEN) * 2).contains(&tokens), "{tokens} tokens");
    assert!(
        addresses >= BLOBS * lives(ADDRESS + TURN * 2) && addresses < 2 * BLOBS * lives(ADDRESS),
        "{addresses} addresses"
    );
    assert!(refused.0 >= 100 && refused.1 >= 1000, "{refused:?} were used after their end");
    assert!(issuer.refreshed.load(Relaxed) >= 100, "refresh tokens were used");
    assert_eq!(issuer.credentials_at_storage.load(Relaxed), 0);
}

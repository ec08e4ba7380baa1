use super::*;

const DAY: u64 = 24 * 3600;

struct Kept {
    directory: tempfile::TempDir,
    store: Arc<RememberedCredentials>,
}

fn kept() -> Kept {
    let directory = tempfile::tempdir().unwrap();
    let store = RememberedCredentials::open(directory.path(), Duration::from_secs(7 * DAY));
    Kept { directory, store }
}

impl Kept {
    fn restarted(self) -> Self {
        let Self { directory, store } = self;
        drop(store);
        let store = RememberedCredentials::open(directory.path(), Duration::from_secs(7 * DAY));
        Self { directory, store }
    }

    /// How many records the file has.
    fn in_file(&self) -> usize {
        serde_json::from_slice::<Vec<Stored>>(&self.store.file.read().unwrap()).unwrap().len()
    }

    /// A pull of `reference` that succeeded then.
    fn pulled(&self, reference: &str, at: u64) {
        let pull = self.begin(reference, "p");
        self.store.succeeded(pull.id.unwrap(), "sha256:1", at);
    }

    fn begin(&self, reference: &str, password: &str) -> Pull {
        self.store.begin(&reference.parse().unwrap(), &login(password))
    }

    fn found(&self, host: &str, repository: &str) -> Vec<String> {
        let found = self.store.find(CredentialQuery { host, repository }, now());
        let name = |credentials| match credentials {
            Credentials::Password { password, .. } => password.expose().to_owned(),
            Credentials::IdentityToken(token) | Credentials::RegistryToken(token) => {
                token.expose().to_owned()
            }
        };
        found.into_iter().map(name).collect()
    }
}

fn login(password: &str) -> Login {
    Login {
        username: "me".into(),
        password: Secret::new(password),
        auth: Secret::new(""),
        server_address: String::new(),
        identity_token: Secret::new(""),
        registry_token: Secret::new(""),
    }
}

#[test]
fn credentials_are_there_during_a_pull_and_stay_if_it_succeeds() {
    let kept = kept();
    let pull = kept.begin("example.com/app:1", "p");
    assert_eq!(kept.found("example.com", "app"), ["p"]);
    assert_eq!(kept.found("example.com", "other"), [""; 0]);
    assert_eq!(kept.found("example.org", "app"), [""; 0]);
    pull.succeeded("sha256:1");
    let kept = kept.restarted();
    assert_eq!(kept.found("example.com", "app"), ["p"]);
    assert_eq!(kept.store.len(), 1);
}

#[test]
fn a_failed_pull_leaves_what_was_there_before() {
    let kept = kept();
    kept.begin("example.com/app:1", "good").succeeded("sha256:1");
    let pull = kept.begin("example.com/app:1", "bad");
    assert_eq!(
        kept.found("example.com", "app"),
        ["bad", "good"],
        "the newest first, and the others after it"
    );
    drop(pull);
    assert_eq!(kept.found("example.com", "app"), ["good"]);
    assert_eq!(kept.restarted().found("example.com", "app"), ["good"]);
}

#[test]
fn a_newer_pull_of_a_reference_replaces_the_older_and_tags_are_kept_apart() {
    let kept = kept();
    kept.begin("example.com/app:1", "one").succeeded("sha256:1");
    kept.begin("example.com/app:2", "two").succeeded("sha256:2");
    kept.begin("example.com/app:1", "three").succeeded("sha256:1");
    assert_eq!(kept.found("example.com", "app"), ["three", "two"]);
    assert_eq!(kept.restarted().found("example.com", "app"), ["three", "two"]);
}

#[test]
fn what_was_refused_is_found_last_until_it_is_pulled_with_again() {
    let kept = kept();
    kept.begin("example.com/app:1", "good").succeeded("sha256:1");
    kept.begin("example.com/app:2", "ended").succeeded("sha256:2");
    let ended = login("ended").credentials("example.com").unwrap();
    let query = |repository| CredentialQuery { host: "example.com", repository };
    kept.store.refused(query("other"), &ended);
    assert_eq!(kept.found("example.com", "app"), ["ended", "good"]);
    kept.store.refused(query("app"), &ended);
    assert_eq!(kept.found("example.com", "app"), ["good", "ended"]);
    kept.begin("example.com/app:2", "ended").succeeded("sha256:2");
    assert_eq!(kept.found("example.com", "app"), ["ended", "good"]);
}

#[test]
fn a_removed_image_is_forgotten_by_reference_and_by_the_runtimes_name() {
    let kept = kept();
    for (reference, image) in
        [("a.com/a:1", "sha256:1"), ("a.com/b:1", "sha256:2"), ("a.com/c:1", "sha256:3")]
    {
        kept.begin(reference, "p").succeeded(image);
    }
    kept.store.forget("a.com/a:1");
    kept.store.forget("sha256:2");
    kept.store.forget("sha256:unknown");
    let kept = kept.restarted();
    assert_eq!(kept.store.len(), 1);
    assert_eq!(kept.found("a.com", "c"), ["p"]);
}

#[test]
fn age_is_limited_and_a_clock_that_went_back_harms_nothing() {
    let kept = kept();
    let today = now();
    kept.pulled("a.com/future:1", today + 300 * DAY);
    kept.pulled("a.com/new:1", today - 6 * DAY);
    kept.pulled("a.com/old:1", today - 8 * DAY);
    assert_eq!(kept.found("a.com", "old"), [""; 0]);
    assert_eq!(kept.in_file(), 3);
    let kept = kept.restarted();
    assert_eq!((kept.store.len(), kept.in_file()), (2, 2));
    assert_eq!((kept.found("a.com", "new").len(), kept.found("a.com", "future").len()), (1, 1));
}

#[test]
fn what_has_come_of_age_leaves_the_file_with_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let open = || RememberedCredentials::open(directory.path(), Duration::from_secs(1));
    open().begin(&"a.com/a:1".parse().unwrap(), &login("p")).succeeded("sha256:1");
    std::thread::sleep(Duration::from_millis(1100));
    let store = open();
    assert_eq!((store.len(), store.file.read().unwrap().as_slice()), (0, b"[]".as_slice()));
}

#[tokio::test(start_paused = true)]
async fn what_has_come_of_age_or_never_would_leaves_memory_and_file_by_the_hour() {
    let kept = kept();
    kept.store.purge_regularly();
    let today = now();
    kept.pulled("a.com/future:1", today + 2 * DAY);
    kept.pulled("a.com/zone:1", today + DAY / 2);
    kept.pulled("a.com/old:1", today - 8 * DAY);
    assert_eq!(kept.in_file(), 3, "{:?}", kept.store);
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    assert_eq!((kept.store.len(), kept.in_file()), (1, 1));
    assert_eq!(kept.found("a.com", "zone"), ["p"]);
}

#[test]
fn every_kind_of_login_survives_a_restart() {
    let kept = kept();
    let none = || Login { username: String::new(), password: Secret::new(""), ..login("") };
    let logins = [
        ("a.com/auth", Login { auth: Secret::new("bWU6cDp3"), ..none() }, "p:w"),
        ("a.com/identity", Login { identity_token: Secret::new("id"), ..none() }, "id"),
        ("a.com/token", Login { registry_token: Secret::new("rt"), ..none() }, "rt"),
    ];
    for (reference, login, _) in &logins {
        kept.store.begin(&reference.parse().unwrap(), login).succeeded("x");
    }
    // An anonymous pull keeps nothing, and takes nothing away.
    kept.store.begin(&"a.com/token".parse().unwrap(), &none()).succeeded("x");
    let before: Vec<_> =
        logins.iter().map(|(r, ..)| kept.found("a.com", r.split_once('/').unwrap().1)).collect();
    let kept = kept.restarted();
    for ((reference, _, expected), before) in logins.iter().zip(before) {
        let found = kept.found("a.com", reference.split_once('/').unwrap().1);
        assert_eq!((found.as_slice(), &found), ([(*expected).to_owned()].as_slice(), &before));
    }
}

#[test]
fn a_login_for_another_server_is_not_used() {
    let cases = [
        ("example.com/a", "https://example.com/v2/", true),
        ("example.com/a", "example.com", true),
        ("example.com/a", "https://example.org", false),
        ("example.com:5000/a", "https://example.com", false),
        ("alpine", "https://index.docker.io/v1/", true),
    ];
    for (reference, server_address, expected) in cases {
        let login = Login { server_address: server_address.into(), ..login("p") };
        let reference: Reference = reference.parse().unwrap();
        assert_eq!(
            login.credentials(reference.host()).is_some(),
            expected,
            "{server_address} for {reference}"
        );
    }
}

#[test]
fn the_file_and_debug_output_hold_no_secret() {
    let kept = kept();
    kept.begin("example.com/app:1", "planted").succeeded("sha256:1");
    let pull = kept.begin("example.com/app:2", "planted");
    let file = std::fs::read(kept.store.file.path()).unwrap();
    assert!(!file.windows(7).any(|window| window == b"planted"));
    let shown = format!("{:?} {pull:?} {:?}", kept.store, login("planted"));
    assert!(!shown.contains("planted"), "{shown}");
}

#[test]
fn a_broken_file_is_started_anew() {
    let kept = kept();
    kept.begin("example.com/app:1", "p").succeeded("sha256:1");
    std::fs::write(kept.store.file.path(), b"garbage").unwrap();
    let kept = kept.restarted();
    assert!(kept.store.is_empty());
    kept.begin("example.com/app:1", "p").succeeded("sha256:1");
    assert_eq!(kept.restarted().found("example.com", "app"), ["p"]);
}

#[test]
fn where_nothing_can_be_kept_pulls_are_remembered_until_the_end() {
    for name in ["key", "kept"] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join(name).join("full")).unwrap();
        let store = RememberedCredentials::open(directory.path(), Duration::from_secs(7 * DAY));
        let kept = Kept { directory, store };
        kept.begin("example.com/app:1", "p").succeeded("sha256:1");
        assert_eq!(kept.found("example.com", "app"), ["p"], "{name}");
        assert!(kept.restarted().store.is_empty(), "{name}");
    }
}

#[test]
fn many_pulls_at_once_keep_them_all() {
    let kept = kept();
    std::thread::scope(|scope| {
        for n in 0..16 {
            let kept = &kept;
            scope.spawn(move || kept.begin(&format!("a.com/app{n}:1"), "p").succeeded("x"));
        }
    });
    assert_eq!(kept.restarted().store.len(), 16);
}

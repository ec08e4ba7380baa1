//! Secrets of a cluster, from a server that speaks the part of the API that lists and watches them.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use registry::{ClusterAccess, CredentialQuery, CredentialSource, Credentials, KubernetesSecrets};
use serde_json::{Value, json};

use crate::origin::{Cut, Origin, Reply, Seen};

const TOKEN: &str = "planted-token";

/// What the cluster has, for the newer type of secrets and for the older.
#[derive(Default)]
struct Cluster {
    secrets: [Vec<Value>; 2],
    /// Changes that the next watch tells.
    events: [VecDeque<Value>; 2],
    version: u64,
    /// The status with which everything is refused.
    refuses: Option<u16>,
}

type Shared = Arc<Mutex<Cluster>>;

fn secret(namespace: &str, name: &str, host: &str, password: &str, old: bool) -> Value {
    let auths = json!({ host: { "username": "u", "password": password } });
    let (key, text) =
        if old { (".dockercfg", auths) } else { (".dockerconfigjson", json!({ "auths": auths })) };
    json!({
        "metadata": { "namespace": namespace, "name": name, "resourceVersion": "5" },
        "data": { key: BASE64_STANDARD.encode(text.to_string()) },
    })
}

impl Cluster {
    fn answer(&mut self, seen: &Seen) -> Reply {
        if seen.header("authorization") != Some(&format!("Bearer {TOKEN}")) {
            return Reply::status(401);
        }
        if let Some(status) = self.refuses {
            return Reply::status(status);
        }
        let old = usize::from(seen.path.contains("kubernetes.io%2Fdockercfg"));
        let namespace = seen.path.strip_prefix("/api/v1/namespaces/").and_then(|rest| rest.split('/').next());
        if seen.path.contains("watch=1") {
            let lines: String = self.events[old].drain(..).map(|event| format!("{event}\n")).collect();
            // The server ends a watch when it likes; with nothing to tell, not at once.
            let pause = if lines.is_empty() { 1050 } else { 0 };
            return Reply::ok(lines).chunked().after(Duration::from_millis(pause));
        }
        let all = self.secrets[old].iter();
        let here =
            |secret: &&Value| namespace.is_none_or(|namespace| secret["metadata"]["namespace"] == namespace);
        let found: Vec<_> = all.filter(here).cloned().collect();
        // Two pages, where there are two secrets.
        let second = seen.path.contains("continue=rest");
        let (items, more) = match found.split_first() {
            Some((first, rest)) if !rest.is_empty() => match second {
                false => (vec![first.clone()], "rest"),
                true => (rest.to_vec(), ""),
            },
            _ => (found, ""),
        };
        let version = self.version.to_string();
        let metadata = json!({ "resourceVersion": version, "continue": more });
        Reply::ok(json!({ "kind": "SecretList", "metadata": metadata, "items": items }).to_string())
    }
}

struct World {
    cluster: Shared,
    origin: Origin,
    directory: tempfile::TempDir,
}

impl World {
    async fn new(cluster: Cluster) -> Self {
        let cluster = Arc::new(Mutex::new(cluster));
        let shared = cluster.clone();
        let origin = Origin::start(move |seen| shared.lock().unwrap().answer(seen)).await;
        let world = Self { cluster, origin, directory: tempfile::tempdir().unwrap() };
        world.write_kubeconfig();
        world
    }

    fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    fn write_kubeconfig(&self) {
        std::fs::write(self.directory.path().join("token"), format!("{TOKEN}\n")).unwrap();
        let text = format!(
            "current-context: here\nclusters: [{{name: c, cluster: {{server: 'http://{}/'}}}}]\n\
             contexts: [{{name: here, context: {{cluster: c, user: u}}}}]\n\
             users: [{{name: u, user: {{tokenFile: token}}}}]\n",
            self.origin.host
        );
        std::fs::write(self.kubeconfig(), text).unwrap();
    }

    fn start(&self, namespaces: &[&str]) -> Arc<KubernetesSecrets> {
        let namespaces: Vec<_> = namespaces.iter().map(|name| (*name).to_owned()).collect();
        KubernetesSecrets::start(ClusterAccess::Kubeconfig(self.kubeconfig()), &namespaces)
    }
}

async fn passwords(secrets: &KubernetesSecrets, host: &str) -> Vec<String> {
    let found = secrets.candidates(CredentialQuery { host, repository: "team/app" }).await;
    let password = |login| match login {
        Credentials::Password { password, .. } => password.expose().to_owned(),
        other => panic!("{other:?}"),
    };
    found.unwrap_or_default().into_iter().map(password).collect()
}

async fn eventually(secrets: &KubernetesSecrets, host: &str, expected: &[&str]) {
    let began = Instant::now();
    loop {
        let found = passwords(secrets, host).await;
        if found == expected {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{host}: {found:?} is not {expected:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn both_types_are_listed_page_by_page_and_watched_from_there() {
    let newer =
        vec![secret("a", "one", "one.com", "1", false), secret("b", "two", "two.com/team", "2", false)];
    let older = vec![secret("a", "old", "old.com", "3", true)];
    let world = World::new(Cluster { secrets: [newer, older], version: 7, ..Cluster::default() }).await;
    let secrets = world.start(&[]);
    for (host, password) in [("one.com", "1"), ("two.com", "2"), ("old.com", "3")] {
        eventually(&secrets, host, &[password]).await;
    }
    let event = |kind: &str, object: Value| json!({ "type": kind, "object": object });
    world.cluster.lock().unwrap().events = [
        [
            event("MODIFIED", secret("a", "one", "one.com", "rotated", false)),
            event("DELETED", secret("b", "two", "two.com/team", "2", false)),
            event("BOOKMARK", json!({ "metadata": { "resourceVersion": "99" } })),
        ]
        .into(),
        [event("ADDED", secret("b", "more", "more.com", "4", true))].into(),
    ];
    for (host, expected) in [("one.com", &["rotated"][..]), ("two.com", &[]), ("more.com", &["4"])] {
        eventually(&secrets, host, expected).await;
    }
    let began = Instant::now();
    while world.origin.log().iter().all(|seen| !seen.path.contains("resourceVersion=99")) {
        assert!(began.elapsed() < Duration::from_secs(20), "the watch goes on from the bookmark");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let log = world.origin.log();
    assert!(log.iter().any(|seen| seen.path.contains("watch=1") && seen.path.contains("resourceVersion=7")));
    assert!(
        log.iter().all(|seen| seen.path.starts_with("/api/v1/secrets?fieldSelector=type%3Dkubernetes.io"))
    );
}

#[tokio::test]
async fn a_watch_that_is_too_old_lists_again_and_what_is_gone_is_forgotten() {
    let listed = vec![secret("a", "one", "one.com", "1", false)];
    let world = World::new(Cluster { secrets: [listed, vec![]], ..Cluster::default() }).await;
    let secrets = world.start(&[]);
    eventually(&secrets, "one.com", &["1"]).await;
    {
        let mut cluster = world.cluster.lock().unwrap();
        cluster.secrets[0] = vec![secret("a", "two", "two.com", "2", false)];
        let gone = json!({ "type": "ERROR", "object": { "kind": "Status", "code": 410, "metadata": {} } });
        cluster.events[0].push_back(gone);
    }
    eventually(&secrets, "two.com", &["2"]).await;
    eventually(&secrets, "one.com", &[]).await;
}

#[tokio::test]
async fn what_was_seen_is_used_while_the_cluster_is_away() {
    let listed = vec![secret("a", "one", "one.com", "1", false)];
    let world = World::new(Cluster { secrets: [listed, vec![]], ..Cluster::default() }).await;
    let secrets = world.start(&[]);
    eventually(&secrets, "one.com", &["1"]).await;
    world.cluster.lock().unwrap().refuses = Some(403);
    let query = CredentialQuery { host: "other.com", repository: "a" };
    let began = Instant::now();
    let error = loop {
        match secrets.candidates(query).await {
            Err(error) => break error,
            Ok(found) => assert_eq!(found, []),
        }
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(error.to_string().contains("does not let us list and watch secrets"), "{error}");
    assert_eq!(passwords(&secrets, "one.com").await, ["1"]);
    world.cluster.lock().unwrap().refuses = None;
    let began = Instant::now();
    while secrets.candidates(query).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "it is asked again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn only_the_namespaces_that_were_named_are_read() {
    let listed = ["a", "b", "c"].map(|space| secret(space, "one", &format!("{space}.com"), space, false));
    let world = World::new(Cluster { secrets: [listed.to_vec(), vec![]], ..Cluster::default() }).await;
    let secrets = world.start(&["a", "c"]);
    eventually(&secrets, "a.com", &["a"]).await;
    eventually(&secrets, "c.com", &["c"]).await;
    assert_eq!(passwords(&secrets, "b.com").await, [""; 0]);
    assert!(world.origin.log().iter().all(|seen| seen.path.starts_with("/api/v1/namespaces/")));
}

#[tokio::test]
async fn a_kubeconfig_that_is_not_there_yet_is_waited_for() {
    let listed = vec![secret("a", "one", "one.com", "1", false)];
    let world = World::new(Cluster { secrets: [listed, vec![]], ..Cluster::default() }).await;
    std::fs::remove_file(world.kubeconfig()).unwrap();
    let secrets = world.start(&[]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(passwords(&secrets, "one.com").await, [""; 0]);
    world.write_kubeconfig();
    eventually(&secrets, "one.com", &["1"]).await;
}

#[tokio::test]
async fn nothing_secret_shows_and_no_answer_is_quoted() {
    let listed = vec![secret("a", "one", "one.com", "planted", false)];
    let world = World::new(Cluster { secrets: [listed, vec![]], ..Cluster::default() }).await;
    let secrets = world.start(&[]);
    eventually(&secrets, "one.com", &["planted"]).await;
    assert!(!format!("{secrets:?}").contains("planted"));
    world.cluster.lock().unwrap().events[0].push_back(json!("planted"));
    let query = CredentialQuery { host: "other.com", repository: "a" };
    let began = Instant::now();
    loop {
        if let Err(error) = secrets.candidates(query).await {
            assert!(!format!("{error} {error:?}").contains("planted"), "{error:?}");
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_watch_that_hangs_in_the_middle_of_a_line_harms_nobody() {
    let world = World::new(Cluster::default()).await;
    let origin = Origin::start(move |seen| {
        if seen.path.contains("watch=1") {
            let event = json!({ "type": "ADDED", "object": secret("a", "one", "one.com", "1", false) });
            let text = format!("{event}\n{event}");
            let cut = text.len() - 10;
            return Reply::ok(text).chunked().cut(cut, Cut::Stall);
        }
        Reply::ok("{\"metadata\":{\"resourceVersion\":\"1\"},\"items\":null}")
    })
    .await;
    let text = std::fs::read_to_string(world.kubeconfig()).unwrap().replace(&world.origin.host, &origin.host);
    std::fs::write(world.kubeconfig(), text).unwrap();
    let secrets = world.start(&[]);
    eventually(&secrets, "one.com", &["1"]).await;
    drop(secrets);
}

#[tokio::test]
async fn a_cluster_that_ends_watches_at_once_is_not_asked_again_and_again() {
    let world = World::new(Cluster::default()).await;
    let origin = Origin::start(move |seen| match seen.path.contains("watch=1") {
        true => Reply::ok("").chunked(),
        false => Reply::ok("{\"metadata\":{\"resourceVersion\":\"1\"},\"items\":null}"),
    })
    .await;
    let text = std::fs::read_to_string(world.kubeconfig()).unwrap().replace(&world.origin.host, &origin.host);
    std::fs::write(world.kubeconfig(), text).unwrap();
    let secrets = world.start(&[]);
    tokio::time::sleep(Duration::from_millis(2400)).await;
    // Of each type a list and a watch at once, after 0.5 to 1.5 s, and after 1 to 3 s more.
    let asked = origin.log().len();
    assert!((4..=12).contains(&asked), "{asked} requests");
    drop(secrets);
}

#[tokio::test]
async fn the_clusters_own_authority_vouches_for_it_and_nobody_else() {
    let (acceptor, pem) = crate::tls::certificates();
    let listed = vec![secret("a", "one", "one.com", "1", false)];
    let cluster = Arc::new(Mutex::new(Cluster { secrets: [listed, vec![]], ..Cluster::default() }));
    let origin = Origin::start_tls(acceptor, move |seen| cluster.lock().unwrap().answer(seen)).await;
    let world = World::new(Cluster::default()).await;
    let text = std::fs::read_to_string(world.kubeconfig()).unwrap();
    let text = text.replace(&format!("http://{}", world.origin.host), &format!("https://{}", origin.host));
    std::fs::write(world.kubeconfig(), &text).unwrap();
    let secrets = world.start(&[]);
    let query = CredentialQuery { host: "one.com", repository: "a" };
    let began = Instant::now();
    while secrets.candidates(query).await.is_ok() {
        assert!(began.elapsed() < Duration::from_secs(20), "a stranger's certificate is trusted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(origin.log().is_empty(), "the token went to a stranger");
    let authority = format!("certificate-authority-data: {}, server", BASE64_STANDARD.encode(pem));
    std::fs::write(world.kubeconfig(), text.replace("server", &authority)).unwrap();
    eventually(&secrets, "one.com", &["1"]).await;
}

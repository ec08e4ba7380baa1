use std::{fs, time::Duration};

use super::*;
use crate::aside::{PATIENCE, Turn};

fn all(
    upstreams: &Arc<Upstreams>,
    config: &RegistryConfig,
) -> impl Future<Output = Result<Vec<String>, Kind>> {
    let (upstreams, config) = (upstreams.clone(), config.clone());
    async move {
        let found = upstreams.all(&"a.example/x".parse().unwrap(), &config).await;
        let bases = |hosts: Vec<Arc<Endpoint>>| hosts.iter().map(|host| host.base.to_string()).collect();
        found.map(bases).map_err(|failure| failure.error.kind)
    }
}

/// The turn to look at the registry's files, as a reader has it whose disk hangs.
async fn hang(upstreams: &Upstreams) -> Turn<Looked> {
    let looking = upstreams.state.lock().looking.entry("a.example".to_owned()).or_default().clone();
    looking.turn().await
}

/// Settings with a directory where something can be said of a.example.
fn settings() -> (tempfile::TempDir, RegistryConfig) {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("a.example")).unwrap();
    let mut config = RegistryConfig::anonymous();
    config.host_directories = vec![directory.path().to_owned()];
    (directory, config)
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_keeps_nobody_from_what_is_known() {
    let (directory, config) = settings();
    let says = |server: &str| {
        fs::write(directory.path().join("a.example/hosts.toml"), format!("server = {server:?}")).unwrap();
    };
    let upstreams = Upstreams::new(&config).unwrap();
    says("https://one.example");

    let hanging = hang(&upstreams).await;
    let began = Instant::now();
    assert_eq!(all(&upstreams, &config).await, Err(Kind::TimedOut), "nothing is known yet");
    assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
    drop(hanging);
    assert_eq!(all(&upstreams, &config).await.unwrap(), ["https://one.example/v2/"]);

    says("https://two.example");
    assert_eq!(
        all(&upstreams, &config).await.unwrap(),
        ["https://one.example/v2/"],
        "not a second later yet"
    );
    tokio::time::advance(config.hosts_recheck).await;
    let hanging = hang(&upstreams).await;
    let began = Instant::now();
    assert_eq!(all(&upstreams, &config).await.unwrap(), ["https://one.example/v2/"]);
    assert_eq!(began.elapsed(), Duration::ZERO, "nobody waits");
    drop(hanging);
    assert_eq!(all(&upstreams, &config).await.unwrap(), ["https://two.example/v2/"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_known_hours_ago_serves_only_where_the_disk_hangs() {
    let (directory, config) = settings();
    let says = |server: &str| {
        fs::write(directory.path().join("a.example/hosts.toml"), format!("server = {server:?}")).unwrap();
    };
    let upstreams = Upstreams::new(&config).unwrap();
    let hour = Duration::from_secs(3600);
    says("https://one.example");
    assert_eq!(all(&upstreams, &config).await.unwrap(), ["https://one.example/v2/"]);

    says("https://two.example");
    tokio::time::advance(hour).await;
    let (first, second) = tokio::join!(all(&upstreams, &config), all(&upstreams, &config));
    assert_eq!(first.unwrap(), ["https://two.example/v2/"]);
    assert_eq!(second.unwrap(), ["https://two.example/v2/"], "also for who comes while the files are read");

    tokio::time::advance(hour).await;
    let _hanging = hang(&upstreams).await;
    for seconds in [PATIENCE.as_secs(), 0] {
        let began = Instant::now();
        assert_eq!(all(&upstreams, &config).await.unwrap(), ["https://two.example/v2/"]);
        assert_eq!(
            began.elapsed().as_secs(),
            seconds,
            "a disk that is known to hang is not waited for again"
        );
    }
}

#[tokio::test]
async fn readers_that_come_together_have_the_same_hosts() {
    let config = RegistryConfig::anonymous();
    let upstreams = Upstreams::new(&config).unwrap();
    let reference: Reference = "a.example/x".parse().unwrap();
    let all = (0..20).map(|_| upstreams.all(&reference, &config));
    let mut hosts = futures_util::future::join_all(all).await.into_iter().map(|all| all.unwrap()[0].id);
    let first = hosts.next().unwrap();
    assert!(hosts.all(|host| host == first), "tokens and connections are shared");
}

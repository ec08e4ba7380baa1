use http::StatusCode;
use url::Url;

use super::*;
use crate::{
    config::Mirror,
    reference::Reference,
    upstreams::{Need, Upstreams},
};

/// A registry at `a.example` with these mirrors.
struct Hosts {
    config: RegistryConfig,
    upstreams: Arc<Upstreams>,
}

impl Hosts {
    fn new(mirrors: &[&str]) -> Self {
        let mut config = RegistryConfig::anonymous();
        let mirror = |host: &&str| Mirror { host: (*host).to_owned(), ..Mirror::default() };
        config.hosts.entry("a.example".into()).or_default().mirrors = mirrors.iter().map(mirror).collect();
        Self { upstreams: Upstreams::new(&config).unwrap(), config }
    }

    async fn of(&self, reference: &str) -> Vec<Arc<Endpoint>> {
        let reference: Reference = reference.parse().unwrap();
        self.upstreams.of(&reference, Need::Pull, &self.config).await.unwrap()
    }

    async fn round<'a>(&'a self, lacking: Option<&'a Lacking>) -> Round<'a> {
        Round::new(self.of("a.example/x").await, lacking, &self.config)
    }

    /// The names of the hosts in the order in which they are asked.
    async fn order(&self, lacking: Option<&Lacking>) -> Vec<String> {
        let mut round = self.round(lacking).await;
        std::iter::from_fn(|| round.next()).map(|endpoint| endpoint.name.clone()).collect()
    }
}

fn status(code: u16) -> Failure {
    let url = Url::parse("https://a.example/v2/").unwrap();
    Failure::status(&url, StatusCode::from_u16(code).unwrap(), "", None)
}

#[tokio::test(start_paused = true)]
async fn a_host_that_fails_is_asked_last_for_a_while() {
    let hosts = Hosts::new(&["m.example", "n.example"]);
    assert_eq!(hosts.order(None).await, ["m.example", "n.example", "a.example"]);
    let mut round = hosts.round(None).await;
    assert_eq!(round.next().unwrap().name, "m.example");
    round.failed(status(503));
    assert_eq!(round.next().unwrap().name, "n.example");
    round.worked();
    assert_eq!(hosts.order(None).await, ["n.example", "a.example", "m.example"]);
    tokio::time::advance(hosts.config.host_penalty + Duration::from_secs(1)).await;
    assert_eq!(hosts.order(None).await, ["m.example", "n.example", "a.example"]);
}

#[tokio::test(start_paused = true)]
async fn a_mirror_without_the_content_is_asked_last_for_that_content_only() {
    let hosts = Hosts::new(&["m.example"]);
    let (blob, other) = (Lacking::default(), Lacking::default());
    let mut round = hosts.round(Some(&blob)).await;
    round.next().unwrap();
    round.failed(status(404));
    assert_eq!(hosts.order(Some(&blob)).await, ["a.example", "m.example"]);
    assert_eq!(hosts.order(Some(&other)).await, ["m.example", "a.example"]);
    tokio::time::advance(LACKING + Duration::from_secs(1)).await;
    assert_eq!(hosts.order(Some(&blob)).await, ["m.example", "a.example"]);
}

#[tokio::test(start_paused = true)]
async fn a_mirror_that_lied_is_not_asked_unless_nobody_else_is_left() {
    let hosts = Hosts::new(&["m.example"]);
    hosts.of("a.example/x").await[0].sent_wrong_bytes(&hosts.config, "a blob");
    assert_eq!(hosts.order(None).await, ["a.example"]);
    hosts.of("a.example/x").await[1].sent_wrong_bytes(&hosts.config, "a blob");
    assert_eq!(hosts.order(None).await, ["a.example"], "the registry itself is always asked");
    let only = vec![hosts.of("a.example/x").await[0].clone()];
    assert!(Round::new(only, None, &hosts.config).next().is_some());
    tokio::time::advance(hosts.config.liar_penalty + Duration::from_secs(1)).await;
    assert_eq!(hosts.order(None).await, ["m.example", "a.example"]);
    assert_eq!(hosts.upstreams.stats().iter().map(|host| host.wrong_bytes).sum::<u64>(), 2);
}

#[tokio::test(start_paused = true)]
async fn only_the_last_host_may_take_its_time() {
    let hosts = Hosts::new(&["m.example"]);
    let mut round = hosts.round(None).await;
    let (now, deadline) = (Instant::now(), Instant::now() + Duration::from_secs(100));
    round.next().unwrap();
    assert!(!round.is_last());
    assert_eq!(round.answer_by(deadline), now + hosts.config.host_patience);
    let soon = now + Duration::from_secs(4);
    assert_eq!(round.answer_by(soon), now + Duration::from_secs(2), "the others need time too");
    round.failed(status(500));
    round.next().unwrap();
    assert!(round.is_last());
    assert_eq!(round.answer_by(deadline), deadline);
}

#[tokio::test]
async fn the_registrys_own_failure_counts_and_the_others_are_told() {
    let hosts = Hosts::new(&["m.example"]);
    let mut round = hosts.round(None).await;
    for code in [503, 404] {
        round.next().unwrap();
        round.failed(status(code));
    }
    assert!(round.next().is_none());
    let failure = round.into_failure();
    assert_eq!(failure.error.kind, Kind::NotFound);
    let message = failure.error.message;
    assert!(
        message.contains("404") && message.contains("mirror m.example") && message.contains("503"),
        "{message}"
    );
}

#[tokio::test]
async fn the_other_scheme_is_tried_only_where_there_is_doubt_and_until_one_worked() {
    let hosts = Hosts::new(&[]);
    let endpoints = async || hosts.of("localhost:5000/x").await;
    let mut round = Round::new(endpoints().await, None, &hosts.config);
    assert_eq!(round.next().unwrap().base.scheme(), "http");
    round.failed(status(400));
    assert_eq!(round.next().unwrap().base.scheme(), "https");
    round.worked();
    let mut round = Round::new(endpoints().await, None, &hosts.config);
    assert_eq!(round.next().unwrap().base.scheme(), "https");
    round.failed(status(503));
    assert!(round.next().is_none());
    let mut round = Round::new(endpoints().await, None, &hosts.config);
    assert_eq!(round.next().unwrap().base.scheme(), "http", "it may be another server now");
    round.worked();
    round.failed(status(404));
    assert!(round.next().is_none(), "404 is an answer");
    let mut round = hosts.round(None).await;
    round.next().unwrap();
    round.failed(status(400));
    assert!(round.next().is_none(), "no doubt about a host that is not here");
}

/// A host that is named with `http` and settings for TLS.
fn tls_first(address: &str) -> (tempfile::TempDir, Hosts) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("b.example")).unwrap();
    let text = format!("server = \"http://{address}\"\nskip_verify = true");
    std::fs::write(directory.path().join("b.example/hosts.toml"), text).unwrap();
    let mut config = RegistryConfig::anonymous();
    config.host_directories = vec![directory.path().to_owned()];
    (directory, Hosts { upstreams: Upstreams::new(&config).unwrap(), config })
}

fn silence() -> Failure {
    let url = Url::parse("https://b.example/v2/").unwrap();
    Failure::timed_out(&url, "no answer", Duration::from_secs(1))
}

fn broken() -> Failure {
    Failure { retry: Retry::AtOnce, ..Failure::passing(Kind::Unavailable, "the connection broke") }
}

#[tokio::test]
async fn an_ordinary_failure_does_not_lead_to_clear_text() {
    for (address, failure, falls_back) in [
        ("b.example:5000", silence(), false),
        ("b.example:5000", broken(), false),
        ("b.example", broken(), false),
        ("b.example", silence(), true),
        ("b.example:5000", Failure { retry: Retry::NotTls, ..broken() }, true),
    ] {
        let (_directory, hosts) = tls_first(address);
        let mut round = Round::new(hosts.of("b.example/x").await, None, &hosts.config);
        assert_eq!(round.next().unwrap().base.scheme(), "https");
        let text = format!("{address}: {failure:?}");
        round.failed(failure);
        assert_eq!(round.next().map(|way| way.base.scheme() == "http"), falls_back.then_some(true), "{text}");
    }
}

#[tokio::test]
async fn a_host_that_has_spoken_tls_is_never_asked_in_clear_text() {
    let (_directory, hosts) = tls_first("b.example");
    let endpoints = async || hosts.of("b.example/x").await;
    let not_tls = || Failure { retry: Retry::NotTls, ..broken() };
    // An answer that is an error is one.
    let host = endpoints().await.remove(0);
    host.answered(&host.base);
    for failure in [silence(), not_tls(), status(503), silence()] {
        let mut round = Round::new(endpoints().await, None, &hosts.config);
        assert_eq!(round.next().unwrap().base.scheme(), "https");
        round.failed(failure);
        assert!(round.next().is_none());
    }
    // One that speaks in clear text may have TLS later.
    let (_directory, hosts) = tls_first("b.example");
    let mut round = Round::new(hosts.of("b.example/x").await, None, &hosts.config);
    round.next().unwrap();
    round.failed(not_tls());
    assert_eq!(round.next().unwrap().base.scheme(), "http");
    round.worked();
    let mut round = Round::new(hosts.of("b.example/x").await, None, &hosts.config);
    assert_eq!(round.next().unwrap().base.scheme(), "http");
    round.failed(broken());
    let mut round = Round::new(hosts.of("b.example/x").await, None, &hosts.config);
    assert_eq!(round.next().unwrap().base.scheme(), "https");
}

#[tokio::test]
async fn an_unusable_mirror_is_left_out_and_an_unusable_registry_is_an_error() {
    let mut hosts = Hosts::new(&["m.example", "n.example"]);
    let own = hosts.config.hosts.get_mut("a.example").unwrap();
    own.mirrors[0].headers.push(("x-key".to_owned(), "planted\n".to_owned()));
    assert_eq!(hosts.order(None).await, ["n.example", "a.example"]);
    let own = hosts.config.hosts.entry("b.example".into()).or_default();
    own.headers.push(("x-key".to_owned(), "planted\n".to_owned()));
    let reference: Reference = "b.example/x".parse().unwrap();
    let error = hosts.upstreams.of(&reference, Need::Pull, &hosts.config).await.unwrap_err().error.message;
    assert!(error.contains("x-key") && !error.contains("planted"), "{error}");
}

use std::{collections::BTreeSet, convert::Infallible};

use tower::{Layer, Service, service_fn};

use super::{names::Kind, *};
use crate::process::Process;

struct Everything;

impl Source for Everything {
    fn sample(&self, samples: &mut Samples) {
        let process = [
            names::OPEN_FDS,
            names::RESIDENT_MEMORY,
            names::ANONYMOUS_MEMORY,
            names::START_TIME,
            names::BUILD_INFO,
        ];
        for metric in
            names::ALL.iter().filter(|metric| metric.kind != Kind::Histogram && !process.contains(metric))
        {
            if ![names::RPC_REQUESTS, names::PREPARES].contains(metric) {
                samples.labelled(metric, [("some".to_owned(), 7)]);
            }
        }
        let buckets = [(Some(Duration::from_millis(5)), 2), (None, 1)];
        samples.histogram(&names::FUSE_STALLS, Duration::from_millis(1500), buckets);
    }
}

#[test]
fn a_scrape_shows_exactly_the_metrics_of_the_list() {
    let metrics = Metrics::default();
    metrics.add_source(Arc::new(Everything));
    metrics.add_source(Arc::new(Process::start()));
    metrics.rpc("Prepare", "OK", Duration::from_millis(3));
    metrics.prepared(Prepared::Lazy);
    metrics.prepared(Prepared::FellBack(FallBackReason::NotEstargz));
    metrics.opened(Duration::from_millis(20));
    let text = metrics.text();
    let typed: BTreeSet<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let listed: Vec<_> =
        names::ALL.iter().map(|metric| format!("{} {}", metric.name, metric.kind.as_str())).collect();
    assert_eq!(typed, listed.iter().map(String::as_str).collect());
    for line in [
        "starling_rpc_requests_total{method=\"Prepare\",code=\"OK\"} 1",
        "starling_prepares_total{outcome=\"lazy\",reason=\"none\"} 1",
        "starling_prepares_total{outcome=\"fall-back\",reason=\"not-estargz\"} 1",
        "starling_read_hits_total 7",
        "starling_layers{state=\"some\"} 7",
        "starling_fuse_stall_seconds_sum 1.5",
        "starling_fuse_stall_seconds_bucket{le=\"0.005\"} 2",
        "starling_fuse_stall_seconds_bucket{le=\"+Inf\"} 3",
    ] {
        assert!(text.lines().any(|there| there == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn calls_are_counted_by_method_and_code() {
    let metrics = Metrics::default();
    let answer = |request: tonic::codegen::http::Request<()>| async move {
        let builder = tonic::codegen::http::Response::builder();
        let failed = request.uri().path().ends_with("Stat");
        Ok::<_, Infallible>(
            if failed { builder.header("grpc-status", "5") } else { builder }.body(()).unwrap(),
        )
    };
    let mut service = CountRpcs(metrics.clone()).layer(service_fn(answer));
    for path in ["/containerd.services.snapshots.v1.Snapshots/Stat", "/x/Prepare", "/x/Anything"] {
        service.call(tonic::codegen::http::Request::builder().uri(path).body(()).unwrap()).await.unwrap();
    }
    let text = metrics.text();
    for (method, code) in [("Stat", "NotFound"), ("Prepare", "OK"), ("other", "OK")] {
        let line = format!("starling_rpc_requests_total{{method=\"{method}\",code=\"{code}\"}} 1");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
}

#[test]
fn the_reference_is_up_to_date() {
    crate::docs::assert_current("metrics.md", &reference());
}

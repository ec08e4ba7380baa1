//! What `starling explain` says, in words.

use snapshotter::admin::{CredentialStatus, HostsStatus, PlaceStatus};

use super::{Explained, Report};
use crate::{progress::human, status::short};

pub(super) fn lines(report: &Report<'_>) -> Vec<String> {
    let lazy = report.layers.iter().filter(|layer| layer.lazy).count();
    let mut lines = vec![format!("{}: {lazy} of {} layers lazy", report.image, report.layers.len())];
    lines.extend(report.layers.iter().flat_map(layer_lines));
    lines.extend(report.hosts.map(host_lines).unwrap_or_default());
    lines.extend(report.credentials.as_deref().map(credential_lines).unwrap_or_default());
    lines
}

fn layer_lines(layer: &Explained<'_>) -> Vec<String> {
    let digest = short(layer.digest);
    let mut lines = match (&layer.fall_back, layer.bytes_present.zip(layer.bytes_total)) {
        (Some(_), _) => vec![format!("{digest}  not lazy")],
        (None, Some((present, total))) => {
            vec![format!("{digest}  lazy, {} of {} present", human(present), human(total))]
        }
        (None, None) => vec![format!("{digest}  lazy, not here any more")],
    };
    if let Some(why) = &layer.fall_back {
        lines.push(format!("  reason ({}): {}", why.code, why.reason));
        lines.extend(why.meaning.map(|meaning| format!("  which means: {meaning}")));
        lines.extend(why.remedy.map(|remedy| format!("  remedy: {remedy}")));
    }
    lines.push(format!("  table of contents: {}", layer.toc.unwrap_or("the client named no digest of one")));
    lines.extend(layer.places.iter().flat_map(place_lines));
    if layer.lazy && layer.places.is_empty() {
        lines.push("  read from: nowhere since the daemon started".to_owned());
    }
    lines.extend(layer.last_error.map(|error| format!("  last error: {error}")));
    lines
}

fn place_lines(place: &PlaceStatus) -> [String; 2] {
    let redirect =
        place.redirect.as_ref().map(|target| format!(", which sent us on to {target}")).unwrap_or_default();
    let parts = match place.ranges {
        Some(true) => "it serves parts of blobs",
        Some(false) => "it serves whole blobs only",
        None => "no part was asked for yet",
    };
    let giver = place.credential_source.as_ref().map(|source| format!(" from {source}")).unwrap_or_default();
    [
        format!(
            "  read from: {}{redirect}, for {}; {parts}, its last answer had status {}",
            place.host, place.reference, place.last_answer
        ),
        format!("  credentials in use: {}{giver}", place.credentials),
    ]
}

fn host_lines(hosts: &HostsStatus) -> Vec<String> {
    let mut lines = vec!["content is asked for in this order:".to_owned()];
    for host in &hosts.hosts {
        let why = host.passed_over.as_ref().map(|why| format!("  {why}")).unwrap_or_default();
        lines.push(format!("  {}{why}", host.url));
    }
    lines.extend(hosts.problems.iter().map(|problem| format!("  cannot be used: {problem}")));
    lines
}

/// Who is asked for credentials, and what they know.
fn credential_lines(sources: &[CredentialStatus]) -> Vec<String> {
    let line = |source: &CredentialStatus| {
        let knows = match (&source.failure, source.known.as_slice()) {
            (Some(why), _) => format!("failed: {why}"),
            (None, []) => "nothing".to_owned(),
            (None, known) => known.join(", then "),
        };
        format!("  {}: {knows}", source.source)
    };
    let head = std::iter::once("credentials, in the order in which they are tried:".to_owned());
    head.chain(sources.iter().map(line)).chain(["  anonymous".to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use snapshotter::{admin::HostStatus, explain::explain, lazy::FallBackReason};

    use super::{super::FallBack, *};

    fn lazy() -> Explained<'static> {
        Explained {
            digest: "sha256:ab",
            lazy: true,
            fall_back: None,
            toc: Some("sha256:cd"),
            bytes_present: Some(0),
            bytes_total: Some(2_000_000),
            places: &[],
            last_error: None,
        }
    }

    fn text(layer: Explained<'_>) -> String {
        lines(&Report { image: "a", layers: vec![layer], hosts: None, credentials: None }).join("\n")
    }

    #[test]
    fn a_lazy_layer_says_where_it_is_read_from_and_with_what() {
        let place = PlaceStatus {
            reference: "example.org/a:1".into(),
            host: "example.org".into(),
            redirect: Some("cdn.example".into()),
            ranges: Some(true),
            last_answer: 206,
            credentials: "password of me".into(),
            credential_source: Some("a file".into()),
        };
        let said = text(Explained {
            places: std::slice::from_ref(&place),
            last_error: Some("it broke off"),
            ..lazy()
        });
        for words in [
            "a: 1 of 1 layers lazy",
            "lazy, 0 B of 2.0 MB present",
            "table of contents: sha256:cd",
            "read from: example.org, which sent us on to cdn.example, for example.org/a:1; it serves parts",
            "status 206",
            "credentials in use: password of me from a file",
            "last error: it broke off",
        ] {
            assert!(said.contains(words), "{words:?} is not in\n{said}");
        }
        assert!(text(lazy()).contains("nowhere since the daemon started"));
        let gone = Explained { bytes_present: None, bytes_total: None, ..lazy() };
        assert!(text(gone).contains("not here any more"));
    }

    #[test]
    fn every_class_of_reasons_is_explained() {
        for class in FallBackReason::ALL {
            let code = class.to_string();
            let fall_back = Some(FallBack::new(&code, "because"));
            let said = text(Explained { lazy: false, fall_back, toc: None, ..lazy() });
            assert!(said.contains(explain(class).remedy) && said.contains("because"), "{said}");
            assert!(said.contains("named no digest"), "{said}");
        }
        assert_eq!(super::super::meaning("of tomorrow"), None);
    }

    #[test]
    fn hosts_are_shown_with_what_is_wrong_with_them() {
        let host = |url: &str, passed_over: Option<&str>| HostStatus {
            url: url.to_owned(),
            passed_over: passed_over.map(str::to_owned),
        };
        let hosts = HostsStatus {
            registry: "a.example".into(),
            hosts: vec![host("http://m/v2/", Some("it failed")), host("https://a.example/v2/", None)],
            problems: vec!["a file is broken".into()],
        };
        let expected = [
            "content is asked for in this order:",
            "  http://m/v2/  it failed",
            "  https://a.example/v2/",
            "  cannot be used: a file is broken",
        ];
        assert_eq!(host_lines(&hosts), expected);
    }

    #[test]
    fn sources_of_credentials_are_told_in_their_order() {
        let source = |source: &str, known: &[&str], failure: Option<&str>| CredentialStatus {
            source: source.into(),
            known: known.iter().map(|kind| (*kind).to_owned()).collect(),
            failure: failure.map(str::to_owned),
        };
        let sources = [
            source("one", &["password of a", "identity token"], None),
            source("two", &[], None),
            source("three", &[], Some("it is broken")),
        ];
        let expected = [
            "credentials, in the order in which they are tried:",
            "  one: password of a, then identity token",
            "  two: nothing",
            "  three: failed: it is broken",
            "  anonymous",
        ];
        assert_eq!(credential_lines(&sources), expected);
    }
}

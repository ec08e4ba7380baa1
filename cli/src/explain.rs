//! `starling explain`: why layers of an image are not lazy, and what makes them.

use std::path::PathBuf;

use anyhow::{Result, bail};
use registry::Reference;
use serde::Serialize;
use snapshotter::{
    admin::{HostsStatus, ImageStatus, OutcomeStatus, ask_status},
    explain::{Explanation, explain},
    lazy::FallBackReason,
};

use crate::{
    output,
    status::{ADMIN_SOCKET, short},
};

/// Show for each layer of a pulled image whether it is lazy, and if not why and what to do about it; then the hosts that
/// its content comes from.
///
/// The daemon remembers the images that were pulled last, by whatever client.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image, named as for docker.
    #[arg(value_name = "IMAGE")]
    image: Reference,
    /// The daemon's admin socket, in the directory of its --address.
    #[arg(long, value_name = "SOCKET", default_value = ADMIN_SOCKET)]
    admin: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// One layer.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Explained<'a> {
    digest: &'a str,
    lazy: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meaning: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'static str>,
}

/// Runs the subcommand.
pub(crate) fn run(args: Args) -> Result<()> {
    let (image, status) = (args.image.to_string(), ask_status(&args.admin)?);
    let Some(known) = status.images.iter().find(|known| known.reference == image) else {
        let others: Vec<_> = status.images.iter().map(|known| known.reference.as_str()).collect();
        bail!(
            "starlingd knows of no pull of {image}; it knows of {}",
            if others.is_empty() { "none at all".to_owned() } else { others.join(", ") }
        );
    };
    let layers = explained(known);
    if args.json {
        return output::print_json(&layers);
    }
    let mut lines = lines(&image, &layers);
    let hosts = status.hosts.iter().find(|hosts| hosts.registry == args.image.host());
    lines.extend(hosts.into_iter().flat_map(host_lines));
    output::print(&lines.join("\n"))
}

/// What a class of reasons means; none for one of a newer daemon.
pub(crate) fn meaning(code: &str) -> Option<Explanation> {
    FallBackReason::ALL.into_iter().find(|reason| reason.to_string() == code).map(explain)
}

fn explained(image: &ImageStatus) -> Vec<Explained<'_>> {
    let layers = image.layers.iter().map(|layer| match &layer.outcome {
        OutcomeStatus::Lazy { .. } => Explained {
            digest: &layer.blob,
            lazy: true,
            code: None,
            reason: None,
            meaning: None,
            remedy: None,
        },
        OutcomeStatus::FellBack { code, reason } => {
            let known = meaning(code);
            Explained {
                digest: &layer.blob,
                lazy: false,
                code: Some(code),
                reason: Some(reason),
                meaning: known.map(|known| known.meaning),
                remedy: known.map(|known| known.remedy),
            }
        }
    });
    layers.collect()
}

fn lines(image: &str, layers: &[Explained<'_>]) -> Vec<String> {
    let lazy = layers.iter().filter(|layer| layer.lazy).count();
    let mut lines = vec![format!("{image}: {lazy} of {} layers lazy", layers.len())];
    for layer in layers {
        let what = if layer.lazy { "lazy" } else { "not lazy" };
        lines.push(format!("{}  {what}", short(layer.digest)));
        let code = layer.code.map(|code| format!(" ({code})")).unwrap_or_default();
        lines.extend(layer.reason.map(|reason| format!("  reason{code}: {reason}")));
        lines.extend(layer.meaning.map(|meaning| format!("  which means: {meaning}")));
        lines.extend(layer.remedy.map(|remedy| format!("  remedy: {remedy}")));
    }
    lines
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

#[cfg(test)]
mod tests {
    use snapshotter::admin::{HostStatus, ImageLayerStatus};

    use super::*;

    #[test]
    fn every_class_of_reasons_is_explained() {
        for class in FallBackReason::ALL {
            let outcome = OutcomeStatus::FellBack { code: class.to_string(), reason: "because".into() };
            let layers = vec![ImageLayerStatus { blob: "sha256:ab".into(), outcome }];
            let image = ImageStatus { reference: "a".into(), manifest: None, prepared_at: 0, layers };
            let text = lines("a", &explained(&image)).join("\n");
            assert!(text.contains(explain(class).remedy) && text.contains("because"), "{text}");
        }
        assert_eq!(meaning("of tomorrow"), None);
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
}

//! `starling explain`: for each layer of an image whether it is lazy, why not, what makes it so, where it is read from and
//! with what; which hosts its content comes from, and where credentials for it come from.
//!
//! Everything is what the daemon says; no secret and no signed address is among it.

mod lines;

use std::path::PathBuf;

use anyhow::{Result, bail};
use registry::Reference;
use serde::Serialize;
use snapshotter::{
    admin::{
        CredentialStatus, HostsStatus, ImageLayerStatus, LayerStatus, OutcomeStatus, PlaceStatus, Status,
        ask_credentials, ask_status,
    },
    explain::{Explanation, explain},
    lazy::FallBackReason,
};

use crate::{output, status::ADMIN_SOCKET};

/// Show for each layer of a pulled image whether it is lazy, and if not why and what to do about it; where it is read from;
/// then the hosts that its content comes from, and the credentials for it.
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

/// An image.
#[derive(Debug, Serialize)]
struct Report<'a> {
    image: &'a str,
    layers: Vec<Explained<'a>>,
    /// The hosts that its content comes from; nothing if none was asked since the daemon started.
    hosts: Option<&'a HostsStatus>,
    /// Who is asked for credentials, in this order, before anonymous access; nothing if the daemon does not tell.
    credentials: Option<Vec<CredentialStatus>>,
}

/// One layer.
#[derive(Debug, Serialize)]
struct Explained<'a> {
    digest: &'a str,
    lazy: bool,
    #[serde(flatten)]
    fall_back: Option<FallBack<'a>>,
    /// The digest of its table of contents; none if nobody named one.
    toc: Option<&'a str>,
    bytes_present: Option<u64>,
    bytes_total: Option<u64>,
    /// How it was read last, from each place that was asked since the daemon started.
    places: &'a [PlaceStatus],
    last_error: Option<&'a str>,
}

/// Why a layer is not lazy.
#[derive(Debug, Serialize)]
struct FallBack<'a> {
    code: &'a str,
    reason: &'a str,
    /// Nothing for a class of a newer daemon.
    meaning: Option<&'static str>,
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
    // A daemon of an older version does not tell.
    let credentials = ask_credentials(&args.admin, &image).ok();
    let hosts = status.hosts.iter().find(|hosts| hosts.registry == args.image.host());
    let layers = known.layers.iter().map(|layer| explained(&status, layer)).collect();
    let report = Report { image: &known.reference, layers, hosts, credentials };
    if args.json { output::print_json(&report) } else { output::print(&lines::lines(&report).join("\n")) }
}

/// What a class of reasons means; none for one of a newer daemon.
pub(crate) fn meaning(code: &str) -> Option<Explanation> {
    FallBackReason::ALL.into_iter().find(|reason| reason.to_string() == code).map(explain)
}

fn explained<'a>(status: &'a Status, layer: &'a ImageLayerStatus) -> Explained<'a> {
    let (open, fall_back) = match &layer.outcome {
        OutcomeStatus::Lazy { key } => (status.layers.iter().find(|open| open.key == *key), None),
        OutcomeStatus::FellBack { code, reason } => (None, Some(FallBack::new(code, reason))),
    };
    let named = layer.toc.as_deref();
    Explained {
        digest: &layer.blob,
        lazy: fall_back.is_none(),
        fall_back,
        toc: open.map(|open| open.toc.as_str()).or(named),
        bytes_present: open.map(|open| open.files.bytes_present),
        bytes_total: open.map(|open| open.files.bytes_total),
        places: open.map_or(&[], |open: &LayerStatus| &open.places),
        last_error: open.and_then(|open| open.last_error.as_deref()),
    }
}

// === impl FallBack ===

impl<'a> FallBack<'a> {
    fn new(code: &'a str, reason: &'a str) -> Self {
        let known = meaning(code);
        let (meaning, remedy) = (known.map(|known| known.meaning), known.map(|known| known.remedy));
        Self { code, reason, meaning, remedy }
    }
}

//! `starling pull`: an image lazily into containerd, through its transfer service.
//!
//! containerd resolves the image and asks the snapshotter for each layer; what the snapshotter serves lazily is not
//! downloaded. Here it is checked that containerd is set up for that, and told what became of each layer.

pub(crate) mod containerd;
mod layers;
pub(crate) mod plugin;
mod streams;

use std::{path::PathBuf, time::Instant};

use anyhow::{Context, Result, bail};
use proto::{
    transfer::{TransferOptions, TransferRequest, transfer_client::TransferClient},
    types::{
        self,
        transfer::{ImageStore, OciRegistry, RegistryResolver, UnpackConfiguration},
    },
};
use registry::{Platform, Reference, RegistryConfig};
use serde::Serialize;

use crate::{
    output,
    progress::{Progress, human},
    status::{ADMIN_SOCKET, short},
};
use containerd::{Containerd, said};
use layers::LayerOutcome;
use streams::{Stream, to_any};

/// Pull an image lazily into containerd, and say which of its layers are lazy.
///
/// The image is ready to run when this ends. Credentials are those of the Docker configuration.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image, named as for docker.
    #[arg(value_name = "IMAGE")]
    image: Reference,
    /// containerd's socket.
    #[arg(
        long,
        value_name = "SOCKET",
        env = "CONTAINERD_ADDRESS",
        default_value = "/run/containerd/containerd.sock"
    )]
    address: PathBuf,
    /// containerd's namespace; Kubernetes uses k8s.io, Docker moby.
    #[arg(short, long, env = "CONTAINERD_NAMESPACE", default_value = "default")]
    namespace: String,
    /// The name under which containerd has starlingd as a plugin.
    #[arg(long, default_value = "starling")]
    snapshotter: String,
    /// The daemon's admin socket, which says why a layer fell back.
    #[arg(long, value_name = "SOCKET", default_value = ADMIN_SOCKET)]
    admin: PathBuf,
    /// Pull the image for this platform (os/arch[/variant]) rather than this machine's.
    #[arg(long, value_parser = crate::convert::parse_platform)]
    platform: Option<Platform>,
    /// Let containerd talk to the registry in clear text.
    #[arg(long)]
    plain_http: bool,
    /// The directory of containerd's registry configurations (hosts.toml).
    #[arg(long, value_name = "DIR")]
    hosts_dir: Option<String>,
    /// Fail if a layer is not lazy.
    #[arg(long)]
    require_lazy: bool,
    /// Fetch the layers into containerd's content store too, for push and save.
    #[arg(long)]
    content: bool,
    /// Print no progress.
    #[arg(short, long)]
    quiet: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Pulled {
    image: String,
    /// Seconds until the image could be run.
    seconds: f64,
    /// Whether every layer is lazy.
    lazy: bool,
    layers: Vec<LayerOutcome>,
}

/// Runs the subcommand.
pub(crate) fn run(args: Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let pulled = runtime.block_on(pull(&args)).with_context(|| format!("cannot pull {}", args.image))?;
    if args.json {
        output::print_json(&pulled)?
    } else {
        output::print(&pulled.lines().join("\n"))?
    }
    let eager = pulled.layers.iter().filter(|layer| !layer.lazy).count();
    if args.require_lazy && eager > 0 {
        bail!("{eager} of {} layers of {} are not lazy", pulled.layers.len(), pulled.image);
    }
    Ok(())
}

async fn pull(args: &Args) -> Result<Pulled> {
    let start = Instant::now();
    let image = args.image.to_string();
    let platform = args.platform.clone().unwrap_or_else(Platform::current);
    let progress = Progress::new(args.quiet);
    let containerd = Containerd::connect(&args.address, &args.namespace).await?;
    plugin::check(&containerd, &args.snapshotter).await?;
    let unpack = UnpackConfiguration {
        platform: Some(wire_platform(&platform)),
        snapshotter: args.snapshotter.clone(),
    };
    transfer(&containerd, args, &platform, vec![unpack], &progress).await?;
    let seconds = start.elapsed().as_secs_f64();
    if args.content {
        // Without a snapshotter to unpack into, every blob is fetched.
        transfer(&containerd, args, &platform, Vec::new(), &progress).await?;
    }
    let layers = layers::outcomes(&containerd, &image, &platform, &args.snapshotter, &args.admin).await?;
    Ok(Pulled { image, seconds, lazy: layers.iter().all(|layer| layer.lazy), layers })
}

/// Has containerd fetch the image, and unpack it as `unpacks` says.
async fn transfer(
    containerd: &Containerd,
    args: &Args,
    platform: &Platform,
    unpacks: Vec<UnpackConfiguration>,
    progress: &Progress,
) -> Result<()> {
    let image = args.image.to_string();
    let credentials = Stream::open(containerd, "credentials").await?;
    let reports = Stream::open(containerd, "progress").await?;
    let resolver = RegistryResolver {
        auth_stream: credentials.id().to_owned(),
        host_dir: args.hosts_dir.clone().unwrap_or_default(),
        default_scheme: if args.plain_http { "http".to_owned() } else { String::new() },
        ..RegistryResolver::default()
    };
    let source = OciRegistry { reference: image.clone(), resolver: Some(resolver) };
    let destination = ImageStore {
        name: image,
        platforms: vec![wire_platform(platform)],
        unpacks,
        ..ImageStore::default()
    };
    let request = TransferRequest {
        source: Some(to_any(&source)),
        destination: Some(to_any(&destination)),
        options: Some(TransferOptions { progress_stream: reports.id().to_owned() }),
    };
    let sources = RegistryConfig::default().credentials;
    let credentials = streams::give_credentials(credentials, args.image.clone(), sources, progress.clone());
    let mut client = TransferClient::new(containerd.channel());
    tokio::select! {
        // The streams may end before the transfer does: only that decides.
        done = client.transfer(request) => match done {
            Ok(_) => Ok(()),
            // What the unpacker says when no entry of unpack_config fits (containerd core/unpack/unpacker.go).
            Err(status) if status.message().contains("no unpack platforms") => {
                bail!(plugin::not_unpacked(&args.snapshotter))
            }
            Err(status) => Err(said(status)),
        },
        never = async {
            tokio::join!(credentials, streams::show_progress(reports, progress.clone()));
            std::future::pending().await
        } => never,
    }
}

fn wire_platform(platform: &Platform) -> types::Platform {
    types::Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone().unwrap_or_default(),
    }
}

// === impl Pulled ===

impl Pulled {
    fn lines(&self) -> Vec<String> {
        let lazy = self.layers.iter().filter(|layer| layer.lazy).count();
        let mut lines = Vec::new();
        for (number, layer) in self.layers.iter().enumerate() {
            let what = match (layer.lazy, layer.downloaded) {
                (true, false) => "lazy",
                (true, true) => "lazy, and downloaded too",
                (false, _) => "not lazy",
            };
            let (digest, size) = (short(&layer.digest.to_string()), human(layer.size));
            lines.push(format!("layer {}  {digest}  {size:>9}  {what}", number + 1));
            let code = layer.code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default();
            lines.extend(layer.reason.iter().map(|reason| format!("  reason{code}: {reason}")));
            lines.extend(layer.remedy.iter().map(|remedy| format!("  remedy: {remedy}")));
        }
        let (seconds, all) = (self.seconds, self.layers.len());
        lines.push(format!("{} pulled in {seconds:.2} s, {lazy} of {all} layers lazy", self.image));
        lines
    }
}

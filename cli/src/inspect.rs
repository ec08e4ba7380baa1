//! `starling inspect`: what an image's layers are made of, and whether they can be pulled lazily.
//!
//! Of a layer only its end is read: the footer and the table of contents.

mod blob;
mod layer;
mod table;

use std::path::Path;

use anyhow::{Context, Result};
use estargz::Digest;
use registry::{OciLayout, Platform, RegistryClient, RegistryConfig, open_image};
use serde::Serialize;

use crate::{output, progress::human};
use blob::Blob;
use layer::{Expected, LayerInfo, TocInfo};
use table::FileInfo;

/// Show what an image's layers are made of, and whether they can be pulled lazily.
///
/// Only footers and tables of contents are read. The image is named as for docker, oci:DIR[:TAG] for an OCI image
/// layout, or is the file of one layer.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image, or a layer's file.
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Inspect the image for this platform (os/arch[/variant]) rather than this machine's.
    #[arg(long, value_parser = crate::convert::parse_platform)]
    platform: Option<Platform>,
    /// List the entries of each table of contents.
    #[arg(long)]
    files: bool,
    /// Talk to this registry in clear text; may be given several times.
    #[arg(long, value_name = "HOST")]
    insecure: Vec<String>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Inspection {
    /// The digest of the platform's manifest; none for a layer's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    layers: Vec<LayerInfo>,
}

/// Runs the subcommand.
pub(crate) fn run(args: Args) -> Result<()> {
    let inspection = if !OciLayout::is_name(&args.image) && Path::new(&args.image).is_file() {
        let blob = Blob::open_file(Path::new(&args.image))?;
        Inspection { digest: None, layers: vec![layer::inspect(&blob, Expected::default(), args.files)?] }
    } else {
        inspect_image(&args).with_context(|| format!("cannot inspect {}", args.image))?
    };
    if args.json { output::print_json(&inspection) } else { output::print(&inspection.lines().join("\n")) }
}

fn inspect_image(args: &Args) -> Result<Inspection> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut config = RegistryConfig::default();
    for host in &args.insecure {
        config = config.with_insecure_host(host);
    }
    let images = {
        let _inside = runtime.enter();
        open_image(&args.image, &RegistryClient::new(config)?)?
    };
    let platform = args.platform.clone().unwrap_or_else(Platform::current);
    let (document, manifest) = runtime.block_on(images.platform_manifest(&platform))?;
    let layers = manifest.layers.iter().map(|descriptor| {
        let blob = Blob::of_image(images.blob(descriptor.digest), runtime.handle().clone());
        let inspected = layer::inspect(&blob, Expected::of(descriptor), args.files);
        inspected.with_context(|| format!("cannot read the layer {}", descriptor.digest))
    });
    Ok(Inspection { digest: Some(document.digest), layers: layers.collect::<Result<_>>()? })
}

// === impl Inspection ===

impl Inspection {
    fn lines(&self) -> Vec<String> {
        let image = self.digest.map(|digest| format!("image {digest}"));
        let layers = self.layers.iter().enumerate();
        image.into_iter().chain(layers.flat_map(|(number, layer)| layer_lines(number + 1, layer))).collect()
    }
}

fn layer_lines(number: usize, layer: &LayerInfo) -> Vec<String> {
    let digest = layer.digest.map_or_else(String::new, |digest| format!("  {digest}"));
    let lazy = if layer.lazy { "lazy" } else { "not lazy" };
    let mut lines = vec![format!("layer {number}{digest}  {}  {lazy}", human(layer.size))];
    lines.extend(layer.reason.iter().map(|reason| format!("  reason      {reason}")));
    if let Some(toc) = &layer.toc {
        toc_lines(toc, layer.size, &mut lines);
    }
    let file =
        |file: &FileInfo| format!("  {:<8} {:>12} {:>12}  {}", file.kind, file.size, file.offset, file.name);
    lines.extend(layer.files.iter().map(file));
    lines
}

fn toc_lines(toc: &TocInfo, blob_size: u64, lines: &mut Vec<String>) {
    let (compressed, contents) = (human(toc.compressed), &toc.contents);
    lines.push(format!(
        "  footer      {}, table of contents of {compressed} at byte {}",
        toc.footer, toc.offset
    ));
    lines.push(format!("  toc digest  {}", toc.digest));
    lines.push(format!(
        "  entries     {}: {} files, {} directories, {} symlinks, {} hard links, {} others",
        contents.entries,
        contents.files,
        contents.directories,
        contents.symlinks,
        contents.hard_links,
        contents.others
    ));
    lines.push(format!(
        "  content     {} in {} chunks of up to {}, {:.2} times the blob",
        human(contents.bytes),
        contents.chunks,
        human(contents.longest_chunk),
        contents.bytes as f64 / blob_size.max(1) as f64
    ));
    lines.push(match (contents.landmark, contents.prefetch_bytes) {
        (Some(landmark), Some(bytes)) => {
            format!("  landmark    {landmark}, {} to be fetched first", human(bytes))
        }
        (Some(landmark), None) => format!("  landmark    {landmark}"),
        (None, _) => "  landmark    none".to_owned(),
    });
}

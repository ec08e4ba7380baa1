//! `starling profile`: what starts of an image read, shown, exported, pushed and pulled.

mod remote;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use registry::Reference;
use snapshotter::{admin::ask_profile, profile::Document};

use crate::{
    convert::parse_platform,
    output,
    progress::human,
    status::{ADMIN_SOCKET, short},
};
pub(crate) use remote::{Remote, find};

/// Show what starts of an image read first, and exchange it with other machines.
///
/// The daemon records it for every image; the next cold start fetches it ahead.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show what the daemon recorded of an image.
    Show(Show),
    /// Write what the daemon recorded of an image to a file.
    Export(Export),
    /// Push what the daemon recorded of an image, or a file, to the image's registry, where other daemons find it.
    Push(Push),
    /// Read the profile that an image has in its registry.
    Pull(Pull),
}

#[derive(Debug, clap::Args)]
struct Daemon {
    /// The image, named as for docker.
    #[arg(value_name = "IMAGE")]
    image: Reference,
    /// The daemon's admin socket, in the directory of its --address.
    #[arg(long, value_name = "SOCKET", default_value = ADMIN_SOCKET)]
    admin: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Show {
    #[command(flatten)]
    daemon: Daemon,
    /// Print the profile as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Export {
    #[command(flatten)]
    daemon: Daemon,
    /// The file; standard output if not given.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Push {
    #[command(flatten)]
    daemon: Daemon,
    /// Push this file in place of what the daemon recorded.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Talk to this registry in clear text; may be given several times.
    #[arg(long, value_name = "HOST")]
    insecure: Vec<String>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Pull {
    /// The image, named as for docker.
    #[arg(value_name = "IMAGE")]
    image: Reference,
    /// The file; standard output if not given.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Which image of a multi-platform one (os/arch[/variant]).
    #[arg(long, value_parser = parse_platform)]
    platform: Option<registry::Platform>,
    /// Talk to this registry in clear text; may be given several times.
    #[arg(long, value_name = "HOST")]
    insecure: Vec<String>,
    /// Print the profile as JSON, which is how it is printed anyway.
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

/// Runs the subcommand.
pub(crate) fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Show(args) => {
            let document = args.daemon.document()?;
            if args.json {
                output::print_json(&document)
            } else {
                output::print(&lines(&document).join("\n"))
            }
        }
        Command::Export(args) => write(&args.daemon.document()?, args.output.as_deref()),
        Command::Push(args) => push(&args),
        Command::Pull(args) => {
            let remote = Remote::new(&args.insecure)?;
            let Some(document) = remote.pull(&args.image, args.platform)? else {
                bail!("{} has no profile in its registry", args.image)
            };
            write(&document, args.output.as_deref())
        }
    }
}

fn push(args: &Push) -> Result<()> {
    let document = match &args.file {
        Some(file) => read(file)?,
        None => args.daemon.document()?,
    };
    if document.accesses.is_empty() {
        bail!("nothing was recorded of {}: start a container of it after a fresh pull", args.daemon.image);
    }
    let digest = Remote::new(&args.insecure)?.push(&args.daemon.image, &document)?;
    if args.json {
        return output::print_json(&serde_json::json!({ "digest": digest, "subject": document.manifest }));
    }
    output::print(&format!("pushed {digest}, a profile of {}", document.manifest))
}

/// Reads a profile from a file.
pub(crate) fn read(path: &Path) -> Result<Document> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Document::parse(&bytes).with_context(|| format!("{} is no profile", path.display()))
}

fn write(document: &Document, output: Option<&Path>) -> Result<()> {
    let Some(path) = output else { return output::print_json(document) };
    fs::write(path, serde_json::to_vec(document)?).with_context(|| format!("cannot write {}", path.display()))
}

fn lines(document: &Document) -> Vec<String> {
    let bytes: u64 = document.accesses.iter().map(|access| access.length).sum();
    let mut lines = vec![format!(
        "{}: {} of {} files in {} layers are read first",
        short(&document.manifest.to_string()),
        human(bytes),
        document.files().len(),
        document.layers.len()
    )];
    lines.extend(document.accesses.iter().map(|access| {
        let layer = document.layers.get(access.layer as usize).map(|layer| short(&layer.blob.to_string()));
        format!(
            "{:>9.3} s  {}  {:>9}  {}",
            f64::from(access.at) / 1000.0,
            layer.unwrap_or_default(),
            human(access.length),
            access.path.escape_default()
        )
    }));
    lines
}

// === impl Daemon ===

impl Daemon {
    fn document(&self) -> Result<Document> {
        Ok(ask_profile(&self.admin, &self.image.to_string())?)
    }
}

#[cfg(test)]
mod tests {
    use estargz::Digest;
    use snapshotter::profile::{Access, Part};

    use super::*;

    #[test]
    fn a_profile_is_shown_in_order_and_read_back_from_its_file() {
        let digest = Digest::of(b"something");
        let access = |path: &str, at| Access { layer: 0, path: path.into(), offset: 0, length: 1000, at };
        let document = Document {
            version: 1,
            manifest: digest,
            layers: vec![Part { blob: digest, toc: digest }],
            accesses: vec![access("bin/sh", 0), access("etc/\u{1b}passwd", 1500)],
        };
        let lines = lines(&document);
        assert!(lines[0].contains("2 files in 1 layers"), "{lines:?}");
        assert!(lines[1].contains("0.000 s") && lines[1].contains("bin/sh"), "{lines:?}");
        assert!(lines[2].contains("1.500 s") && !lines[2].contains('\u{1b}'), "{lines:?}");
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("profile");
        write(&document, Some(&file)).unwrap();
        assert_eq!(read(&file).unwrap(), document);
        std::fs::write(&file, "[]").unwrap();
        assert!(format!("{:#}", read(&file).unwrap_err()).contains("is no profile"));
    }
}

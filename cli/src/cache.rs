//! `starling cache`: the disk that layers take, through a running daemon.

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use snapshotter::admin::{CachedLayer, ask_cache, ask_prune, ask_verify};

use crate::{
    output,
    progress::{Progress, human},
    status::{ADMIN_SOCKET, aligned, duration, short},
};

/// List, delete and verify the layers that a running daemon has on disk.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the layers on disk, the last used first.
    Ls(Ls),
    /// Delete layers that no snapshot refers to, the least recently used first.
    Prune(Prune),
    /// Read layers from the disk again and compare them with their digests; what is damaged is fetched again.
    Verify(Verify),
}

#[derive(Debug, clap::Args)]
struct Daemon {
    /// The daemon's admin socket, in the directory of its --address.
    #[arg(long, value_name = "SOCKET", default_value = ADMIN_SOCKET)]
    admin: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Ls {
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Debug, clap::Args)]
struct Prune {
    #[command(flatten)]
    daemon: Daemon,
    /// Delete no more than is needed for all layers to take this many bytes; without it all go that may.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    keep: u64,
}

#[derive(Debug, clap::Args)]
struct Verify {
    #[command(flatten)]
    daemon: Daemon,
    /// Layers, by the beginnings of their keys or blob digests; all if none is given.
    #[arg(value_name = "LAYER")]
    layers: Vec<String>,
}

/// What a layer was found to be.
#[derive(Debug, serde::Serialize)]
struct Found {
    key: String,
    blob: String,
    chunks: u64,
    bytes: u64,
    damaged: Vec<u32>,
}

/// Runs the subcommand.
pub(crate) fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Ls(args) => list(&args.daemon),
        Command::Prune(args) => prune(&args),
        Command::Verify(args) => verify(&args),
    }
}

fn list(daemon: &Daemon) -> Result<()> {
    let layers = ask_cache(&daemon.admin)?;
    if daemon.json {
        return output::print_json(&layers);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    output::print(&lines(&layers, now).join("\n"))
}

fn lines(layers: &[CachedLayer], now: u64) -> Vec<String> {
    if layers.is_empty() {
        return vec!["no layers on disk".to_owned()];
    }
    let mut rows = vec![["LAYER", "KEY", "DISK", "LAST READ", "STATE"].map(str::to_owned)];
    rows.extend(layers.iter().map(|layer| {
        let state = if layer.in_use { "in use" } else { "unused" };
        let ago = format!("{} ago", duration(now.saturating_sub(layer.used_at)));
        [short(&layer.blob), layer.key.clone(), human(layer.bytes), ago, state.to_owned()]
    }));
    let mut lines = aligned(&rows);
    let sum = |unused: bool| {
        human(layers.iter().filter(|layer| !(unused && layer.in_use)).map(|layer| layer.bytes).sum())
    };
    lines.push(format!("{} in {} layers, {} of it unused", sum(false), layers.len(), sum(true)));
    lines
}

fn prune(args: &Prune) -> Result<()> {
    let pruned = ask_prune(&args.daemon.admin, args.keep)?;
    if args.daemon.json {
        return output::print_json(&pruned);
    }
    output::print(&format!("deleted {} layers, {} on disk", pruned.layers.len(), human(pruned.bytes)))
}

fn verify(args: &Verify) -> Result<()> {
    let daemon = &args.daemon;
    let layers = wanted(ask_cache(&daemon.admin)?, &args.layers)?;
    let progress = Progress::new(false);
    let mut found = Vec::new();
    for layer in layers {
        let bar = progress.bytes(short(&layer.blob), layer.bytes);
        let mut all = Found { key: layer.key, blob: layer.blob, chunks: 0, bytes: 0, damaged: Vec::new() };
        let mut from = Some(0);
        while let Some(chunk) = from {
            let checked = ask_verify(&daemon.admin, &all.key, chunk)
                .with_context(|| format!("cannot verify layer {}", short(&all.blob)))?;
            from = checked.next;
            all.chunks += checked.chunks;
            all.bytes += checked.bytes;
            all.damaged.extend(checked.damaged);
            bar.set(all.bytes);
        }
        drop(bar);
        progress.line(&format!("{}: {}", short(&all.blob), verdict(&all)));
        found.push(all);
    }
    if daemon.json {
        return output::print_json(&found);
    }
    let damaged: usize = found.iter().map(|layer| layer.damaged.len()).sum();
    let bytes = human(found.iter().map(|layer| layer.bytes).sum());
    output::print(&format!("{bytes} in {} layers verified, {damaged} damaged chunks", found.len()))
}

/// The layers that were named.
fn wanted(layers: Vec<CachedLayer>, names: &[String]) -> Result<Vec<CachedLayer>> {
    let is = |layer: &CachedLayer, name: &String| {
        layer.key.starts_with(name)
            || layer.blob.starts_with(name)
            || layer.blob.starts_with(&format!("sha256:{name}"))
    };
    if let Some(name) = names.iter().find(|name| !layers.iter().any(|layer| is(layer, name))) {
        bail!("there is no layer {name} on disk: `starling cache ls` lists them");
    }
    let named = |layer: &CachedLayer| names.is_empty() || names.iter().any(|name| is(layer, name));
    Ok(layers.into_iter().filter(named).collect())
}

fn verdict(found: &Found) -> String {
    match found.damaged.len() {
        0 => format!("{} in {} chunks are right", human(found.bytes), found.chunks),
        damaged => format!("{damaged} of {} chunks were damaged: dropped, and fetched again", found.chunks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(key: &str, bytes: u64, in_use: bool) -> CachedLayer {
        CachedLayer { key: key.into(), blob: format!("sha256:{key}{key}"), bytes, used_at: 1000, in_use }
    }

    #[test]
    fn layers_are_listed_with_what_is_unused() {
        let text = lines(&[layer("aa", 1_000_000, true), layer("bb", 2_000_000, false)], 1061).join("\n");
        for words in ["1 min 1 s ago  in use", "unused", "3.0 MB in 2 layers, 2.0 MB of it unused"] {
            assert!(text.contains(words), "{words:?} is not in\n{text}");
        }
        assert_eq!(lines(&[], 0), ["no layers on disk"]);
    }

    #[test]
    fn layers_are_named_by_beginnings_and_unknown_names_are_told() {
        let layers = || vec![layer("aa", 1, true), layer("bb", 2, false)];
        let keys = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            wanted(layers(), &names).map(|found| found.into_iter().map(|layer| layer.key).collect::<Vec<_>>())
        };
        assert_eq!(keys(&[]).unwrap(), ["aa", "bb"]);
        assert_eq!(keys(&["b"]).unwrap(), ["bb"]);
        assert_eq!(keys(&["sha256:aa"]).unwrap(), ["aa"]);
        assert!(keys(&["b", "cc"]).unwrap_err().to_string().contains("no layer cc"));
    }

    #[test]
    fn damage_is_told() {
        let found = |damaged: Vec<u32>| Found {
            key: String::new(),
            blob: String::new(),
            chunks: 9,
            bytes: 1000,
            damaged,
        };
        assert_eq!(verdict(&found(vec![])), "1.0 kB in 9 chunks are right");
        assert!(verdict(&found(vec![3])).starts_with("1 of 9 chunks were damaged"));
    }
}

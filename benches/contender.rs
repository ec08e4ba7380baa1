//! Who is compared: snapshotters in their default and in their best documented configuration.

use std::thread;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::programs::Programs;

/// A way to get an image onto a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Contender {
    /// containerd's overlayfs snapshotter as it comes: three downloads, one layer unpacked at a time.
    Overlayfs,
    /// overlayfs with containerd's parallel download and unpack.
    OverlayfsParallel,
    /// containerd's erofs snapshotter and differ, with the same parallel options: the best full pull.
    Erofs,
    /// stargz-snapshotter as it comes.
    Stargz,
    /// stargz-snapshotter with passthrough, 1 MiB chunks, 16 MiB prefetch chunks, 16 background fetches.
    StargzTuned,
    /// Starling as it comes.
    Starling,
    /// The same, on a machine that has had the image before: its content is gone, the recorded profile is not.
    StarlingProfile,
    /// The same as [`Contender::Starling`], which fetches nothing in the background: what its reads cost.
    StarlingOnDemand,
}

/// Which of an image's two forms is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// gzip layers, as built.
    Plain,
    /// eStargz layers.
    Estargz,
}

/// What a contender's containerd and daemon are started with.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// The snapshotter's name in containerd.
    pub(crate) snapshotter: &'static str,
    /// Added to containerd's configuration.
    pub(crate) containerd: String,
    /// The daemon's configuration file.
    pub(crate) daemon: &'static str,
}

/// The configuration that [`Contender::StargzTuned`] stands for.
const STARGZ_TUNED: &str = "\
max_concurrency = 16

[blob]
chunk_size = 1048576
prefetch_chunk_size = 16777216

[fuse]
passthrough = true
";

/// What containerd's documentation of its erofs snapshotter recommends for speed.
const EROFS: &str = "
[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
  platform = \"linux\"
  snapshotter = \"erofs\"
  differ = \"erofs\"

[plugins.'io.containerd.differ.v1.erofs']
  mkfs_options = [\"-T0\", \"--mkfs-time\", \"--sort=none\"]
";

impl Contender {
    /// As on the command line and in the record.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Overlayfs => "overlayfs",
            Self::OverlayfsParallel => "overlayfs, parallel",
            Self::Erofs => "erofs, parallel",
            Self::Stargz => "stargz-snapshotter",
            Self::StargzTuned => "stargz-snapshotter, tuned",
            Self::Starling => "Starling",
            Self::StarlingProfile => "Starling, with profile",
            Self::StarlingOnDemand => "Starling, no background",
        }
    }

    /// What it pulls.
    pub(crate) fn form(self) -> Form {
        match self {
            Self::Overlayfs | Self::OverlayfsParallel | Self::Erofs => Form::Plain,
            Self::Stargz | Self::StargzTuned => Form::Estargz,
            Self::Starling | Self::StarlingProfile | Self::StarlingOnDemand => Form::Estargz,
        }
    }

    /// How it is configured.
    pub(crate) fn setup(self) -> Setup {
        let (snapshotter, containerd, daemon) = match self {
            Self::Overlayfs => ("overlayfs", String::new(), ""),
            Self::OverlayfsParallel => ("overlayfs", parallel(), ""),
            Self::Erofs => ("erofs", EROFS.to_owned() + &parallel(), ""),
            Self::Stargz => ("stargz", String::new(), ""),
            Self::StargzTuned => ("stargz", String::new(), STARGZ_TUNED),
            Self::Starling | Self::StarlingProfile => ("starling", String::new(), ""),
            Self::StarlingOnDemand => ("starling", String::new(), "no_background_fetch = true\n"),
        };
        Setup { snapshotter, containerd, daemon }
    }

    /// Why it cannot take part here.
    pub(crate) fn unavailable(self, programs: &Programs) -> Option<String> {
        match self {
            Self::Erofs => programs.erofs_missing(),
            _ => None,
        }
    }
}

/// containerd's parallel options: ranges of 8 MiB on up to ten connections a layer, and layers unpacked side by
/// side, at least four.
fn parallel() -> String {
    let unpacks = thread::available_parallelism().map_or(4, |cores| cores.get().max(4));
    format!(
        "
[plugins.'io.containerd.transfer.v1.local']
  max_concurrent_downloads = 10
  concurrent_layer_fetch_buffer = 8388608
  max_concurrent_unpacks = {unpacks}
"
    )
}

//! The seam between snapshots and layers that are served lazily.
//!
//! The snapshot state machine calls it and knows nothing of registries, FUSE or the layer store; whoever
//! implements it knows nothing of names, parents and transactions. Tests put a fake behind it.
//!
//! Promises that the state machine makes to the implementer:
//! - `cleanup` never overlaps a `prepare` whose answer has not been written to the metadata yet, so a layer that was
//!   just prepared is never missing from `in_use`;
//! - a `prepare` that runs into the total deadline is dropped; work that it spawned may go on, and is the
//!   implementer's to guard against `cleanup`;
//! - `lower_dir`, `chain_slot`, `chain_dir`, `starting`, `root_owner` and `usage` are called on blocking threads, never with
//!   a lock or transaction held.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
};

use async_trait::async_trait;
use fusefs::Slot;
use store::LayerKey;

/// Labels of a snapshot, never with an empty value once stored.
pub type Labels = BTreeMap<String, String>;

/// What a Prepare that names a target says about the layer it wants.
#[derive(Debug, Clone, Copy)]
pub struct RemoteRequest<'a> {
    /// The key of the snapshot that is being prepared, as containerd sent it.
    pub key: &'a str,
    /// The name of the committed parent; empty for the lowest layer.
    pub parent: &'a str,
    /// The value of the label `containerd.io/snapshot.ref`: a chain id from containerd, any text from BuildKit.
    pub target: &'a str,
    /// All labels of the request.
    pub labels: &'a Labels,
}

/// A layer that is served lazily. It is stored with its snapshot and is all that is needed to find the layer
/// again after a restart, without the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteLayer {
    /// The layer's files.
    pub key: LayerKey,
    /// The layer's directory below the FUSE mount points.
    pub slot: Slot,
}

/// What a snapshot's user takes as the answer that a file does not have an extended attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// `ENODATA` and nothing else.
    NoData,
    /// `EOPNOTSUPP` as well, which spares every question but the first.
    Unsupported,
}

/// Layers that lie on one another, with nothing below them: shown as one tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Where the tree is below the FUSE mount points.
    pub slot: Slot,
    /// The layers, the uppermost first.
    pub layers: Vec<RemoteLayer>,
}

/// Why a layer cannot be served lazily: the snapshot becomes an ordinary, writable one.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct FallBack {
    /// For people: what, where, what to do.
    pub reason: String,
    /// For metrics and tests.
    pub code: FallBackReason,
}

/// Classes of fall-back, few enough for a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FallBackReason {
    /// The labels name no image reference or no layer digest.
    NoImageLabels,
    /// Nothing vouches for the layer's TOC, so nothing in it could be verified.
    NoTocDigest,
    /// The configuration or the request says not to.
    Disabled,
    /// The blob has no eStargz footer.
    NotEstargz,
    /// The TOC is damaged, or is not the one that the image's manifest vouches for.
    BadToc,
    /// A chunk cannot be verified.
    Unverifiable,
    /// The layer is valid, but holds something that cannot be served truthfully.
    Unsupported,
    /// The layer is larger than a limit.
    OverLimit,
    /// The registry wants other credentials.
    Unauthorized,
    /// The registry does not have the blob.
    NotFound,
    /// The registry cannot serve ranges.
    RangesUnsupported,
    /// The registry did not answer, or not with sense.
    RegistryUnavailable,
    /// Prepare's total time was over.
    Deadline,
    /// Another layer is there under the same target and parent.
    TargetDiffers,
    /// The local disk, the FUSE mounts or the daemon itself.
    Local,
}

/// A layer that was served lazily and cannot be at the moment; gRPC's `Unavailable`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("layer {key} is unavailable: {reason}")]
pub struct Unavailable {
    /// The layer.
    pub key: LayerKey,
    /// For people: what, where, what to do.
    pub reason: String,
}

/// What is left to be deleted of layers that are gone.
pub type Leftovers = Box<dyn FnOnce() + Send>;

/// What a snapshot takes on disk, without its parents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes allocated.
    pub size: u64,
    /// Inodes taken.
    pub inodes: u64,
}

/// The owner of a layer's root directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Where lazily served layers come from.
#[async_trait]
pub trait LazyLayers: Send + Sync + 'static {
    /// Makes the layer that `request` names readable below the FUSE mount, or says why not. Called by Prepare when the
    /// label `containerd.io/snapshot.ref` is there and no committed snapshot has this target and parent.
    ///
    /// # Errors
    /// The reason for falling back; it is logged with the snapshot's key and parent.
    async fn prepare(&self, request: RemoteRequest<'_>) -> Result<RemoteLayer, FallBack>;

    /// Told of each Prepare that ended in a remote snapshot, which `prepare` alone cannot know.
    fn prepared(&self, request: RemoteRequest<'_>, layer: &RemoteLayer) {
        let _ = (request, layer);
    }

    /// Told of each Prepare that fell back, for whatever reason: those that `prepare` gave, the deadline and others.
    fn fell_back(&self, request: RemoteRequest<'_>, fall_back: &FallBack) {
        let _ = (request, fall_back);
    }

    /// The directory that stands in an overlay's `lowerdir=` for the layer. Quick, no network.
    ///
    /// # Errors
    /// The layer is not attached and cannot be attached from local files.
    fn lower_dir(&self, layer: &RemoteLayer, absence: Absence) -> Result<PathBuf, Unavailable>;

    /// A slot for a chain of layers that is to be shown as one directory; none if its layers are to be named one by one.
    /// Quick, no network.
    fn chain_slot(&self) -> Option<Slot> {
        None
    }

    /// The directory that shows the layers of `chain` as one tree. Quick, no network.
    ///
    /// # Errors
    /// As `lower_dir`, for any of its layers.
    fn chain_dir(&self, chain: &Chain, absence: Absence) -> Result<PathBuf, Unavailable>;

    /// The slots of the chains that are shown.
    fn chains(&self) -> BTreeSet<Slot> {
        BTreeSet::new()
    }

    /// Told that a container begins on these layers, the highest first; `labels` are those of the snapshot of the highest
    /// one. Quick, no network.
    fn starting(&self, layers: &[RemoteLayer], labels: &Labels) {
        let _ = (layers, labels);
    }

    /// The owner of the layer's root, from its index: a child's upper directory gets the same. Never through the FUSE
    /// mount, since the daemon that serves it must not wait for itself.
    ///
    /// # Errors
    /// As `lower_dir`.
    fn root_owner(&self, layer: &RemoteLayer) -> Result<Owner, Unavailable>;

    /// What the layer takes on disk now. Cheap: the CRI plugin asks for every snapshot every ten seconds.
    fn usage(&self, layer: &RemoteLayer) -> Usage;

    /// Drops the chains `gone` and every layer that no snapshot refers to. Quick: what takes long is what it gives back, to
    /// be done where it may block, when Prepares may go on.
    async fn cleanup(&self, gone: &BTreeSet<Slot>, in_use: &BTreeSet<LayerKey>) -> Leftovers;
}

// === impl FallBackReason ===

impl FallBackReason {
    /// Every class.
    pub const ALL: [Self; 15] = [
        Self::NoImageLabels,
        Self::NoTocDigest,
        Self::Disabled,
        Self::NotEstargz,
        Self::BadToc,
        Self::Unverifiable,
        Self::Unsupported,
        Self::OverLimit,
        Self::Unauthorized,
        Self::NotFound,
        Self::RangesUnsupported,
        Self::RegistryUnavailable,
        Self::Deadline,
        Self::TargetDiffers,
        Self::Local,
    ];

    /// The class in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoImageLabels => "no-image-labels",
            Self::NoTocDigest => "no-toc-digest",
            Self::Disabled => "disabled",
            Self::NotEstargz => "not-estargz",
            Self::BadToc => "bad-toc",
            Self::Unverifiable => "unverifiable",
            Self::Unsupported => "unsupported",
            Self::OverLimit => "over-limit",
            Self::Unauthorized => "unauthorized",
            Self::NotFound => "not-found",
            Self::RangesUnsupported => "ranges-unsupported",
            Self::RegistryUnavailable => "registry-unavailable",
            Self::Deadline => "deadline",
            Self::TargetDiffers => "target-differs",
            Self::Local => "local",
        }
    }
}

impl fmt::Display for FallBackReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

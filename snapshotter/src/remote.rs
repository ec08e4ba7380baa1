//! Layers that are served lazily: from the labels of a Prepare to a directory below the FUSE mounts.
//!
//! [`RemoteLayers`] brings together what others do: the registry client reads, the store verifies and keeps, the FUSE
//! connection shows. What is decided here is which layer a Prepare means, from where it can be read, when it may go, and
//! why it cannot be lazy.
//!
//! Invariants: a Prepare waits for its own layer and, where only the manifest knows the digest of its table of contents,
//! for the manifest; for nothing else. A start needs no network. A layer that a snapshot refers to is never deleted.

mod attached;
mod claims;
mod early;
mod flights;
mod images;
mod journal;
mod labels;
mod manifest;
mod opener;
mod profiles;
mod quota;
mod reasons;
mod removal;
mod report;
mod restore;
mod reverify;
mod slots;
mod sources;

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use estargz::NodeId;
use fusefs::Slot;
use registry::{Reference, RegistryClient};
use store::{Layer, LayerKey, PlanId, Store};
use tokio::sync::RwLock;

use self::{
    attached::Attached,
    claims::Claims,
    early::Early,
    images::{Images, blocking},
    journal::Journal,
    labels::Wanted,
    opener::{Opener, Target},
    profiles::Lookups,
    quota::Quota,
    removal::Removal,
    slots::Slots,
};
use crate::{
    admin::OutcomeStatus,
    config::Config,
    connections::Connections,
    lazy::{
        Absence, Chain, FallBack, FallBackReason, Labels, LazyLayers, Leftovers, Owner, RemoteLayer,
        RemoteRequest, Unavailable, Usage,
    },
    metrics::{Metrics, Prepared},
};

/// Files of a layer on disk; what a quota of inodes would count.
const FILES_OF_A_LAYER: u64 = 5;

/// All layers that are served lazily.
#[derive(Debug)]
pub struct RemoteLayers {
    opener: Arc<Opener>,
    images: Arc<Images>,
    attached: Arc<Attached>,
    removal: Arc<Removal>,
    claims: Arc<Claims>,
    journal: Arc<Journal>,
    metrics: Metrics,
    fetching: Fetching,
    lookups: Arc<Lookups>,
    /// Layers that no snapshot refers to stay on disk, as far as the quota goes.
    keep_unused: bool,
    quota: Quota,
    /// Shared by Prepares; taken alone to delete layers that were opened ahead and not wanted.
    preparing: RwLock<()>,
}

/// What [`RemoteLayers`] brings together.
#[derive(Debug)]
pub struct Parts {
    /// The daemon's root.
    pub root: PathBuf,
    /// Where layers are kept.
    pub store: Arc<Store>,
    /// Where they come from.
    pub registry: Arc<RegistryClient>,
    /// Where they are shown.
    pub connections: Arc<Connections>,
    /// Where their Prepares are counted.
    pub metrics: Metrics,
    /// The layers of all snapshots, with their labels.
    pub snapshots: Vec<(RemoteLayer, Labels)>,
    /// The chains of layers that are shown as one tree.
    pub chains: Vec<Chain>,
}

/// What is fetched of a layer beyond what is read.
#[derive(Debug, Clone, Copy)]
struct Fetching {
    prefetch: bool,
    prefetch_size: u64,
    /// Whether profiles are looked for in registries.
    referrers: bool,
    background: bool,
}

// === impl RemoteLayers ===

impl RemoteLayers {
    /// Shows the layers of all snapshots that are on disk, without the network, and opens the others in the background.
    /// Must run inside a tokio runtime.
    ///
    /// # Errors
    /// The file with the next slot cannot be read.
    pub fn start(parts: Parts, config: &Config) -> io::Result<Arc<Self>> {
        let patience = config.resolve_result_entry_ttl_sec.duration();
        let state = parts.root.join("snapshotter");
        let known = || parts.snapshots.iter().map(|(layer, _)| *layer);
        let claims = Arc::new(Claims::new(known().map(|layer| layer.key).collect(), patience));
        let parallel = usize::try_from(config.prepare.parallel_layers).unwrap_or(usize::MAX);
        let early = Early::new(early::Limits {
            count: usize::try_from(config.prepare.early_layers).unwrap_or(usize::MAX),
            bytes: config.prepare.early_bytes.0,
            age: patience,
            tail: store::TAIL_LEN,
            parallel,
        });
        let opener = Opener::new(opener::Parts {
            store: parts.store,
            registry: Arc::clone(&parts.registry),
            early,
            claims: Arc::clone(&claims),
            metrics: parts.metrics.clone(),
            parallel,
            patience: sources::patience(config.store.read_timeout_sec.duration()),
        });
        let chains = parts.chains.iter().map(|chain| chain.slot);
        let slots = Slots::open(state.join("slots"), known(), chains)?;
        let attached = Arc::new(Attached::new(parts.connections, slots));
        let remote = Arc::new(Self {
            removal: Removal::new(Arc::clone(&opener), Arc::clone(&attached)),
            opener,
            images: Images::new(parts.root.join("images"), parts.registry),
            attached,
            claims,
            journal: Journal::open(state.join("images.json")),
            metrics: parts.metrics,
            fetching: Fetching {
                prefetch: !config.noprefetch,
                prefetch_size: config.prefetch_size.0,
                referrers: config.profile.referrers,
                background: !config.no_background_fetch,
            },
            lookups: Arc::default(),
            keep_unused: config.cache.keep_unused,
            quota: Quota::new(&config.cache),
            preparing: RwLock::new(()),
        });
        remote.restore(parts.snapshots, parts.chains);
        tokio::spawn(sweep(Arc::downgrade(&remote), patience));
        tokio::spawn(quota::watch(Arc::downgrade(&remote)));
        if config.cache.verify_hours > 0 {
            let every = Duration::from_secs(config.cache.verify_hours * 3600);
            tokio::spawn(reverify::watch(Arc::downgrade(&remote), every));
        }
        Ok(remote)
    }

    /// Writes what is still in memory only.
    pub fn flush(&self) {
        self.journal.flush();
    }

    async fn open(&self, wanted: &Wanted) -> Result<Arc<Layer>, FallBack> {
        let reference = wanted.reference.parse::<Reference>().map_err(|error| FallBack {
            reason: format!("the image reference {:?} cannot be used: {error}", wanted.reference),
            code: FallBackReason::NoImageLabels,
        })?;
        let manifest = wanted.manifest.map(|digest| self.images.manifest(&reference, digest));
        tokio::spawn(look_ahead(
            Arc::clone(&self.opener),
            reference.clone(),
            wanted.clone(),
            manifest.clone(),
        ));
        if let (Some(digest), Some(manifest), true) = (wanted.manifest, &manifest, self.fetching.prefetch) {
            let (wanted, reference) = (wanted.clone(), reference.clone());
            let (images, ask) = (Arc::clone(&self.images), self.fetching.referrers);
            let manifest = manifest.clone();
            let subject = profiles::Subject { reference, wanted, digest, manifest, images, ask };
            tokio::spawn(Arc::clone(&self.lookups).run(Arc::clone(&self.opener), subject));
        }
        let described = match (wanted.toc, manifest) {
            // Nobody waits for what is only good to know.
            (Some(_), manifest) => manifest.and_then(|flight| flight.peek().cloned()).and_then(Result::ok),
            (None, Some(manifest)) => Some(manifest.await?),
            (None, None) => None,
        };
        let described = described.as_ref().and_then(|manifest| manifest.layer(wanted.blob));
        let toc =
            wanted.toc.or(described.and_then(|layer| layer.toc)).ok_or_else(|| no_toc_digest(wanted))?;
        let (key, size) = (LayerKey { blob: wanted.blob, toc }, described.map(|layer| layer.size));
        self.opener.open(Target { key, spelled: wanted.reference.clone(), reference, size }).await
    }

    /// Fetches what will be needed, after the layer is shown: never in the way of a Prepare.
    fn fetch(&self, layer: &Arc<Layer>, plan: PlanId, prefetch: Option<u64>) {
        if self.fetching.prefetch && !layer.start_plan(plan) {
            layer.start_prefetch(plan, prefetch.unwrap_or(self.fetching.prefetch_size));
        }
        if self.fetching.background {
            layer.start_background();
        }
    }

    /// Shows the layer, if it is not, as a part of the image of `plan`.
    fn shown(&self, layer: &RemoteLayer, plan: PlanId) -> Result<(), Unavailable> {
        if !self.attached.is_shown(layer.slot) {
            let open = self.layer(layer)?;
            self.attached
                .show_in(layer.slot, &open)
                .map_err(|error| Unavailable { key: layer.key, reason: error.to_string() })?;
            self.fetch(&open, plan, None);
        }
        Ok(())
    }

    /// Shows a chain as one tree.
    fn show_chain(&self, chain: &Chain) -> Result<(), Unavailable> {
        // Its layers are, too, for as long as it is.
        if self.attached.is_shown(chain.slot) {
            return Ok(());
        }
        let [uppermost, ..] = chain.layers.as_slice() else { return Ok(()) };
        let mut layers = Vec::new();
        for layer in &chain.layers {
            self.shown(layer, PlanId::default())?;
            layers.push((layer.slot, self.layer(layer)?));
        }
        let shown = self.attached.show_chain(chain.slot, &layers);
        shown.map_err(|error| Unavailable { key: uppermost.key, reason: error.to_string() })
    }

    /// The layer as it is, or from its files.
    fn layer(&self, layer: &RemoteLayer) -> Result<Arc<Layer>, Unavailable> {
        let unavailable = |reason: String| Unavailable { key: layer.key, reason };
        if let Some(open) = self.opener.store.layer(&layer.key) {
            return Ok(open);
        }
        match self.opener.attach(layer.key) {
            Ok(Some(open)) => Ok(open),
            Ok(None) => Err(unavailable("its files are gone and it was not fetched again yet".to_owned())),
            Err(error) => Err(unavailable(crate::logging::chain(&error))),
        }
    }
}

#[async_trait]
impl LazyLayers for RemoteLayers {
    async fn prepare(&self, request: RemoteRequest<'_>) -> Result<RemoteLayer, FallBack> {
        let wanted = Wanted::from_labels(request.labels)?;
        let _preparing = self.preparing.read().await;
        let layer = self.open(&wanted).await?;
        let remote = self.attached.show(&layer)?;
        self.claims.claim(remote.key);
        self.fetch(&layer, wanted.plan(), wanted.prefetch);
        Ok(remote)
    }

    fn prepared(&self, request: RemoteRequest<'_>, layer: &RemoteLayer) {
        self.metrics.prepared(Prepared::Lazy);
        if let Ok(wanted) = Wanted::from_labels(request.labels) {
            self.journal.add(&wanted, OutcomeStatus::Lazy { key: layer.key.to_string() });
        }
    }

    fn fell_back(&self, request: RemoteRequest<'_>, fall_back: &FallBack) {
        self.metrics.prepared(Prepared::FellBack(fall_back.code));
        if let Ok(wanted) = Wanted::from_labels(request.labels) {
            let (code, reason) = (fall_back.code.to_string(), fall_back.reason.clone());
            self.journal.add(&wanted, OutcomeStatus::FellBack { code, reason });
        }
    }

    fn lower_dir(&self, layer: &RemoteLayer, absence: Absence) -> Result<PathBuf, Unavailable> {
        self.shown(layer, PlanId::default())?;
        Ok(self.attached.path(layer.slot, absence))
    }

    fn chain_slot(&self) -> Option<Slot> {
        match self.attached.chain_slot() {
            Ok(slot) => Some(slot),
            Err(error) => {
                tracing::warn!(%error, "cannot give out a slot: layers are shown one by one");
                None
            }
        }
    }

    fn chain_dir(&self, chain: &Chain, absence: Absence) -> Result<PathBuf, Unavailable> {
        self.show_chain(chain)?;
        Ok(self.attached.path(chain.slot, absence))
    }

    fn chains(&self) -> BTreeSet<Slot> {
        self.attached.chains()
    }

    fn starting(&self, layers: &[RemoteLayer], labels: &Labels) {
        let Ok(wanted) = Wanted::from_labels(labels) else { return };
        let (plan, store) = (wanted.plan(), &self.opener.store);
        let open = layers.iter().filter_map(|layer| store.layer(&layer.key));
        let seen: Vec<bool> = open.map(|layer| layer.begin_start(plan)).collect();
        if !seen.is_empty() && seen.iter().all(|before| *before) {
            store.started_again();
        }
    }

    fn root_owner(&self, layer: &RemoteLayer) -> Result<Owner, Unavailable> {
        let open = self.layer(layer)?;
        let root = open.index().node(NodeId::ROOT).map_err(|error| Unavailable {
            key: layer.key,
            reason: format!("its index is damaged: {error}"),
        })?;
        Ok(Owner { uid: root.uid(), gid: root.gid() })
    }

    fn usage(&self, layer: &RemoteLayer) -> Usage {
        Usage { size: self.opener.store.disk_bytes(&layer.key), inodes: FILES_OF_A_LAYER }
    }

    async fn cleanup(&self, gone: &BTreeSet<Slot>, in_use: &BTreeSet<LayerKey>) -> Leftovers {
        self.attached.hide_chains(gone);
        let (removal, images, claims) =
            (Arc::clone(&self.removal), Arc::clone(&self.images), Arc::clone(&self.claims));
        let (opener, in_use) = (Arc::clone(&self.opener), in_use.clone());
        let keep = self.keep_unused;
        let retired: Vec<_> = blocking(move || {
            let unused = claims.unused(&in_use, opener.store.keys_on_disk());
            let retired = if keep {
                unused.iter().for_each(|key| removal.put_aside(key));
                Vec::new()
            } else {
                unused.iter().filter_map(|key| removal.retire(key)).collect()
            };
            let blobs = in_use.iter().map(|key| key.blob).collect();
            if let Err(error) = images.forget_unused(&blobs) {
                tracing::warn!(%error, "cannot delete the documents of images that are gone");
            }
            retired
        })
        .await;
        Box::new(move || removal::delete(retired))
    }
}

/// Opens the image's other layers, so that their own Prepares find them.
async fn look_ahead(
    opener: Arc<Opener>,
    reference: Reference,
    wanted: Wanted,
    manifest: Option<images::Flight>,
) {
    let others: Vec<_> = wanted.layers.iter().copied().filter(|blob| *blob != wanted.blob).collect();
    let manifest = match manifest {
        Some(manifest) => manifest.await.ok(),
        None => None,
    };
    for blob in others {
        match &manifest {
            Some(manifest) => {
                // One that the manifest vouches for no table of contents of falls back.
                let Some((layer, toc)) = manifest.layer(blob).and_then(|layer| Some((layer, layer.toc?)))
                else {
                    continue;
                };
                let (key, spelled) = (LayerKey { blob, toc }, wanted.reference.clone());
                let ahead = opener.open_ahead(Target {
                    key,
                    spelled,
                    reference: reference.clone(),
                    size: Some(layer.size),
                });
                drop(ahead);
            }
            // A layer of this image has a table of contents, so the others probably have.
            None if wanted.toc.is_some() => opener.read_early(&wanted.reference, &reference, blob),
            None => {}
        }
    }
}

/// Deletes layers that were opened ahead and that no Prepare asked for in time.
async fn sweep(remote: std::sync::Weak<RemoteLayers>, patience: Duration) {
    loop {
        tokio::time::sleep((patience / 4).max(Duration::from_millis(100))).await;
        let Some(remote) = remote.upgrade() else { return };
        if let Ok(_alone) = remote.preparing.try_write() {
            let expired = remote.claims.expired(Instant::now());
            let removal = Arc::clone(&remote.removal);
            blocking(move || expired.iter().for_each(|key| removal.delete(key))).await;
        }
    }
}

fn no_toc_digest(wanted: &Wanted) -> FallBack {
    FallBack {
        reason: format!(
            "the image's manifest names no digest ({}) for the table of contents of layer {}: convert the image to \
             eStargz with OCI media types",
            labels::TOC_DIGEST,
            wanted.blob
        ),
        code: FallBackReason::NoTocDigest,
    }
}

/// The directory of the FUSE mount with extended attributes below the daemon's root. Its name is short, for each layer
/// repeats it in the options of an overlay, which are one page at most.
pub fn mountpoint(root: &Path) -> PathBuf {
    root.join("snapshotter/l")
}

/// The directory of the mount with the layers that have no extended attributes.
pub fn plain_mountpoint(root: &Path) -> PathBuf {
    root.join("snapshotter/p")
}

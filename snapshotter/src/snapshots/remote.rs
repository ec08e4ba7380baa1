//! Prepare with a target: containerd asks whether a layer is there already, and it is, in a way.
//!
//! The answer `AlreadyExists` makes containerd look (List) for a committed snapshot with the label
//! `containerd.io/snapshot.ref` and the parent it asked for. There must be exactly such a one, so the label is kept, and
//! the snapshot's name says nothing: two namespaces may ask for one target on different parents. Whatever goes wrong on
//! the way ends in an ordinary, writable snapshot and a reason, never in an error.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use futures_util::FutureExt;
use proto::types::Mount;
use tokio::{
    sync::OwnedRwLockReadGuard,
    time::{error::Elapsed, timeout},
};

use super::{Snapshots, cleanup::blocking};
use crate::{
    error::SnapshotError,
    lazy::{FallBack, FallBackReason, Labels, RemoteLayer, RemoteRequest},
    metadata::{Kind, View},
    name::{Name, SnapshotId},
};

/// The label that names what a Prepare is meant to become: a chain id from containerd, a random name from BuildKit.
pub const TARGET_LABEL: &str = "containerd.io/snapshot.ref";
/// BuildKit looks for this label on snapshots that are served lazily; stargz-snapshotter sets the same.
pub const REMOTE_LABEL: &str = "containerd.io/snapshot/remote";
/// Its value.
pub const REMOTE_LABEL_VALUE: &str = "remote snapshot";

/// Labels that name the layer's blob, from containerd and from stargz' clients.
const BLOB_LABELS: [&str; 2] =
    ["containerd.io/snapshot/cri.layer-digest", "containerd.io/snapshot/remote/stargz.digest"];
/// The label that names the layer's TOC.
const TOC_LABEL: &str = "containerd.io/snapshot/stargz/toc.digest";

/// A Prepare with a target.
#[derive(Debug, Clone)]
struct Wanted {
    key: Name,
    parent: Option<Name>,
    target: String,
    labels: Labels,
}

/// What there is for a target before anything was done about it.
enum Found {
    Nothing,
    Target,
    /// A snapshot of another layer under the same target and parent.
    Another(RemoteLayer),
}

/// Keeps layers from being deleted, and lets a deletion that had to wait go on when it ends.
struct LayersInUse {
    snapshots: Arc<Snapshots>,
    guard: Option<OwnedRwLockReadGuard<()>>,
}

// === impl Snapshots ===

impl Snapshots {
    /// Creates an active snapshot, or answers that the layer which is meant to come into it is there already.
    ///
    /// # Errors
    /// `TargetExists` in that case; otherwise as `create`.
    pub async fn prepare(
        self: &Arc<Self>,
        key: Name,
        parent: Option<Name>,
        labels: Labels,
    ) -> Result<Vec<Mount>, SnapshotError> {
        if let Some(target) = labels.get(TARGET_LABEL).filter(|target| !target.is_empty()) {
            let (target, key, parent, labels) = (target.clone(), key.clone(), parent.clone(), labels.clone());
            let wanted = Wanted { key, parent, target, labels };
            if self.prepare_remote(&wanted).await? {
                return Err(SnapshotError::TargetExists(wanted.target));
            }
        }
        let snapshots = Arc::clone(self);
        blocking(move || snapshots.create(Kind::Active, &key, parent.as_ref(), &labels)).await
    }

    /// Whether there is now a committed snapshot for the target.
    async fn prepare_remote(self: &Arc<Self>, wanted: &Wanted) -> Result<bool, SnapshotError> {
        let began = Instant::now();
        let request = wanted.request();
        let outcome = match self.look(wanted).await? {
            Found::Target => return Ok(true),
            Found::Another(layer) => Err(FallBack {
                reason: format!(
                    "another layer ({}) is there under the same target and parent: this one will be unpacked and verified",
                    layer.key.blob
                ),
                code: FallBackReason::TargetDiffers,
            }),
            Found::Nothing => match timeout(self.config.prepare_timeout, self.open_layer(wanted)).await {
                // Not in the time limit: nothing could stop it, and a snapshot would appear after the fall-back.
                Ok(Ok((in_use, layer))) => {
                    let wanted = wanted.clone();
                    // The guard goes along: the record is written even if the caller goes away meanwhile.
                    blocking(move || in_use.snapshots.record(&wanted, layer)).await?
                }
                Ok(Err(fall_back)) => Err(fall_back),
                Err(Elapsed { .. }) => Err(FallBack {
                    reason: format!("not ready within {:?}", self.config.prepare_timeout),
                    code: FallBackReason::Deadline,
                }),
            },
        };
        let (key, parent, seconds) = (request.key, request.parent, began.elapsed().as_secs_f64());
        match outcome {
            Ok(layer) => {
                tracing::info!(
                    key, parent, target = request.target, layer = %layer.key, seconds,
                    "remote-snapshot-prepared" = "true", "prepared a remote snapshot"
                );
                self.lazy.prepared(request, &layer);
                Ok(true)
            }
            Err(fall_back) if fall_back.code == FallBackReason::NoImageLabels => {
                // Nobody expected this one to be lazy: an image that was built, loaded or pulled before.
                tracing::debug!(
                    key, parent, target = request.target, reason = %fall_back.reason, code = %fall_back.code, seconds,
                    "remote-snapshot-prepared" = "false", "the layer comes from what is there already"
                );
                self.lazy.fell_back(request, &fall_back);
                Ok(false)
            }
            Err(fall_back) => {
                tracing::warn!(
                    key, parent, target = request.target, reason = %fall_back.reason, code = %fall_back.code, seconds,
                    "remote-snapshot-prepared" = "false", "the layer will be downloaded and unpacked"
                );
                self.lazy.fell_back(request, &fall_back);
                Ok(false)
            }
        }
    }

    async fn look(self: &Arc<Self>, wanted: &Wanted) -> Result<Found, SnapshotError> {
        let (snapshots, wanted) = (Arc::clone(self), wanted.clone());
        blocking(move || {
            let view = snapshots.storage.metadata.view()?;
            let parent = view.parent(wanted.parent.as_ref())?.map(|record| record.id);
            if view.find(&wanted.key)?.is_some() {
                return Err(SnapshotError::Exists(wanted.key));
            }
            wanted.find(&view, parent)
        })
        .await
    }

    async fn open_layer(self: &Arc<Self>, wanted: &Wanted) -> Result<(LayersInUse, RemoteLayer), FallBack> {
        let in_use = LayersInUse::new(self).await;
        // A layer that trips over a bug costs that layer: it may be one that was made to.
        let opened = AssertUnwindSafe(self.lazy.prepare(wanted.request())).catch_unwind().await;
        match opened {
            Ok(opened) => Ok((in_use, opened?)),
            Err(_) => {
                let reason = SnapshotError::Panicked.to_string();
                Err(FallBack { reason, code: FallBackReason::Local })
            }
        }
    }

    fn record(
        &self,
        wanted: &Wanted,
        layer: RemoteLayer,
    ) -> Result<Result<RemoteLayer, FallBack>, SnapshotError> {
        let mut labels = wanted.labels.clone();
        labels.insert(REMOTE_LABEL.into(), REMOTE_LABEL_VALUE.into());
        self.storage.metadata.change(|change| {
            let parent = change.view().parent(wanted.parent.as_ref())?.map(|record| record.id);
            match wanted.find(change.view(), parent)? {
                Found::Nothing => {
                    let name = |id: SnapshotId| Name::from(format!("@remote/{id}/{}", wanted.target));
                    change.create_remote(name, wanted.parent.as_ref(), labels, layer)?;
                    Ok(Ok(layer))
                }
                // Another Prepare of the same target was faster.
                Found::Target => Ok(Ok(layer)),
                Found::Another(other) => Ok(Err(FallBack {
                    reason: format!(
                        "another layer ({}) came in under the same target and parent",
                        other.key.blob
                    ),
                    code: FallBackReason::TargetDiffers,
                })),
            }
        })
    }
}

// === impl Wanted ===

impl Wanted {
    fn request(&self) -> RemoteRequest<'_> {
        let parent = self.parent.as_ref().map_or("", Name::as_str);
        RemoteRequest { key: self.key.as_str(), parent, target: &self.target, labels: &self.labels }
    }

    /// containerd takes the first committed snapshot with the target and the parent, from whatever namespace, so each of
    /// them must be what is wanted. A chain id is not enough: nobody has checked it against the bytes of a layer that
    /// was never unpacked, and an image can claim any.
    fn find<S, C>(&self, view: &View<S, C>, parent: Option<SnapshotId>) -> Result<Found, SnapshotError>
    where
        S: redb::ReadableTable<&'static str, &'static [u8]>,
        C: redb::ReadableTable<(u64, u64), &'static str>,
    {
        let mut found = Found::Nothing;
        for record in view.committed_with_label(parent, TARGET_LABEL, &self.target)? {
            match record.remote {
                Some(layer) if !self.means(&layer) => return Ok(Found::Another(layer)),
                _ => found = Found::Target,
            }
        }
        Ok(found)
    }

    /// Whether no label speaks against `layer`.
    fn means(&self, layer: &RemoteLayer) -> bool {
        let says = |label: &str, digest| match self.labels.get(label) {
            Some(text) => *text == digest,
            None => true,
        };
        BLOB_LABELS.iter().all(|label| says(label, layer.key.blob.to_string()))
            && says(TOC_LABEL, layer.key.toc.to_string())
    }
}

// === impl LayersInUse ===

impl LayersInUse {
    async fn new(snapshots: &Arc<Snapshots>) -> Self {
        let guard = Arc::clone(&snapshots.layers).read_owned().await;
        Self { snapshots: Arc::clone(snapshots), guard: Some(guard) }
    }
}

impl Drop for LayersInUse {
    fn drop(&mut self) {
        drop(self.guard.take());
        if !self.snapshots.layers_cleanup_due.load(Ordering::SeqCst) {
            return;
        }
        let snapshots = Arc::clone(&self.snapshots);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = snapshots.cleanup_layers().await {
                    tracing::warn!(%error, "cannot delete layers that no snapshot refers to");
                }
            });
        }
    }
}

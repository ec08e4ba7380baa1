//! The start: layers of snapshots come back from their files, without the network.

use std::sync::Arc;

use registry::Reference;

use super::{RemoteLayers, labels::Wanted, opener::Target};
use crate::lazy::{Labels, RemoteLayer};

// === impl RemoteLayers ===

impl RemoteLayers {
    /// Shows every layer of `snapshots` whose files are there. Those whose files are gone are fetched again in the
    /// background; until then their snapshots are unavailable, and nothing else is.
    pub(super) fn restore(self: &Arc<Self>, snapshots: Vec<(RemoteLayer, Labels)>) {
        let mut missing = Vec::new();
        for (layer, labels) in snapshots {
            let place = place(&labels);
            if let Some((spelled, reference)) = &place {
                self.opener.add_source(layer.key, spelled, reference);
            }
            let plan = Wanted::from_labels(&labels).map(|wanted| wanted.plan()).unwrap_or_default();
            if let Err(error) = self.shown(&layer, plan) {
                tracing::warn!(layer = %layer.key, %error, "a layer of a snapshot cannot be shown");
                missing.extend(place.map(|place| (layer, plan, place)));
            }
        }
        for (layer, plan, (spelled, reference)) in missing {
            let remote = Arc::clone(self);
            tokio::spawn(async move {
                let target = Target { key: layer.key, spelled, reference, size: None };
                match remote.opener.open(target).await.map(|_| remote.shown(&layer, plan)) {
                    Ok(Ok(_)) => {
                        tracing::info!(layer = %layer.key, "fetched the missing files of a layer again")
                    }
                    Ok(Err(error)) => tracing::error!(layer = %layer.key, %error, "cannot show a layer"),
                    Err(error) => tracing::error!(layer = %layer.key, %error, "cannot fetch a layer again"),
                }
            });
        }
    }
}

fn place(labels: &Labels) -> Option<(String, Reference)> {
    let wanted = Wanted::from_labels(labels).ok()?;
    let reference = wanted.reference.parse().ok()?;
    Some((wanted.reference, reference))
}

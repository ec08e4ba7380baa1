//! The start: layers of snapshots come back from their files, without the network.

use std::sync::Arc;

use registry::Reference;

use super::{RemoteLayers, images::blocking, labels::Wanted, opener::Target};
use crate::lazy::{Chain, Labels, RemoteLayer};

// === impl RemoteLayers ===

impl RemoteLayers {
    /// Shows every layer of `snapshots` whose files are there. Those whose files are gone are fetched again in the
    /// background; until then their snapshots are unavailable, and nothing else is.
    pub(super) fn restore(self: &Arc<Self>, snapshots: Vec<(RemoteLayer, Labels)>, chains: Vec<Chain>) {
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
        self.restore_chains(chains.iter());
        let chains: Arc<[Chain]> = chains.into();
        for (layer, plan, (spelled, reference)) in missing {
            let (remote, chains) = (Arc::clone(self), Arc::clone(&chains));
            tokio::spawn(async move {
                let target = Target { key: layer.key, spelled, reference, size: None };
                match remote.opener.open(target).await.map(|_| remote.shown(&layer, plan)) {
                    Ok(Ok(_)) => {
                        tracing::info!(layer = %layer.key, "fetched the missing files of a layer again");
                        let whole = move || {
                            let with =
                                |chain: &&Chain| chain.layers.iter().any(|other| other.key == layer.key);
                            remote.restore_chains(chains.iter().filter(with));
                        };
                        blocking(whole).await;
                    }
                    Ok(Err(error)) => tracing::error!(layer = %layer.key, %error, "cannot show a layer"),
                    Err(error) => tracing::error!(layer = %layer.key, %error, "cannot fetch a layer again"),
                }
            });
        }
    }

    /// Shows those chains of which all layers are there.
    fn restore_chains<'c>(&self, chains: impl Iterator<Item = &'c Chain>) {
        for chain in chains {
            if let Err(error) = self.show_chain(chain) {
                tracing::debug!(slot = %chain.slot, %error, "a chain of layers cannot be shown yet");
            }
        }
    }
}

fn place(labels: &Labels) -> Option<(String, Reference)> {
    let wanted = Wanted::from_labels(labels).ok()?;
    let reference = wanted.reference.parse().ok()?;
    Some((wanted.reference, reference))
}

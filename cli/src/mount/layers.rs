//! The layers of an image, opened: from the registry as they are, or from a local copy in eStargz form.

use std::sync::Arc;

use anyhow::{Context, Result};
use estargz::Digest;
use futures_util::future::try_join_all;
use registry::{Descriptor, ImageSource, OciLayout};
use store::{Layer, LayerKey, Store};

use crate::{
    convert::{LocalConverter, TOC_DIGEST},
    progress::{Progress, human},
    status::short,
};

/// One layer.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) layer: Arc<Layer>,
    /// Whether it is read from where the image is, as files are.
    pub(super) lazy: bool,
}

/// Opens all layers at once, the lowest first in the result.
pub(super) async fn open(
    store: &Arc<Store>,
    image: &Arc<dyn ImageSource>,
    layers: &[Descriptor],
    converter: &Arc<LocalConverter>,
    progress: &Progress,
) -> Result<Vec<Opened>> {
    try_join_all(layers.iter().map(|layer| open_one(store, image, layer, converter, progress))).await
}

async fn open_one(
    store: &Arc<Store>,
    image: &Arc<dyn ImageSource>,
    descriptor: &Descriptor,
    converter: &Arc<LocalConverter>,
    progress: &Progress,
) -> Result<Opened> {
    let reason = match toc_digest(descriptor) {
        Some(toc) => {
            let key = LayerKey { blob: descriptor.digest, toc };
            match store.open_layer(key, image.blob(descriptor.digest)).await {
                Ok(layer) => return Ok(Opened { layer, lazy: true }),
                Err(error) => error.to_string(),
            }
        }
        None => "the manifest names no table of contents for it".to_owned(),
    };
    let (name, size) = (short(&descriptor.digest.to_string()), human(descriptor.size));
    progress.line(&format!("{name} is not lazy, all {size} of it are fetched: {reason}"));
    let (converting, layer) = (Arc::clone(converter), descriptor.clone());
    let local = tokio::task::spawn_blocking(move || converting.convert(&layer)).await?;
    let local = local.with_context(|| format!("cannot get the layer {}", descriptor.digest))?;
    let source = OciLayout::new(converter.directory()).blob(local.blob);
    let layer = store.open_layer(LayerKey { blob: local.blob, toc: local.toc }, source).await?;
    Ok(Opened { layer, lazy: false })
}

fn toc_digest(descriptor: &Descriptor) -> Option<Digest> {
    descriptor.annotations.get(TOC_DIGEST)?.parse().ok()
}

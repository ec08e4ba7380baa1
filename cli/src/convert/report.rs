//! What a conversion did, for people and programs.

use estargz::Digest;
use registry::Descriptor;
use serde::Serialize;

use super::layer::Converted;
use crate::progress::human;

/// What a conversion did.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The digest of the converted image's document.
    pub(super) digest: Digest,
    pub(super) images: Vec<ImageReport>,
    /// Prioritized files that no layer has.
    pub(super) missed: Vec<String>,
    pub(super) seconds: f64,
}

/// The image for one platform.
#[derive(Debug, Serialize)]
pub(super) struct ImageReport {
    pub(super) platform: String,
    pub(super) digest: Digest,
    pub(super) layers: Vec<LayerReport>,
}

/// One layer.
#[derive(Debug, Serialize)]
pub(super) struct LayerReport {
    pub(super) source: Digest,
    pub(super) source_size: u64,
    pub(super) action: Action,
    /// Why it was kept as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) toc_digest: Option<Digest>,
}

/// What was done with a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    /// It is an eStargz layer now.
    Converted,
    /// It was one already.
    Reused,
    /// It cannot be one.
    Kept,
}

// === impl LayerReport ===

impl LayerReport {
    /// A layer that is kept as it is.
    pub(super) fn new(layer: &Descriptor) -> Self {
        Self {
            source: layer.digest,
            source_size: layer.size,
            action: Action::Kept,
            reason: None,
            digest: layer.digest,
            size: layer.size,
            toc_digest: None,
        }
    }

    /// Notes that the layer was converted.
    pub(super) fn set_converted(&mut self, converted: &Converted) {
        self.action = Action::Converted;
        self.digest = converted.digest;
        self.size = converted.size;
        self.toc_digest = Some(converted.toc_digest);
    }

    /// Notes that the layer was an eStargz layer already.
    pub(super) fn set_reused(&mut self, toc_digest: Digest) {
        self.action = Action::Reused;
        self.toc_digest = Some(toc_digest);
    }

    fn line(&self) -> String {
        let source = short(&self.source);
        let (before, after) = (human(self.source_size), human(self.size));
        match (self.action, &self.reason) {
            (Action::Converted, _) => {
                format!("{source} converted  {before} -> {after}  {}", short(&self.digest))
            }
            (Action::Reused, _) => format!("{source} reused     {before}  it is an eStargz layer already"),
            (Action::Kept, Some(reason)) => format!("{source} kept plain {before}  {reason}"),
            (Action::Kept, None) => format!("{source} kept plain {before}"),
        }
    }
}

// === impl Report ===

impl Report {
    /// The report as lines for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for image in &self.images {
            lines.push(format!("{}  {}", image.platform, image.digest));
            lines.extend(image.layers.iter().map(|layer| format!("  {}", layer.line())));
        }
        lines.extend(self.missed.iter().map(|name| format!("no layer has the prioritized file {name}")));
        lines.push(format!("{}  in {:.1} s", self.digest, self.seconds));
        lines
    }
}

/// The first digits of a digest, enough for people to tell layers apart.
pub(crate) fn short(digest: &Digest) -> String {
    digest.hex().chars().take(12).collect()
}

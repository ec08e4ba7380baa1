//! What an image's manifest says about its layers. The bytes were checked against the digest that vouches for them; what
//! they hold is outside data still.

use std::collections::BTreeMap;

use estargz::Digest;
use serde::Deserialize;

use super::labels::TOC_DIGEST;

/// The largest manifest or configuration that is read: registries limit manifests to 4 MiB.
pub(super) const MOST_BYTES: u64 = 8 << 20;

/// The layers of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    /// The image's configuration, if it is a blob that can be named.
    pub(super) config: Option<Digest>,
    /// The layers, the lowest first.
    pub(super) layers: Vec<Described>,
}

/// A layer as its manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    /// The blob.
    pub(super) blob: Digest,
    /// Its length in bytes.
    pub(super) size: u64,
    /// The digest of its table of contents, if the manifest vouches for one.
    pub(super) toc: Option<Digest>,
}

#[derive(Deserialize)]
struct Document {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

// === impl Manifest ===

impl Manifest {
    /// Reads an OCI or Docker manifest. Layers whose digest is of a kind that is not known are left out.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let document: Document = serde_json::from_slice(bytes)?;
        let described = |layer: Descriptor| {
            let toc = layer.annotations.as_ref().and_then(|all| all.get(TOC_DIGEST)?.parse().ok());
            Some(Described { blob: layer.digest.parse().ok()?, size: layer.size, toc })
        };
        Ok(Self {
            config: document.config.and_then(|config| config.digest.parse().ok()),
            layers: document.layers.into_iter().filter_map(described).collect(),
        })
    }

    /// What is said of layer `blob`.
    pub(super) fn layer(&self, blob: Digest) -> Option<&Described> {
        self.layers.iter().find(|layer| layer.blob == blob)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_and_their_toc_digests_are_read() {
        let (a, b, c) = ("a".repeat(64), "b".repeat(64), "c".repeat(64));
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"sha256:{c}","size":3}},"layers":[
                {{"digest":"sha256:{a}","size":10,"annotations":{{"containerd.io/snapshot/stargz/toc.digest":"sha256:{b}"}}}},
                {{"digest":"sha256:{b}","size":20,"annotations":null}},
                {{"digest":"sha512:00","size":1}}]}}"#
        );
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        assert_eq!(manifest.layers.len(), 2);
        assert_eq!(
            manifest.layer(manifest.layers[0].blob).unwrap().toc.unwrap().to_string(),
            format!("sha256:{b}")
        );
        assert_eq!((manifest.layers[1].size, manifest.layers[1].toc), (20, None));
        assert_eq!(manifest.config.unwrap().to_string(), format!("sha256:{c}"));
        assert!(Manifest::parse(b"[]").is_err() && Manifest::parse(b"{\"layers\":3}").is_err());
        assert_eq!(Manifest::parse(b"{}").unwrap().layers, []);
    }
}

//! What containerd's clients say about the image behind a snapshot, in its labels.
//!
//! Two families say the same: containerd's own (`containerd.io/snapshot/cri.*`: the CRI plugin, the transfer service,
//! Docker, nerdctl) and stargz-snapshotter's (`containerd.io/snapshot/remote/stargz.*`: ctr-remote, BuildKit). BuildKit
//! repeats its labels with `.<id>` behind the name, one id for each source it knows. Labels are outside data: a value
//! that does not parse is worth a reason, never more.

use std::str::FromStr;

use estargz::Digest;
use store::PlanId;

use crate::lazy::{FallBack, FallBackReason, Labels};

const CRI: Family = Family {
    reference: "containerd.io/snapshot/cri.image-ref",
    digest: "containerd.io/snapshot/cri.layer-digest",
    layers: "containerd.io/snapshot/cri.image-layers",
};
const STARGZ: Family = Family {
    reference: "containerd.io/snapshot/remote/stargz.reference",
    digest: "containerd.io/snapshot/remote/stargz.digest",
    layers: "containerd.io/snapshot/remote/stargz.layers",
};
/// The manifest that the layer was found in; only containerd's family has it.
const MANIFEST: &str = "containerd.io/snapshot/cri.manifest-digest";
/// The digest of the layer's table of contents. It is an annotation of the layer in the manifest, and clients hand on
/// all annotations that begin with `containerd.io/snapshot/`.
pub(crate) const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
/// How many bytes to prefetch, in place of the configuration's number.
const PREFETCH: &str = "containerd.io/snapshot/remote/stargz.prefetch";
/// Layers that one list may name: containerd cuts it at 4096 bytes, which is below 60.
const MOST_LAYERS: usize = 1024;

/// The labels of one family.
struct Family {
    reference: &'static str,
    digest: &'static str,
    layers: &'static str,
}

/// A layer of an image, as labels name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The image's reference, as the client spelled it.
    pub(super) reference: String,
    /// The layer's blob.
    pub(super) blob: Digest,
    /// The image's layers from this one on, as far as the label's length allowed; empty if not said.
    pub(super) layers: Vec<Digest>,
    /// The image's manifest, if said.
    pub(super) manifest: Option<Digest>,
    /// The digest of the layer's table of contents, if said.
    pub(super) toc: Option<Digest>,
    /// Bytes to prefetch, if said.
    pub(super) prefetch: Option<u64>,
}

// === impl Wanted ===

impl Wanted {
    /// The plan that the image's layers share.
    pub(super) fn plan(&self) -> PlanId {
        plan_of(self.manifest.unwrap_or_else(|| Digest::of(self.reference.as_bytes())))
    }

    /// Reads `labels`.
    ///
    /// # Errors
    /// No label names an image and a layer, or one that is needed does not parse.
    pub(super) fn from_labels(labels: &Labels) -> Result<Self, FallBack> {
        let (family, suffix) = source(labels).ok_or_else(|| FallBack {
            reason: "the labels name no image and layer: the client unpacks what it has downloaded already, or does not \
                     pass image labels (see docs for enable_remote_snapshot_annotations and disable_snapshot_annotations)"
                .to_owned(),
            code: FallBackReason::NoImageLabels,
        })?;
        let text = |name: &str| get(labels, &format!("{name}{suffix}"));
        let blob = digest(family.digest, text(family.digest).unwrap_or_default())?;
        let layers = text(family.layers).unwrap_or_default().split(',');
        let toc = text(TOC_DIGEST).or_else(|| get(labels, TOC_DIGEST));
        Ok(Self {
            reference: text(family.reference).unwrap_or_default().to_owned(),
            blob,
            // A list that was cut has half a digest at its end; what does not parse only costs time.
            layers: layers.take(MOST_LAYERS).filter_map(|layer| layer.trim().parse().ok()).collect(),
            manifest: get(labels, MANIFEST).and_then(|digest| digest.parse().ok()),
            toc: toc.map(|toc| digest(TOC_DIGEST, toc)).transpose()?,
            prefetch: text(PREFETCH).or_else(|| get(labels, PREFETCH)).and_then(|bytes| bytes.parse().ok()),
        })
    }
}

/// The plan of the image `manifest`.
pub(super) fn plan_of(manifest: Digest) -> PlanId {
    PlanId(manifest.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)))
}

/// The first family that names a reference and a layer, with the suffix under which it does.
fn source(labels: &Labels) -> Option<(&'static Family, &str)> {
    let there = |family: &Family, suffix: &str| {
        get(labels, &format!("{}{suffix}", family.reference)).is_some()
            && get(labels, &format!("{}{suffix}", family.digest)).is_some()
    };
    let plain = [&CRI, &STARGZ].into_iter().find(|family| there(family, "")).map(|family| (family, ""));
    plain.or_else(|| {
        let suffixes = labels.keys().filter_map(|key| key.strip_prefix(STARGZ.reference));
        let mut dotted = suffixes.filter(|suffix| suffix.starts_with('.'));
        dotted.find(|suffix| there(&STARGZ, suffix)).map(|suffix| (&STARGZ, suffix))
    })
}

fn get<'l>(labels: &'l Labels, name: &str) -> Option<&'l str> {
    labels.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

fn digest(label: &str, value: &str) -> Result<Digest, FallBack> {
    Digest::from_str(value).map_err(|error| {
        let code =
            if label == TOC_DIGEST { FallBackReason::NoTocDigest } else { FallBackReason::NoImageLabels };
        FallBack { reason: format!("label {label} is not a digest: {error}"), code }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(pairs: &[(&str, String)]) -> Labels {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn sha(byte: char) -> String {
        format!("sha256:{}", byte.to_string().repeat(64))
    }

    fn cri() -> Labels {
        labels(&[
            ("containerd.io/snapshot/cri.image-ref", "example.com/a:1".to_owned()),
            ("containerd.io/snapshot/cri.layer-digest", sha('a')),
            ("containerd.io/snapshot/cri.image-layers", format!("{},{},sha256:12", sha('a'), sha('b'))),
            ("containerd.io/snapshot/cri.manifest-digest", sha('c')),
            ("containerd.io/snapshot/stargz/toc.digest", sha('d')),
            ("containerd.io/snapshot/remote/urls", "https://elsewhere.example/x".to_owned()),
        ])
    }

    #[test]
    fn containerds_family_is_read() {
        let wanted = Wanted::from_labels(&cri()).unwrap();
        assert_eq!(wanted.reference, "example.com/a:1");
        assert_eq!(wanted.blob.to_string(), sha('a'));
        assert_eq!(wanted.layers.iter().map(Digest::to_string).collect::<Vec<_>>(), [sha('a'), sha('b')]);
        assert_eq!(wanted.manifest.unwrap().to_string(), sha('c'));
        assert_eq!(wanted.toc.unwrap().to_string(), sha('d'));
        assert_eq!(wanted.prefetch, None);
    }

    #[test]
    fn stargzs_family_is_read_and_comes_second() {
        let stargz = [
            ("containerd.io/snapshot/remote/stargz.reference", "example.com/b:2".to_owned()),
            ("containerd.io/snapshot/remote/stargz.digest", sha('e')),
            ("containerd.io/snapshot/remote/stargz.layers", sha('e')),
            ("containerd.io/snapshot/remote/stargz.prefetch", "10485760".to_owned()),
        ];
        let wanted = Wanted::from_labels(&labels(&stargz)).unwrap();
        assert_eq!((wanted.reference.as_str(), wanted.prefetch), ("example.com/b:2", Some(10_485_760)));
        assert_eq!((wanted.manifest, wanted.toc), (None, None));
        let both = cri().into_iter().chain(labels(&stargz)).collect();
        assert_eq!(Wanted::from_labels(&both).unwrap().reference, "example.com/a:1");
    }

    #[test]
    fn buildkits_suffixed_form_is_read() {
        let suffixed = labels(&[
            ("containerd.io/snapshot/remote/stargz.reference.x1", String::new()),
            ("containerd.io/snapshot/remote/stargz.digest.x1", sha('a')),
            ("containerd.io/snapshot/remote/stargz.reference.y2", "example.com/c".to_owned()),
            ("containerd.io/snapshot/remote/stargz.digest.y2", sha('b')),
            ("containerd.io/snapshot/remote/stargz.session.0.y2", "s".to_owned()),
            ("containerd.io/snapshot/stargz/toc.digest.y2", sha('d')),
        ]);
        let wanted = Wanted::from_labels(&suffixed).unwrap();
        assert_eq!((wanted.reference.as_str(), wanted.blob.to_string()), ("example.com/c", sha('b')));
        assert_eq!(wanted.toc.unwrap().to_string(), sha('d'));
    }

    #[test]
    fn what_is_missing_or_broken_is_a_reason() {
        let mut without = cri();
        without.remove("containerd.io/snapshot/cri.image-ref");
        assert_eq!(Wanted::from_labels(&without).unwrap_err().code, FallBackReason::NoImageLabels);
        assert_eq!(Wanted::from_labels(&Labels::new()).unwrap_err().code, FallBackReason::NoImageLabels);
        let mut broken = cri();
        broken.insert("containerd.io/snapshot/cri.layer-digest".to_owned(), "md5:x".to_owned());
        let error = Wanted::from_labels(&broken).unwrap_err();
        assert!(error.reason.contains("cri.layer-digest"), "{error}");
        let mut broken = cri();
        broken.insert(TOC_DIGEST.to_owned(), "sha256:zz".to_owned());
        assert_eq!(Wanted::from_labels(&broken).unwrap_err().code, FallBackReason::NoTocDigest);
    }

    proptest! {
        #[test]
        fn any_labels_are_read_or_refused(pairs in proptest::collection::btree_map(
            prop_oneof![
                "containerd\\.io/snapshot/(remote/stargz|cri)\\.(reference|digest|layers|image-ref|layer-digest)(\\.[a-z]{0,2})?",
                ".{0,12}",
            ],
            prop_oneof!["sha256:[0-9a-f]{64}", ".{0,40}"],
            0..8,
        )) {
            if let Ok(wanted) = Wanted::from_labels(&pairs) {
                prop_assert!(!wanted.reference.is_empty());
                prop_assert!(pairs.values().any(|value| *value == wanted.blob.to_string()));
            }
        }
    }
}

//! What each class of fall-back means and what to do about it: for people, in `starling` and in `docs/fall-back.md`.

use std::fmt::Write;

use crate::lazy::FallBackReason;

/// A class of fall-back, explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    /// What it means.
    pub meaning: &'static str,
    /// What makes the next pull lazy.
    pub remedy: &'static str,
}

const HEAD: &str = "# Why a layer is not lazy

<!-- Generated from snapshotter/src/explain.rs; `UPDATE_DOCS=1 cargo test -p snapshotter` writes it anew. -->

A layer that cannot be served lazily is downloaded and unpacked by containerd, as with any snapshotter. The reason is in
the log (`\"remote-snapshot-prepared\":\"false\"`, with `code` and `reason`), in the metric `starling_prepares_total` and in
`starling status`. containerd downloads every layer above the first one that is not lazy, so the lowest layer matters most.

| code | what it means | what to do |
|---|---|---|
";

/// The page `docs/fall-back.md`.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    for reason in FallBackReason::ALL {
        let Explanation { meaning, remedy } = explain(reason);
        // A String takes any text.
        let _ = writeln!(page, "| `{reason}` | {meaning} | {remedy} |");
    }
    page
}

/// What `reason` means.
pub const fn explain(reason: FallBackReason) -> Explanation {
    let (meaning, remedy) = match reason {
        FallBackReason::NoImageLabels => (
            "the client did not say which image the layer is of: it unpacks what was downloaded before, or its labels \
             are not passed on",
            "for pulls through containerd's transfer service set `enable_remote_snapshot_annotations = 'true'` in the \
             plugin's exports and list the snapshotter in `unpack_config`; for CRI set \
             `disable_snapshot_annotations = false`; nothing for images that were built or loaded",
        ),
        FallBackReason::NoTocDigest => (
            "the manifest names no digest for the layer's table of contents, so nothing in it could be verified",
            "convert the image with `starling convert`, which writes OCI manifests; Docker's media types lose the annotation",
        ),
        FallBackReason::Disabled => ("the configuration or the request says so", "change it"),
        FallBackReason::NotEstargz => (
            "the blob has no eStargz footer: it is a plain layer",
            "convert the image with `starling convert`",
        ),
        FallBackReason::BadToc => (
            "the table of contents is damaged, or is not the one that the manifest vouches for",
            "convert and push the image again; if it happens often, look for a proxy that changes what it carries",
        ),
        FallBackReason::Unverifiable => (
            "a file's content has no usable digest in the table of contents",
            "convert the image again with a current converter",
        ),
        FallBackReason::Unsupported => (
            "the layer holds something that a table of contents cannot say, such as names that are not UTF-8",
            "nothing: such a layer works only as an ordinary one",
        ),
        FallBackReason::OverLimit => (
            "the layer is larger in some way than anything that makes sense",
            "look at the reason, which names what it is; split the layer",
        ),
        FallBackReason::Unauthorized => (
            "the registry wants other credentials; those that containerd or Docker uses do not reach a snapshotter by \
             themselves",
            "with Kubernetes set `[cri_keychain]` or name kubelet's credential providers in `[credentials]`; else log in as \
             root on the node (`docker login` with `HOME=/root`, or `$DOCKER_CONFIG` for the daemon); see \
             docs/credentials.md",
        ),
        FallBackReason::NotFound => {
            ("the registry does not have the blob under this name", "push the image again")
        }
        FallBackReason::RangesUnsupported => (
            "the registry sends whole blobs when a part is asked for",
            "use a registry, or a cache in front of it, that serves ranges",
        ),
        FallBackReason::RegistryUnavailable => (
            "the registry could not be reached or kept failing",
            "look at the reason, and at the network, proxies and name resolution of the daemon",
        ),
        FallBackReason::Deadline => (
            "the layer was not ready within `[prepare] deadline_sec`",
            "raise it, or find out what is slow: `starling_layer_open_duration_seconds` tells",
        ),
        FallBackReason::TargetDiffers => (
            "another layer is there under the same name, from an image that claims the same chain of layers",
            "remove that image if it is not to be trusted",
        ),
        FallBackReason::Local => (
            "the local disk, the FUSE mount or the daemon itself failed",
            "look at the reason and at the log",
        ),
    };
    Explanation { meaning, remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_up_to_date_and_has_every_code() {
        let page = reference();
        assert!(FallBackReason::ALL.iter().all(|reason| page.contains(&format!("| `{reason}` |"))));
        crate::docs::assert_current("fall-back.md", &page);
    }
}

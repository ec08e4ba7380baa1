//! Media types of what images are made of, and the OCI names of Docker's.

use registry::media_type::{OCI_CONFIG, OCI_LAYER_GZIP};

const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_FOREIGN_LAYER: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const OCI_FOREIGN_LAYER: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";

/// A layer by its media type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LayerType {
    /// The OCI name of the type.
    pub(super) name: String,
    /// The layer must not be copied: its descriptor says where it is.
    pub(super) foreign: bool,
    /// The layer is compressed with gzip, as eStargz is.
    pub(super) gzip: bool,
}

/// Whether this is an image's configuration.
pub(super) fn is_config(media_type: &str) -> bool {
    [DOCKER_CONFIG, OCI_CONFIG].contains(&media_type)
}

/// The layer that `media_type` means; `None` for anything that is not a tar, or is encrypted.
pub(super) fn layer(media_type: &str) -> Option<LayerType> {
    let families = [
        (DOCKER_LAYER, OCI_LAYER, '.', false),
        (OCI_LAYER, OCI_LAYER, '+', false),
        (DOCKER_FOREIGN_LAYER, OCI_FOREIGN_LAYER, '.', true),
        (OCI_FOREIGN_LAYER, OCI_FOREIGN_LAYER, '+', true),
    ];
    families.iter().find_map(|&(prefix, oci, separator, foreign)| {
        let compression = media_type.strip_prefix(prefix)?;
        let compression = match compression.strip_prefix(separator) {
            Some(compression @ ("gzip" | "zstd")) => format!("+{compression}"),
            None if compression.is_empty() => String::new(),
            _ => return None,
        };
        let name = format!("{oci}{compression}");
        Some(LayerType { foreign, gzip: name == OCI_LAYER_GZIP, name })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_have_one_name_in_oci() {
        let name = |media_type| layer(media_type).map(|layer| layer.name);
        let oci = |suffix: &str| Some(format!("{OCI_LAYER}{suffix}"));
        assert_eq!(name("application/vnd.docker.image.rootfs.diff.tar.gzip"), oci("+gzip"));
        assert_eq!(name("application/vnd.docker.image.rootfs.diff.tar"), oci(""));
        assert_eq!(name("application/vnd.docker.image.rootfs.diff.tar.zstd"), oci("+zstd"));
        assert_eq!(name("application/vnd.oci.image.layer.v1.tar+gzip"), oci("+gzip"));
        assert_eq!(name("application/vnd.oci.image.layer.v1.tar"), oci(""));
        for other in [
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "application/vnd.in-toto+json",
            "application/vnd.oci.empty.v1+json",
            "application/vnd.oci.image.layer.v1.tarball",
        ] {
            assert_eq!(layer(other), None, "{other}");
        }
        assert!(layer("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip").unwrap().foreign);
        assert!(layer(OCI_LAYER_GZIP).unwrap().gzip);
    }
}

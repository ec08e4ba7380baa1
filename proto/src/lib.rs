//! containerd's wire, and kubelet's as far as it carries credentials: descriptions of our own writing in `wire/`,
//! with the fields Starling uses and the field numbers of the originals, and the code generated from them.
//! Nothing else lives here.

#![forbid(unsafe_code)]

pub use wire::containerd::{
    services::{
        content::v1 as content, images::v1 as images, introspection::v1 as introspection,
        snapshots::v1 as snapshots, streaming::v1 as streaming, transfer::v1 as transfer,
    },
    types,
};
pub use wire::runtime::v1 as cri;

#[allow(missing_docs, missing_debug_implementations, unreachable_pub, clippy::all)]
mod wire {
    include!(concat!(env!("OUT_DIR"), "/wire.rs"));
}

impl std::fmt::Debug for cri::AuthConfig {
    /// Every field may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthConfig(secret)")
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn credentials_do_not_show_in_debug_output() {
        let auth = super::cri::AuthConfig { password: "planted".into(), ..Default::default() };
        let request = super::cri::PullImageRequest { image: None, auth: Some(auth) };
        assert!(!format!("{request:?}").contains("planted"));
    }
}

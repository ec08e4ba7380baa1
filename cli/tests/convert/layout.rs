//! Image layouts for the tests, and the tars in them.

use std::{
    fs,
    io::Write,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use estargz::Digest;
use serde_json::{Value, json};

/// An `oci-layout` directory.
pub(crate) struct Layout(PathBuf);

impl Layout {
    pub(crate) fn at(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    pub(crate) fn create(dir: &Path) -> Self {
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self::at(dir)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.0
    }

    pub(crate) fn name(&self, tag: &str) -> String {
        format!("oci:{}:{tag}", self.0.display())
    }

    pub(crate) fn path(&self, digest: &str) -> PathBuf {
        self.0.join("blobs").join(digest.replace(':', "/"))
    }

    fn put(&self, bytes: &[u8], media_type: &str) -> Value {
        let digest = Digest::of(bytes).to_string();
        fs::write(self.path(&digest), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    pub(crate) fn layer(&self, blob: &[u8], media_type: &str, annotations: Value) -> Value {
        let mut descriptor = self.put(blob, media_type);
        if annotations != json!({}) {
            descriptor["annotations"] = annotations;
        }
        descriptor
    }

    pub(crate) fn image(&self, architecture: &str, media_type: &str, layers: &[(Value, Digest)]) -> Value {
        let diff_ids: Vec<_> = layers.iter().map(|(_, diff_id)| diff_id).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "config": { "Cmd": ["/bin/true"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids }, "history": [{ "created_by": "test" }],
        });
        let config_type = "application/vnd.docker.container.image.v1+json";
        let config = self.put(&serde_json::to_vec(&config).unwrap(), config_type);
        let layers: Vec<_> = layers.iter().map(|(layer, _)| layer).collect();
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers });
        let mut descriptor = self.put(&serde_json::to_vec(&manifest).unwrap(), media_type);
        descriptor["platform"] = json!({ "architecture": architecture, "os": "linux" });
        descriptor
    }

    /// What BuildKit adds for `--attest`.
    pub(crate) fn attestation(&self, about: &Value, layer_type: &str) -> Value {
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let config = json!({ "architecture": "unknown", "os": "unknown", "rootfs": { "type": "layers", "diff_ids": [] } });
        let config =
            self.put(&serde_json::to_vec(&config).unwrap(), "application/vnd.oci.image.config.v1+json");
        let layer = self.put(b"{\"_type\": \"statement\"}", layer_type);
        // Indented: a manifest that is only copied keeps its bytes, whatever they are.
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer] });
        let mut descriptor = self.put(&serde_json::to_vec_pretty(&manifest).unwrap(), media_type);
        descriptor["platform"] = json!({ "architecture": "unknown", "os": "unknown" });
        descriptor["annotations"] = json!({
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": about["digest"],
        });
        descriptor
    }

    pub(crate) fn tag(&self, tag: &str, manifests: &[Value]) {
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
        let mut descriptor = self.put(&serde_json::to_vec(&index).unwrap(), media_type);
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
        fs::write(self.0.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    }

    fn descriptor(&self, tag: &str) -> Value {
        let index: Value = serde_json::from_slice(&fs::read(self.0.join("index.json")).unwrap()).unwrap();
        let is_tag = |manifest: &&Value| manifest["annotations"]["org.opencontainers.image.ref.name"] == tag;
        index["manifests"].as_array().unwrap().iter().find(is_tag).unwrap().clone()
    }

    pub(crate) fn digest_of(&self, tag: &str) -> Value {
        self.descriptor(tag)["digest"].clone()
    }

    pub(crate) fn tagged(&self, tag: &str) -> Value {
        self.json(&self.descriptor(tag))
    }

    /// A blob, checked against its descriptor.
    pub(crate) fn blob(&self, descriptor: &Value) -> Vec<u8> {
        let digest = descriptor["digest"].as_str().unwrap();
        let blob = fs::read(self.path(digest)).unwrap();
        assert_eq!(Digest::of(&blob).to_string(), digest);
        blob
    }

    pub(crate) fn json(&self, descriptor: &Value) -> Value {
        serde_json::from_slice(&self.blob(descriptor)).unwrap()
    }
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 1).unwrap()
}

/// A tar with directories, links and 300 files, one of them long; different for each `seed`.
pub(crate) fn tree_tar(seed: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |kind: u8, name: &str, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(data.len() as u64);
        header.set_mode(0o755);
        header.set_mtime(1_600_000_000);
        if kind == b'1' || kind == b'2' {
            builder.append_link(&mut header, name, format!("{seed}/file0")).unwrap();
        } else {
            builder.append_data(&mut header, name, data).unwrap();
        }
    };
    add(b'5', &format!("{seed}/"), b"");
    for at in 0..300 {
        add(b'0', &format!("{seed}/file{at}"), format!("{seed} {at} ").repeat(at * 7).as_bytes());
    }
    let long: Vec<u8> =
        (0..1_500_000u32).flat_map(|at| (at.wrapping_mul(2_654_435_761) >> 7).to_le_bytes()).collect();
    add(b'0', &format!("{seed}/long"), &long);
    add(b'1', &format!("{seed}/hard"), b"");
    add(b'2', &format!("{seed}/soft"), b"");
    builder.into_inner().unwrap()
}

/// A tar with a name that is not UTF-8.
pub(crate) fn not_utf8_tar() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o644);
    builder
        .append_data(&mut header, Path::new(std::ffi::OsStr::from_bytes(b"caf\xe9")), &b"abc"[..])
        .unwrap();
    builder.into_inner().unwrap()
}

/// A tree in the file system.
pub(crate) fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("dir/deep")).unwrap();
    fs::write(root.join("dir/small"), b"small").unwrap();
    fs::write(root.join("empty"), b"").unwrap();
    let long: Vec<u8> = (0..1 << 20).map(|at: u32| (at ^ (at >> 9)) as u8).collect();
    fs::write(root.join("dir/deep/long"), long).unwrap();
    fs::set_permissions(root.join("dir/small"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::hard_link(root.join("dir/small"), root.join("hard")).unwrap();
    std::os::unix::fs::symlink("dir/small", root.join("soft")).unwrap();
}

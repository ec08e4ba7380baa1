//! Images in Debian's `docker-registry`: what the converter pushes there can be read by range, in clear text, and
//! with TLS and a password.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use base64::Engine as _;
use futures_util::TryStreamExt as _;
use registry::{
    Credentials, Descriptor, HostConfig, Parsed, Reference, RegistryClient, RegistryConfig, Scheme, Secret,
    StaticCredentials,
};
use store::{Class, SourceErrorKind};
use testkit::{
    loopback_certificate::NAME,
    oci_layout::{ImageConfig, LayoutBuilder},
    peers::docker_registry::{Access, DockerRegistry, PASSWORD, USER, missing},
    requires,
    scratch::Scratch,
    skip_unless,
};

/// An image of one layer, whose bytes do not compress to nothing.
fn plain_image(dir: &Path) -> String {
    let mut state = 1_u64;
    let content: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        b'a' + (state >> 59) as u8
    })
    .take(3_000_000)
    .collect();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, "file", content.as_slice()).unwrap();
    let path = dir.join("layer.tar");
    fs::write(&path, tar.into_inner().unwrap()).unwrap();
    let layout = dir.join("layout");
    let mut builder = LayoutBuilder::create(&layout).unwrap();
    builder.add_gzip_layer(&path).unwrap();
    builder.finish("1", &ImageConfig::default()).unwrap();
    format!("oci:{}:1", layout.display())
}

/// Reads the pushed image as the daemon does, and compares it with the same conversion into a directory.
async fn read_back(client: &Arc<RegistryClient>, reference: &Reference, local: &Path) {
    let fetched = client.manifest(reference).await.unwrap();
    let Parsed::Manifest(manifest) = fetched.parse().unwrap() else { panic!("an index") };
    let of = |blob: &Descriptor| fs::read(local.join("blobs/sha256").join(blob.digest.hex())).unwrap();
    let config = client.fetch_blob(reference, &manifest.config.digest, 1 << 20).await.unwrap();
    assert_eq!(config, of(&manifest.config));
    let [layer] = manifest.layers.as_slice() else { panic!("{manifest:?}") };
    let bytes = of(layer);
    let blob = client.blob(reference, layer.digest);
    let tail = blob.read_tail(10_000).await.unwrap();
    assert_eq!((tail.blob_size, &tail.bytes[..]), (layer.size, &bytes[bytes.len() - 10_000..]));
    let end = layer.size;
    for range in [0..1, 5..100_000, 1_000_000..1_000_001, end - 1..end, 0..end] {
        let stream = blob.read_range(range.clone(), Class::Demand).await.unwrap();
        let parts: Vec<_> = stream.try_collect().await.unwrap();
        assert!(parts.concat() == bytes[range.start as usize..range.end as usize], "{range:?}");
    }
    let stats = client.stats();
    println!("{stats:?}");
}

fn assert_ok(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn convert(source: &str, target: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_starling"));
    command.args(["convert", "--quiet", source, target]);
    command
}

fn converted(dir: &Path, source: &str) -> PathBuf {
    let local = dir.join("converted");
    assert_ok(&convert(source, &format!("oci:{}:1", local.display())).output().unwrap());
    local
}

#[tokio::test]
async fn a_converted_image_is_pushed_and_read_by_range() {
    skip_unless!(missing());
    let scratch = Scratch::new("starling-registry-").unwrap();
    let registry = DockerRegistry::start(&scratch.path().join("registry"), Access::Open).unwrap();
    let source = plain_image(scratch.path());
    let local = converted(scratch.path(), &source);
    let name = format!("{}/a/b:1", registry.host());
    assert_ok(&convert(&source, &name).output().unwrap());
    // Again: everything is there.
    assert_ok(&convert(&source, &name).output().unwrap());
    let client = RegistryClient::new(RegistryConfig::anonymous()).unwrap();
    read_back(&client, &name.parse().unwrap(), &local).await;
}

#[tokio::test]
async fn the_same_with_tls_a_private_authority_and_a_password() {
    skip_unless!(missing(), requires::root());
    let scratch = Scratch::new("starling-registry-").unwrap();
    let dir = scratch.path();
    let registry = DockerRegistry::start(&dir.join("registry"), Access::Protected).unwrap();
    let source = plain_image(dir);
    let local = converted(dir, &source);
    let authority = registry.authority().unwrap();

    // The loopback address is reached in clear text unless configured otherwise: the converter is given a name.
    let host = format!("{NAME}:{}", registry.port());
    let push = |password: &str| {
        let login = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{password}"));
        let config = serde_json::json!({ "auths": { &host: { "auth": login } } });
        fs::write(dir.join("config.json"), config.to_string()).unwrap();
        fs::write(dir.join("hosts"), format!("127.0.0.1 {NAME}\n")).unwrap();
        let convert = convert(&source, &format!("{host}/a/b:1"));
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", "mount --bind \"$HOSTS\" /etc/hosts && exec \"$@\"", "sh"])
            .arg(convert.get_program())
            .args(convert.get_args())
            .env("HOSTS", dir.join("hosts"))
            .env("DOCKER_CONFIG", dir)
            .env("NO_PROXY", NAME)
            .env("SSL_CERT_FILE", authority)
            .env_remove("SSL_CERT_DIR");
        command.output().unwrap()
    };
    let refused = push("wrong");
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("401") || said.contains("credentials"), "{said}");
    assert_ok(&push(PASSWORD));

    let client = |password: Option<&str>| {
        let mut config =
            RegistryConfig { ca_files: vec![authority.to_owned()], ..RegistryConfig::anonymous() };
        let https = HostConfig { scheme: Some(Scheme::Https), ..HostConfig::default() };
        config.hosts.insert(registry.host(), https);
        if let Some(password) = password {
            let login = Credentials::Password { username: USER.to_owned(), password: Secret::new(password) };
            config.credentials.push(Arc::new(StaticCredentials { hosts: vec![(registry.host(), login)] }));
        }
        RegistryClient::new(config).unwrap()
    };
    let reference: Reference = format!("{}/a/b:1", registry.host()).parse().unwrap();
    for password in [None, Some("wrong")] {
        let error = client(password).manifest(&reference).await.unwrap_err();
        assert_eq!(error.kind, SourceErrorKind::Unauthorized, "{error}");
    }
    read_back(&client(Some(PASSWORD)), &reference, &local).await;
}

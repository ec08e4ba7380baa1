//! Real registries that want a login: Debian's `docker-registry` with TLS of a private authority and tokens of a few
//! seconds, by itself and behind a front that sends requests for blobs on to signed addresses.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use estargz::Digest;
use flate2::read::MultiGzDecoder;
use serde_json::Value;
use testkit::{
    peers::{
        containerd::Containerd,
        docker_registry::{self, Access, DockerRegistry},
        starlingd::Starlingd,
    },
    sample_image,
    scratch::Scratch,
    signing_front::SigningFront,
    skip_unless,
    token_service::{PASSWORD, TokenService, USER},
};

use super::node::{ESTARGZ, REPOSITORY, missing, program};

/// How long a token is good for.
const TOKEN: Duration = Duration::from_secs(3);
/// How long a signed address is good for.
const ADDRESS: Duration = Duration::from_secs(2);
/// In how many parts the image is read, with an end of all tokens before each. Whether the later parts still need the
/// registry depends on how far the first ones were read ahead.
const PARTS: usize = 3;

/// A containerd and a daemon that know a registry from the same directory. Dropped in this order.
struct Site {
    containerd: Containerd,
    daemon: Starlingd,
    image: String,
    hosts: PathBuf,
    scratch: Scratch,
}

// === impl Site ===

impl Site {
    /// Starts both, with what `host` needs to be known for: its authority, and a user and password for the daemon.
    fn start(scratch: Scratch, host: &str, authority: &str) -> Self {
        let hosts = scratch.path().join("certs.d");
        let of_host = hosts.join(host.replace(':', "_") + "_");
        fs::create_dir_all(&of_host).unwrap();
        fs::write(of_host.join("authority.pem"), authority).unwrap();
        let text = format!(
            "server = \"https://{host}\"\n\n[host.\"https://{host}\"]\n  capabilities = [\"pull\", \"resolve\"]\n  \
             ca = [\"authority.pem\"]\n"
        );
        fs::write(of_host.join("hosts.toml"), text).unwrap();
        // Nothing is fetched but what is read: later reads meet what has expired.
        let config = format!(
            "no_background_fetch = true\nnoprefetch = true\n\n[registry]\nconfig_path = \"{}\"\n\n\
             [credentials.hosts.\"{host}\"]\nusername = \"{USER}\"\npassword = \"{PASSWORD}\"\n",
            hosts.display()
        );
        let daemon =
            Starlingd::start(&program("starlingd"), &scratch.path().join("starling"), &config).unwrap();
        let plugin = daemon.plugin("starling");
        let containerd = Containerd::start(&scratch.path().join("containerd"), Some(&plugin)).unwrap();
        Self { containerd, daemon, image: format!("{host}/{REPOSITORY}:{ESTARGZ}"), hosts, scratch }
    }

    /// Pulls, by `login` if there is one.
    fn pull(&self, login: Option<&str>) -> anyhow::Result<String> {
        let hosts = self.hosts.display().to_string();
        let mut arguments = vec!["images", "pull", "--snapshotter", "starling", "--hosts-dir", &hosts];
        arguments.extend(login.into_iter().flat_map(|login| ["--user", login]));
        arguments.push(&self.image);
        self.containerd.ctr(&arguments)
    }

    /// Pulls with the login and checks that no layer was downloaded.
    fn pull_lazily(&self) {
        self.pull(None).unwrap_err();
        self.pull(Some(&format!("{USER}:wrong"))).unwrap_err();
        self.pull(Some(&format!("{USER}:{PASSWORD}"))).unwrap();
        let lines = self.daemon.log();
        let prepared = |how: &str| {
            let events = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            events.filter(|event| event["remote-snapshot-prepared"].as_str() == Some(how)).count()
        };
        let layers = self.layers();
        assert_eq!((prepared("true"), prepared("false")), (layers.len(), 0), "every layer lazy: {lines}");
        let content = self.containerd.content().unwrap();
        for digest in &layers {
            assert!(!content.contains(digest), "{digest} was downloaded into the content store");
        }
    }

    /// Digests of the image's layers, as containerd's manifest has them.
    fn layers(&self) -> Vec<String> {
        let content = self.containerd.content().unwrap();
        let mut manifests = content.iter().filter_map(|digest| {
            let text = self.containerd.ctr(&["content", "get", digest]).ok()?;
            let json: Value = serde_json::from_str(&text).ok()?;
            let digest = |layer: &Value| layer["digest"].as_str().map(str::to_owned);
            json["layers"].as_array()?.iter().map(digest).collect::<Option<Vec<_>>>()
        });
        manifests.next().unwrap()
    }

    fn run(&self, name: &str) -> String {
        self.containerd.ctr(&["run", "--rm", "--snapshotter", "starling", &self.image, name]).unwrap()
    }

    /// Reads every file of the image, each of [`PARTS`] after all tokens have ended, and compares it with the image's
    /// tars. The number of files.
    fn read_all(&self) -> usize {
        let target = self.scratch.path().join("mounted");
        fs::create_dir(&target).unwrap();
        let path = target.to_str().unwrap();
        self.containerd.ctr(&["images", "mount", "--snapshotter", "starling", &self.image, path]).unwrap();
        let files = files(&sample_image::python().unwrap());
        for part in files.iter().collect::<Vec<_>>().chunks(files.len().div_ceil(PARTS)) {
            thread::sleep(TOKEN + Duration::from_secs(1));
            for (path, digest) in part {
                let bytes = fs::read(target.join(path)).unwrap_or_else(|error| {
                    panic!("{}: {error}: {}", path.display(), self.daemon.log());
                });
                assert!(Digest::of(&bytes) == **digest, "{} has another content", path.display());
            }
        }
        self.containerd.ctr(&["images", "unmount", "--rm", path]).unwrap();
        files.len()
    }
}

/// Puts the sample image into a registry, and ends that; where it kept its files.
fn filled() -> (Scratch, PathBuf) {
    let scratch = Scratch::new("starling-e2e-").unwrap();
    let dir = scratch.path().join("registry");
    let registry = DockerRegistry::start(&dir, Access::Open).unwrap();
    let source = format!("oci:{}:{}", sample_image::python().unwrap().display(), sample_image::TAG);
    let target = format!("{}/{REPOSITORY}:{ESTARGZ}", registry.host());
    let status =
        Command::new(program("starling")).args(["convert", "--quiet", &source, &target]).status().unwrap();
    assert!(status.success(), "starling convert: {status}");
    (scratch, dir)
}

/// Digests of the regular files that the image in `layout` shows.
fn files(layout: &Path) -> BTreeMap<PathBuf, Digest> {
    let json = |path: PathBuf| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        layout.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
    };
    let manifest = json(blob(&json(layout.join("index.json"))["manifests"][0]));
    let mut files = BTreeMap::new();
    for layer in manifest["layers"].as_array().unwrap() {
        let mut tar = tar::Archive::new(MultiGzDecoder::new(File::open(blob(layer)).unwrap()));
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path: PathBuf = entry.path().unwrap().components().collect();
            let path = path.strip_prefix(".").unwrap_or(&path).to_owned();
            files.remove(&path);
            if entry.header().entry_type() == tar::EntryType::Regular {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                files.insert(path, Digest::of(&bytes));
            }
        }
    }
    files
}

#[test]
fn a_registry_with_tls_and_tokens_of_seconds_is_read_lazily() {
    skip_unless!(missing(), docker_registry::missing());
    let (scratch, dir) = filled();
    let tokens = TokenService::start(TOKEN).unwrap();
    let registry = DockerRegistry::start_with_tokens(&dir, &tokens, false).unwrap();
    let site = Site::start(scratch, &registry.host(), tokens.authority());
    site.pull_lazily();
    assert!(site.run("first").contains("ready"));
    let before = tokens.issued();
    let read = site.read_all();
    assert!(tokens.issued() > before, "something was left to read with a new token");
    println!("{read} files read; {before} tokens before, {} in all", tokens.issued());
}

#[test]
fn the_same_behind_a_front_that_signs_addresses_good_for_seconds() {
    skip_unless!(missing(), docker_registry::missing());
    let (scratch, dir) = filled();
    let tokens = TokenService::start(TOKEN).unwrap();
    let registry = DockerRegistry::start_with_tokens(&dir, &tokens, true).unwrap();
    let front = SigningFront::start(&registry, &tokens, ADDRESS).unwrap();
    let site = Site::start(scratch, &front.host(), tokens.authority());
    site.pull_lazily();
    assert!(site.run("first").contains("ready"));
    let (issued, signed, ended) = (tokens.issued(), front.signed(), front.ended());
    let read = site.read_all();
    assert!(tokens.issued() > issued, "something was left to read with a new token");
    assert!(front.signed() > signed && front.ended() > ended, "remembered addresses had ended");
    assert_eq!((front.credentials(), front.unsigned()), (0, 0), "what came to {}", front.storage());
    println!(
        "{read} files read; {} tokens, {} addresses signed, {} refused because they had ended, {} answers with bytes",
        tokens.issued(),
        front.signed(),
        front.ended(),
        front.served()
    );
}

//! Secrets planted in every source of credentials, some good and some not, and then looked for in everything that the
//! daemon says, keeps, serves and starts.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use nix::sys::signal::Signal;
use serde_json::json;
use snapshotter::admin::ask_credentials;
use testkit::{
    peers::starlingd::Starlingd,
    registry::{Redirect, TestRegistry},
    requires, skip_unless,
};

use super::{
    basic, bearer, client, cluster,
    cri::{self, Containerd},
    image,
    image::Image,
    is_lazy,
    node::{self, Node, ON_DEMAND},
    processes::{Seen, Watch},
    registry,
};

/// What every secret begins with; it is found nowhere else.
const PLANTED: &str = "planted-";
/// The variable in which a credential provider gets a secret, as its configuration says.
const VARIABLE: &str = "KEY=planted-plugin-env";
/// Each registry's password, by the source that has it.
const GOOD: [&str; 6] = [
    "planted-kubelet-good",
    "planted-own-good",
    "planted-file-good",
    "planted-secret-good",
    "planted-never-given",
    "planted-helper-good",
];
/// The registry whose password nobody has.
const HOPELESS: usize = 4;

/// A machine on which every source of credentials has secrets.
struct World {
    directory: tempfile::TempDir,
    registries: Vec<TestRegistry>,
    images: Vec<Image>,
    containerd: Containerd,
    config: String,
    node: Node,
}

// === impl World ===

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let registries: Vec<_> = GOOD
            .iter()
            .enumerate()
            .map(|(n, good)| registry(if n % 2 == 0 { bearer(good) } else { basic(good) }))
            .collect();
        registries[1].set_redirect(Redirect::Signed {
            status: 307,
            lifetime: Duration::from_secs(60),
            hops: 1,
        });
        let hosts: Vec<_> = registries.iter().map(TestRegistry::host).collect();
        let containerd = Containerd::start(&path.join("containerd.sock")).await;
        docker(path, &hosts[HOPELESS], &hosts[5]);
        kubelet(path, &hosts[HOPELESS]);
        let secret = json!({ "auths": { &hosts[3]: { "username": "me", "password": GOOD[3] } } });
        kubeconfig(path, &cluster::start("planted-cluster-token", &secret).await);
        fs::write(path.join("password"), format!("{}\n", GOOD[2])).unwrap();
        let config = config(path, &hosts);
        let mut node = Node::start(&config).await;
        trace(&mut node, path, &config).await;
        let images = registries.iter().zip(1..).map(|(registry, seed)| image(registry, seed)).collect();
        Self { directory, registries, images, containerd, config, node }
    }

    /// Pulls with credentials as kubelet does, some of them good.
    async fn pull(&self) {
        let (socket, hopeless) = (self.node.daemon.address(), &self.images[HOPELESS].reference);
        cri::pull(&socket, &self.images[0].reference, "me", GOOD[0]).await.unwrap();
        cri::pull(&socket, hopeless, "me", "planted-kubelet-bad").await.unwrap();
        self.containerd.refuse_pulls();
        cri::pull(&socket, hopeless, "me", "planted-kubelet-failed").await.unwrap_err();
    }

    /// Every place where a secret might be, and what is there.
    fn places(&self) -> Vec<(String, Vec<u8>)> {
        let pid = self.node.daemon.pid();
        let mut places = vec![
            ("the log".to_owned(), self.node.daemon.log().into_bytes()),
            ("the metrics".to_owned(), self.node.metrics().into_bytes()),
            ("the status".to_owned(), format!("{:?}", self.node.status()).into_bytes()),
            ("the arguments".to_owned(), fs::read(format!("/proc/{pid}/cmdline")).unwrap()),
            ("the environment".to_owned(), fs::read(format!("/proc/{pid}/environ")).unwrap()),
            ("arguments of programs".to_owned(), fs::read(self.directory.path().join("arguments")).unwrap()),
        ];
        for image in &self.images {
            let told = ask_credentials(&self.node.daemon.admin(), &image.reference).unwrap();
            places.push(("what is known".to_owned(), format!("{told:?}").into_bytes()));
            places.extend(explained(&self.node, image));
        }
        places.extend(files(&self.node.daemon.root()));
        places
    }
}

/// What programs that give credentials begin with: they note how they were started, and live for long enough to be seen.
fn note(path: &Path) -> String {
    format!("cat /proc/$$/cmdline /proc/$PPID/cmdline >>{}/arguments\nsleep 0.2", path.display())
}

/// `config.json` with a login that is refused, and with a helper that gives a good one.
fn docker(path: &Path, hopeless: &str, good: &str) {
    let config = json!({
        "auths": { hopeless: { "username": "me", "password": "planted-docker-bad" } },
        "credHelpers": { good: "vault" },
    });
    fs::write(path.join("docker.json"), config.to_string()).unwrap();
    let answer = json!({ "ServerURL": good, "Username": "me", "Secret": GOOD[5] });
    let script = format!("{}\necho planted-helper-noise >&2\ncat <<'END'\n{answer}\nEND", note(path));
    executable(&path.join("docker-credential-vault"), &script);
}

/// Credential providers: one whose logins are refused, and one that fails.
fn kubelet(path: &Path, host: &str) {
    let note = note(path);
    let login = |password: &str| json!({ "username": "me", "password": password });
    let answer = json!({
        "kind": "CredentialProviderResponse",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "cacheKeyType": "Image",
        "auth": { "127.0.0.1:*": login("planted-plugin-pattern"), host: login("planted-plugin-bad") },
    });
    executable(
        &path.join("plugin"),
        &format!("{note}\necho planted-plugin-noise >&2\ncat <<'END'\n{answer}\nEND"),
    );
    executable(&path.join("broken"), &format!("{note}\necho planted-plugin-broken\nexit 1"));
    let (variable, value) = VARIABLE.split_once('=').unwrap();
    let provider = |name: &str| {
        json!({
            "name": name,
            "matchImages": [host],
            "defaultCacheDuration": "1h",
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "env": [{ "name": variable, "value": value }],
        })
    };
    let config =
        json!({ "kind": "CredentialProviderConfig", "providers": [provider("plugin"), provider("broken")] });
    fs::write(path.join("providers.yaml"), config.to_string()).unwrap();
}

fn kubeconfig(path: &Path, server: &str) {
    let config = json!({
        "current-context": "here",
        "clusters": [{ "name": "c", "cluster": { "server": server } }],
        "contexts": [{ "name": "here", "context": { "cluster": "c", "user": "u" } }],
        "users": [{ "name": "u", "user": { "token": "planted-cluster-token" } }],
    });
    fs::write(path.join("kubeconfig"), config.to_string()).unwrap();
}

fn config(path: &Path, hosts: &[String]) -> String {
    let path = path.display();
    format!(
        "{ON_DEMAND}\
         [cri_keychain]\nenable_keychain = true\nimage_service_path = \"{path}/containerd.sock\"\n\
         [kubeconfig_keychain]\nenable_keychain = true\nkubeconfig_path = \"{path}/kubeconfig\"\n\
         [credentials]\ndocker_config = \"{path}/docker.json\"\n\
         kubelet_config = \"{path}/providers.yaml\"\nkubelet_bin_dir = \"{path}\"\n\
         [credentials.hosts.\"{}\"]\nusername = \"me\"\npassword = \"{}\"\n\
         [credentials.hosts.\"{}\"]\nusername = \"me\"\npassword_file = \"{path}/password\"\n\
         [credentials.hosts.\"{}\"]\nusername = \"me\"\npassword = \"planted-own-bad\"\n",
        hosts[1], GOOD[1], hosts[2], hosts[HOPELESS],
    )
}

/// Starts the daemon anew, with everything that it can log, and with helpers in `programs`.
async fn trace(node: &mut Node, programs: &Path, config: &str) {
    node.daemon.end(Signal::SIGTERM).unwrap();
    let program = programs.join("starlingd");
    executable(&program, &format!("PATH={}:$PATH exec {} \"$@\"", programs.display(), node::PROGRAM));
    node.daemon = Starlingd::start_logging(&program, node.directory.path(), config, "trace").unwrap();
    node.client = client::Client::connect(&node.daemon.address()).await.unwrap();
}

/// What `starling explain` says, if that program is there.
fn explained(node: &Node, image: &Image) -> Vec<(String, Vec<u8>)> {
    let program = Path::new(node::PROGRAM).with_file_name("starling");
    if !program.exists() {
        return Vec::new();
    }
    let ask = |more: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("explain").args(more).arg("--admin").arg(node.daemon.admin()).arg(&image.reference);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    vec![("explain".to_owned(), ask(&[])), ("explain --json".to_owned(), ask(&["--json"]))]
}

/// All files below `root`, of its own file system: layers that are mounted hold what their image holds.
fn files(root: &Path) -> Vec<(String, Vec<u8>)> {
    let (mut files, mut directories) = (Vec::new(), vec![root.to_owned()]);
    let device = fs::metadata(root).unwrap().dev();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let stat = fs::symlink_metadata(&path).unwrap();
            if stat.is_dir() && stat.dev() == device {
                directories.push(path);
            } else if stat.is_file() {
                files.push((path.display().to_string(), fs::read(&path).unwrap()));
            }
        }
    }
    files
}

fn holds(text: &[u8], what: &str) -> bool {
    text.windows(what.len()).any(|window| window == what.as_bytes())
}

fn executable(path: &PathBuf, script: &str) {
    let source = path.with_extension("source");
    fs::write(&source, format!("#!/bin/sh\n{script}\n")).unwrap();
    // Another process writes the program, so that none of ours has it open for writing.
    assert!(Command::new("install").arg("-m755").arg(&source).arg(path).status().unwrap().success());
}

/// Neither the daemon nor a program that it starts has a secret among its arguments; in its environment a provider has
/// what its configuration says, and nobody else anything.
fn nothing_is_shown_by_processes(seen: &BTreeSet<Seen>) {
    for program in ["starlingd", "docker-credential-vault", "plugin", "broken"] {
        assert!(seen.iter().any(|seen| holds(&seen.arguments, program)), "{program} was not seen");
    }
    for Seen { arguments, environment } in seen {
        let shown = String::from_utf8_lossy(arguments);
        assert!(!holds(arguments, PLANTED), "{shown}");
        let mut variables = environment.split(|byte| *byte == 0).filter(|variable| holds(variable, PLANTED));
        let by_provider = !holds(arguments, "--log-level") && !holds(arguments, "docker-credential-");
        assert!(variables.all(|variable| by_provider && variable == VARIABLE.as_bytes()), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_logged_counted_shown_or_kept_in_clear_text() {
    skip_unless!(requires::fuse());
    let watch = Watch::start();
    let mut world = World::new().await;
    world.pull().await;
    for n in (0..GOOD.len()).filter(|n| *n != HOPELESS) {
        assert!(is_lazy(&mut world.node, &world.images[n]).await, "{n}: {}", world.node.daemon.log());
        assert!(world.node.read(&world.images[n].layers[0]) == world.images[n].layers[0].files, "{n}");
    }
    assert!(!is_lazy(&mut world.node, &world.images[HOPELESS]).await);
    let places = world.places();
    assert!(places.len() > 20 && holds(&places[5].1, "plugin"), "too little was looked at");
    // A header that authenticates with a password has it in base64.
    let encoded = GOOD.map(|secret| STANDARD_NO_PAD.encode(format!("me:{secret}")));
    nothing_is_shown_by_processes(&watch.end());
    for (place, text) in &places {
        for planted in encoded.iter().map(String::as_str).chain([PLANTED]) {
            assert!(!holds(text, planted), "{planted:?} is in {place}");
        }
    }
    let leaked = world.registries.iter().map(TestRegistry::leaked_credentials).sum::<u64>();
    assert_eq!(leaked, 0, "a redirect's target was sent credentials");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_with_a_secret_in_the_wrong_place_is_refused_without_it() {
    skip_unless!(requires::fuse());
    let mut world = World::new().await;
    let wrong = world.config.replace("password = \"planted-own-bad\"", "pasword = \"planted-own-bad\"");
    world.node.daemon.end(Signal::SIGTERM).unwrap();
    let failure = Starlingd::start(Path::new(node::PROGRAM), world.node.directory.path(), &wrong);
    let failure = format!("{:?}", failure.err().unwrap());
    assert!(failure.contains("credentials.hosts") && !failure.contains(PLANTED), "{failure}");
}

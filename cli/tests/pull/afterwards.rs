//! What push, save and commit do on an image whose layers were not downloaded: each line of the table in
//! `docs/pull.md`.

use std::{fs, path::Path};

use testkit::{RegistryOptions, TestRegistry, peers::dockerd::Dockerd, skip_unless};

use super::node::{Node, digests, missing};

/// A registry that has nothing of the image.
fn elsewhere() -> (TestRegistry, String) {
    let registry = TestRegistry::start(RegistryOptions::default()).unwrap();
    let image = format!("{}/copy:1", registry.host());
    (registry, image)
}

/// Names of the files in the archive of an image.
fn archived(archive: &Path) -> Vec<String> {
    let mut archive = tar::Archive::new(fs::File::open(archive).unwrap());
    let entries = archive.entries().unwrap();
    entries.map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
}

fn has_all(archive: &Path, digests: &[String]) -> bool {
    let names = archived(archive);
    digests.iter().all(|digest| names.contains(&format!("blobs/{}", digest.replace(':', "/"))))
}

#[test]
fn ctr_pushes_home_and_the_rest_needs_the_content() {
    skip_unless!(missing());
    let node = Node::start();
    let image = node.image("lazy");
    let layers = digests(&node.pulled(&[&image]));
    let (registry, copy) = elsewhere();
    let archive = node.scratch.path().join("image.tar");
    let push = |image: &str| node.containerd.try_ctr(&["images", "push", "--plain-http", image]).unwrap();
    let export =
        || node.containerd.try_ctr(&["images", "export", archive.to_str().unwrap(), &image]).unwrap();
    node.containerd.ctr(&["images", "tag", &image, &copy]).unwrap();
    assert!(push(&image).ok, "the registry has the layers");
    let refused = push(&copy);
    assert!(!refused.ok && refused.stderr.contains("not found"), "{}", refused.stderr);
    let refused = export();
    assert!(!refused.ok && refused.stderr.contains("not found"), "{}", refused.stderr);
    node.pulled(&["--content", &image]);
    assert!(push(&copy).ok);
    assert!(registry.manifest("copy", "1").is_some());
    assert!(layers.iter().all(|layer| registry.blob(layer).is_some()));
    assert!(export().ok);
    assert!(has_all(&archive, &layers));
}

#[test]
fn docker_commits_and_pushes_home_and_the_rest_needs_the_content() {
    skip_unless!(missing());
    let node = Node::start();
    let image = node.image("lazy");
    let docker =
        Dockerd::start(&node.scratch.path().join("docker-engine"), &node.containerd, "starling").unwrap();
    docker.docker(&["pull", "--quiet", &image]).unwrap();
    let (registry, copy) = elsewhere();
    let committed = format!("{}/committed:1", registry.host());
    let archive = node.scratch.path().join("image.tar");
    let save = |image: &str| docker.docker(&["save", "--output", archive.to_str().unwrap(), image]).unwrap();
    docker.docker(&["tag", &image, &copy]).unwrap();
    docker.docker(&["push", &image]).unwrap();
    let refused = docker.docker(&["push", &copy]).unwrap_err().to_string();
    assert!(refused.contains("not found"), "{refused}");
    docker.docker(&["create", "--name", "made", "--network", "none", &image, "none"]).unwrap();
    docker.docker(&["commit", "made", &committed]).unwrap();
    docker.docker(&["push", &committed]).unwrap_err();
    // Docker Engine says nothing of the layers that it leaves out.
    save(&image);
    let layers = digests(&node.pulled(&["--namespace", "moby", &image]));
    assert!(!has_all(&archive, &layers));
    node.pulled(&["--namespace", "moby", "--content", &image]);
    docker.docker(&["push", &copy]).unwrap();
    docker.docker(&["push", &committed]).unwrap();
    for name in [&image, &committed] {
        save(name);
        assert!(has_all(&archive, &layers), "{name}");
    }
}

//! What is pulled, and what is said about it.

use std::{fs, process::Command};

use serde_json::{Value, json};
use testkit::{Auth, skip_unless};

use super::node::{Node, digests, missing, said};

#[test]
fn a_lazy_image_is_pulled_without_its_layers() {
    skip_unless!(missing());
    let node = Node::start();
    let image = node.image("lazy");
    let pulled = node.pulled(&["--require-lazy", &image]);
    assert_eq!(pulled["lazy"], true);
    let content = node.containerd.content().unwrap();
    let digests = digests(&pulled);
    assert_eq!(digests.len(), 2);
    assert!(digests.iter().all(|digest| !content.contains(digest)), "{content:?}");
    // Again: nothing is asked of the daemon, and the layers are lazy all the same.
    assert_eq!(node.pulled(&["--require-lazy", &image])["lazy"], true);
    let complete = node.pulled(&["--content", &image]);
    let content = node.containerd.content().unwrap();
    assert!(digests.iter().all(|digest| content.contains(digest)), "{content:?}");
    assert_eq!(complete["layers"][0]["lazy"], true);
    assert_eq!(complete["layers"][0]["downloaded"], true);
    status_shows_the_layers(&node, &digests, &image);
}

fn status_shows_the_layers(node: &Node, digests: &[String], image: &str) {
    let status = |json: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_starling"))
            .args(["status", "--admin", node.daemon.admin().to_str().unwrap()])
            .args(json)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let listed: Value = serde_json::from_str(&status(&["--json"])).unwrap();
    let mut blobs: Vec<_> =
        listed["layers"].as_array().unwrap().iter().map(|layer| layer["blob"].as_str().unwrap()).collect();
    let mut wanted: Vec<_> = digests.iter().map(String::as_str).collect();
    blobs.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(blobs, wanted);
    assert!(status(&[]).contains(&format!("{image}: 2 of 2 layers lazy")), "{}", status(&[]));
}

#[test]
fn a_layer_that_is_not_lazy_is_named_with_the_reason() {
    skip_unless!(missing());
    let node = Node::start();
    let image = node.image("mixed");
    let output = node.pull(&["--require-lazy", &image]);
    let text = said(&output);
    assert!(!output.status.success(), "{text}");
    for words in ["layer 2", "not lazy", "reason (", "remedy: ", "2 of 3 layers lazy", "1 of 3 layers"] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    let explain = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_starling"));
        command.args(["explain", "--admin", node.daemon.admin().to_str().unwrap(), &image]).args(more);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = explain(&[]);
    assert!(text.contains("which means: ") && text.contains("it serves parts of blobs"), "{text}");
    let explained: Value = serde_json::from_str(&explain(&["--json"])).unwrap();
    let (lazy, plain) = (&explained["layers"][0], &explained["layers"][1]);
    assert_eq!((&lazy["lazy"], &plain["lazy"]), (&json!(true), &json!(false)), "{explained}");
    assert!(lazy["toc"].is_string() && plain["code"].is_string(), "{explained}");
    assert_eq!(lazy["places"][0]["host"], node.registry.host(), "{explained}");
    assert!(explained["credentials"].is_array(), "{explained}");
    let pulled = node.pulled(&[&image]);
    let lazy: Vec<_> =
        pulled["layers"].as_array().unwrap().iter().map(|layer| layer["lazy"].as_bool().unwrap()).collect();
    assert_eq!(lazy, [true, false, true]);
    assert_eq!(pulled["layers"][1]["downloaded"], true);
}

#[test]
fn credentials_of_the_docker_configuration_reach_containerd() {
    skip_unless!(missing());
    let node = Node::start();
    node.registry.set_auth(Auth::Basic { user: "me".into(), password: "secret".into() });
    let image = node.image("lazy");
    assert!(!node.pull(&[&image]).status.success());
    let docker = node.scratch.path().join("docker");
    fs::create_dir_all(&docker).unwrap();
    // me:secret
    let auths = json!({ "auths": { node.registry.host(): { "auth": "bWU6c2VjcmV0" } } });
    fs::write(docker.join("config.json"), auths.to_string()).unwrap();
    let pulled = node.pulled(&[&image]);
    assert_eq!(digests(&pulled).len(), 2);
}

#[test]
fn what_is_missing_in_the_configuration_is_said() {
    skip_unless!(missing());
    let node = Node::start();
    let image = node.image("lazy");
    for (arguments, words) in [
        (["--snapshotter", "other"], "[proxy_plugins.other]"),
        (["--snapshotter", "native"], "enable_remote_snapshot_annotations = \"true\""),
        // No entry of unpack_config fits.
        (["--platform", "windows/amd64"], "unpack_config"),
        (["--address", "/nowhere"], "cannot reach containerd"),
    ] {
        let output = match arguments {
            ["--address", address] => Command::new(env!("CARGO_BIN_EXE_starling"))
                .args(["pull", "--address", address, &image])
                .output()
                .unwrap(),
            arguments => node.pull(&[&arguments[..], &[&image]].concat()),
        };
        assert!(!output.status.success());
        assert!(said(&output).contains(words), "{words:?} is not in\n{}", said(&output));
    }
    assert!(!node.containerd.ctr(&["images", "ls", "-q"]).unwrap().contains(&image));
}

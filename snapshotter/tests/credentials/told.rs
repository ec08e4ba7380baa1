//! What the daemon tells of where layers are read from, and with what.

use snapshotter::admin::{PlaceStatus, ask_credentials};
use testkit::{
    registry::{Auth, Redirect, TestRegistry},
    requires, skip_unless,
};

use super::{
    basic, bearer, image,
    image::Image,
    is_lazy,
    node::{Node, ON_DEMAND},
    registry,
};

/// The value of a counter.
fn count(node: &Node, metric: &str) -> u64 {
    let page = node.metrics();
    let line = page.lines().find_map(|line| line.strip_prefix(metric));
    line.unwrap_or_else(|| panic!("{metric} is not in\n{page}")).trim().parse().unwrap()
}

/// How often sources of credentials were searched with success.
pub(crate) fn refreshes(node: &Node) -> u64 {
    count(node, "starling_credential_refreshes_total{outcome=\"found\"}")
}

fn of_source(node: &Node, what: &str, source: &str) -> u64 {
    count(node, &format!("starling_credentials_{what}_total{{source=\"{source}\"}}"))
}

/// Configuration with a password for each registry, in our own configuration.
fn passwords(registries: &[(&TestRegistry, &str)]) -> String {
    let entry = |(registry, password): &(&TestRegistry, &str)| {
        format!("[credentials.hosts.\"{}\"]\nusername = \"me\"\npassword = \"{password}\"\n", registry.host())
    };
    let entries: String = registries.iter().map(entry).collect();
    format!("{ON_DEMAND}[credentials]\ndocker_config = \"/nonexistent\"\n{entries}")
}

/// How the image's layer was read.
fn place(node: &Node, image: &Image) -> PlaceStatus {
    let mut places = node.layer(&image.layers[0]).unwrap().places;
    assert_eq!(places.len(), 1, "{places:?}");
    places.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_where_a_layer_is_read_from_and_with_what() {
    skip_unless!(requires::fuse());
    let (open, private) = (registry(Auth::None), registry(bearer("good")));
    private.set_redirect(Redirect::Signed {
        status: 307,
        lifetime: std::time::Duration::from_secs(60),
        hops: 0,
    });
    let images = [image(&open, 1), image(&private, 2)];
    let mut node = Node::start(&passwords(&[(&private, "good")])).await;
    for image in &images {
        assert!(is_lazy(&mut node, image).await, "{}", node.daemon.log());
    }
    let expected = PlaceStatus {
        reference: images[0].reference.clone(),
        host: open.host(),
        redirect: None,
        ranges: Some(true),
        last_answer: 206,
        credentials: "none asked for".to_owned(),
        credential_source: None,
    };
    assert_eq!(place(&node, &images[0]), expected);
    let expected = PlaceStatus {
        reference: images[1].reference.clone(),
        host: private.host(),
        redirect: Some(private.cdn_host()),
        credentials: "password of me".to_owned(),
        credential_source: Some("static configuration".to_owned()),
        ..expected
    };
    assert_eq!(place(&node, &images[1]), expected);
    // The image's manifest is read with the same token.
    assert_eq!((refreshes(&node), of_source(&node, "used", "configuration")), (1, 1));
    let known = ask_credentials(&node.daemon.admin(), &images[1].reference).unwrap();
    assert_eq!(known.last().unwrap().known, ["password of me"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_counted_by_their_source() {
    skip_unless!(requires::fuse());
    let (good, bad) = (registry(basic("good")), registry(basic("good")));
    let images = [image(&good, 1), image(&bad, 2)];
    let mut node = Node::start(&passwords(&[(&good, "good"), (&bad, "bad")])).await;
    assert!(is_lazy(&mut node, &images[0]).await, "{}", node.daemon.log());
    let before = (of_source(&node, "used", "configuration"), of_source(&node, "refused", "configuration"));
    assert_eq!(before, (1, 0));
    assert!(!is_lazy(&mut node, &images[1]).await);
    assert!(of_source(&node, "refused", "configuration") >= 1, "{}", node.metrics());
    assert_eq!(of_source(&node, "failed", "kubelet"), 0);
}

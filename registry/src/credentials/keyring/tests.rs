use proptest::prelude::*;

use super::*;
use crate::credentials::Secret;

fn login(name: &str) -> Credentials {
    Credentials::Password { username: name.into(), password: Secret::new("p") }
}

/// The user names of the logins that are found; a login is named by its key.
fn found(keys: &[&str], host: &str, repository: &str) -> Vec<String> {
    let ring = Keyring::new(keys.iter().map(|key| ((*key).to_owned(), login(key))));
    let name = |login| match login {
        Credentials::Password { username, .. } => username,
        other => panic!("{other:?}"),
    };
    ring.lookup(host, repository).into_iter().map(name).collect()
}

#[test]
fn every_matching_login_is_found_the_longest_path_first() {
    let keys = ["example.com", "https://example.com/team", "example.com/team/app", "*.com", "other.com"];
    assert_eq!(
        found(&keys, "example.com", "team/app"),
        ["example.com/team/app", "https://example.com/team", "example.com", "*.com"]
    );
    assert_eq!(found(&keys, "example.com", "x"), ["example.com", "*.com"]);
    assert_eq!(found(&keys, "example.com:5000", "x"), Vec::<String>::new());
}

#[test]
fn urls_of_the_registry_protocol_are_hosts() {
    for key in ["https://example.com/v1/", "http://example.com/v2/", "example.com/", "example.com/v2/?x#y"] {
        assert_eq!(found(&[key], "example.com", "a"), [key]);
    }
    assert_eq!(found(&["https://example.com/v1/team"], "example.com", "team/a").len(), 1);
    assert_eq!(found(&["https://example.com/v1/team"], "example.com", "a").len(), 0);
}

#[test]
fn docker_io_is_known_by_its_index() {
    let hub = "https://index.docker.io/v1/";
    assert_eq!(found(&[hub], "docker.io", "library/alpine"), [hub]);
    assert_eq!(found(&[hub, "docker.io"], "docker.io", "library/alpine"), ["docker.io"]);
    assert_eq!(found(&[hub], "example.com", "library/alpine").len(), 0);
}

#[test]
fn every_login_for_the_hub_is_found_once() {
    let hub = |name: &str| ("https://index.docker.io/v1/".to_owned(), login(name));
    let ring = Keyring::new([hub("a"), hub("b"), hub("a")]);
    assert_eq!(ring.lookup("docker.io", "library/alpine"), [login("a"), login("b")]);
}

#[test]
fn no_owner_crowds_out_another() {
    let bogus =
        (0..50).map(|n| ("hostile".into(), "example.com/team".to_owned(), login(&format!("bogus{n:02}"))));
    let good = |owner: &str, name| (owner.into(), "example.com".to_owned(), login(name));
    // The same login in two namespaces takes the turn of one.
    let ring = Keyring::of_owners(bogus.chain([good("a", "good"), good("b", "good"), good("c", "other")]));
    let found = ring.lookup_some("example.com", "team/app", 16);
    assert_eq!(found.len(), 16);
    assert_eq!(found[..3], [login("bogus00"), login("good"), login("other")]);
    assert_eq!(ring.lookup_some("example.com", "team/app", 2), [login("bogus00"), login("good")]);
    assert_eq!(ring.lookup("example.com", "team/app").len(), 52);
}

proptest! {
    #[test]
    fn any_key_is_read_or_left_out(key in "\\PC{0,40}", host in "\\PC{0,20}", path in "\\PC{0,20}") {
        Keyring::new([(key, login("x"))]).lookup(&host, &path);
    }
}

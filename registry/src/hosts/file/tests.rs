use proptest::prelude::*;

use super::*;
use crate::hosts::location::Scheme;

fn read(text: &str) -> Vec<HostEntry> {
    parse(Path::new("/etc/certs.d/example.com"), text).unwrap()
}

fn refuse(text: &str) -> String {
    parse(Path::new("/dir"), text).unwrap_err().to_string()
}

fn addresses(entries: &[HostEntry]) -> Vec<String> {
    entries.iter().map(|e| e.location.as_ref().map_or("itself".to_owned(), Location::to_string)).collect()
}

#[test]
fn hosts_come_in_the_order_of_their_headers_and_the_server_last() {
    let entries = read(
        r#"
        server = "https://origin.example"

        [host."https://z.example"]
        [host."http://a.example:5000".header]
          x-first = "here"
        [host."m.example/us"]
          capabilities = ["Pull", "RESOLVE"]
        [host."http://a.example:5000"]
          capabilities = ["pull"]
        "#,
    );
    assert_eq!(
        addresses(&entries),
        [
            "https://z.example/v2",
            "http://a.example:5000/v2",
            "https://m.example/us/v2",
            "https://origin.example/v2"
        ]
    );
    assert_eq!(entries[0].capabilities, Capabilities::ALL);
    assert_eq!(entries[1].capabilities, Capabilities { pull: true, ..Capabilities::NONE });
    assert_eq!(entries[1].headers.0, [("x-first".to_owned(), "here".to_owned())]);
    assert_eq!(entries[2].capabilities, Capabilities::READ);
    assert_eq!(entries[1].location.as_ref().unwrap().scheme, Scheme::Http);
}

#[test]
fn every_key_of_a_host_is_read() {
    let entries = read(
        r#"
        ca = "own.pem"
        skip_verify = false
        [header]
          authorization = "Basic planted"
        [host."https://m.example/prefix"]
          override_path = true
          skip_verify = true
          dial_timeout = "1m30s"
          ca = ["/abs/a.pem", "b.pem"]
          client = ["both.pem", ["c.cert", "c.key"], ["d.pem", ""]]
        [host."https://m.example/prefix".header]
          x-list = ["1", "2"]
        "#,
    );
    let directory = Path::new("/etc/certs.d/example.com");
    let [mirror, own] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!(mirror.location.as_ref().unwrap().path, "/prefix");
    assert_eq!(mirror.skip_verify, Some(true));
    assert_eq!(mirror.dial_timeout, Some(Duration::from_secs(90)));
    assert_eq!(mirror.ca, Some(vec!["/abs/a.pem".into(), directory.join("b.pem")]));
    let pair = |certificate: &str, key: Option<&str>| KeyPair {
        certificate: directory.join(certificate),
        key: key.map(|key| directory.join(key)),
    };
    assert_eq!(mirror.clients, [pair("both.pem", None), pair("c.cert", Some("c.key")), pair("d.pem", None)]);
    let two = [("x-list".to_owned(), "1".to_owned()), ("x-list".to_owned(), "2".to_owned())];
    assert_eq!(mirror.headers.0, two);
    assert_eq!((own.location.clone(), own.skip_verify), (None, Some(false)));
    assert_eq!(own.ca, Some(vec![directory.join("own.pem")]));
    assert!(own.speaks_of_tls() && mirror.speaks_of_tls() && !HostEntry::default().speaks_of_tls());
    assert!(!format!("{entries:?}").contains("planted"));
}

#[test]
fn what_containerd_overlooks_is_overlooked() {
    let entries = read(
        r#"
        SERVER = "https://origin.example"
        unknown = { anything = [1, 2.5, 1979-05-27] }
        host."https://dotted.example".capabilities = ["pull"]
        [other]
        [host."https://headed.example"]
        Capabilities = ["pull"]
        future = true
        "#,
    );
    assert_eq!(addresses(&entries), ["https://headed.example/v2", "https://origin.example/v2"]);
    assert_eq!(entries[0].capabilities, Capabilities { pull: true, ..Capabilities::NONE });
    let inline = read(r#"host = { "https://inline.example" = { capabilities = ["pull"] } }"#);
    assert_eq!(addresses(&inline), ["itself"]);
    assert_eq!(read("capabilities = []")[0].capabilities, Capabilities::ALL);
    assert_eq!(read("dial_timeout = \"\"")[0].dial_timeout, None);
    assert_eq!(read("ca = []")[0].ca, Some(Vec::new()));
}

/// As Spegel and Dragonfly write them for containerd.
#[test]
fn files_of_peer_to_peer_mirrors_are_read() {
    let spegel = read(
        "server = 'https://registry-1.docker.io'\n\n[host]\n[host.'http://10.0.0.7:30020']\n\
         capabilities = ['pull', 'resolve']\ndial_timeout = '200ms'\n\
         [host.'http://10.0.0.7:30020'.header]\nAuthorization = 'Basic planted'\n\n\
         [host.'http://10.0.0.7:30021']\ncapabilities = ['pull', 'resolve']\ndial_timeout = '200ms'\n",
    );
    let hosts = ["http://10.0.0.7:30020/v2", "http://10.0.0.7:30021/v2", "https://registry-1.docker.io/v2"];
    assert_eq!(addresses(&spegel), hosts);
    assert_eq!(spegel[0].dial_timeout, Some(Duration::from_millis(200)));
    assert_eq!((spegel[0].headers.0.len(), spegel[1].headers.0.len()), (1, 0));
    let dragonfly = read(
        r#"server = "https://index.docker.io"

[host."http://127.0.0.1:4001"]
capabilities = ["pull", "resolve"]
skip_verify = true
ca = ["ca.crt"]

[host."http://127.0.0.1:4001".header]
X-Dragonfly-Registry = "https://index.docker.io"
"#,
    );
    assert_eq!(addresses(&dragonfly), ["http://127.0.0.1:4001/v2", "https://index.docker.io/v2"]);
    let header = ("X-Dragonfly-Registry".to_owned(), "https://index.docker.io".to_owned());
    assert_eq!((&dragonfly[0].headers.0, dragonfly[0].skip_verify), (&vec![header], Some(true)));
}

#[test]
fn one_wrong_value_makes_the_file_unusable() {
    for (text, word) in [
        ("server = 3", "server"),
        ("capabilities = \"pull\"", "capabilities"),
        ("capabilities = [\"pull\", \"fly\"]", "fly"),
        ("ca = 1", "ca"),
        ("ca = [\"a\", 1]", "ca"),
        ("client = [[\"a\"]]", "client"),
        ("client = [[\"a\", \"b\", \"c\"]]", "client"),
        ("client = {}", "client"),
        ("skip_verify = \"yes\"", "skip_verify"),
        ("override_path = 1", "override_path"),
        ("header = \"x\"", "header"),
        ("[header]\nx = 1", "header"),
        ("dial_timeout = 3", "dial_timeout"),
        ("dial_timeout = \"3\"", "3s"),
        ("host = 1", "host"),
        ("[[host.\"https://a\"]]", "host"),
        ("[host.\"https://a b\"]", "a b"),
        ("server = \"httpx://a\"", "httpx"),
        ("[host", "TOML"),
        ("a = 1\na = 2", "TOML"),
    ] {
        let message = refuse(text);
        assert!(message.contains(word), "{text:?}: {message}");
    }
    assert!(refuse(&"#".repeat(MAX_LEN + 1)).contains("longer"));
}

#[test]
fn values_of_headers_do_not_get_into_messages() {
    let message = refuse("[header]\nx-key = [\"planted\", 3]");
    assert!(!message.contains("planted"), "{message}");
}

/// What a test writes down of a host.
#[derive(Debug, Clone)]
struct Model {
    tls: bool,
    name: String,
    capabilities: Vec<&'static str>,
    skip_verify: Option<bool>,
    headers: Vec<(String, String)>,
    milliseconds: Option<u32>,
    clients: usize,
}

fn model() -> impl Strategy<Value = Model> {
    let capability = prop::sample::subsequence(vec!["pull", "resolve", "push", "referrers"], 0..=4);
    let headers = prop::collection::btree_map("x-[a-z]{1,8}", "[ -~]{0,12}", 0..3);
    (
        any::<bool>(),
        "[a-z]{1,6}\\.example(:[1-9][0-9]{1,3})?",
        capability,
        any::<Option<bool>>(),
        headers,
        any::<Option<u32>>(),
        0_usize..3,
    )
        .prop_map(|(tls, name, capabilities, skip_verify, headers, milliseconds, clients)| Model {
            tls,
            name,
            capabilities,
            skip_verify,
            headers: headers.into_iter().collect(),
            milliseconds,
            clients,
        })
}

fn write(model: &Model, into: &mut String) {
    let scheme = if model.tls { "https" } else { "http" };
    let header = format!("host.\"{scheme}://{}\"", model.name);
    into.push_str(&format!("[{header}]\ncapabilities = {:?}\n", model.capabilities));
    if let Some(skip) = model.skip_verify {
        into.push_str(&format!("skip_verify = {skip}\n"));
    }
    if let Some(milliseconds) = model.milliseconds {
        into.push_str(&format!("dial_timeout = \"{milliseconds}ms\"\n"));
    }
    let clients: Vec<_> = (0..model.clients).map(|n| [format!("{n}.cert"), format!("{n}.key")]).collect();
    into.push_str(&format!("client = {clients:?}\n[{header}.header]\n"));
    for (name, value) in &model.headers {
        into.push_str(&format!("{name} = '''{}'''\n", value.replace('\'', "")));
    }
}

proptest! {
    #[test]
    fn never_panics(text in "\\PC{0,200}") {
        let _ = parse(Path::new("/"), &text);
    }

    #[test]
    fn what_was_written_is_read(models in prop::collection::vec(model(), 0..6)) {
        let mut models = models;
        let mut seen = std::collections::BTreeSet::new();
        models.retain(|model| seen.insert((model.tls, model.name.clone())));
        let mut text = "server = \"https://own.example\"\n".to_owned();
        models.iter().for_each(|model| write(model, &mut text));
        let entries = parse(Path::new("/d"), &text).unwrap();
        prop_assert_eq!(entries.len(), models.len() + 1);
        for (entry, model) in entries.iter().zip(&models) {
            let location = entry.location.as_ref().unwrap();
            prop_assert_eq!((location.scheme == Scheme::Https, &location.authority), (model.tls, &model.name));
            let mut expected = Capabilities::NONE;
            model.capabilities.iter().for_each(|name| assert!(expected.add(name)));
            let expected = if model.capabilities.is_empty() { Capabilities::ALL } else { expected };
            prop_assert_eq!(entry.capabilities, expected);
            prop_assert_eq!(entry.skip_verify, model.skip_verify);
            prop_assert_eq!(entry.clients.len(), model.clients);
            let timeout = model.milliseconds.map(|milliseconds| Duration::from_millis(milliseconds.into()));
            prop_assert_eq!(entry.dial_timeout, timeout);
            let headers: Vec<_> =
                model.headers.iter().map(|(name, value)| (name.clone(), value.replace('\'', ""))).collect();
            prop_assert_eq!(&entry.headers.0, &headers);
        }
    }
}

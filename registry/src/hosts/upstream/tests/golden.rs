//! The hosts that containerd's own library finds in a file, kept with the sources in `testdata/hosts.jsonl`, are those
//! that we find in it.

use std::{collections::BTreeMap, fs, path::Path};

use serde::Deserialize;

use super::{super::*, api_host, settings};

/// What containerd makes of a file.
#[derive(Deserialize)]
struct Golden {
    registry: String,
    directory: String,
    text: String,
    /// None if it refuses.
    hosts: Option<Vec<Host>>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Host {
    scheme: String,
    host: String,
    path: String,
    capabilities: u8,
    header: Option<BTreeMap<String, Vec<String>>>,
    skip_verify: bool,
    fallback: bool,
}

impl Host {
    /// What does not matter is made the same: a path's slashes, empty headers, whether certificates count (which
    /// containerd does not tell of a host that may speak in clear text).
    fn normal(mut self) -> Self {
        let parts: Vec<_> = self.path.split('/').filter(|part| !part.is_empty()).collect();
        self.path = parts.join("/");
        self.header.get_or_insert_default().retain(|_, values| !values.is_empty());
        self.skip_verify &= !self.fallback;
        self
    }
}

impl From<&Upstream> for Host {
    fn from(upstream: &Upstream) -> Self {
        let Capabilities { pull, resolve, push, referrers } = upstream.capabilities;
        let bits = [pull, resolve, push, referrers].into_iter().enumerate();
        let mut header: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (name, value) in &upstream.headers.0 {
            header.entry(name.clone()).or_default().push(value.clone());
        }
        let fallback = upstream.doubt != Doubt::None;
        Self {
            scheme: if fallback { "https" } else { upstream.base.scheme() }.to_owned(),
            host: upstream.authority.clone(),
            path: upstream.base.path().to_owned(),
            capabilities: bits.map(|(bit, has)| u8::from(has) << bit).sum(),
            header: Some(header),
            skip_verify: upstream.connection.skip_verify,
            fallback,
        }
    }
}

/// A host whose tables are not beside each other is listed twice by containerd, which then asks it twice.
fn once(hosts: impl Iterator<Item = Host>) -> Vec<Host> {
    let mut all = Vec::new();
    for host in hosts.map(Host::normal) {
        if !all.contains(&host) {
            all.push(host);
        }
    }
    all
}

#[test]
fn files_are_read_as_containerd_reads_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/hosts.jsonl");
    let lines = fs::read_to_string(path).unwrap();
    let mut count = 0;
    for line in lines.lines() {
        let golden: Golden = serde_json::from_str(line).unwrap();
        let (_root, config) = settings(&[(&format!("{}/hosts.toml", golden.directory), &golden.text)]);
        let ours = describe(&golden.registry, api_host(&golden.registry), &config);
        let ours = ours.map(|described| once(described.upstreams.iter().map(Host::from))).ok();
        let theirs = golden.hosts.map(|hosts| once(hosts.into_iter()));
        assert_eq!(ours, theirs, "{}:\n{}", golden.registry, golden.text);
        count += 1;
    }
    assert!(count > 200, "{count}");
}

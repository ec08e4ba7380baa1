//! The hosts of one registry as they are asked: what every file and setting says of them, put together.
//!
//! Our own configuration decides if it names mirrors, else the registry's `certs.d` directory; Docker's `daemon.json`
//! counts where neither says anything. What is left open is filled in as containerd does it.

use std::{path::PathBuf, time::Duration};

use url::Url;

use super::{
    directory,
    docker_daemon::DockerDaemon,
    entry::{Capabilities, Headers, HostEntry, KeyPair},
    location::{Location, Scheme, port},
};
use crate::{
    config::{HostConfig, Mirror, RegistryConfig},
    endpoint::is_loopback,
    stamp::Stamp,
};

/// The only registry whose protocol another host speaks.
const DOCKER_IO: &str = "docker.io";
/// What that host is called, and was.
const DOCKER_IO_HOSTS: [&str; 3] = ["docker.io", "registry-1.docker.io", "index.docker.io"];

/// A host and how it is talked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upstream {
    /// The address under which repositories are found, with a slash at its end.
    pub(crate) base: Url,
    /// The host and port as they were written.
    pub(crate) authority: String,
    /// The registry itself; others are told which registry is meant.
    pub(crate) itself: bool,
    pub(crate) capabilities: Capabilities,
    pub(crate) headers: Headers,
    pub(crate) connection: Connection,
    /// What to do if it does not speak as `base` says.
    pub(crate) doubt: Doubt,
}

/// Whether a host may turn out to speak TLS, or not to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// It speaks as its address says.
    None,
    /// Named with `http`, and with settings for TLS: TLS is tried first.
    TlsFirst,
    /// On this machine, and nothing is said of it: TLS is tried, without looking at the certificate, if clear text is
    /// not understood.
    PlainFirst,
}

/// What tells one way of connecting from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Connection {
    /// Files with authorities to trust beside those of all hosts.
    pub(crate) ca: Vec<Stamped>,
    /// Certificates that we show, and their keys where they are in another file.
    pub(crate) clients: Vec<(Stamped, Option<Stamped>)>,
    /// Any certificate is good enough.
    pub(crate) skip_verify: bool,
    /// How long connecting may take, if not as long as with others; zero for as long as it takes.
    pub(crate) connect_timeout: Option<Duration>,
    /// How long the host may be silent, if not as long as others.
    pub(crate) silence: Option<Duration>,
}

/// A file at one moment: a new certificate in its place makes new connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Stamped {
    pub(crate) path: PathBuf,
    stamp: Option<Stamp>,
}

/// What was found for a registry.
#[derive(Debug)]
pub(crate) struct Described {
    /// In the order in which they are asked.
    pub(crate) upstreams: Vec<Upstream>,
    /// What could not be used, for people to read.
    pub(crate) problems: Vec<String>,
}

/// The hosts that serve what is named `host`, whose protocol `api_host` speaks. Files are read.
///
/// # Errors
/// A directory or file that is there and cannot be read: going on without what it says could mean to ask a host that it
/// keeps us from.
pub(crate) fn describe(host: &str, api_host: &str, config: &RegistryConfig) -> Result<Described, String> {
    let fill = Fill { host, api_host, own: config.hosts.get(host) };
    let mut problems = Vec::new();
    let mirrors = fill.own.map(|own| own.mirrors.as_slice()).unwrap_or_default();
    if !mirrors.is_empty() {
        let upstreams = fill.configured(mirrors, &mut problems);
        return Ok(Described { upstreams, problems });
    }
    let described = directory::read(&config.host_directories, host).map_err(|error| error.to_string())?;
    let entries = match described {
        Some(described) => {
            problems.extend(described.problem.map(|problem| problem.to_string()));
            described.entries
        }
        None => vec![HostEntry::default()],
    };
    let docker = match (&config.docker_daemon, entries.as_slice()) {
        (Some(path), [only]) if only.location.is_none() => match DockerDaemon::read(path) {
            Ok(docker) => docker,
            Err(error) => {
                problems.push(error.to_string());
                DockerDaemon::default()
            }
        },
        _ => DockerDaemon::default(),
    };
    let mut upstreams = Vec::new();
    if host == DOCKER_IO {
        upstreams.extend(fill.docker_mirrors(&docker, &mut problems));
    }
    let last = entries.len().saturating_sub(1);
    for (n, entry) in entries.into_iter().enumerate() {
        if entry.location.is_none() && n < last {
            problems.push(format!("a mirror of {host} has no host in its address and is left out"));
            continue;
        }
        match fill.upstream(entry, docker.is_insecure(host)) {
            Some(upstream) => upstreams.push(upstream),
            None => problems.push(format!("{host} has a host whose address is no URL, which is left out")),
        }
    }
    Ok(Described { upstreams, problems })
}

// === impl Upstream ===

impl Upstream {
    /// What the host is called in messages and where credentials are kept, as a host of `registry`: the registry's own
    /// name, or the mirror's.
    pub(crate) fn name<'a>(&'a self, registry: &'a str) -> &'a str {
        let of_docker = registry == DOCKER_IO && DOCKER_IO_HOSTS.contains(&self.authority.as_str());
        if self.itself || of_docker || self.means(registry) { registry } else { &self.authority }
    }

    /// Whether `registry` is this host's address in other words: letters of another case, or the scheme's own port.
    fn means(&self, registry: &str) -> bool {
        let usual = if self.base.scheme() == "https" { ":443" } else { ":80" };
        let plain = |authority: &str| {
            let authority = authority.to_ascii_lowercase();
            authority.strip_suffix(usual).map(str::to_owned).unwrap_or(authority)
        };
        plain(&self.authority) == plain(registry)
    }

    /// The port in the host's address, if one was written.
    pub(crate) fn port(&self) -> Option<&str> {
        port(&self.authority)
    }
}

/// What an entry is completed from.
struct Fill<'a> {
    host: &'a str,
    api_host: &'a str,
    own: Option<&'a HostConfig>,
}

// === impl Fill ===

impl Fill<'_> {
    /// The mirrors of our own configuration, and the registry itself where it is named or at the end.
    fn configured(&self, mirrors: &[Mirror], problems: &mut Vec<String>) -> Vec<Upstream> {
        let mut upstreams = Vec::new();
        for mirror in mirrors {
            let upstream = if mirror.host == self.host { self.itself() } else { self.mirror(mirror) };
            match upstream {
                Some(upstream) => upstreams.push(upstream),
                None => problems.push(format!("the mirror {:?} of {} is no host", mirror.host, self.host)),
            }
        }
        if !mirrors.iter().any(|mirror| mirror.host == self.host) {
            upstreams.extend(self.itself());
        }
        upstreams
    }

    fn itself(&self) -> Option<Upstream> {
        self.upstream(HostEntry::default(), false)
    }

    fn mirror(&self, mirror: &Mirror) -> Option<Upstream> {
        let authority = if mirror.host == DOCKER_IO { "registry-1.docker.io" } else { &mirror.host };
        let scheme = match mirror.scheme {
            Some(scheme) => scheme,
            None if is_local(authority) => Scheme::Http,
            None => Scheme::Https,
        };
        let location = Location::parse(&format!("{}://{authority}", scheme.as_str()), false).ok()??;
        let headers = Headers(mirror.headers.clone());
        let entry = HostEntry {
            location: Some(location),
            capabilities: Capabilities::READ,
            headers,
            ..HostEntry::default()
        };
        let mut upstream = self.upstream(entry, false)?;
        upstream.connection.silence = mirror.silence;
        Some(upstream)
    }

    fn docker_mirrors(&self, docker: &DockerDaemon, problems: &mut Vec<String>) -> Vec<Upstream> {
        let mut upstreams = Vec::new();
        for address in &docker.mirrors {
            match self.docker_mirror(address, docker) {
                Ok(upstream) => upstreams.push(upstream),
                Err(why) => problems.push(format!("a mirror of Docker's daemon.json is left out: {why}")),
            }
        }
        upstreams
    }

    fn docker_mirror(&self, address: &str, docker: &DockerDaemon) -> Result<Upstream, String> {
        let location = Location::parse(address, false).map_err(|error| error.to_string())?;
        let location = location.ok_or("its address has no host")?;
        let insecure = docker.is_insecure(&location.authority);
        let skip_verify = insecure.then_some(true);
        let location = Some(location);
        let entry =
            HostEntry { location, capabilities: Capabilities::READ, skip_verify, ..HostEntry::default() };
        let mut upstream = self.upstream(entry, false).ok_or("its address is no URL")?;
        if insecure && upstream.base.scheme() == "https" {
            upstream.doubt = Doubt::TlsFirst;
        }
        Ok(upstream)
    }

    /// Completes an entry; `None` if its address is no URL.
    fn upstream(&self, mut entry: HostEntry, insecure: bool) -> Option<Upstream> {
        let (location, doubt) = match entry.location.take() {
            Some(location) => {
                let ambiguous = location.scheme == Scheme::Http && location.port() != Some("80");
                let doubt = if ambiguous && entry.speaks_of_tls() { Doubt::TlsFirst } else { Doubt::None };
                (location, doubt)
            }
            None => {
                entry.capabilities = Capabilities::ALL;
                self.own_location(&mut entry, insecure)
            }
        };
        let itself = location.authority == self.host || location.authority == self.api_host;
        let mut headers = entry.headers.0;
        if let Some(own) = self.own.filter(|_| itself) {
            headers.extend(own.headers.iter().cloned());
        }
        let mut base = location.url()?;
        if doubt == Doubt::TlsFirst {
            base.set_scheme("https").ok()?;
        }
        let connection = Connection {
            ca: entry.ca.unwrap_or_default().into_iter().map(Stamped::new).collect(),
            clients: entry.clients.into_iter().map(stamped).collect(),
            skip_verify: entry.skip_verify.unwrap_or(false),
            connect_timeout: entry.dial_timeout,
            silence: None,
        };
        Some(Upstream {
            base,
            authority: location.authority,
            itself,
            capabilities: entry.capabilities,
            headers: Headers(headers),
            connection,
            doubt,
        })
    }

    /// Where the registry itself is: TLS for all but this machine.
    fn own_location(&self, entry: &mut HostEntry, insecure: bool) -> (Location, Doubt) {
        let at = |scheme| Location { scheme, authority: self.api_host.to_owned(), path: "/v2".to_owned() };
        if let Some(scheme) = self.own.and_then(|own| own.scheme) {
            return (at(scheme), Doubt::None);
        }
        if insecure {
            entry.skip_verify = Some(true);
            return (at(Scheme::Http), Doubt::TlsFirst);
        }
        if !is_local(self.api_host) {
            return (at(Scheme::Https), Doubt::None);
        }
        let port = at(Scheme::Http).port().map(str::to_owned);
        let speaks_of_tls = entry.speaks_of_tls();
        if port.as_deref() != Some("80") {
            entry.skip_verify = Some(true);
        }
        match port.as_deref() {
            None | Some("443") => (at(Scheme::Https), Doubt::None),
            Some("80") => (at(Scheme::Http), Doubt::None),
            Some(_) if speaks_of_tls => (at(Scheme::Http), Doubt::TlsFirst),
            Some(_) => (at(Scheme::Http), Doubt::PlainFirst),
        }
    }
}

/// Whether `authority` is this machine, as far as its name tells.
fn is_local(authority: &str) -> bool {
    Url::parse(&format!("http://{authority}/")).is_ok_and(|url| is_loopback(&url))
}

fn stamped(pair: KeyPair) -> (Stamped, Option<Stamped>) {
    (Stamped::new(pair.certificate), pair.key.map(Stamped::new))
}

// === impl Stamped ===

impl Stamped {
    fn new(path: PathBuf) -> Self {
        // One that cannot be looked at is as one that is not there: reading it says why.
        let stamp = Stamp::read(&path).ok().flatten();
        Self { path, stamp }
    }
}

#[cfg(test)]
mod tests;

//! Which hosts serve a registry's content, in what order, and how each is talked to.
//!
//! The words of administrators for this are containerd's `certs.d` directories, Docker's `daemon.json` and our own
//! configuration; all of them become a list of upstreams, the registry itself among them. What is in files is read
//! again while the daemon runs. Which of the hosts works, and which is trusted, is not known here.

mod directory;
mod docker_daemon;
mod duration;
mod entry;
mod file;
mod location;
mod upstream;

pub(crate) use entry::{Capabilities, Headers};
pub use location::Scheme;
pub(crate) use upstream::{Connection, Described, Doubt, Stamped, Upstream, describe};

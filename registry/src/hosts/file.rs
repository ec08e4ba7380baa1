//! `hosts.toml`: what an administrator says of the hosts of one registry.
//!
//! Read as containerd 2.4 reads it (its `core/remotes/docker/config` is the only definition), so that one file serves
//! both: hosts are tried in the order in which their tables are opened, what stands outside of these tables belongs to
//! `server`, which comes last, and one value of the wrong type makes the whole file unusable. Keys that are not known
//! are passed over, and the case of those that are known does not matter. A host that is given without a table header of
//! its own (`host."…".capabilities = …`) is passed over too, for containerd does so.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    duration,
    entry::{Capabilities, Headers, HostEntry, KeyPair},
    location::{InvalidLocation, Location},
};

/// Larger files are refused; real ones have a few lines for each mirror.
pub(crate) const MAX_LEN: usize = 1 << 20;

/// Why a `hosts.toml` cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum InvalidHostsFile {
    /// It is too long to be one.
    #[error("it is longer than {MAX_LEN} bytes")]
    TooLong,
    /// It is not TOML.
    #[error("it is not valid TOML: {0}")]
    Syntax(String),
    /// A value of another type than its key takes.
    #[error("{key:?} takes {expected}")]
    Type {
        /// The key.
        key: String,
        /// What it takes.
        expected: &'static str,
    },
    /// A capability that nobody knows.
    #[error("{0:?} is not a capability: pull, resolve, push and referrers are")]
    Capability(String),
    /// A host's address.
    #[error(transparent)]
    Location(#[from] InvalidLocation),
    /// A time that is none.
    #[error("{0:?} is not a duration such as 3s or 1m30s")]
    Duration(String),
}

/// The hosts of the file in the order in which they are asked, the registry's own server last. Relative paths in the
/// file begin at `directory`.
///
/// # Errors
/// Anything in the file that containerd would not take.
pub(crate) fn parse(directory: &Path, text: &str) -> Result<Vec<HostEntry>, InvalidHostsFile> {
    if text.len() > MAX_LEN {
        return Err(InvalidHostsFile::TooLong);
    }
    let document =
        DeTable::parse(text).map_err(|error| InvalidHostsFile::Syntax(error.message().to_owned()))?;
    let document = document.get_ref();
    let mut entries = Vec::new();
    for (address, table) in in_order(text, document)? {
        entries.push(host(address, table, directory)?);
    }
    let server = match get(document, "server") {
        Some(value) => string("server", value)?,
        None => "",
    };
    entries.push(host(server, document, directory)?);
    Ok(entries)
}

/// The tables of `host` that have a header, in the order of the first header that names them.
fn in_order<'a, 'i>(
    text: &str,
    document: &'a DeTable<'i>,
) -> Result<Vec<(&'a str, &'a DeTable<'i>)>, InvalidHostsFile> {
    let Some(hosts) = document.get("host") else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for (address, value) in table("host", hosts.get_ref())? {
        let table = table("host", value.get_ref())?;
        // A header `[host."…".header]` that comes first is where that key is.
        let places = table.keys().map(Spanned::span).chain([address.span()]).map(|span| span.start);
        if let Some(at) = places.filter(|at| is_in_header(text, *at)).min() {
            found.push((at, address.get_ref().as_ref(), table));
        }
    }
    found.sort_by_key(|(at, ..)| *at);
    Ok(found.into_iter().map(|(_, address, table)| (address, table)).collect())
}

/// Whether the key at `at` stands in the header of a table.
fn is_in_header(text: &str, at: usize) -> bool {
    let line = text.get(..at).and_then(|before| before.rsplit('\n').next()).unwrap_or_default();
    line.trim_start().starts_with('[')
}

fn host(address: &str, table: &DeTable<'_>, directory: &Path) -> Result<HostEntry, InvalidHostsFile> {
    let exact = match get(table, "override_path") {
        Some(value) => boolean("override_path", value)?,
        None => false,
    };
    Ok(HostEntry {
        location: if address.is_empty() { None } else { Location::parse(address, exact)? },
        capabilities: get(table, "capabilities").map_or(Ok(Capabilities::ALL), capabilities)?,
        ca: get(table, "ca").map(|value| authorities(value, directory)).transpose()?,
        clients: get(table, "client").map_or(Ok(Vec::new()), |value| clients(value, directory))?,
        skip_verify: get(table, "skip_verify").map(|value| boolean("skip_verify", value)).transpose()?,
        headers: get(table, "header").map_or(Ok(Headers::default()), headers)?,
        dial_timeout: get(table, "dial_timeout").map_or(Ok(None), dial_timeout)?,
    })
}

/// The value of a key, in whatever case it was written.
fn get<'a, 'i>(table: &'a DeTable<'i>, key: &str) -> Option<&'a DeValue<'i>> {
    let any = || table.iter().find(|(name, _)| name.get_ref().to_lowercase() == key).map(|(_, value)| value);
    table.get(key).or_else(any).map(Spanned::get_ref)
}

fn capabilities(value: &DeValue<'_>) -> Result<Capabilities, InvalidHostsFile> {
    let names = strings("capabilities", value)?;
    if names.is_empty() {
        return Ok(Capabilities::ALL);
    }
    let mut all = Capabilities::NONE;
    for name in names {
        if !all.add(name) {
            return Err(InvalidHostsFile::Capability(name.to_owned()));
        }
    }
    Ok(all)
}

fn authorities(value: &DeValue<'_>, directory: &Path) -> Result<Vec<PathBuf>, InvalidHostsFile> {
    let names = match value {
        DeValue::String(name) => vec![name.as_ref()],
        other => strings("ca", other)?,
    };
    Ok(names.into_iter().map(|name| directory.join(name)).collect())
}

/// A file that holds certificate and key, or a list of such files and of pairs of files.
fn clients(value: &DeValue<'_>, directory: &Path) -> Result<Vec<KeyPair>, InvalidHostsFile> {
    let expected = "a file, or a list of files and of pairs of certificate and key";
    let invalid = || InvalidHostsFile::Type { key: "client".to_owned(), expected };
    let one = |name: &str| KeyPair { certificate: directory.join(name), key: None };
    let list = match value {
        DeValue::String(name) => return Ok(vec![one(name)]),
        other => other.as_array().ok_or_else(invalid)?,
    };
    let mut pairs = Vec::new();
    for item in list {
        pairs.push(match item.get_ref() {
            DeValue::String(name) => one(name),
            pair => match strings("client", pair)?.as_slice() {
                [certificate, ""] => one(certificate),
                [certificate, key] => {
                    KeyPair { certificate: directory.join(certificate), key: Some(directory.join(key)) }
                }
                _ => return Err(invalid()),
            },
        });
    }
    Ok(pairs)
}

fn headers(value: &DeValue<'_>) -> Result<Headers, InvalidHostsFile> {
    let mut all = Vec::new();
    for (name, value) in table("header", value)? {
        let values = match value.get_ref() {
            DeValue::String(value) => vec![value.as_ref()],
            other => strings("header", other)?,
        };
        all.extend(values.into_iter().map(|value| (name.get_ref().to_string(), value.to_owned())));
    }
    Ok(Headers(all))
}

fn dial_timeout(value: &DeValue<'_>) -> Result<Option<Duration>, InvalidHostsFile> {
    match string("dial_timeout", value)? {
        "" => Ok(None),
        text => duration::parse(text).map(Some).ok_or_else(|| InvalidHostsFile::Duration(text.to_owned())),
    }
}

fn table<'a, 'i>(key: &str, value: &'a DeValue<'i>) -> Result<&'a DeTable<'i>, InvalidHostsFile> {
    value.as_table().ok_or_else(|| InvalidHostsFile::Type { key: key.to_owned(), expected: "a table" })
}

fn boolean(key: &str, value: &DeValue<'_>) -> Result<bool, InvalidHostsFile> {
    value.as_bool().ok_or_else(|| InvalidHostsFile::Type { key: key.to_owned(), expected: "true or false" })
}

fn string<'a>(key: &str, value: &'a DeValue<'_>) -> Result<&'a str, InvalidHostsFile> {
    value.as_str().ok_or_else(|| InvalidHostsFile::Type { key: key.to_owned(), expected: "a string" })
}

fn strings<'a>(key: &str, value: &'a DeValue<'_>) -> Result<Vec<&'a str>, InvalidHostsFile> {
    let expected = if key == "capabilities" { "a list of strings" } else { "a string or a list of strings" };
    let invalid = || InvalidHostsFile::Type { key: key.to_owned(), expected };
    let list = value.as_array().ok_or_else(invalid)?;
    list.iter().map(|item| item.get_ref().as_str().ok_or_else(invalid)).collect()
}

#[cfg(test)]
mod tests;

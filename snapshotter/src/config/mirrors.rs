//! `[resolver.host."<host>"]`: where else a registry's content can be had.

use std::{collections::BTreeMap, ops::RangeInclusive};

use toml::de::{DeTable, DeValue};

use super::setting::{Setting, found};

/// Per registry host, what the file says of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hosts(pub BTreeMap<String, Vec<Mirror>>);

/// One mirror of a registry, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mirror {
    /// The mirror's host, with a port if it needs one.
    pub host: String,
    /// Spoken to without TLS.
    pub insecure: bool,
    /// The time for one request in seconds; 0 means the general one, below 0 means no limit.
    pub request_timeout_sec: i64,
    /// Headers to send, each with its values.
    pub header: BTreeMap<String, Vec<String>>,
}

/// The keys that a mirror may have.
const MIRROR_KEYS: [&str; 4] = ["host", "insecure", "request_timeout_sec", "header"];

impl Hosts {
    /// Registries that name themselves as their own mirror with `insecure = true`, which is how stargz-snapshotter's
    /// configuration calls a registry insecure.
    pub fn insecure(&self) -> impl Iterator<Item = &str> {
        let own = |(host, mirrors): &(&String, &Vec<Mirror>)| {
            mirrors.iter().any(|mirror| mirror.insecure && mirror.host == **host)
        };
        self.0.iter().filter(own).map(|(host, _)| host.as_str())
    }

    /// Headers of the entries by which a host names itself.
    pub fn own_headers(&self) -> impl Iterator<Item = (&str, &BTreeMap<String, Vec<String>>)> {
        self.0.iter().flat_map(|(host, mirrors)| {
            let own = mirrors.iter().filter(move |mirror| mirror.host == *host);
            own.map(move |mirror| (host.as_str(), &mirror.header))
        })
    }

    /// Hosts that have a mirror other than themselves.
    pub fn mirrored(&self) -> impl Iterator<Item = (&str, &[Mirror])> {
        let real =
            |(host, mirrors): &(&String, &Vec<Mirror>)| mirrors.iter().any(|mirror| mirror.host != **host);
        self.0.iter().filter(real).map(|(host, mirrors)| (host.as_str(), mirrors.as_slice()))
    }
}

impl Setting for Hosts {
    fn type_name(&self) -> &'static str {
        "table"
    }

    fn show(&self) -> String {
        "none".to_owned()
    }

    fn read(&mut self, value: &DeValue<'_>, _: &RangeInclusive<u64>) -> Result<(), String> {
        for (host, value) in table(value, "resolver.host")? {
            let mut mirrors = Vec::new();
            for (key, value) in table(value.get_ref(), host.get_ref())? {
                if key.get_ref() != "mirrors" {
                    return Err(format!(
                        "only the key \"mirrors\" for host {host}, not {key}",
                        key = key.get_ref(),
                        host = host.get_ref()
                    ));
                }
                let list = value
                    .get_ref()
                    .as_array()
                    .ok_or_else(|| format!("a list of mirrors, not {}", found(value.get_ref())))?;
                for entry in list {
                    mirrors.push(mirror(entry.get_ref())?);
                }
            }
            self.0.insert(host.get_ref().to_string(), mirrors);
        }
        Ok(())
    }
}

fn mirror(value: &DeValue<'_>) -> Result<Mirror, String> {
    let mut mirror = Mirror::default();
    for (key, value) in table(value, "mirror")? {
        let value = value.get_ref();
        match key.get_ref().as_ref() {
            "host" => mirror.host = text(value)?,
            "insecure" => {
                mirror.insecure =
                    value.as_bool().ok_or_else(|| format!("true or false, not {}", found(value)))?
            }
            "request_timeout_sec" => mirror.request_timeout_sec = signed(value)?,
            "header" => mirror.header = header(value)?,
            other => {
                let known = MIRROR_KEYS.join(", ");
                return Err(format!("mirrors with the keys {known}, not {other:?}"));
            }
        }
    }
    if mirror.host.is_empty() {
        return Err("a mirror with a host".to_owned());
    }
    Ok(mirror)
}

fn header(value: &DeValue<'_>) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut headers = BTreeMap::new();
    for (name, value) in table(value, "header")? {
        let values = match value.get_ref() {
            DeValue::Array(list) => list.iter().map(|item| text(item.get_ref())).collect::<Result<_, _>>()?,
            other => vec![text(other)?],
        };
        headers.insert(name.get_ref().to_string(), values);
    }
    Ok(headers)
}

fn table<'a, 'i>(value: &'a DeValue<'i>, what: &str) -> Result<&'a DeTable<'i>, String> {
    value.as_table().ok_or_else(|| format!("a table for {what}, not {}", found(value)))
}

fn text(value: &DeValue<'_>) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("a string, not {}", found(value)))
}

fn signed(value: &DeValue<'_>) -> Result<i64, String> {
    let number = value.as_integer().and_then(|n| i64::from_str_radix(n.as_str(), n.radix()).ok());
    number.ok_or_else(|| format!("a whole number, not {}", found(value)))
}

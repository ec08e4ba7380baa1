//! A secret as the API gives it, and the logins in it.

use std::collections::HashMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;

use super::super::{Credentials, entry::Entry};

/// The two forms of image pull secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SecretType {
    /// Docker's `config.json`.
    DockerConfigJson,
    /// Docker's older `.dockercfg`, which is the `auths` of the other.
    DockerCfg,
}

/// What names a secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct Name {
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) name: String,
}

/// A secret, as far as it is looked into.
#[derive(Deserialize)]
pub(super) struct Secret {
    #[serde(default)]
    pub(super) metadata: Option<Metadata>,
    #[serde(default)]
    data: Option<HashMap<String, Option<String>>>,
}

/// Of a secret, or of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    #[serde(flatten)]
    pub(super) name: Option<Name>,
    #[serde(default)]
    pub(super) resource_version: String,
    #[serde(default, rename = "continue")]
    pub(super) more: Option<String>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: Option<HashMap<String, Entry>>,
}

// === impl SecretType ===

impl SecretType {
    /// As in the secret's `type`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::DockerConfigJson => "kubernetes.io/dockerconfigjson",
            Self::DockerCfg => "kubernetes.io/dockercfg",
        }
    }

    const fn key(self) -> &'static str {
        match self {
            Self::DockerConfigJson => ".dockerconfigjson",
            Self::DockerCfg => ".dockercfg",
        }
    }

    fn entries(self, text: &[u8]) -> Option<HashMap<String, Entry>> {
        match self {
            Self::DockerConfigJson => serde_json::from_slice::<Config>(text).ok()?.auths,
            Self::DockerCfg => serde_json::from_slice(text).ok(),
        }
    }
}

// === impl Secret ===

impl Secret {
    /// Its logins with their keys; none if it is malformed, as kubelet has it.
    pub(super) fn logins(&self, which: SecretType) -> Vec<(String, Credentials)> {
        let text = self.data.as_ref().and_then(|data| data.get(which.key())?.as_ref());
        let text = text.and_then(|text| BASE64_STANDARD.decode(text).ok());
        let entries = text.and_then(|text| which.entries(&text)).unwrap_or_default();
        let entries = entries.into_iter().filter(|(_, entry)| !entry.is_empty());
        entries.filter_map(|(key, entry)| Some((key, entry.credentials()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials;

    fn logins(which: SecretType, key: &str, text: &str) -> Vec<(String, Credentials)> {
        let data = BASE64_STANDARD.encode(text);
        let json = format!(r#"{{"metadata":{{"name":"n","namespace":"s"}},"data":{{"{key}":"{data}"}}}}"#);
        serde_json::from_str::<Secret>(&json).unwrap().logins(which)
    }

    #[test]
    fn both_forms_are_read_and_malformed_ones_hold_nothing() {
        let password = credentials::Secret::new("p");
        let expected =
            vec![("example.com".to_owned(), Credentials::Password { username: "u".into(), password })];
        let auths =
            r#"{"example.com":{"username":"u","password":"p"},"empty.com":{},"bad.com":{"auth":"!"}}"#;
        let (json, cfg) = (SecretType::DockerConfigJson, SecretType::DockerCfg);
        assert_eq!(logins(json, ".dockerconfigjson", &format!(r#"{{"auths":{auths}}}"#)), expected);
        assert_eq!(logins(cfg, ".dockercfg", auths), expected);
        assert_eq!(logins(json, ".dockercfg", auths), []);
        assert_eq!(logins(json, ".dockerconfigjson", "nonsense"), []);
        assert_eq!(logins(json, ".dockerconfigjson", "{}"), []);
        let nothing: Secret = serde_json::from_str(r#"{"data":null}"#).unwrap();
        assert_eq!(nothing.logins(json), []);
    }
}

//! One login as Docker writes it, in `config.json` and in Kubernetes' secrets.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;

use super::{Credentials, Secret};

/// A login; every field may be missing, `null` or empty.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Entry {
    #[serde(default)]
    auth: Text,
    #[serde(default)]
    username: Text,
    #[serde(default)]
    password: Text,
    #[serde(default, rename = "identitytoken")]
    identity_token: Text,
    #[serde(default, rename = "registrytoken")]
    registry_token: Text,
}

/// A text that may be secret; `null` is the empty one.
#[derive(Default, Deserialize)]
#[serde(from = "Option<String>")]
struct Text(String);

// === impl Entry ===

impl Entry {
    /// Whether it says nothing.
    pub(super) fn is_empty(&self) -> bool {
        [&self.auth, &self.username, &self.password, &self.identity_token, &self.registry_token]
            .iter()
            .all(|text| text.0.is_empty())
    }

    /// The login; `None` if it is malformed.
    pub(super) fn credentials(&self) -> Option<Credentials> {
        if !self.registry_token.0.is_empty() {
            return Some(Credentials::RegistryToken(Secret::new(&self.registry_token.0)));
        }
        if !self.identity_token.0.is_empty() {
            return Some(Credentials::IdentityToken(Secret::new(&self.identity_token.0)));
        }
        let (username, password) = if self.auth.0.is_empty() {
            (self.username.0.clone(), self.password.0.clone())
        } else {
            decode_auth(&self.auth.0)?
        };
        Some(Credentials::Password { username, password: Secret::new(password) })
    }
}

/// `base64(user:password)`; the password may be padded with NUL bytes (docker/cli `decodeAuth`).
pub(super) fn decode_auth(auth: &str) -> Option<(String, String)> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decoded = GeneralPurpose::new(&alphabet::STANDARD, config).decode(auth.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (username, password) = text.split_once(':')?;
    Some((username.to_owned(), password.trim_matches('\0').to_owned()))
}

// === impl Text ===

impl From<Option<String>> for Text {
    fn from(text: Option<String>) -> Self {
        Self(text.unwrap_or_default())
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

//! `[credentials.hosts."<host>"]`: logins in our own configuration.
//!
//! No message repeats a value: it may be a secret in the wrong place.

use std::{collections::BTreeMap, ops::RangeInclusive, path::PathBuf};

use registry::{Credentials, Secret};
use toml::de::DeValue;

use super::setting::Setting;

/// Per registry host, as images name it, how to log in there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Logins(pub BTreeMap<String, HostLogin>);

/// How to log in to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostLogin {
    /// With what the file says.
    Fixed(Credentials),
    /// With a password that is read from a file for each login, so that it can be replaced.
    File {
        /// The user's name.
        username: String,
        /// The file; spaces and line ends around the password are not part of it.
        password_file: PathBuf,
    },
}

/// The keys of one host, as they were read.
#[derive(Default)]
struct Keys<'a> {
    username: Option<&'a str>,
    password: Option<&'a str>,
    password_file: Option<&'a str>,
    identity_token: Option<&'a str>,
    registry_token: Option<&'a str>,
}

/// What a host may have, for messages.
const EXPECTED: &str = "for each host `username` with `password` or `password_file`, or `identity_token`, or \
                        `registry_token`, as strings";

impl Setting for Logins {
    fn type_name(&self) -> &'static str {
        "table"
    }

    fn show(&self) -> String {
        "none".to_owned()
    }

    fn read(&mut self, value: &DeValue<'_>, _: &RangeInclusive<u64>) -> Result<(), String> {
        let hosts = value.as_table().ok_or_else(|| EXPECTED.to_owned())?;
        for (host, value) in hosts {
            let host = host.get_ref().to_string();
            let login = login(value.get_ref()).ok_or_else(|| format!("{EXPECTED}; see the host {host:?}"))?;
            self.0.insert(host, login);
        }
        Ok(())
    }
}

fn login(value: &DeValue<'_>) -> Option<HostLogin> {
    let mut keys = Keys::default();
    for (name, value) in value.as_table()? {
        let key = match name.get_ref().as_ref() {
            "username" => &mut keys.username,
            "password" => &mut keys.password,
            "password_file" => &mut keys.password_file,
            "identity_token" => &mut keys.identity_token,
            "registry_token" => &mut keys.registry_token,
            _ => return None,
        };
        *key = Some(value.get_ref().as_str()?);
    }
    let secret = |text: &str| Secret::new(text);
    let (username, fixed) = (keys.username.map(str::to_owned), HostLogin::Fixed);
    match (username, keys.password, keys.password_file, keys.identity_token, keys.registry_token) {
        (Some(username), Some(password), None, None, None) => {
            Some(fixed(Credentials::Password { username, password: secret(password) }))
        }
        (Some(username), None, Some(file), None, None) => {
            Some(HostLogin::File { username, password_file: absolute(file)? })
        }
        (None, None, None, Some(token), None) => Some(fixed(Credentials::IdentityToken(secret(token)))),
        (None, None, None, None, Some(token)) => Some(fixed(Credentials::RegistryToken(secret(token)))),
        _ => None,
    }
}

fn absolute(path: &str) -> Option<PathBuf> {
    Some(PathBuf::from(path)).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn parse(text: &str) -> Result<Logins, String> {
        let loaded = Config::parse(text, Path::new("/etc/x.toml"));
        loaded.map(|loaded| loaded.config.credentials.hosts).map_err(|error| format!("{error} {error:?}"))
    }

    #[test]
    fn every_kind_of_login_is_read_and_none_is_shown() {
        let logins = parse(
            r#"
            [credentials.hosts."a.com:5000"]
            username = "me"
            password = "planted"
            [credentials.hosts."b.com"]
            username = "me"
            password_file = "/run/secrets/b"
            [credentials.hosts."c.com"]
            identity_token = "planted"
            [credentials.hosts."d.com"]
            registry_token = "planted"
            "#,
        )
        .unwrap();
        let planted = || Secret::new("planted");
        let password = Credentials::Password { username: "me".into(), password: planted() };
        let file = HostLogin::File { username: "me".into(), password_file: "/run/secrets/b".into() };
        assert_eq!(logins.0["a.com:5000"], HostLogin::Fixed(password));
        assert_eq!(logins.0["b.com"], file);
        assert_eq!(logins.0["c.com"], HostLogin::Fixed(Credentials::IdentityToken(planted())));
        assert_eq!(logins.0["d.com"], HostLogin::Fixed(Credentials::RegistryToken(planted())));
        assert!(!format!("{logins:?}").contains("planted"));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_value() {
        for text in [
            "credentials.hosts = \"planted\"",
            "credentials.hosts.\"a.com\" = \"planted\"",
            "credentials.hosts.\"a.com\" = {}",
            "credentials.hosts.\"a.com\".password = \"planted\"",
            "credentials.hosts.\"a.com\" = { username = \"u\", password = [\"planted\"] }",
            "credentials.hosts.\"a.com\" = { username = \"u\", pasword = \"planted\" }",
            "credentials.hosts.\"a.com\" = { username = \"u\", password = \"planted\", registry_token = \"x\" }",
            "credentials.hosts.\"a.com\" = { username = \"u\", password_file = \"planted\" }",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains("takes for each host") && !error.contains("planted"), "{error}");
        }
    }
}

//! kubelet's `CredentialProviderConfig`, in YAML or JSON, in a file or a directory of files.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use tracing::warn;

use super::{
    super::{CredentialError, CredentialQuery, Secret, pattern::Pattern},
    duration,
};
use crate::{regular_file, stamp::Stamp};

/// No sane configuration is larger.
const MAX_FILE: u64 = 1 << 20;
/// The group of the plugins' protocol; its versions differ in nothing that matters here.
const PROTOCOL: &str = "credentialprovider.kubelet.k8s.io/";

/// A program that may know credentials.
#[derive(Debug)]
pub(super) struct Provider {
    /// Its name in the directory of programs.
    pub(super) name: String,
    pub(super) api_version: String,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, Secret)>,
    /// How long an answer is kept that does not say it itself.
    pub(super) keep: Duration,
    images: Vec<Pattern>,
}

/// The providers, and the files that they were read from.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    files: Vec<(PathBuf, Stamp)>,
    pub(super) providers: Arc<[Provider]>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    providers: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    name: String,
    #[serde(default)]
    match_images: Option<Vec<String>>,
    #[serde(default)]
    default_cache_duration: Option<String>,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    args: Option<Vec<String>>,
    #[serde(default)]
    env: Option<Vec<Variable>>,
    #[serde(default)]
    token_attributes: Option<TokenAttributes>,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
    #[serde(default)]
    value: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenAttributes {
    #[serde(default)]
    require_service_account: Option<bool>,
}

// === impl Loaded ===

impl Loaded {
    /// The configuration at `path`, `known` itself if nothing has changed since.
    pub(super) fn read(path: &Path, known: Option<Self>) -> Result<Self, CredentialError> {
        let failed = |cause| unread(path, cause);
        let files = files(path).map_err(failed)?;
        if let Some(known) = known.filter(|known| known.files == files) {
            return Ok(known);
        }
        let mut providers: Vec<Provider> = Vec::new();
        for (file, stamp) in &files {
            if stamp.len() > MAX_FILE {
                return Err(unusable(file, "is too large to be a configuration"));
            }
            let text = regular_file::read(file, MAX_FILE).map_err(failed)?;
            let text = str::from_utf8(&text).map_err(|_| unusable(file, "is not readable"))?;
            for provider in parse(text, file)? {
                if providers.iter().any(|known| known.name == provider.name) {
                    return Err(unusable(file, &format!("names the provider {:?} again", provider.name)));
                }
                providers.push(provider);
            }
        }
        Ok(Self { files, providers: providers.into() })
    }
}

/// The file, or the files of the directory that kubelet would read, in its order.
fn files(path: &Path) -> io::Result<Vec<(PathBuf, Stamp)>> {
    let mut paths = vec![path.to_owned()];
    if fs::metadata(path)?.is_dir() {
        let entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        let read = |path: &PathBuf| {
            path.extension().is_some_and(|end| ["json", "yaml", "yml"].iter().any(|known| end == *known))
        };
        paths = entries.into_iter().filter(read).collect();
        paths.sort();
    }
    let stamped = |path: PathBuf| Ok(Stamp::read(&path)?.map(|stamp| (path, stamp)));
    paths.into_iter().map(stamped).filter_map(io::Result::transpose).collect()
}

fn parse(text: &str, path: &Path) -> Result<Vec<Provider>, CredentialError> {
    // The parser's own message may quote the file, whose variables may be secrets.
    let document: Document = serde_saphyr::from_str(text).map_err(|error| match error.location() {
        Some(place) => unusable(path, &format!("is not readable: see line {}", place.line())),
        None => unusable(path, "is not readable"),
    })?;
    if document.kind != "CredentialProviderConfig" {
        return Err(unusable(path, "is not of the kind CredentialProviderConfig"));
    }
    let entries = document.providers.unwrap_or_default();
    let providers = entries.into_iter().map(|entry| {
        let name = entry.name.clone();
        entry.provider().map_err(|why| unusable(path, &format!("has a provider {name:?} that {why}")))
    });
    providers.filter_map(Result::transpose).collect()
}

/// The configuration at `path` cannot be read.
pub(super) fn unread(path: &Path, cause: io::Error) -> CredentialError {
    CredentialError::unread(format_args!("kubelet's configuration {}", path.display()), cause)
}

fn unusable(path: &Path, why: &str) -> CredentialError {
    CredentialError::new(format!("the configuration of credential providers {} {why}", path.display()))
}

// === impl Entry ===

impl Entry {
    /// The provider, `None` if it cannot be asked from here.
    fn provider(self) -> Result<Option<Provider>, String> {
        if self.name.is_empty() || matches!(self.name.as_str(), "." | "..") {
            return Err("is not a file's name".to_owned());
        }
        if self.name.contains(|c: char| c == '/' || c == '\0' || c.is_whitespace()) {
            return Err("has a slash or a space in its name".to_owned());
        }
        if !self.api_version.starts_with(PROTOCOL) {
            return Err(format!("has an apiVersion that is not of {PROTOCOL}"));
        }
        let patterns = self.match_images.unwrap_or_default();
        let read = |text: &String| Pattern::parse(text).ok_or_else(|| format!("has the pattern {text:?}"));
        let images = patterns.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let keep = self.default_cache_duration.as_deref().unwrap_or("0");
        let keep = duration::parse(keep).ok_or_else(|| format!("has the duration {keep:?}"))?;
        if self.token_attributes.and_then(|token| token.require_service_account) == Some(true) {
            warn!(provider = self.name, "a credential provider that needs a service account is not asked");
            return Ok(None);
        }
        let variables = self.env.unwrap_or_default();
        Ok(Some(Provider {
            name: self.name,
            api_version: self.api_version,
            arguments: self.args.unwrap_or_default(),
            environment: variables
                .into_iter()
                .map(|v| (v.name, Secret::new(v.value.unwrap_or_default())))
                .collect(),
            keep,
            images,
        }))
    }
}

// === impl Provider ===

impl Provider {
    /// Whether it is to be asked for the image.
    pub(super) fn serves(&self, query: CredentialQuery<'_>) -> bool {
        self.images.iter().any(|pattern| pattern.matches(query.host, query.repository))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: ecr-credential-provider
    matchImages:
      - "*.dkr.ecr.*.amazonaws.com"
      - "public.ecr.aws"
    defaultCacheDuration: "12h"
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    args:
      - get-credentials
    env:
      - name: AWS_PROFILE
        value: planted
  - name: needs-a-pod
    matchImages: ["*.example.com"]
    defaultCacheDuration: 0s
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    tokenAttributes:
      serviceAccountTokenAudience: x
      requireServiceAccount: true
"#;

    fn read(text: &str) -> Result<Vec<Provider>, CredentialError> {
        parse(text, Path::new("providers.yaml"))
    }

    fn serves(provider: &Provider, host: &str) -> bool {
        provider.serves(CredentialQuery { host, repository: "a" })
    }

    #[test]
    fn reads_yaml_and_json_and_leaves_out_what_needs_a_pod() {
        let json = r#"{"kind":"CredentialProviderConfig","providers":[{"name":"ecr-credential-provider",
            "matchImages":["*.dkr.ecr.*.amazonaws.com"],"defaultCacheDuration":"12h0m0s","args":["get-credentials"],
            "apiVersion":"credentialprovider.kubelet.k8s.io/v1beta1","env":[{"name":"AWS_PROFILE","value":"planted"}]}]}"#;
        for text in [SAMPLE, json] {
            let providers = read(text).unwrap();
            assert_eq!(providers.len(), 1);
            let provider = &providers[0];
            assert_eq!(provider.keep, Duration::from_secs(12 * 3600));
            assert_eq!(provider.arguments, ["get-credentials"]);
            assert_eq!(provider.environment, [("AWS_PROFILE".to_owned(), Secret::new("planted"))]);
            assert!(!format!("{provider:?}").contains("planted"));
            assert!(
                serves(provider, "1.dkr.ecr.eu-west-1.amazonaws.com") && !serves(provider, "example.com")
            );
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_quoting_the_file() {
        let entry = |text: &str| format!("kind: CredentialProviderConfig\nproviders: [{{{text}}}]");
        let version = "apiVersion: credentialprovider.kubelet.k8s.io/v1";
        for (text, part) in [
            ("kind: Other\nproviders: []".to_owned(), "kind"),
            ("kind: CredentialProviderConfig\nproviders: planted".to_owned(), "line 2"),
            ("kind: [planted".to_owned(), "not readable"),
            (entry(&format!("name: ../x, {version}")), "slash"),
            (entry("name: x, apiVersion: v1"), "apiVersion"),
            (entry(&format!("name: x, {version}, defaultCacheDuration: soon")), "duration"),
            (entry(&format!("name: x, {version}, matchImages: [\"[\"]")), "pattern"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.to_string().contains(part), "{text}: {error}");
            assert!(!format!("{error:?}").contains("planted"), "{error:?}");
        }
    }

    #[test]
    fn a_directory_is_read_in_the_order_of_names_and_again_when_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, provider: &str| {
            let text = format!(
                "kind: CredentialProviderConfig\nproviders: [{{name: {provider}, \
                 apiVersion: credentialprovider.kubelet.k8s.io/v1}}]"
            );
            fs::write(directory.path().join(name), text).unwrap();
        };
        let names = |loaded: &Loaded| loaded.providers.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
        write("b.yml", "two");
        write("a.json", "one");
        write("c.txt", "three");
        let loaded = Loaded::read(directory.path(), None).unwrap();
        assert_eq!(names(&loaded), ["one", "two"]);
        let before = loaded.providers.clone();
        let loaded = Loaded::read(directory.path(), Some(loaded)).unwrap();
        assert!(Arc::ptr_eq(&before, &loaded.providers));
        write("c.yaml", "three");
        let loaded = Loaded::read(directory.path(), Some(loaded)).unwrap();
        assert_eq!(names(&loaded), ["one", "two", "three"]);
        write("d.yaml", "one");
        assert!(Loaded::read(directory.path(), Some(loaded)).unwrap_err().to_string().contains("again"));
        assert!(Loaded::read(&directory.path().join("missing"), None).is_err());
    }
}

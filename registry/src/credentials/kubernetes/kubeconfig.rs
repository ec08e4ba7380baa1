//! The file that says how to reach a cluster: its current context and nothing else of it.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::access::ClusterError;

/// No sane file is larger.
pub(super) const MAX_FILE: u64 = 4 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    clusters: Option<Vec<NamedCluster>>,
    #[serde(default)]
    contexts: Option<Vec<NamedContext>>,
    #[serde(default)]
    users: Option<Vec<NamedUser>>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: Option<User>,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

/// Where the cluster is and whom it is to be.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Cluster {
    pub(super) server: String,
    #[serde(default)]
    pub(super) certificate_authority: Option<PathBuf>,
    #[serde(default)]
    pub(super) certificate_authority_data: Option<String>,
    #[serde(default)]
    pub(super) insecure_skip_tls_verify: Option<bool>,
}

/// Who we are.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct User {
    #[serde(default)]
    pub(super) token: Option<String>,
    #[serde(default, rename = "tokenFile")]
    pub(super) token_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) client_certificate: Option<PathBuf>,
    #[serde(default)]
    pub(super) client_certificate_data: Option<String>,
    #[serde(default)]
    pub(super) client_key: Option<PathBuf>,
    #[serde(default)]
    pub(super) client_key_data: Option<String>,
    #[serde(default)]
    pub(super) exec: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    pub(super) auth_provider: Option<serde::de::IgnoredAny>,
}

/// Reads the cluster and the user of the current context.
pub(super) fn read(text: &str, path: &Path) -> Result<(Cluster, User), ClusterError> {
    let unusable = |why: String| ClusterError::new(format!("the kubeconfig {} {why}", path.display()));
    // The parser's own message may quote the file, which holds secrets.
    let file: File = serde_saphyr::from_str(text).map_err(|error| match error.location() {
        Some(place) => unusable(format!("is not readable: see line {}", place.line())),
        None => unusable("is not readable".to_owned()),
    })?;
    let name = file.current_context;
    let contexts = file.contexts.unwrap_or_default();
    let context = contexts.into_iter().find(|context| context.name == name).map(|named| named.context);
    let context = context.ok_or_else(|| unusable(format!("has no context {name:?}, its current one")))?;
    let clusters = file.clusters.unwrap_or_default();
    let cluster =
        clusters.into_iter().find(|cluster| cluster.name == context.cluster).map(|named| named.cluster);
    let cluster = cluster.ok_or_else(|| unusable(format!("has no cluster {:?}", context.cluster)))?;
    let users = file.users.unwrap_or_default();
    let user = users.into_iter().find(|user| user.name == context.user).and_then(|named| named.user);
    let user = user.unwrap_or_default();
    if cluster.insecure_skip_tls_verify == Some(true) {
        return Err(unusable(
            "turns off the check of the server's certificate; name its authority".to_owned(),
        ));
    }
    if (user.exec.is_some() || user.auth_provider.is_some())
        && user.token.is_none()
        && user.token_file.is_none()
    {
        return Err(unusable(
            "gets its token from a program, which is not run here; use a service account's token".to_owned(),
        ));
    }
    Ok((cluster, user))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"
apiVersion: v1
kind: Config
preferences: {}
current-context: two
clusters:
- name: here
  cluster:
    server: https://10.0.0.1:6443
    certificate-authority-data: cGxhbnRlZA==
contexts:
- name: one
  context: {cluster: nowhere, user: nobody}
- name: two
  context: {cluster: here, user: me, namespace: default}
users:
- name: me
  user:
    token: planted
"#;

    fn fails(text: &str) -> String {
        let error = read(text, Path::new("kubeconfig")).err().unwrap();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("planted"), "{shown}");
        shown
    }

    #[test]
    fn the_current_context_is_used() {
        let (cluster, user) = read(SAMPLE, Path::new("kubeconfig")).unwrap();
        assert_eq!(cluster.server, "https://10.0.0.1:6443");
        assert_eq!(user.token.as_deref(), Some("planted"));
    }

    #[test]
    fn what_cannot_be_used_is_said_without_quoting_the_file() {
        assert!(fails(&SAMPLE.replace("current-context: two", "current-context: three")).contains("three"));
        assert!(fails(&SAMPLE.replace("current-context: two", "current-context: one")).contains("nowhere"));
        assert!(
            fails(&SAMPLE.replace("cGxhbnRlZA==", "x\n    insecure-skip-tls-verify: true"))
                .contains("certificate")
        );
        assert!(fails(&SAMPLE.replace("token: planted", "exec: {command: aws}")).contains("program"));
        assert!(fails("clusters: planted").contains("line 1"));
        assert!(fails("[planted").contains("not readable"));
    }
}

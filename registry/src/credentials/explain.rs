//! What each source knows for an image, for people: who would be asked, in which order, never a secret.

use std::sync::Arc;

use super::{CredentialQuery, CredentialSource, Credentials};

/// One source's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceReport {
    /// The source, as [`CredentialSource::describe`] has it.
    pub source: String,
    /// What it knows.
    pub knowledge: Knowledge,
}

/// What a source knows for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Knowledge {
    /// Nothing.
    Nothing,
    /// Credentials of these kinds, in the order in which they are tried ([`Credentials::describe`]).
    Known(Vec<String>),
    /// It could not be asked, and why.
    Failed(String),
}

/// Asks every source, in the order in which they are asked for reads.
pub async fn explain(sources: &[Arc<dyn CredentialSource>], query: CredentialQuery<'_>) -> Vec<SourceReport> {
    let mut reports = Vec::new();
    for source in sources {
        let knowledge = match source.candidates(query).await {
            Ok(found) if found.is_empty() => Knowledge::Nothing,
            Ok(found) => Knowledge::Known(found.iter().map(Credentials::describe).collect()),
            Err(error) => Knowledge::Failed(error.to_string()),
        };
        reports.push(SourceReport { source: source.describe(), knowledge });
    }
    reports
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::{DockerConfig, Secret, StaticCredentials};

    #[tokio::test]
    async fn each_source_says_what_it_knows_without_the_secret() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(&path, "planted").unwrap();
        let password = Credentials::Password { username: "me".into(), password: Secret::new("planted") };
        let hosts = vec![
            ("example.com".to_owned(), password),
            ("token.example.com".to_owned(), Credentials::RegistryToken(Secret::new("planted"))),
        ];
        let sources: Vec<Arc<dyn CredentialSource>> =
            vec![Arc::new(DockerConfig::new(path)), Arc::new(StaticCredentials { hosts })];
        let knows = |host: &'static str| {
            let sources = sources.clone();
            async move { explain(&sources, CredentialQuery { host, repository: "a" }).await }
        };
        let reports = knows("example.com").await;
        assert!(matches!(&reports[0].knowledge, Knowledge::Failed(why) if why.contains("line 1")));
        assert_eq!(reports[1].knowledge, Knowledge::Known(vec!["password of me".to_owned()]));
        assert_eq!(reports[1].source, "static configuration");
        let token = knows("token.example.com").await;
        assert_eq!(token[1].knowledge, Knowledge::Known(vec!["registry token".to_owned()]));
        assert_eq!(knows("other.example.com").await[1].knowledge, Knowledge::Nothing);
        assert!(!format!("{reports:?}{token:?}").contains("planted"));
    }
}

use std::fs;

use base64::{Engine, prelude::BASE64_STANDARD};

use super::*;
use crate::credentials::Secret;

fn written(text: &str) -> (tempfile::TempDir, DockerConfig) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("config.json"), text).unwrap();
    let config = DockerConfig::new(directory.path().join("config.json"));
    (directory, config)
}

async fn ask(config: &DockerConfig, host: &str) -> Result<Option<Credentials>, CredentialError> {
    config.credentials(CredentialQuery { host, repository: "a/b" }).await
}

fn password(username: &str, password: &str) -> Option<Credentials> {
    Some(Credentials::Password { username: username.into(), password: Secret::new(password) })
}

#[tokio::test]
async fn finds_entries_by_host_and_url() {
    let auth = |text: &str| BASE64_STANDARD.encode(text);
    let (_directory, config) = written(&format!(
        r#"{{"auths":{{
            "https://index.docker.io/v1/":{{"auth":"{}"}},
            "example.com:5000":{{"auth":"{}","email":null}},
            "https://other.example.com/v2/":{{"username":"u","password":"p","auth":null}},
            "id.example.com":{{"auth":"{}","identitytoken":"idt"}},
            "reg.example.com":{{"registrytoken":"rt"}},
            "empty.example.com":{{}}
        }},"HttpHeaders":{{"x":"y"}}}}"#,
        auth("hub:s3cret:with:colons"),
        auth("me:padded\0\0"),
        auth("ignored:ignored"),
    ));
    assert_eq!(ask(&config, "docker.io").await.unwrap(), password("hub", "s3cret:with:colons"));
    assert_eq!(ask(&config, "example.com:5000").await.unwrap(), password("me", "padded"));
    assert_eq!(ask(&config, "example.com").await.unwrap(), None);
    assert_eq!(ask(&config, "other.example.com").await.unwrap(), password("u", "p"));
    assert_eq!(
        ask(&config, "id.example.com").await.unwrap(),
        Some(Credentials::IdentityToken(Secret::new("idt")))
    );
    assert_eq!(
        ask(&config, "reg.example.com").await.unwrap(),
        Some(Credentials::RegistryToken(Secret::new("rt")))
    );
    assert_eq!(ask(&config, "empty.example.com").await.unwrap(), None);
}

#[tokio::test]
async fn docker_io_is_found_under_its_other_names() {
    let entry = BASE64_STANDARD.encode("u:p");
    for key in ["docker.io", "index.docker.io", "https://registry-1.docker.io", "https://index.docker.io/v1"]
    {
        let (_directory, config) = written(&format!(r#"{{"auths":{{"{key}":{{"auth":"{entry}"}}}}}}"#));
        assert_eq!(ask(&config, "docker.io").await.unwrap(), password("u", "p"), "{key}");
    }
}

#[tokio::test]
async fn a_changed_file_is_read_again_and_a_missing_one_is_empty() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    let config = DockerConfig::new(&path);
    assert_eq!(ask(&config, "example.com").await.unwrap(), None);
    for secret in ["one", "two", "three"] {
        let auth = BASE64_STANDARD.encode(format!("u:{secret}"));
        let next = directory.path().join("next");
        fs::write(&next, format!(r#"{{"auths":{{"example.com":{{"auth":"{auth}"}}}}}}"#)).unwrap();
        fs::rename(next, &path).unwrap();
        assert_eq!(ask(&config, "example.com").await.unwrap(), password("u", secret));
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(ask(&config, "example.com").await.unwrap(), None);
}

#[tokio::test]
async fn a_malformed_file_is_an_error_that_does_not_quote_it() {
    for text in [
        r#"{"auths":{"example.com":"planted-secret"}}"#,
        r#"{"auths":{"example.com":{"auth":"planted-secret"}}}"#,
        r#"{"auths":planted-secret"#,
    ] {
        let (_directory, config) = written(text);
        let error = ask(&config, "example.com").await.unwrap_err();
        assert!(!format!("{error:?} {error}").contains("planted"), "{error:?}");
    }
}

fn helper(directory: &Path, script: &str) -> String {
    // Helpers are found through PATH, which tests that run in parallel must not change: they are called
    // by their full path here.
    let path = directory.join("docker-credential-test");
    crate::credentials::program::script(&path, script);
    path.to_string_lossy().into_owned()
}

#[tokio::test]
async fn helpers_answer_with_passwords_tokens_or_nothing() {
    let cases = [
        (
            r#"read url; echo "{\"ServerURL\":\"$url\",\"Username\":\"$1-$url\",\"Secret\":\"s\"}""#,
            "password",
        ),
        (r#"echo '{"Username":"<token>","Secret":"idt"}'"#, "token"),
        (r#"echo 'credentials not found in native keychain'; exit 1"#, "none"),
        (r#"echo planted-secret; exit 1"#, "failure"),
        (r#"echo planted-secret"#, "malformed"),
        (r#"exec sleep 60"#, "time-out"),
    ];
    for (script, case) in cases {
        let directory = tempfile::tempdir().unwrap();
        let program = helper(directory.path(), script);
        let found = helper_protocol::run(&program, "example.com", Duration::from_secs(3)).await;
        match (case, found) {
            ("password", Ok(found)) => assert_eq!(found, password("get-example.com", "s")),
            ("token", Ok(found)) => assert_eq!(found, Some(Credentials::IdentityToken(Secret::new("idt")))),
            ("none", Ok(found)) => assert_eq!(found, None),
            ("failure" | "malformed" | "time-out", Err(error)) => {
                assert!(!format!("{error:?} {error}").contains("planted"), "{error:?}");
            }
            (case, found) => panic!("{case}: {found:?}"),
        }
    }
}

#[tokio::test]
async fn the_helper_named_for_the_host_comes_before_the_store() {
    let (_directory, config) = written(
        r#"{"credHelpers":{"a.example.com":"named-for-host","https://index.docker.io/v1/":"hub"},"credsStore":"store"}"#,
    );
    let file = config.load().await.unwrap();
    assert_eq!(file.helper("a.example.com", "a.example.com"), Some("named-for-host"));
    assert_eq!(file.helper("b.example.com", "b.example.com"), Some("store"));
    assert_eq!(file.helper("docker.io", DOCKER_IO_KEY), Some("hub"));
    let error = ask(&config, "b.example.com").await.unwrap_err().to_string();
    assert!(error.contains("docker-credential-store"), "{error}");
}

#[tokio::test]
async fn a_storm_of_questions_runs_a_helper_twice_at_most() {
    let directory = tempfile::tempdir().unwrap();
    let (runs, program) = (directory.path().join("runs"), directory.path().join("helper"));
    let script =
        format!("echo run >> {}; sleep 0.3; echo '{{\"Username\":\"u\",\"Secret\":\"s\"}}'", runs.display());
    crate::credentials::program::script(&program, &script);
    let (_directory, config) = written("{}");
    let name = program.to_string_lossy().into_owned();
    let ask = || async {
        let run = || helper_protocol::run(&name, "example.com", Duration::from_secs(30));
        config.helpers.ask(&(name.clone(), "example.com".to_owned()), run).await
    };
    for found in futures_util::future::join_all((0..100).map(|_| ask())).await {
        assert_eq!(found.unwrap(), password("u", "s"));
    }
    assert!(fs::read_to_string(&runs).unwrap().lines().count() <= 2);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_leaves_what_the_file_said_before() {
    let (_directory, source) = written(r#"{"auths": {"example.com": {"auth": "bWU6cA=="}}}"#);
    let hangs = source.reading.turn().await;
    let error = source.load().await.unwrap_err().to_string();
    assert!(error.contains("config.json: the disk does not answer"), "{error}");
    drop(hangs);
    assert_eq!(source.load().await.unwrap().auths.len(), 1);
    let _hangs = source.reading.turn().await;
    assert_eq!(source.load().await.unwrap().auths.len(), 1);
}

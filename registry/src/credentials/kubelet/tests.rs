use std::fs;

use futures_util::future::join_all;

use super::*;
use crate::credentials::{Secret, program::script};

const VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";

/// A directory with plugins and their configuration.
struct Plugins {
    directory: tempfile::TempDir,
}

impl Plugins {
    /// Plugins with their names, patterns and scripts.
    fn new(plugins: &[(&str, &str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = "kind: CredentialProviderConfig\nproviders:\n".to_owned();
        for (name, pattern, text) in plugins {
            config += &format!(
                "- {{name: {name}, matchImages: ['{pattern}'], defaultCacheDuration: 1h, apiVersion: {VERSION},\n  \
                 args: [one, two], env: [{{name: PLUGIN_KEY, value: from-config}}]}}\n"
            );
            script(&directory.path().join(name), text);
        }
        fs::write(directory.path().join("config.yaml"), config).unwrap();
        Self { directory }
    }

    fn source(&self) -> KubeletPlugins {
        let path = self.directory.path();
        KubeletPlugins::new(path.join("config.yaml"), path).with_timeout(Duration::from_secs(20))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn runs(&self) -> usize {
        fs::read_to_string(self.path("runs")).map_or(0, |text| text.lines().count())
    }
}

/// A script that notes its run and answers with a login for a key.
fn answers(cache: &str, key: &str, password: &str) -> String {
    format!(
        "echo run >> \"$(dirname \"$0\")/runs\"\ncat <<'END'\n{{\"kind\":\"CredentialProviderResponse\",\
         \"apiVersion\":\"{VERSION}\",{cache},\"auth\":{{\"{key}\":{{\"username\":\"u\",\"password\":\"{password}\"}}}}}}\nEND"
    )
}

fn query(host: &'static str) -> CredentialQuery<'static> {
    CredentialQuery { host, repository: "team/app" }
}

fn password(text: &str) -> Credentials {
    Credentials::Password { username: "u".into(), password: Secret::new(text) }
}

#[tokio::test]
async fn a_plugin_gets_the_image_and_its_arguments_and_variables() {
    let script = format!(
        "cat > \"$(dirname \"$0\")/said\"; echo \"$@ $PLUGIN_KEY\" > \"$(dirname \"$0\")/seen\"\n{}",
        answers("\"cacheKeyType\":\"Registry\"", "*.example.com", "p")
    );
    let plugins = Plugins::new(&[("plugin", "*.example.com", &script)]);
    let found = plugins.source().candidates(query("eu.example.com")).await.unwrap();
    assert_eq!(found, [password("p")]);
    let said: serde_json::Value = serde_json::from_slice(&fs::read(plugins.path("said")).unwrap()).unwrap();
    let expected = serde_json::json!({
        "kind": "CredentialProviderRequest", "apiVersion": VERSION, "image": "eu.example.com/team/app"
    });
    assert_eq!(said, expected);
    assert_eq!(fs::read_to_string(plugins.path("seen")).unwrap(), "one two from-config\n");
}

#[tokio::test]
async fn only_plugins_for_the_image_are_asked_and_all_of_them() {
    let image = "\"cacheKeyType\":\"Image\"";
    let plugins = Plugins::new(&[
        ("a", "*.example.com", &answers(image, "eu.example.com", "a")),
        ("b", "*.example.com", "exit 1"),
        ("c", "eu.example.com", &answers(image, "eu.example.com/team", "c")),
        ("d", "us.example.com", &answers(image, "eu.example.com", "d")),
        ("e", "eu.example.com", &answers(image, "us.example.com", "for another host")),
    ]);
    let source = plugins.source();
    // Not in the order of the plugins: the longest path comes first.
    assert_eq!(source.candidates(query("eu.example.com")).await.unwrap(), [password("c"), password("a")]);
    assert_eq!(source.candidates(query("example.com")).await.unwrap(), []);
    let error = source.candidates(query("x.example.com")).await.unwrap_err().to_string();
    assert!(error.contains("/b failed"), "nothing was found and one failed: {error}");
}

#[tokio::test]
async fn answers_are_kept_as_the_plugin_says() {
    for (cache, runs) in [
        ("\"cacheKeyType\":\"Registry\"", 1),
        ("\"cacheKeyType\":\"Global\",\"cacheDuration\":\"1h\"", 1),
        ("\"cacheKeyType\":\"Image\",\"cacheDuration\":\"0s\"", 3),
    ] {
        let plugins = Plugins::new(&[("plugin", "example.com", &answers(cache, "example.com", "p"))]);
        let source = plugins.source();
        for _ in 0..3 {
            assert_eq!(source.candidates(query("example.com")).await.unwrap(), [password("p")]);
        }
        assert_eq!(plugins.runs(), runs, "{cache}");
    }
}

#[tokio::test]
async fn a_storm_asks_a_plugin_once() {
    let answer = answers("\"cacheKeyType\":\"Registry\"", "example.com", "p");
    let plugins = Plugins::new(&[("plugin", "example.com", &format!("sleep 0.3\n{answer}"))]);
    let source = plugins.source();
    let found = join_all((0..100).map(|_| source.candidates(query("example.com")))).await;
    assert!(found.into_iter().all(|found| found.unwrap() == [password("p")]));
    assert!(plugins.runs() <= 2, "{}", plugins.runs());
}

#[tokio::test]
async fn what_a_plugin_says_wrong_is_an_error_without_its_words() {
    let kind = "\"kind\":\"CredentialProviderResponse\"";
    for (script, part) in [
        ("echo planted; exit 3".to_owned(), "failed"),
        ("echo planted".to_owned(), "malformed"),
        (format!("echo '{{{kind},\"apiVersion\":\"planted\"}}'"), "version"),
        (format!("echo '{{{kind},\"apiVersion\":\"{VERSION}\",\"cacheKeyType\":\"planted\"}}'"), "for what"),
        (answers("\"cacheKeyType\":\"Image\",\"cacheDuration\":\"planted\"", "x", "y"), "time"),
    ] {
        let plugins = Plugins::new(&[("plugin", "example.com", &script)]);
        let error = plugins.source().candidates(query("example.com")).await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert!(!format!("{error:?}").contains("planted"), "{error:?}");
    }
}

#[tokio::test]
async fn a_plugin_that_hangs_or_is_missing_is_an_error() {
    let plugins = Plugins::new(&[("hangs", "a.example.com", "exec sleep 60"), ("gone", "b.example.com", "")]);
    fs::remove_file(plugins.path("gone")).unwrap();
    let source = plugins.source().with_timeout(Duration::from_millis(300));
    let error = source.candidates(query("a.example.com")).await.unwrap_err().to_string();
    assert!(error.contains("did not answer within 0.3 s"), "{error}");
    let error = source.candidates(query("b.example.com")).await.unwrap_err().to_string();
    assert!(error.contains("cannot start"), "{error}");
}

#[tokio::test]
async fn a_changed_configuration_needs_no_restart() {
    let plugins =
        Plugins::new(&[("plugin", "example.com", &answers("\"cacheKeyType\":\"Image\"", "*.com", "p"))]);
    let source = plugins.source();
    assert_eq!(source.candidates(query("other.com")).await.unwrap(), []);
    let config = plugins.path("config.yaml");
    let text = fs::read_to_string(&config).unwrap().replace("'example.com'", "'other.com'");
    fs::write(&config, text).unwrap();
    assert_eq!(source.candidates(query("other.com")).await.unwrap(), [password("p")]);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_leaves_what_the_configuration_said_before() {
    let plugins =
        Plugins::new(&[("plugin", "example.com", &answers("\"cacheKeyType\":\"Image\"", "*.com", "p"))]);
    let source = plugins.source();
    let hangs = source.reading.turn().await;
    let error = source.providers().await.unwrap_err().to_string();
    assert!(error.contains("config.yaml: the disk does not answer"), "{error}");
    drop(hangs);
    assert_eq!(source.providers().await.unwrap().len(), 1);
    let _hangs = source.reading.turn().await;
    assert_eq!(source.providers().await.unwrap().len(), 1);
}

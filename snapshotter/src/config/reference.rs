//! `docs/configuration.md`, written from the table of keys.

use std::fmt::Write;

use super::{
    Config,
    keys::{KEYS, Key, Origin, Standing},
};

const HEAD: &str = "# Configuration of `starlingd`

<!-- Generated from snapshotter/src/config/keys.rs; `UPDATE_DOCS=1 cargo test -p snapshotter` writes it anew. -->

The file is TOML, by default `/etc/starling/config.toml`; `--config` names another one. The default file may be
missing, a file that was named may not. Every key of stargz-snapshotter's configuration is understood: it works, or the
daemon warns when it starts and says why it does nothing. A key that nobody knows stops the daemon with the nearest
name that is known. Sizes are numbers of bytes or strings with a unit (`\"64MiB\"`, `\"1GB\"`).

";

/// The whole page.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("## Keys that work\n");
    let works = |key: &&Key| matches!(key.standing, Standing::Works { .. });
    section(&mut page, KEYS.iter().filter(works));
    page.push_str("\n## Keys that parse, warn and do nothing\n\n| key | why |\n|---|---|\n");
    for key in KEYS {
        if let Standing::Ignored { why, .. } = key.standing {
            // A String takes any text.
            let _ = writeln!(page, "| `{}` | {why} |", key.path);
        }
    }
    page
}

fn section<'k>(page: &mut String, keys: impl Iterator<Item = &'k Key>) {
    let mut defaults = Config::default();
    let mut current = None;
    for key in keys {
        let (table, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if current != Some(table) {
            current = Some(table);
            let title = if table.is_empty() { "Top level".to_owned() } else { format!("`[{table}]`") };
            let _ = writeln!(
                page,
                "\n### {title}\n\n| key | type | default | of | what it does |\n|---|---|---|---|---|"
            );
        }
        let Standing::Works { field, .. } = &key.standing else { continue };
        let setting = field(&mut defaults);
        let origin = match key.origin {
            Origin::Stargz => "stargz",
            Origin::Starling => "starling",
        };
        let (kind, default) = (setting.type_name(), setting.show());
        let _ = writeln!(page, "| `{name}` | {kind} | `{default}` | {origin} | {} |", key.doc);
    }
}

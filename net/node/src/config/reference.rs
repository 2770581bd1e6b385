//! The table of keys as text: `-help`, the page `/config`, and the page `docs/config.md`, which a test holds true.

use super::Config;
use super::keys::{Key, keys};

/// The help: every flag with its default and meaning.
pub(crate) fn help() -> String {
    let mut text = String::from(
        "myelin: a durable, multi-tenant store for Prometheus metrics.\n\n\
         Usage: myelin [-flag=value ...]\n       myelin tool COMMAND (`myelin tool` lists them)\n\n  \
         -config.file path\n        YAML file; flags win over it.\n  \
         -help\n        This text.\n  \
         -version\n        The version.\n",
    );
    let defaults = Config::defaults(false);
    for key in keys() {
        let default = (key.get)(&defaults);
        let default = if default.is_empty() {
            "\"\"".to_owned()
        } else {
            default
        };
        text.push_str(&format!(
            "  -{} {}\n        {} (default {default})\n",
            key.flag,
            key.kind.replace('`', "").trim().replace(' ', "|"),
            key.help
        ));
    }
    text
}

/// The configuration as a file that gives the same one again.
pub(crate) fn yaml(config: &Config) -> String {
    let mut text = String::new();
    let mut section = "";
    // Keys of a section need not stand together in the table; in the file they must.
    let mut ordered: Vec<&Key> = keys().iter().collect();
    let rank = |key: &Key| keys().iter().position(|k| section_of(k) == section_of(key));
    ordered.sort_by_key(|key| rank(key));
    ordered.sort_by_key(|key| !section_of(key).is_empty());
    for key in ordered {
        let (inside, name) = key.yaml.rsplit_once('.').unwrap_or(("", key.yaml));
        if inside != section {
            text.push_str(&format!("{inside}:\n"));
            section = inside;
        }
        let indent = if inside.is_empty() { "" } else { "  " };
        let value = (key.get)(config);
        let plain = !value.is_empty()
            && (key.kind == "number"
                || key.kind == "boolean"
                || value.starts_with(|c: char| c.is_ascii_alphabetic())
                    && value
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || "/_-.".contains(c)));
        let value = if plain { value } else { format!("{value:?}") };
        text.push_str(&format!("{indent}{name}: {value}\n"));
    }
    text
}

fn section_of(key: &Key) -> &'static str {
    key.yaml.rsplit_once('.').map_or("", |(section, _)| section)
}

/// `docs/config.md`.
#[cfg(test)]
pub(super) fn markdown() -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         Written by `UPDATE_GOLDEN=1 cargo test -p myelin` from `net/node/src/config/keys.rs`, and held true by that test.\n\n\
         Flags (`-name=value`, one dash or two) win over the file (`-config.file`), the file over defaults. Names are those of\n\
         Cortex where the meaning is. Durations as `1h30m`, sizes as `64MiB`. Where two defaults are given, the first holds without\n\
         tenants, the second with `auth_enabled: true`. An unknown key is an error that names the nearest known one; a key\n\
         of a part of Cortex that is not built is an error that says so.\n\n\
         | key | flag | type | default | meaning |\n| --- | --- | --- | --- | --- |\n",
    );
    let (off, on) = (Config::defaults(false), Config::defaults(true));
    let shown = |value: String| {
        if value.is_empty() {
            "empty".to_owned()
        } else {
            format!("`{value}`")
        }
    };
    for key in keys() {
        let (off, on) = (shown((key.get)(&off)), shown((key.get)(&on)));
        let default = if off == on || key.yaml == "auth_enabled" {
            off
        } else {
            format!("{off}, {on}")
        };
        text.push_str(&format!(
            "| `{}` | `-{}` | {} | {default} | {} |\n",
            key.yaml,
            key.flag,
            key.kind.trim(),
            key.help
        ));
    }
    text
}

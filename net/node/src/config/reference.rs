//! The table of keys as text: `-help`, the page `/config`, and the page `docs/config.md`, which a test holds true.

use super::keys::{Key, keys};
use super::{Config, MODULES};

/// The help: every flag with its default and meaning.
pub(crate) fn help() -> String {
    let mut text = String::from(
        "myelin: a durable, multi-tenant store for Prometheus metrics.\n\n\
         Usage: myelin [-flag=value ...]\n       myelin tool COMMAND (`myelin tool` lists them)\n\n  \
         -config.file path\n        YAML file; flags win over it.\n  \
         -config.expand-env\n        Puts environment variables into that file: ${VAR}, or ${VAR:what stands there else}.\n  \
         -print.config\n        What flags and file come to, as a file, instead of a start.\n  \
         -modules\n        The words for -target.\n  \
         -help, -help-all\n        This text.\n  \
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

/// The words of `-target`, a line each, as Cortex lists them.
pub(crate) fn modules() -> String {
    let line = |(name, in_all): (&str, bool)| match in_all {
        true => format!("{name} *\n"),
        false => format!("{name}\n"),
    };
    let lines: String = MODULES.map(line).concat();
    lines + "\nModules marked with * are included in target all.\n"
}

/// The configuration as a file that gives the same one again.
pub(crate) fn yaml(config: &Config) -> String {
    let mut text = String::new();
    put_section(&mut text, &keys().iter().collect::<Vec<_>>(), "", config);
    text
}

/// What of it is not the default.
pub(crate) fn diff(config: &Config) -> String {
    let defaults = Config::defaults(config.auth_enabled);
    let differs = |key: &&Key| {
        let switched = key.yaml == "auth_enabled" && config.auth_enabled;
        switched || (key.get)(config) != (key.get)(&defaults)
    };
    let differing: Vec<&Key> = keys().iter().filter(differs).collect();
    let mut text = String::new();
    put_section(&mut text, &differing, "", config);
    text
}

/// Writes those of the keys that lie in a section (with its dot), first its own, then those of the sections in it.
fn put_section(text: &mut String, keys: &[&Key], section: &str, config: &Config) {
    let indent = "  ".repeat(section.matches('.').count());
    let inside = keys.iter().filter_map(|key| {
        let rest = key.yaml.strip_prefix(section)?;
        Some((*key, rest))
    });
    let mut sections: Vec<&str> = Vec::new();
    for (key, rest) in inside {
        match rest.split_once('.') {
            None => put_line(text, &indent, rest, key.kind, &(key.get)(config)),
            Some((name, _)) if !sections.contains(&name) => sections.push(name),
            Some(_) => {}
        }
    }
    for name in sections {
        text.push_str(&format!("{indent}{name}:\n"));
        put_section(text, keys, &format!("{section}{name}."), config);
    }
}

/// Writes one setting.
pub(super) fn put_line(text: &mut String, indent: &str, name: &str, kind: &str, value: &str) {
    let plain = !value.is_empty()
        && (kind == "number"
            || kind == "boolean"
            || value.starts_with(|c: char| c.is_ascii_alphabetic())
                && value
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "/_-.".contains(c)));
    match plain {
        true => text.push_str(&format!("{indent}{name}: {value}\n")),
        // A string of JSON is one of YAML.
        false => text.push_str(&format!("{indent}{name}: {}\n", serde_json::json!(value))),
    }
}

/// `docs/config.md`.
#[cfg(test)]
pub(super) fn markdown() -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         Written by `UPDATE_GOLDEN=1 cargo test -p myelin` from `net/node/src/config/keys.rs`, and held true by that test.\n\n\
         Flags (`-name=value`, one dash or two) win over the file (`-config.file`), the file over defaults. With `-config.expand-env` the file may say\n\
         `${VAR}` and `${VAR:default}` for environment variables; one that is not set and has no default is an error. `-print.config` shows what all came to,\n\
         `-modules` the words of `target`. Names are those of\n\
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

//! Where settings come from: the command line and the file.
//!
//! Flags are written as Go does, with one dash or two: `-name=value`, `-name value`, and `-name` alone for switches. They are
//! normalised to two dashes and then read by clap, whose commands are made from the table of keys. The file is YAML; its tree is
//! walked to leaves, and each leaf is a key. Unknown names are errors that name the nearest known one; names of parts of
//! Cortex that are not built are errors that say so.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, Command};

use super::Config;
use super::expand::{Environment, expanded};
use super::keys::{ALIASES, Key, NOT_BUILT, keys, of_flag};
use super::nearest::nearest;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Request {
    /// Run with this configuration.
    Run(Box<Config>),
    /// Print the help and leave.
    Help,
    /// Print the version and leave.
    Version,
    /// Print what can be a target and leave.
    Modules,
    /// Print this configuration and leave.
    Print(Box<Config>),
}

/// Why there is no configuration; a sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigError(pub(super) String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Flags that are no keys of the file, under the names that clap knows; all but the first are switches.
const PROCESS_FLAGS: [&str; 6] = [
    "config.file",
    "config.expand-env",
    "help",
    "modules",
    "print.config",
    "version",
];

/// A key of the table (by position) and its text.
type Given = Vec<(usize, String)>;

/// Reads the command line (without the program's name) and the file that it names.
pub(crate) fn read(args: impl Iterator<Item = String>) -> Result<Request, ConfigError> {
    let args = normalise(args)?;
    let matches = command().try_get_matches_from(args).map_err(|e| {
        let text = e.to_string();
        let text = text.trim_start_matches("error: ");
        ConfigError(text.split("\n\n").next().unwrap_or(text).trim().to_owned())
    })?;
    if matches.get_flag("help") {
        return Ok(Request::Help);
    }
    if matches.get_flag("version") {
        return Ok(Request::Version);
    }
    if matches.get_flag("modules") {
        return Ok(Request::Modules);
    }
    let expand = matches.get_flag("config.expand-env");
    let mut given = match matches.get_one::<PathBuf>("config.file") {
        Some(path) => read_file(path, expand.then_some(&|name| std::env::var_os(name)))?,
        None => Vec::new(),
    };
    for (position, key) in keys().iter().enumerate() {
        if let Some(values) = matches.get_many::<String>(key.flag) {
            let values: Vec<String> = values.cloned().collect();
            let text = if key.is_list() {
                values.join(",")
            } else {
                values[values.len() - 1].clone()
            };
            given.push((position, text));
        }
    }
    let config = Box::new(resolve(&given)?);
    Ok(match matches.get_flag("print.config") {
        true => Request::Print(config),
        false => Request::Run(config),
    })
}

/// Applies what was given, in order, to the defaults that go with the last word on `auth_enabled`.
fn resolve(given: &Given) -> Result<Config, ConfigError> {
    let refused = |position: usize, reason: String| {
        let key = &keys()[position];
        ConfigError(format!("{} (-{}): {reason}", key.yaml, key.flag))
    };
    let mut first = Config::defaults(false);
    for (position, text) in given
        .iter()
        .filter(|(p, _)| keys()[*p].yaml == "auth_enabled")
    {
        (keys()[*position].set)(&mut first, text).map_err(|e| refused(*position, e))?;
    }
    let mut config = Config::defaults(first.auth_enabled);
    for (position, text) in given {
        (keys()[*position].set)(&mut config, text).map_err(|e| refused(*position, e))?;
    }
    config.validate().map_err(ConfigError)?;
    Ok(config)
}

/// Two dashes for every flag, and an error for names that are not known. The first element is the program's name, for clap.
fn normalise(args: impl Iterator<Item = String>) -> Result<Vec<String>, ConfigError> {
    let mut normal = vec!["myelin".to_owned()];
    let mut args = args;
    while let Some(arg) = args.next() {
        let Some(text) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
            return Err(ConfigError(format!(
                "unexpected argument {arg:?}: flags begin with a dash"
            )));
        };
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        let name = match name {
            "h" | "help-all" => "help",
            name => name,
        };
        let key = of_flag(name).map(|(_, key)| key);
        if key.is_none() && !PROCESS_FLAGS.contains(&name) {
            return Err(unknown(name, "flag -", keys().iter().map(|key| key.flag)));
        }
        let name = key.map_or(name, |key| key.flag);
        // A switch never takes the next argument, as in Go; everything else needs a value.
        let takes_value = key.map_or(name == "config.file", |key| !key.is_switch());
        let value = match value {
            None if takes_value => Some(
                args.next()
                    .ok_or_else(|| ConfigError(format!("flag -{name} needs a value")))?,
            ),
            value => value,
        };
        normal.push(match value {
            Some(value) => format!("--{name}={value}"),
            None => format!("--{name}"),
        });
    }
    Ok(normal)
}

pub(super) fn unknown<'a>(
    name: &str,
    what: &str,
    known: impl Iterator<Item = &'a str>,
) -> ConfigError {
    let part = NOT_BUILT
        .iter()
        .filter(|(prefix, _)| {
            name.strip_prefix(prefix).is_some_and(|rest| {
                let whole_word = prefix.ends_with(['.', '_', '-']) || prefix.contains('.');
                rest.is_empty() || whole_word || rest.starts_with(['.', '_', '-'])
            })
        })
        .max_by_key(|(prefix, _)| prefix.len());
    ConfigError(match (part, nearest(name, known)) {
        (Some((_, part)), _) => format!("{what}{name}: {part} is not built yet"),
        (None, Some(near)) => format!("unknown {what}{name}; did you mean {near}?"),
        (None, None) => format!("unknown {what}{name}"),
    })
}

/// The clap command behind `-help` and the parsing of flags.
fn command() -> Command {
    let keys = keys().iter().map(|key| {
        let arg = Arg::new(key.flag)
            .long(key.flag)
            .value_parser(ValueParser::string());
        if key.is_switch() {
            arg.num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
        } else {
            arg.num_args(1)
        }
        .action(ArgAction::Append)
    });
    Command::new("myelin")
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(PROCESS_FLAGS[1..].iter().map(|name| {
            // As every switch: alone, or with a truth behind it.
            Arg::new(*name)
                .long(*name)
                .num_args(0..=1)
                .require_equals(true)
                .default_value("false")
                .default_missing_value("true")
                .value_parser(clap::value_parser!(bool))
                .action(ArgAction::Set)
        }))
        .arg(
            Arg::new("config.file")
                .long("config.file")
                .value_parser(clap::value_parser!(PathBuf)),
        )
        .args(keys)
        .args_override_self(true)
}

fn read_file(path: &Path, environment: Option<&Environment>) -> Result<Given, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| ConfigError(format!("cannot read {}: {e}", path.display())))?;
    let text = match environment {
        Some(environment) => expanded(&text, environment)
            .map_err(|e| ConfigError(format!("{}: {e}", path.display())))?,
        None => text,
    };
    from_yaml(&text).map_err(|e| ConfigError(format!("{}: {e}", path.display())))
}

/// The leaves of a YAML text as keys.
fn from_yaml(text: &str) -> Result<Given, ConfigError> {
    let mut given = Vec::new();
    if let Some(tree) = tree(text)? {
        walk(&tree, String::new(), &mut given)?;
    }
    Ok(given)
}

/// A YAML text of one document; `None` where there is nothing but comments.
pub(super) fn tree(text: &str) -> Result<Option<serde_json::Value>, ConfigError> {
    let says_nothing = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(says_nothing) {
        return Ok(None);
    }
    // Else `drop_labels: [y]` and a tenant `on` would be truths.
    let options = serde_saphyr::options! { strict_booleans: true };
    let tree = serde_saphyr::from_str_with_options(text, options);
    tree.map(Some)
        .map_err(|e| ConfigError(format!("not YAML: {e}")))
}

fn walk(value: &serde_json::Value, path: String, given: &mut Given) -> Result<(), ConfigError> {
    use serde_json::Value;
    let alias = ALIASES.iter().find(|alias| alias.yaml == path);
    let name = alias.map_or(path.as_str(), |alias| alias.key);
    let known = keys().iter().position(|key| key.yaml == name);
    if let Some(position) = known {
        if let Some(text) = leaf(&keys()[position], &path, value)? {
            given.push((position, text));
        }
        return Ok(());
    }
    let section = path.is_empty() || keys().iter().any(|key| is_inside(key.yaml, &path));
    match value {
        Value::Object(entries) if section => entries.iter().try_for_each(|(name, value)| {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            walk(value, path, given)
        }),
        Value::Null if section => Ok(()),
        _ if section => Err(ConfigError(format!(
            "{path:?}: expected a section, found {value}"
        ))),
        _ => Err(unknown(&path, "key ", keys().iter().map(|key| key.yaml))),
    }
}

/// The text of a key's value; `None` where it is null, which is as good as not there.
pub(super) fn leaf(
    key: &Key,
    path: &str,
    value: &serde_json::Value,
) -> Result<Option<String>, ConfigError> {
    use serde_json::Value;
    let scalar = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    };
    let text = match value {
        Value::Null => return Ok(None),
        // Booleans of YAML 1.1, which Go's parser takes where it expects one.
        Value::String(word) if key.is_switch() => match word.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" => Some("true".to_owned()),
            "no" | "off" | "n" => Some("false".to_owned()),
            _ => Some(word.clone()),
        },
        Value::Array(items) if key.is_list() => items
            .iter()
            .map(scalar)
            .collect::<Option<Vec<_>>>()
            .map(|items| items.join(",")),
        Value::Array(_) if key.is_structured() => Some(value.to_string()),
        value => scalar(value),
    };
    let items = value.as_array().filter(|_| key.is_list());
    let with_comma = |item: &&Value| item.as_str().is_some_and(|text| text.contains(','));
    if let Some(item) = items.and_then(|items| items.iter().find(with_comma)) {
        // Lists are kept as texts with commas between, as flags have them: it would become several.
        return Err(ConfigError(format!(
            "{path}: {item} has a comma in it; write a list with an item for each"
        )));
    }
    let wrong = || ConfigError(format!("{path}: expected a {}, found {value}", key.kind));
    text.ok_or_else(wrong).map(Some)
}

/// Whether the key lies inside the section.
fn is_inside(key: &str, section: &str) -> bool {
    key.strip_prefix(section)
        .is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests;

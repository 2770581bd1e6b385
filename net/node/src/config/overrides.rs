//! The file of limits of single tenants (`runtime_config.file`), and limits by name.
//!
//! A tenant's entry begins with the limits of the process, and changes those that it names. Names are those of the section `limits`. The file
//! is read as strictly as the configuration: what is not known is an error, and then nothing of the file holds.

use std::collections::BTreeMap;

use gateway::LimitValue;
use model::{TenantId, TenantLimits};

use super::Config;
use super::keys::{ALIASES, Alias, Key, keys};
use super::reference::put_line;
use super::setting::Setting;
use super::sources::{ConfigError, leaf, tree, unknown};

/// What a file came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Overridden(pub(crate) BTreeMap<TenantId, TenantLimits>);

/// Other parts of Cortex' file.
const NOT_BUILT: [&str; 5] = [
    "multi_kv_config",
    "ingester_limits",
    "ingester_stream_chunks_when_using_blocks",
    "hard_overrides",
    "api_allowed_limits",
];

/// The limits, and the names that a tenant knows them by.
fn limits() -> impl Iterator<Item = (&'static str, &'static Key)> {
    keys().iter().filter_map(|key| {
        // Where the file of overrides is stands among the limits, but is none of a tenant.
        let is_of_key =
            |alias: &&Alias| alias.key == key.yaml && !alias.key.starts_with("runtime_config.");
        let aliases = ALIASES.iter().filter(is_of_key).map(|alias| alias.yaml);
        let mut paths = std::iter::once(key.yaml).chain(aliases);
        Some((paths.find_map(|path| path.strip_prefix("limits."))?, key))
    })
}

/// Reads the text of a file.
///
/// Errors: a sentence for the operator that names tenant and key.
pub(crate) fn read(text: &str, process: &Config) -> Result<Overridden, ConfigError> {
    use serde_json::Value;
    let mut tenants = BTreeMap::new();
    let sections = match tree(text)? {
        None | Some(Value::Null) => return Ok(Overridden::default()),
        Some(Value::Object(sections)) => sections,
        Some(other) => return Err(ConfigError(format!("expected sections, found {other}"))),
    };
    for (name, section) in sections {
        if NOT_BUILT.contains(&name.as_str()) {
            return Err(ConfigError(format!("{name} is not built yet")));
        }
        if name != "overrides" {
            return Err(unknown(&name, "key ", ["overrides"].into_iter()));
        }
        let entries = match section {
            Value::Null => continue,
            Value::Object(entries) => entries,
            other => {
                return Err(ConfigError(format!(
                    "overrides: expected tenants, found {other}"
                )));
            }
        };
        for (tenant, entry) in entries {
            let wrong = |reason: String| ConfigError(format!("overrides.{tenant}: {reason}"));
            let id = TenantId::new(&tenant).map_err(|error| wrong(error.to_string()))?;
            let limits = of_tenant(&entry, process).map_err(|ConfigError(reason)| wrong(reason))?;
            tenants.insert(id, limits);
        }
    }
    Ok(Overridden(tenants))
}

fn of_tenant(entry: &serde_json::Value, process: &Config) -> Result<TenantLimits, ConfigError> {
    use serde_json::Value;
    let entries = match entry {
        Value::Null => return Ok(process.limits.clone()),
        Value::Object(entries) => entries,
        other => return Err(ConfigError(format!("expected limits, found {other}"))),
    };
    let mut config = process.clone();
    for (name, value) in flat(entries) {
        let name = name.as_str();
        let Some((_, key)) = limits().find(|(known, _)| *known == name) else {
            let known: Vec<String> = limits().map(|(name, _)| format!("limits.{name}")).collect();
            let name = format!("limits.{name}");
            return Err(unknown(&name, "key ", known.iter().map(String::as_str)));
        };
        if let Some(text) = leaf(key, name, value)? {
            let set = (key.set)(&mut config, &text);
            set.map_err(|reason| ConfigError(format!("{name}: {reason}")))?;
        }
    }
    let checked = config.validate_limits();
    checked.map_err(|(name, reason)| ConfigError(format!("{name}: {reason}")))?;
    Ok(config.limits)
}

/// Entries of a limit that has several parts, `query_rejection: {enabled: true}`, each for itself: `query_rejection.enabled`.
fn flat(entries: &serde_json::Map<String, serde_json::Value>) -> Vec<(String, &serde_json::Value)> {
    let is_part = |known: &str, name: &str| {
        let rest = known.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with('.'))
    };
    let mut all = Vec::new();
    for (name, value) in entries {
        match value {
            serde_json::Value::Object(parts) if limits().any(|(known, _)| is_part(known, name)) => {
                let parts = parts.iter();
                all.extend(parts.map(|(part, value)| (format!("{name}.{part}"), value)));
            }
            value => all.push((name.clone(), value)),
        }
    }
    all
}

/// As Cortex' page shows it: every limit of every tenant that has its own, or only those that are not as those of the process.
pub(crate) fn page(overridden: &Overridden, process: &Config, only_different: bool) -> String {
    let mut text = String::new();
    let mut config = process.clone();
    for (tenant, own) in &overridden.0 {
        let mut lines = String::new();
        config.limits = own.clone();
        for (name, key) in limits() {
            let value = (key.get)(&config);
            if !only_different || value != (key.get)(process) {
                put_line(&mut lines, "    ", name, key.kind, &value);
            }
        }
        // Numbers are names of tenants too, but not to YAML.
        let tenant = serde_json::json!(tenant.as_str());
        let header = match lines.is_empty() {
            true => format!("  {tenant}: {{}}\n"),
            false => format!("  {tenant}:\n"),
        };
        text += &header;
        text += &lines;
    }
    match text.is_empty() {
        true => "overrides: {}\n".to_owned(),
        false => format!("overrides:\n{text}"),
    }
}

/// All limits of a tenant by name.
pub(crate) fn limit_values(of: &TenantLimits) -> Vec<(&'static str, LimitValue)> {
    let mut config = Config::defaults(true);
    config.limits = of.clone();
    let value = |(name, key): (&'static str, &Key)| {
        let text = (key.get)(&config);
        let value = match key.kind {
            kind if kind == bool::KIND => LimitValue::Flag(text == "true"),
            kind if kind == u64::KIND || kind == i64::KIND => {
                LimitValue::Number(text.parse().unwrap_or(f64::NAN))
            }
            kind if kind == std::time::Duration::KIND => {
                let duration = std::time::Duration::parse(&text).unwrap_or_default();
                LimitValue::Duration(duration.as_secs_f64(), text)
            }
            kind if kind == Vec::<String>::KIND => {
                LimitValue::List(Setting::parse(&text).unwrap_or_default())
            }
            _ => LimitValue::Text(text),
        };
        (name, value)
    };
    limits().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> Config {
        let mut config = Config::defaults(true);
        config.limits.max_series_per_user = 77;
        config
    }

    fn error(text: &str) -> String {
        read(text, &process()).unwrap_err().to_string()
    }

    #[test]
    fn a_tenant_begins_with_the_limits_of_the_process_and_changes_what_it_names() {
        let text = "overrides:\n  a:\n    ingestion_rate: 5\n    drop_labels: [x, y]\n    \
                    compactor_blocks_retention_period: 30d\n  \"7\":\n  b: {max_exemplars: 0}\n";
        let Overridden(found) = read(text, &process()).unwrap();
        let of = |id| &found[&TenantId::new(id).unwrap()];
        let wanted = TenantLimits {
            ingestion_rate: 5.0,
            drop_labels: vec!["x".into(), "y".into()],
            retention: std::time::Duration::from_secs(30 * 86_400),
            ..process().limits
        };
        assert_eq!(*of("a"), wanted);
        assert_eq!(*of("7"), process().limits);
        assert_eq!(of("b").max_exemplars, 0);
        for nothing in ["", "# nothing\n", "overrides:\n", "overrides: {}"] {
            assert_eq!(read(nothing, &process()), Ok(Overridden::default()));
        }
    }

    #[test]
    fn limits_of_several_parts_are_written_as_cortex_does() {
        let text = "overrides:\n  a:\n    query_rejection:\n      enabled: true\n      query_attributes:\n      - {regex: up, api_type: query}\n    \
                    query_priority: {enabled: true, default_priority: -3}\n";
        let found = read(text, &process()).unwrap();
        let limits = &found.0[&TenantId::new("a").unwrap()];
        assert!(limits.query_rejection.enabled && limits.query_priority.enabled);
        let attributes = &limits.query_rejection.query_attributes;
        assert_eq!((attributes.len(), &*attributes[0].api_type), (1, "query"));
        assert_eq!(limits.query_priority.default_priority, -3);
        for only_different in [false, true] {
            let page = page(&found, &process(), only_different);
            assert_eq!(read(&page, &process()).unwrap(), found, "{page}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_tenant_and_key() {
        for (text, wanted) in [
            ("overrides: {a: {ingestion_rat: 5}}", "did you mean"),
            (
                "overrides: {a: {ingestion_rate: x}}",
                "overrides.a: ingestion_rate: \"x\"",
            ),
            (
                "overrides: {a: {ruler_max_rules_per_rule_group: 1}}",
                "the ruler is not built yet",
            ),
            (
                "overrides: {a: {query_rejection: {enabld: true}}}",
                "did you mean",
            ),
            (
                "overrides: {a: {query_rejection: {query_attributes: [{regx: x}]}}}",
                "unknown field \"regx\"",
            ),
            (
                "overrides: {a: {max_query_parallelism: 3}}",
                "evaluated one after another",
            ),
            ("overrides: {a/b: {}}", "overrides.a/b: tenant ID"),
            ("overrides: {a: 7}", "expected limits"),
            (
                "overrides: {a: {accept_ha_samples: true}}",
                "needs distributor.ha_tracker",
            ),
            (
                "overrides: {a: {metric_relabel_configs: [{action: x}]}}",
                "unknown relabel action \"x\"",
            ),
            (
                "overrides: {a: {metric_relabel_configs: [{rgx: x}]}}",
                "unknown field \"rgx\"",
            ),
            (
                "overrides: {a: {metric_relabel_configs: [{regex: (}]}}",
                "metric_relabel_configs: ",
            ),
            ("overrides: [a]", "expected tenants"),
            ("override: {}", "did you mean overrides"),
            ("multi_kv_config: {}", "multi_kv_config is not built yet"),
            (
                "overrides: {a: {max_exemplars: 1}}\n---\noverrides: {}",
                "not YAML",
            ),
            ("overrides: {a: {}, a: {}}", "not YAML"),
            ("overrides: {", "not YAML"),
        ] {
            let told = error(text);
            assert!(told.contains(wanted), "{text}: {told}");
        }
    }

    #[test]
    fn rules_are_read_as_prometheus_writes_them_and_shown_to_be_read_again() {
        let text = "overrides:\n  a:\n    metric_relabel_configs:\n    - source_labels: [__name__, job]\n      regex: up;.*\n      action: Drop\n    \
                    - {target_label: y, replacement: 1}\n";
        let found = read(text, &process()).unwrap();
        let rules = &found.0[&TenantId::new("a").unwrap()].metric_relabel_configs;
        assert_eq!(rules[0].source_labels, ["__name__", "job"]);
        assert_eq!(rules[0].action, model::RelabelAction::Drop);
        assert_eq!(
            (&*rules[1].target_label, &*rules[1].replacement),
            ("y", "1")
        );
        let page = page(&found, &process(), true);
        assert_eq!(read(&page, &process()).unwrap(), found, "{page}");
    }

    #[test]
    fn the_page_is_a_file_that_gives_the_same_limits_again() {
        let text = "overrides: {a: {ingestion_rate: 5}, \"1\": {}}";
        let found = read(text, &process()).unwrap();
        for only_different in [false, true] {
            let page = page(&found, &process(), only_different);
            assert_eq!(read(&page, &process()).unwrap(), found, "{page}");
        }
        let diff = page(&found, &process(), true);
        assert_eq!(
            diff,
            "overrides:\n  \"1\": {}\n  \"a\":\n    ingestion_rate: 5\n"
        );
    }

    #[test]
    fn every_limit_has_a_value_by_name() {
        let values = limit_values(&TenantLimits::cortex());
        let of = |name| values.iter().find(|(n, _)| *n == name).map(|(_, v)| v);
        assert_eq!(of("ingestion_rate"), Some(&LimitValue::Number(25_000.0)));
        assert_eq!(of("enforce_metric_name"), Some(&LimitValue::Flag(true)));
        assert_eq!(
            of("compactor_blocks_retention_period"),
            Some(&LimitValue::Duration(86_400.0, "24h".into()))
        );
        assert_eq!(of("drop_labels"), Some(&LimitValue::List(Vec::new())));
        assert!(
            values
                .iter()
                .all(|(_, value)| !matches!(value, LimitValue::Number(n) if n.is_nan()))
        );
    }
}

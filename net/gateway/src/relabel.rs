//! `metric_relabel_configs` of a tenant: Prometheus' relabelling of every series that comes.
//!
//! Rules are compiled once per change of a tenant's settings and run only for series that no alias knows: what comes out is cached with the
//! alias, also that a series is dropped. Values and their meaning: [`model::RelabelConfig`]. Source: Prometheus `model/relabel/relabel.go`.

use md5::{Digest, Md5};
use model::re2;
use model::{RelabelAction, RelabelConfig};
use regex::Regex;

/// Labels in the making: names are there once, in no order. Never many, so a list is searched.
pub(crate) type Labels = Vec<(String, String)>;

/// Rules, compiled.
#[derive(Debug, Clone, Default)]
pub struct Relabel(Vec<Rule>);

#[derive(Debug, Clone)]
struct Rule {
    config: RelabelConfig,
    regex: Regex,
    /// Sets the same value whatever the source is, for an empty one without looking at it.
    is_constant: bool,
}

impl Relabel {
    /// Compiles rules.
    ///
    /// Errors: the first that makes no sense, in the words of Prometheus.
    pub fn compile(configs: &[RelabelConfig]) -> Result<Relabel, String> {
        let compile = |config: &RelabelConfig| {
            check(config)?;
            Ok(Rule {
                regex: re2::anchored(&config.regex)?,
                is_constant: *config.regex == RelabelConfig::default().regex
                    && !config.target_label.contains('$')
                    && !config.replacement.contains('$'),
                config: config.clone(),
            })
        };
        let rules: Result<Vec<Rule>, String> = configs.iter().map(compile).collect();
        rules.map(Relabel)
    }

    /// Whether there are no rules.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Runs the rules; false: the series is to be dropped.
    pub(crate) fn run(&self, labels: &mut Labels) -> bool {
        self.0.iter().all(|rule| rule.run(labels))
    }
}

impl Rule {
    fn run(&self, labels: &mut Labels) -> bool {
        let config = &self.config;
        let source = config.source_labels.iter().map(|name| get(labels, name));
        let source = source.collect::<Vec<_>>().join(&config.separator);
        match config.action {
            RelabelAction::Keep => return self.regex.is_match(&source),
            RelabelAction::Drop => return !self.regex.is_match(&source),
            RelabelAction::KeepEqual => return get(labels, &config.target_label) == source,
            RelabelAction::DropEqual => return get(labels, &config.target_label) != source,
            RelabelAction::Replace => self.replace(&source, labels),
            RelabelAction::Lowercase => {
                set(labels, &config.target_label, source.to_lowercase());
            }
            RelabelAction::Uppercase => {
                set(labels, &config.target_label, source.to_uppercase());
            }
            RelabelAction::HashMod => {
                let hash = Md5::digest(source.as_bytes());
                // The last 8 bytes, as Prometheus has it since its first version.
                let hash = hash[8..].iter().fold(0, |n, &b| n << 8 | u64::from(b));
                let value = (hash % config.modulus).to_string();
                set(labels, &config.target_label, value);
            }
            RelabelAction::LabelMap => {
                for (name, value) in labels.clone() {
                    if let Some(captures) = self.regex.captures(&name) {
                        let mut target = String::new();
                        re2::expand(&captures, &config.replacement, &mut target);
                        set(labels, &target, value);
                    }
                }
            }
            RelabelAction::LabelDrop => labels.retain(|(name, _)| !self.regex.is_match(name)),
            RelabelAction::LabelKeep => labels.retain(|(name, _)| self.regex.is_match(name)),
        }
        true
    }

    fn replace(&self, source: &str, labels: &mut Labels) {
        let config = &self.config;
        if source.is_empty() && self.is_constant {
            return set(labels, &config.target_label, config.replacement.clone());
        }
        let Some(captures) = self.regex.captures(source) else {
            return;
        };
        let (mut target, mut value) = (String::new(), String::new());
        re2::expand(&captures, &config.target_label, &mut target);
        re2::expand(&captures, &config.replacement, &mut value);
        set(labels, &target, value);
    }
}

fn get<'l>(labels: &'l Labels, name: &str) -> &'l str {
    let found = labels.iter().find(|(known, _)| known == name);
    found.map_or("", |(_, value)| value)
}

/// An empty value is no label, and an empty name none that could be set.
fn set(labels: &mut Labels, name: &str, value: String) {
    let at = labels.iter().position(|(known, _)| known == name);
    match (at, value.is_empty()) {
        _ if name.is_empty() => {}
        (Some(at), true) => drop(labels.remove(at)),
        (Some(at), false) => labels[at].1 = value,
        (None, true) => {}
        (None, false) => labels.push((name.to_owned(), value)),
    }
}

/// Relations between the parts of a rule.
fn check(config: &RelabelConfig) -> Result<(), String> {
    use RelabelAction::{
        DropEqual, HashMod, KeepEqual, LabelDrop, LabelKeep, Lowercase, Replace, Uppercase,
    };
    let action = config.action;
    let name = action.name();
    let defaults = RelabelConfig::default();
    if action == HashMod && config.modulus == 0 {
        return Err("relabel configuration for hashmod requires non-zero modulus".to_owned());
    }
    let sets = matches!(
        action,
        Replace | KeepEqual | DropEqual | HashMod | Lowercase | Uppercase
    );
    if sets && config.target_label.is_empty() {
        return Err(format!(
            "relabel configuration for {name} action requires 'target_label' value"
        ));
    }
    let one = matches!(action, Lowercase | Uppercase | KeepEqual | DropEqual);
    if one && config.replacement != defaults.replacement {
        return Err(format!("'replacement' can not be set for {name} action"));
    }
    if matches!(action, KeepEqual | DropEqual)
        && (config.regex != defaults.regex
            || config.modulus != 0
            || config.separator != defaults.separator)
    {
        return Err(format!(
            "{name} action requires only 'source_labels' and `target_label`, and no other fields"
        ));
    }
    let others = RelabelConfig {
        regex: config.regex.clone(),
        action,
        ..defaults
    };
    if matches!(action, LabelDrop | LabelKeep) && *config != others {
        return Err(format!(
            "{name} action requires only 'regex', and no other fields"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    fn config(action: RelabelAction, source: &[&str], regex: &str) -> RelabelConfig {
        RelabelConfig {
            source_labels: source.iter().map(|name| (*name).to_owned()).collect(),
            regex: regex.to_owned(),
            action,
            ..RelabelConfig::default()
        }
    }

    /// What the rules make of `a="foo", b="bar", c="baz"`; `None` where they drop it.
    fn run(configs: &[RelabelConfig]) -> Option<Labels> {
        let mut labels = labels(&[("a", "foo"), ("b", "bar"), ("c", "baz")]);
        let kept = Relabel::compile(configs).unwrap().run(&mut labels);
        labels.sort();
        kept.then_some(labels)
    }

    fn to(config: RelabelConfig, target: &str, replacement: &str) -> RelabelConfig {
        RelabelConfig {
            target_label: target.to_owned(),
            replacement: replacement.to_owned(),
            ..config
        }
    }

    const WHOLE: &[(&str, &str)] = &[("a", "foo"), ("b", "bar"), ("c", "baz")];

    #[test]
    fn series_are_kept_and_dropped_by_the_whole_of_the_joined_values() {
        use RelabelAction::{Drop, DropEqual, Keep, KeepEqual};
        let whole = Some(labels(WHOLE));
        assert_eq!(run(&[config(Drop, &["a", "b"], "foo;bar")]), None);
        assert_eq!(run(&[config(Drop, &["a"], "fo")]), whole, "anchored");
        assert_eq!(run(&[config(Keep, &["a"], "f|foo")]), whole);
        assert_eq!(run(&[config(Keep, &["missing"], ".+")]), None);
        let equal = |action, source, target| {
            let config = config(action, &[source], "(.*)");
            run(&[to(config, target, "$1")]).is_some()
        };
        assert!(equal(KeepEqual, "a", "a") && !equal(KeepEqual, "a", "b"));
        assert!(equal(DropEqual, "a", "b") && !equal(DropEqual, "a", "a"));
    }

    #[test]
    fn labels_are_set_from_what_the_expression_captures() {
        use RelabelAction::Replace;
        let set = |source: &[&str], regex: &str, target: &str, replacement: &str| {
            let made = run(&[to(config(Replace, source, regex), target, replacement)]);
            let mut made = made.unwrap();
            made.retain(|pair| !labels(WHOLE).contains(pair));
            made
        };
        let one = |name: &str, value: &str| labels(&[(name, value)]);
        assert_eq!(
            set(&["a"], "f(.*)", "d", "ch${1}-$0-$$"),
            one("d", "choo-foo-$")
        );
        assert_eq!(
            set(&["a", "b"], "(?P<x>.)oo;(.*)", "$x", "$2"),
            one("f", "bar")
        );
        assert_eq!(set(&["a"], "x(.*)", "d", "$1"), [], "no match");
        assert_eq!(set(&["missing"], "(.*)", "d", "always"), one("d", "always"));
        // What becomes empty is removed.
        let gone = run(&[to(config(Replace, &["a"], "f(x?).*"), "b", "$1")]).unwrap();
        assert_eq!(gone, labels(&[("a", "foo"), ("c", "baz")]));
    }

    #[test]
    fn hashes_are_those_of_prometheus_and_letters_change_their_case() {
        let hash = RelabelConfig {
            modulus: 1000,
            ..to(config(RelabelAction::HashMod, &["c"], "(.*)"), "d", "$1")
        };
        // By md5sum: the last 16 digits of that of `baz`.
        assert_eq!(get(&run(&[hash]).unwrap(), "d"), "976");
        let lower = to(
            config(RelabelAction::Uppercase, &["a", "b"], "(.*)"),
            "a",
            "$1",
        );
        assert_eq!(get(&run(&[lower]).unwrap(), "a"), "FOO;BAR");
        let upper = to(config(RelabelAction::Replace, &["x"], "(.*)"), "a", "ÄB");
        let lower = to(config(RelabelAction::Lowercase, &["a"], "(.*)"), "a", "$1");
        assert_eq!(get(&run(&[upper, lower]).unwrap(), "a"), "äb");
    }

    #[test]
    fn names_are_mapped_dropped_and_kept() {
        use RelabelAction::{LabelDrop, LabelKeep, LabelMap};
        let map = to(config(LabelMap, &[], "([ab])"), "", "x_$1");
        let mapped = run(&[map]).unwrap();
        assert_eq!((get(&mapped, "x_a"), get(&mapped, "x_b")), ("foo", "bar"));
        assert_eq!(mapped.len(), 5);
        assert_eq!(
            run(&[config(LabelDrop, &[], "a|b")]),
            Some(labels(&[("c", "baz")]))
        );
        assert_eq!(run(&[config(LabelKeep, &[], "a|b")]).unwrap().len(), 2);
        assert_eq!(run(&[config(LabelDrop, &[], ".*")]), Some(Vec::new()));
    }

    #[test]
    fn rules_without_sense_are_told_in_the_words_of_prometheus() {
        use RelabelAction::{DropEqual, HashMod, LabelDrop, Lowercase, Replace};
        for (rule, wanted) in [
            (config(Replace, &["a"], "(.*)"), "requires 'target_label'"),
            (
                to(config(HashMod, &["a"], "(.*)"), "x", "$1"),
                "non-zero modulus",
            ),
            (config(LabelDrop, &["a"], "x"), "requires only 'regex'"),
            (
                to(config(Lowercase, &["a"], "(.*)"), "x", "y"),
                "'replacement' can not",
            ),
            (
                to(config(DropEqual, &["a"], "z"), "x", "$1"),
                "no other fields",
            ),
            (to(config(Replace, &["a"], "("), "x", "$1"), ""),
        ] {
            let told = Relabel::compile(std::slice::from_ref(&rule)).unwrap_err();
            assert!(told.contains(wanted), "{rule:?}: {told}");
        }
    }
}

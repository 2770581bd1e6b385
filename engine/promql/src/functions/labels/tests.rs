//! Relabelling, joining and sorting, by hand.

use super::*;
use crate::functions::testing::{call, series, shown};

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn replaced(input: Vec<VectorSeries>, args: [&str; 4]) -> Result<Vec<String>, String> {
    let mut all = vec![Value::Vector(input)];
    all.extend(args.map(text));
    let (result, _) = call("label_replace", all, &[]);
    result.map(shown).map_err(|e| e.to_string())
}

#[test]
fn a_replacement_needs_the_whole_value_to_match() {
    let input = || vec![series(&[("src", "source-10"), ("dst", "old")], &[1.0])];
    for (args, expected) in [
        (
            ["dst", "to-$1", "src", "source-(.*)"],
            "{dst=\"to-10\", src=\"source-10\"} [1.0]",
        ),
        (
            ["dst", "${n}x$$", "src", "source-(?P<n>.*)"],
            "{dst=\"10x$\", src=\"source-10\"} [1.0]",
        ),
        (
            ["dst", "to-$1", "src", "ource-(.*)"],
            "{dst=\"old\", src=\"source-10\"} [1.0]",
        ),
        (
            ["dst", "to-$1", "none", "(.*)"],
            "{dst=\"to-\", src=\"source-10\"} [1.0]",
        ),
        (["dst", "", "dst", ".*"], "{src=\"source-10\"} [1.0]"),
    ] {
        assert_eq!(
            replaced(input(), args),
            Ok(vec![expected.to_owned()]),
            "{args:?}"
        );
    }
}

#[test]
fn a_bad_pattern_or_name_is_refused() {
    assert_eq!(
        replaced(vec![], ["dst", "", "src", "(.*"]),
        Err("invalid regular expression in label_replace(): (.*".to_owned())
    );
    assert_eq!(
        replaced(vec![], ["", "", "src", ".*"]),
        Err("invalid destination label name in label_replace(): ".to_owned())
    );
}

#[test]
fn series_that_become_equal_are_joined_unless_they_overlap() {
    let input = |b: f64| {
        vec![
            series(&[("i", "1")], &[1.0, ABSENT]),
            series(&[("i", "2")], &[b, 2.0]),
        ]
    };
    let same = ["i", "same", "i", ".*"];
    assert_eq!(
        replaced(input(ABSENT), same),
        Ok(vec!["{i=\"same\"} [1.0, 2.0]".to_owned()])
    );
    assert_eq!(
        replaced(input(3.0), same),
        Err("vector cannot contain metrics with the same labelset".to_owned())
    );
}

#[test]
fn writing_the_name_keeps_it() {
    let mut input = series(&[("__name__", "up")], &[1.0]);
    input.drop_name = true;
    let mut args = vec![Value::Vector(vec![input])];
    args.extend(["__name__", "rate_$1", "__name__", "(.+)"].map(text));
    let (Ok(Value::Vector(result)), _) = call("label_replace", args, &[]) else {
        panic!("label_replace gives a vector");
    };
    assert_eq!(result[0].labels.metric_name(), Some("rate_up"));
    assert!(!result[0].drop_name);
}

#[test]
fn joining_takes_missing_labels_as_empty() {
    let input = series(&[("a", "1"), ("b", "2"), ("dst", "old")], &[1.0]);
    for (args, expected) in [
        (
            vec!["dst", "-", "a", "none", "b"],
            "{a=\"1\", b=\"2\", dst=\"1--2\"} [1.0]",
        ),
        (vec!["dst", "-"], "{a=\"1\", b=\"2\"} [1.0]"),
    ] {
        let mut all = vec![Value::Vector(vec![input.clone()])];
        all.extend(args.into_iter().map(text));
        assert_eq!(shown(call("label_join", all, &[]).0.unwrap()), [expected]);
    }
}

#[test]
fn sorting_puts_nan_last_in_both_directions() {
    let input = || {
        Value::Vector(vec![
            series(&[("i", "a")], &[f64::NAN]),
            series(&[("i", "b")], &[2.0]),
            series(&[("i", "c")], &[-1.0]),
            series(&[("i", "d")], &[f64::INFINITY]),
        ])
    };
    let order = |name: &str| -> String {
        let (Ok(Value::Vector(sorted)), _) = call(name, vec![input()], &[]) else {
            panic!("{name} gives a vector");
        };
        sorted
            .iter()
            .map(|one| one.labels.get("i").unwrap())
            .collect()
    };
    assert_eq!(order("sort"), "cbda");
    assert_eq!(order("sort_desc"), "dbca");
}

#[test]
fn sorting_by_labels_is_natural_and_falls_back_on_all_labels() {
    let input = || {
        Value::Vector(vec![
            series(&[("node", "n10"), ("z", "1")], &[1.0]),
            series(&[("node", "n9"), ("z", "2")], &[2.0]),
            series(&[("node", "n9"), ("z", "1")], &[3.0]),
        ])
    };
    let order = |name: &str| -> Vec<f64> {
        let (Ok(Value::Vector(sorted)), _) = call(name, vec![input(), text("node")], &[]) else {
            panic!("{name} gives a vector");
        };
        sorted.iter().map(|one| one.values[0]).collect()
    };
    assert_eq!(order("sort_by_label"), [3.0, 2.0, 1.0]);
    assert_eq!(order("sort_by_label_desc"), [1.0, 2.0, 3.0]);
}

#[test]
fn absence_has_the_labels_that_the_selector_demands_once() {
    let matchers = [
        Matcher::equal("__name__", "up"),
        Matcher::equal("job", "a"),
        Matcher::equal("twice", "a"),
        Matcher::equal("twice", "b"),
        Matcher::new(MatchOp::Regex, "re", "a").unwrap(),
    ];
    assert_eq!(demanded(&matchers).to_string(), "{job=\"a\"}");
}

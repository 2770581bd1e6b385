//! Whole columns of buckets.

use super::*;
use crate::functions::testing::{call, series, shown};

fn histogram(rest: (&str, &str)) -> Vec<VectorSeries> {
    [("+Inf", 4.0), ("0.1", 1.0), ("0.2", 3.0)]
        .into_iter()
        .map(|(le, count)| {
            series(
                &[("__name__", "d_bucket"), ("le", le), rest],
                &[count, 2.0 * count, ABSENT],
            )
        })
        .collect()
}

#[test]
fn series_that_differ_in_le_only_are_one_histogram() {
    let mut input = histogram(("i", "1"));
    input.extend(histogram(("i", "2")));
    let args = vec![Value::Scalar(vec![0.5; 3]), Value::Vector(input)];
    let (result, notes) = call("histogram_quantile", args, &[]);
    let text = shown(result.unwrap());
    assert_eq!(text.len(), 2);
    assert!(
        text[0].starts_with("{__name__=\"d_bucket\", i=\"1\"} [0.15"),
        "{text:?}"
    );
    assert!(notes.infos().is_empty() && notes.warnings().is_empty());
}

#[test]
fn a_step_without_buckets_stays_empty() {
    let args = vec![
        Value::Scalar(vec![0.5; 3]),
        Value::Vector(histogram(("i", "1"))),
    ];
    let (Ok(Value::Vector(result)), _) = call("histogram_quantile", args, &[]) else {
        panic!("histogram_quantile gives a vector");
    };
    let absent: Vec<bool> = result[0].values.iter().map(|v| is_absent(*v)).collect();
    assert_eq!(absent, [false, false, true]);
    assert!(result[0].drop_name);
}

#[test]
fn a_bound_that_is_no_number_is_warned_about_and_left_out() {
    let input = vec![series(&[("__name__", "s"), ("le", "Hello")], &[1.0])];
    let args = vec![Value::Scalar(vec![0.5]), Value::Vector(input)];
    let (result, notes) = call("histogram_quantile", args, &[]);
    assert!(shown(result.unwrap()).is_empty());
    assert_eq!(
        notes.warnings(),
        [
            "PromQL warning: bucket label \"le\" is missing or has a malformed value of \"Hello\" \
          for metric name \"s\" (1:1)"
        ]
    );
}

#[test]
fn flattened_buckets_are_reported_once_for_all_steps() {
    let input = vec![
        series(&[("__name__", "m"), ("le", "1")], &[20.0, 20.0]),
        series(&[("__name__", "m"), ("le", "2")], &[10.0, 12.5]),
        series(&[("__name__", "m"), ("le", "+Inf")], &[30.0, 30.0]),
    ];
    let args = vec![Value::Scalar(vec![0.5, 0.5]), Value::Vector(input)];
    let (_, notes) = call("histogram_quantile", args, &[]);
    assert_eq!(
        notes.infos(),
        [
            "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see \
          https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile) \
          for metric name \"m\", from buckets 2 to 2, with a max diff of 10, over 2 samples \
          from 1970-01-01T00:00:00Z to 1970-01-01T00:01:00Z (1:1)"
        ]
    );
}

#[test]
fn several_quantiles_are_told_apart_by_a_label() {
    let input = histogram(("i", "1")).into_iter().map(|mut one| {
        one.values.truncate(1);
        one
    });
    let args = vec![
        Value::Vector(input.collect()),
        Value::String("q".to_owned()),
        Value::Scalar(vec![0.0]),
        Value::Scalar(vec![1.0]),
        Value::Scalar(vec![f64::NAN]),
    ];
    let (result, notes) = call("histogram_quantiles", args, &[]);
    assert_eq!(
        shown(result.unwrap()),
        [
            "{__name__=\"d_bucket\", i=\"1\", q=\"0.0\"} [0.0]",
            "{__name__=\"d_bucket\", i=\"1\", q=\"1.0\"} [0.2]",
            "{__name__=\"d_bucket\", i=\"1\", q=\"NaN\"} [NaN]",
        ]
    );
    assert_eq!(notes.warnings().len(), 1);
}

#[test]
fn a_fraction_follows_its_bounds_from_step_to_step() {
    let args = vec![
        Value::Scalar(vec![0.0, 0.1, 0.0]),
        Value::Scalar(vec![0.1, 0.2, 1.0]),
        Value::Vector(histogram(("i", "1"))),
    ];
    let (Ok(Value::Vector(result)), _) = call("histogram_fraction", args, &[]) else {
        panic!("histogram_fraction gives a vector");
    };
    assert_eq!(result[0].values[..2], [0.25, 0.5]);
}

#[test]
fn float_series_have_no_native_histogram() {
    let args = vec![Value::Vector(histogram(("i", "1")))];
    assert!(shown(call("histogram_count", args, &[]).0.unwrap()).is_empty());
}

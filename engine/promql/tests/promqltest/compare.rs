//! Whether a result is the expected one: floats within a relative difference of one millionth, labels exactly, histograms by their
//! filled buckets.

use std::collections::BTreeMap;

use model::{CounterReset, Labels, QueryValue, SeriesValue};

use crate::notation::{Buckets, Point, Result};
use crate::script::{Case, Text};

const TOLERANCE: f64 = 0.000_001;

/// Relative comparison; NaN equals NaN.
fn almost_equal(a: f64, b: f64, tolerance: f64) -> bool {
    if a == b || (a.is_nan() && b.is_nan()) {
        return true;
    }
    if !a.is_finite() || !b.is_finite() {
        return false;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < tolerance * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < tolerance
}

fn histogram(expected: &Buckets, got: &Buckets, place: &str) -> Result<()> {
    let wrong = || Err(format!("{place}: want {expected:?}, got {got:?}"));
    // What an expected histogram says about resets counts where it says something; but that there was none is what Prometheus' storage has
    // found out by comparing samples, while here only what a sender says is known.
    let says_something = matches!(
        expected.counter_reset,
        CounterReset::Yes | CounterReset::Gauge
    );
    if (says_something && expected.counter_reset != got.counter_reset)
        || !almost_equal(expected.count, got.count, TOLERANCE)
        || !almost_equal(expected.sum, got.sum, TOLERANCE)
    {
        return wrong();
    }
    let (want, have) = (expected.filled(), got.filled());
    let same = want.len() == have.len()
        && want.iter().zip(&have).all(|(want, have)| {
            almost_equal(want.0, have.0, 1e-9)
                && almost_equal(want.1, have.1, 1e-9)
                && almost_equal(want.2, have.2, TOLERANCE)
        });
    if same { Ok(()) } else { wrong() }
}

fn point(expected: &Point, got: &Point, place: &str) -> Result<()> {
    match (expected, got) {
        (Point::Float(want), Point::Float(have))
            if !model::is_stale(*want) && almost_equal(*want, *have, TOLERANCE) =>
        {
            Ok(())
        }
        (Point::Histogram(want), Point::Histogram(have)) => histogram(want, have, place),
        _ => Err(format!("{place}: want {expected:?}, got {got:?}")),
    }
}

fn value_of(value: &SeriesValue) -> Point {
    match value {
        SeriesValue::Float(v) => Point::Float(*v),
        SeriesValue::Histogram(h) => Point::Histogram(Buckets::of_histogram(h)),
    }
}

/// Compares what an instant query has given.
pub(crate) fn instant(case: &Case, got: &QueryValue, time: i64) -> Result<()> {
    let expect = &case.expect;
    match got {
        QueryValue::Scalar { v, .. } => match expect.scalar {
            Some(want) => point(&Point::Float(want), &Point::Float(*v), "scalar"),
            None => Err(format!("unexpected scalar {v}")),
        },
        QueryValue::String { s, .. } => {
            if expect.string.as_ref() == Some(s) {
                Ok(())
            } else {
                Err(format!("want {:?}, got the text {s:?}", expect.string))
            }
        }
        QueryValue::Vector(series) => {
            if let Some(one) = series.iter().find(|one| one.t != time) {
                return Err(format!("{}: time {} is not {time}", one.labels, one.t));
            }
            let values: Vec<_> = series
                .iter()
                .map(|one| (&one.labels, value_of(&one.value)))
                .collect();
            vector(case, &values, expect.ordered)
        }
        QueryValue::Matrix(_) => matrix(case, got),
    }
}

fn vector(case: &Case, got: &[(&Labels, Point)], ordered: bool) -> Result<()> {
    if let Some(scalar) = case.expect.scalar {
        return Err(format!("want scalar {scalar}, got a vector"));
    }
    let mut want: BTreeMap<&Labels, (usize, &[Option<Point>])> = BTreeMap::new();
    for (position, labels, values) in &case.expect.series {
        want.insert(labels, (*position, values));
    }
    for (i, (labels, value)) in got.iter().enumerate() {
        let (position, values) = want
            .remove(labels)
            .ok_or_else(|| format!("unexpected or repeated series {labels}: {value:?}"))?;
        if ordered && position != i + 1 {
            return Err(format!("{labels} is at {}, not at {position}", i + 1));
        }
        if let Some(Some(want)) = values.first() {
            point(want, value, &labels.to_string())?;
        }
    }
    match want.keys().next() {
        Some(labels) => Err(format!("series {labels} is missing")),
        None => Ok(()),
    }
}

/// Compares the step at `time` of the same query over a range with what the instant query should give.
pub(crate) fn step_of_range(case: &Case, got: &QueryValue, time: i64) -> Result<()> {
    let QueryValue::Matrix(series) = got else {
        return Err(format!("a range query gave {got:?}"));
    };
    if case.expect.ordered {
        return Ok(());
    }
    sorted(series.iter().map(|one| &one.labels))?;
    let mut at_time = Vec::new();
    for one in series {
        let floats = one.floats.iter().filter(|p| p.t == time);
        at_time.extend(floats.map(|p| (&one.labels, Point::Float(p.v))));
        let histograms = one.histograms.iter().filter(|p| p.t == time);
        at_time.extend(
            histograms.map(|p| (&one.labels, Point::Histogram(Buckets::of_histogram(&p.h)))),
        );
    }
    let Some(scalar) = case.expect.scalar else {
        return vector(case, &at_time, false);
    };
    match &at_time[..] {
        [(labels, value)] if labels.is_empty() => point(&Point::Float(scalar), value, "scalar"),
        other => Err(format!("want one series without labels, got {other:?}")),
    }
}

fn sorted<'a>(labels: impl Iterator<Item = &'a Labels>) -> Result<()> {
    let labels: Vec<_> = labels.collect();
    match labels.windows(2).find(|pair| pair[0] >= pair[1]) {
        Some(pair) => Err(format!(
            "matrix is not sorted: {} before {}",
            pair[0], pair[1]
        )),
        None => Ok(()),
    }
}

/// Compares what a range query has given, step by step.
pub(crate) fn matrix(case: &Case, got: &QueryValue) -> Result<()> {
    let QueryValue::Matrix(series) = got else {
        return Err(format!("want a matrix, got {got:?}"));
    };
    if case.expect.ordered || case.expect.scalar.is_some() {
        return Err("a matrix is neither ordered nor a scalar".to_owned());
    }
    sorted(series.iter().map(|one| &one.labels))?;
    let mut want: BTreeMap<&Labels, &[Option<Point>]> = BTreeMap::new();
    for (_, labels, values) in &case.expect.series {
        want.insert(labels, values);
    }
    for one in series {
        let values = want
            .remove(&one.labels)
            .ok_or_else(|| format!("unexpected series {}: {:?}", one.labels, one.floats))?;
        let mut points: BTreeMap<i64, Point> = BTreeMap::new();
        points.extend(one.floats.iter().map(|p| (p.t, Point::Float(p.v))));
        points.extend(
            one.histograms
                .iter()
                .map(|p| (p.t, Point::Histogram(Buckets::of_histogram(&p.h)))),
        );
        if points.len() != one.floats.len() + one.histograms.len() {
            return Err(format!("{}: a time occurs twice", one.labels));
        }
        for (i, value) in values.iter().enumerate() {
            let time = case.start + i as i64 * case.step;
            let place = format!("{} at {time}", one.labels);
            match (value, points.remove(&time)) {
                (None, None) => {}
                (Some(want), Some(have)) => point(want, &have, &place)?,
                (want, have) => return Err(format!("{place}: want {want:?}, got {have:?}")),
            }
        }
        if let Some((time, value)) = points.first_key_value() {
            return Err(format!("{}: unexpected {value:?} at {time}", one.labels));
        }
    }
    match want
        .iter()
        .find(|(_, values)| values.iter().any(Option::is_some))
    {
        Some((labels, _)) => Err(format!("series {labels} is missing")),
        None => Ok(()),
    }
}

/// Compares warnings or infos with the expected texts. An older text may leave out the position at its end.
pub(crate) fn notes(
    kind: &str,
    got: &[String],
    some: bool,
    none: bool,
    texts: &[Text],
) -> Result<()> {
    if some && got.is_empty() {
        return Err(format!("want a {kind}, got none"));
    }
    if none && !got.is_empty() {
        return Err(format!("want no {kind}, got {got:?}"));
    }
    let fits = |want: &Text, have: &String| match want {
        Text::Plain(text) => {
            have == text
                || have
                    .rsplit_once(" (")
                    .is_some_and(|(front, _)| front == text)
        }
        Text::Pattern(pattern) => pattern.is_match(have),
    };
    if let Some(want) = texts
        .iter()
        .find(|want| !got.iter().any(|have| fits(want, have)))
    {
        return Err(format!("want {kind} {want:?}, got {got:?}"));
    }
    let stray = got
        .iter()
        .find(|have| !texts.iter().any(|want| fits(want, have)));
    match stray {
        Some(have) if !texts.is_empty() => Err(format!("unexpected {kind} {have:?}")),
        _ => Ok(()),
    }
}

/// Compares an error's text with what it must contain.
pub(crate) fn failure(error: &str, texts: &[Text]) -> Result<()> {
    let missing = texts.iter().find(|text| match text {
        Text::Plain(text) => !error.contains(text.as_str()),
        Text::Pattern(pattern) => !pattern.is_match(error),
    });
    match missing {
        Some(text) => Err(format!("error {error:?} does not say {text:?}")),
        None => Ok(()),
    }
}

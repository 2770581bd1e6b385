//! Functions that change or read labels: `label_replace`, `label_join`, `absent`, and sorting by labels or values.
//!
//! A name that an earlier function marked for dropping is still there to be read, and writing `__name__` keeps it. Series
//! that become equal are joined where no step has both; otherwise the query fails.

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::Error;
use crate::expr::{Expr, ExprKind};
use crate::functions::{Call, natural};
use crate::value::{ABSENT, Value, VectorSeries};
use model::{Labels, METRIC_NAME, MatchOp, Matcher};

/// Splits the arguments into the vector and the texts that follow it.
fn vector_and_texts(args: Vec<Value>) -> (Vec<VectorSeries>, Vec<String>) {
    let mut vector = Vec::new();
    let mut texts = Vec::new();
    for arg in args {
        match arg {
            Value::Vector(series) => vector = series,
            Value::String(text) => texts.push(text),
            Value::Scalar(_) => unreachable!("types are checked by the parser"),
        }
    }
    (vector, texts)
}

/// `label_replace(v, dst, replacement, src, regex)`.
pub(super) fn label_replace(call: Call<'_>) -> Result<Value, Error> {
    let (mut series, texts) = vector_and_texts(call.args);
    let [destination, replacement, source, pattern] = &texts[..] else {
        unreachable!("the parser checks the number of arguments");
    };
    let regex = model::re2::anchored(pattern).map_err(|_| {
        Error::execution(format!(
            "invalid regular expression in label_replace(): {pattern}"
        ))
    })?;
    if !valid_name(destination) {
        return Err(Error::execution(format!(
            "invalid destination label name in label_replace(): {destination}"
        )));
    }
    let mut value = String::new();
    for one in &mut series {
        let text = one.labels.get(source).unwrap_or_default();
        let Some(captures) = regex.captures(text) else {
            continue;
        };
        value.clear();
        model::re2::expand(&captures, replacement, &mut value);
        one.labels = one.labels.with(destination, &value);
        if destination == METRIC_NAME {
            one.drop_name = false;
        }
    }
    join_equal(series).map(Value::Vector)
}

/// `label_join(v, dst, separator, src...)`.
pub(super) fn label_join(call: Call<'_>) -> Result<Value, Error> {
    let (mut series, texts) = vector_and_texts(call.args);
    let [destination, separator, sources @ ..] = &texts[..] else {
        unreachable!("the parser checks the number of arguments");
    };
    if let Some(bad) = sources.iter().find(|name| !valid_name(name)) {
        return Err(Error::execution(format!(
            "invalid source label name in label_join(): {bad}"
        )));
    }
    if !valid_name(destination) {
        return Err(Error::execution(format!(
            "invalid destination label name in label_join(): {destination}"
        )));
    }
    for one in &mut series {
        let mut value = String::new();
        for (i, source) in sources.iter().enumerate() {
            if i > 0 {
                value.push_str(separator);
            }
            value.push_str(one.labels.get(source).unwrap_or_default());
        }
        one.labels = one.labels.with(destination, &value);
        if destination == METRIC_NAME {
            one.drop_name = false;
        }
    }
    join_equal(series).map(Value::Vector)
}

/// Any text is a label's name today, but an empty one; that it is UTF-8 the parser has seen, which leaves the replacement
/// character where an escape was not.
fn valid_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('\u{fffd}')
}

/// Joins series with the same labels. Errors: two of them have a sample at the same step.
pub(crate) fn join_equal(series: Vec<VectorSeries>) -> Result<Vec<VectorSeries>, Error> {
    let mut places: HashMap<Labels, usize> = HashMap::with_capacity(series.len());
    let mut joined: Vec<VectorSeries> = Vec::with_capacity(series.len());
    for one in series {
        let place = *places
            .entry(one.labels.clone())
            .or_insert_with(|| joined.len());
        if place == joined.len() {
            joined.push(one);
            continue;
        }
        joined[place].join(one)?;
    }
    Ok(joined)
}

/// `absent(v)`: 1 at the steps at which `v` is empty, with the labels that its selector demands.
pub(super) fn absent(call: Call<'_>) -> Result<Value, Error> {
    let Some(Value::Vector(series)) = call.args.into_iter().next() else {
        unreachable!("types are checked by the parser");
    };
    let mut present = vec![false; call.steps.count];
    for one in &series {
        one.mark_present(&mut present);
    }
    let values = present
        .iter()
        .map(|present| if *present { ABSENT } else { 1.0 })
        .collect();
    let labels = absent_labels(&call.exprs[0]);
    let result = VectorSeries::new(labels, false, values);
    Ok(Value::Vector(if result.is_empty() {
        Vec::new()
    } else {
        vec![result]
    }))
}

/// The labels of `absent` and `absent_over_time`: what a selector as argument demands by `=`, but for the name and for labels with more
/// than one matcher. Nothing for other expressions.
pub(crate) fn absent_labels(argument: &Expr) -> Labels {
    match &argument.kind {
        ExprKind::Paren(inner) => absent_labels(inner),
        ExprKind::Selector(selector) | ExprKind::Matrix { selector, .. } => {
            demanded(&selector.matchers)
        }
        _ => Labels::empty(),
    }
}

fn demanded(matchers: &[Matcher]) -> Labels {
    let mut seen: Vec<&str> = Vec::new();
    let mut labels = Labels::empty();
    for matcher in matchers.iter().filter(|m| m.name() != METRIC_NAME) {
        if matcher.op() == MatchOp::Equal && !seen.contains(&matcher.name()) {
            labels = labels.with(matcher.name(), matcher.value());
            seen.push(matcher.name());
        } else {
            labels = labels.with(matcher.name(), "");
        }
    }
    labels
}

/// `sort`: ascending, NaN last. A range query has an order of its own, by labels.
pub(super) fn sort(call: Call<'_>) -> Result<Value, Error> {
    sorted_by_value(call, |a, b| a.total_cmp(&b))
}

/// `sort_desc`: descending, NaN last.
pub(super) fn sort_desc(call: Call<'_>) -> Result<Value, Error> {
    sorted_by_value(call, |a, b| b.total_cmp(&a))
}

fn sorted_by_value(call: Call<'_>, order: fn(f64, f64) -> Ordering) -> Result<Value, Error> {
    let (mut series, _) = vector_and_texts(call.args);
    // Histograms have no order and are left out.
    series.iter_mut().for_each(|one| one.histograms.clear());
    series.retain(|one| !one.is_empty());
    if call.instant {
        series.sort_by(|a, b| {
            // Adding 0 makes -0 equal to 0.
            let (a, b) = (a.values[0] + 0.0, b.values[0] + 0.0);
            a.is_nan().cmp(&b.is_nan()).then_with(|| {
                if a.is_nan() {
                    Ordering::Equal
                } else {
                    order(a, b)
                }
            })
        });
    }
    Ok(Value::Vector(series))
}

/// `sort_by_label(v, label...)`: natural order of these labels, then of all labels.
pub(super) fn sort_by_label(call: Call<'_>) -> Result<Value, Error> {
    sorted_by_label(call, |order| order)
}

/// `sort_by_label_desc`.
pub(super) fn sort_by_label_desc(call: Call<'_>) -> Result<Value, Error> {
    sorted_by_label(call, Ordering::reverse)
}

fn sorted_by_label(call: Call<'_>, direction: fn(Ordering) -> Ordering) -> Result<Value, Error> {
    let (mut series, names) = vector_and_texts(call.args);
    if call.instant {
        series.sort_by(|a, b| {
            let order = names
                .iter()
                .map(|name| {
                    natural::compare(
                        a.labels.get(name).unwrap_or_default(),
                        b.labels.get(name).unwrap_or_default(),
                    )
                })
                .find(|order| order.is_ne())
                .unwrap_or_else(|| a.labels.cmp(&b.labels));
            direction(order)
        });
    }
    Ok(Value::Vector(series))
}

#[cfg(test)]
mod tests;

//! What the unit tests of functions share: calls without an evaluator.

use model::Labels;

use crate::annotations::{Annotations, Notes};
use crate::expr::{Expr, Span};
use crate::functions::{Call, Edges, RangeFn, Window, lookup};
use crate::value::{Steps, Value, VectorSeries};

/// The result of a range function over samples `(time, value)` in the range `(start, end]`, and its notes.
pub(super) fn over(
    eval: RangeFn,
    samples: &[(i64, f64)],
    range: (i64, i64),
    args: &[f64],
) -> (f64, Annotations) {
    over_edges(eval, samples, range, args, Edges::Plain)
}

/// The same with samples beside the range.
pub(super) fn over_edges(
    eval: RangeFn,
    samples: &[(i64, f64)],
    range: (i64, i64),
    args: &[f64],
    edges: Edges,
) -> (f64, Annotations) {
    let times: Vec<i64> = samples.iter().map(|s| s.0).collect();
    let values: Vec<f64> = samples.iter().map(|s| s.1).collect();
    let window = Window {
        times: &times,
        values: &values,
        start: range.0,
        end: range.1,
        step_time: range.1,
        edges,
    };
    let mut annotations = Annotations::default();
    let mut notes = Notes {
        annotations: &mut annotations,
        text: "",
        args: &[],
        metric: "m",
    };
    let value = eval(&window, args, &mut notes);
    (value, annotations)
}

/// Calls a function of whole columns as an instant query would.
pub(super) fn call(
    name: &str,
    args: Vec<Value>,
    exprs: &[Expr],
) -> (Result<Value, crate::Error>, Annotations) {
    let steps = args
        .iter()
        .map(|arg| match arg {
            Value::Scalar(values) => values.len(),
            Value::Vector(series) => series.first().map_or(0, |one| one.values.len()),
            Value::String(_) => 0,
        })
        .max()
        .unwrap_or(0)
        .max(1);
    let function = lookup(name).expect("the function exists");
    let crate::functions::Kind::Columns(eval) = function.kind else {
        panic!("{name} is not a function of columns");
    };
    let mut annotations = Annotations::default();
    let places = [Span::default(); 12];
    let mut notes = Notes {
        annotations: &mut annotations,
        text: "",
        args: &places,
        metric: "",
    };
    let result = eval(Call {
        function,
        steps: Steps {
            start: 0,
            step: 60_000,
            count: steps,
        },
        args,
        exprs,
        instant: steps == 1,
        notes: &mut notes,
    });
    (result, annotations)
}

/// A series from its labels and values.
pub(super) fn series(labels: &[(&str, &str)], values: &[f64]) -> VectorSeries {
    let labels = Labels::from_pairs(labels.iter().copied()).expect("labels are valid");
    VectorSeries::new(labels, false, values.to_vec())
}

/// The series of a result as text, value by value.
pub(super) fn shown(value: Value) -> Vec<String> {
    let Value::Vector(series) = value else {
        panic!("expected a vector, got {value:?}");
    };
    series
        .iter()
        .map(|one| format!("{} {:?}", one.labels, one.values))
        .collect()
}

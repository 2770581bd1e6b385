//! Functions between numbers and vectors: `vector`, `scalar`, `time`, `pi`, `max_of`, `min_of`.

use model::Labels;

use crate::Error;
use crate::functions::{Call, math};
use crate::value::{Value, VectorSeries, is_absent};

/// `vector(s)`: a vector with one series without labels.
pub(super) fn vector(call: Call<'_>) -> Result<Value, Error> {
    let Some(Value::Scalar(values)) = call.args.into_iter().next() else {
        unreachable!("types are checked by the parser");
    };
    Ok(Value::Vector(vec![VectorSeries::new(
        Labels::empty(),
        false,
        values,
    )]))
}

/// `scalar(v)`: the value of the only sample at a step, NaN where there is none or more than one.
pub(super) fn scalar(call: Call<'_>) -> Result<Value, Error> {
    let Some(Value::Vector(series)) = call.args.into_iter().next() else {
        unreachable!("types are checked by the parser");
    };
    let mut values = vec![f64::NAN; call.steps.count];
    let mut samples = vec![0u32; call.steps.count];
    for one in &series {
        for ((out, count), value) in values.iter_mut().zip(&mut samples).zip(&one.values) {
            if !is_absent(*value) {
                *count = count.saturating_add(1);
                *out = if *count == 1 { *value } else { f64::NAN };
            }
        }
    }
    Ok(Value::Scalar(values))
}

/// `time()`: of the step, in seconds.
pub(super) fn time(call: Call<'_>) -> Result<Value, Error> {
    let seconds = call.steps.times().map(|t| t as f64 / 1000.0).collect();
    Ok(Value::Scalar(seconds))
}

/// `pi()`.
pub(super) fn pi(call: Call<'_>) -> Result<Value, Error> {
    Ok(Value::Scalar(vec![std::f64::consts::PI; call.steps.count]))
}

/// `max_of(a, b)`.
pub(super) fn max_of(call: Call<'_>) -> Result<Value, Error> {
    pick(call, math::larger)
}

/// `min_of(a, b)`.
pub(super) fn min_of(call: Call<'_>) -> Result<Value, Error> {
    pick(call, math::smaller)
}

fn pick(call: Call<'_>, choose: fn(f64, f64) -> f64) -> Result<Value, Error> {
    let [Value::Scalar(left), Value::Scalar(right)] = &call.args[..] else {
        unreachable!("types are checked by the parser");
    };
    let picked = left.iter().zip(right).map(|(a, b)| choose(*a, *b));
    Ok(Value::Scalar(picked.collect()))
}

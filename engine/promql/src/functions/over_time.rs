//! The `*_over_time` functions: aggregations of one series over the samples of a window.
//!
//! Sums and means are compensated ([`super::kahan`]); minimum and maximum take NaN only where there is nothing else; the
//! functions that tell the time of a sample give seconds. A window always holds at least one sample.

use crate::annotations::Notes;
use crate::functions::Window;
use crate::functions::kahan::{self, Mean, Sum};
use crate::functions::quantile::{self, median};

/// `sum_over_time`.
pub(super) fn sum(window: &Window<'_>, _: &[f64], _: &mut Notes<'_>) -> f64 {
    let mut sum = Sum::default();
    for value in window.values {
        sum.add(*value);
    }
    sum.value()
}

/// `avg_over_time`.
pub(super) fn avg(window: &Window<'_>, _: &[f64], _: &mut Notes<'_>) -> f64 {
    // The plain sum, as long as it is finite, is the same as `Mean`, with nothing to decide per sample.
    let mut sum = Sum::new(window.values[0]);
    for value in &window.values[1..] {
        sum.add(*value);
    }
    if sum.sum.is_finite() {
        let count = window.values.len() as f64;
        return sum.sum / count + sum.correction / count;
    }
    let mut mean = Mean::default();
    for value in window.values {
        mean.add(*value);
    }
    mean.value()
}

/// `min_over_time`.
pub(super) fn min(window: &Window<'_>, _: &[f64], _: &mut Notes<'_>) -> f64 {
    smallest(window.values)
}

/// `max_over_time`.
pub(super) fn max(window: &Window<'_>, _: &[f64], _: &mut Notes<'_>) -> f64 {
    largest(window.values)
}

/// The smallest value that is not NaN; NaN where all are. Compares only, so that it vectorises.
pub(crate) fn smallest(values: &[f64]) -> f64 {
    let mut lanes = [f64::NAN; 4];
    let chunks = values.chunks_exact(4);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = lane.min(*value);
        }
    }
    lanes.iter().chain(rest).fold(f64::NAN, |a, b| a.min(*b))
}

/// The largest value that is not NaN; NaN where all are.
pub(crate) fn largest(values: &[f64]) -> f64 {
    let mut lanes = [f64::NAN; 4];
    let chunks = values.chunks_exact(4);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = lane.max(*value);
        }
    }
    lanes.iter().chain(rest).fold(f64::NAN, |a, b| a.max(*b))
}

/// `count_over_time`.
pub(super) fn count(window: &Window<'_>, _: &[f64], _: &mut Notes<'_>) -> f64 {
    window.times.len() as f64
}

/// `present_over_time`.
pub(super) fn present(_: &Window<'_>, _: &[f64], _: &mut Notes<'_>) -> f64 {
    1.0
}

/// `last_over_time`.
pub(super) fn last(window: &Window<'_>, _: &[f64], _: &mut Notes<'_>) -> f64 {
    window.values[window.values.len() - 1]
}

/// `first_over_time`.
pub(super) fn first(window: &Window<'_>, _: &[f64], _: &mut Notes<'_>) -> f64 {
    window.values[0]
}

/// `stdvar_over_time`.
pub(super) fn stdvar(window: &Window<'_>, _: &[f64], _: &mut Notes<'_>) -> f64 {
    variance(window.values)
}

/// `stddev_over_time`.
pub(super) fn stddev(window: &Window<'_>, _: &[f64], _: &mut Notes<'_>) -> f64 {
    variance(window.values).sqrt()
}

/// Variance of the population by Welford's method with compensated sums.
fn variance(values: &[f64]) -> f64 {
    let (mut mean, mut mean_c) = (0.0f64, 0.0f64);
    let (mut aux, mut aux_c) = (0.0f64, 0.0f64);
    let mut count = 0.0f64;
    for value in values {
        count += 1.0;
        let delta = value - (mean + mean_c);
        (mean, mean_c) = kahan::increase(delta / count, mean, mean_c);
        (aux, aux_c) = kahan::increase(delta * (value - (mean + mean_c)), aux, aux_c);
    }
    (aux + aux_c) / count
}

/// `quantile_over_time`; the quantile is the scalar argument.
pub(super) fn quantile(window: &Window<'_>, args: &[f64], notes: &mut Notes<'_>) -> f64 {
    let q = args[0];
    quantile::check(q, 0, notes);
    quantile::quantile(q, &mut window.values.to_vec())
}

/// `mad_over_time`: the median of the distances to the median.
pub(super) fn mad(window: &Window<'_>, _: &[f64], _: &mut Notes<'_>) -> f64 {
    let mut values = window.values.to_vec();
    let middle = median(&mut values);
    values.iter_mut().for_each(|v| *v = (*v - middle).abs());
    median(&mut values)
}

/// `ts_of_min_over_time`: of the last of equals.
pub(super) fn ts_of_min(window: &Window<'_>, _: &[f64], _: &mut Notes<'_>) -> f64 {
    time_of(window, |value, best| value <= best)
}

/// `ts_of_max_over_time`: of the last of equals.
pub(super) fn ts_of_max(window: &Window<'_>, _: &[f64], _: &mut Notes<'_>) -> f64 {
    time_of(window, |value, best| value >= best)
}

fn time_of(window: &Window<'_>, better: impl Fn(f64, f64) -> bool) -> f64 {
    let mut best = 0;
    for (i, value) in window.values.iter().enumerate() {
        if better(*value, window.values[best]) || window.values[best].is_nan() {
            best = i;
        }
    }
    seconds(window.times[best])
}

/// `ts_of_first_over_time`.
pub(super) fn ts_of_first(window: &Window<'_>, _: &[f64], _: &mut Notes<'_>) -> f64 {
    seconds(window.times[0])
}

/// `ts_of_last_over_time`.
pub(super) fn ts_of_last(window: &Window<'_>, _: &[f64], _: &mut Notes<'_>) -> f64 {
    seconds(window.times[window.times.len() - 1])
}

fn seconds(time: i64) -> f64 {
    time as f64 / 1000.0
}

#[cfg(test)]
mod tests;

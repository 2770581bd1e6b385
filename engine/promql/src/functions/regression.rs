//! Lines and smoothed trends through a window: `deriv`, `predict_linear`, `double_exponential_smoothing`.

use crate::annotations::Notes;
use crate::functions::Window;
use crate::functions::kahan::Sum;
use crate::value::ABSENT;

/// `deriv`: slope of the least-squares line, per second.
pub(super) fn deriv(window: &Window<'_>, _: &[f64], _: &mut Notes<'_>) -> f64 {
    if window.values.len() < 2 {
        return ABSENT;
    }
    // Counted from a time near the samples, or the squares lose their low digits.
    line(window.times, window.values, window.times[0]).slope
}

/// `predict_linear`: the line's value the given seconds after the time of the step.
pub(super) fn predict_linear(window: &Window<'_>, args: &[f64], _: &mut Notes<'_>) -> f64 {
    if window.values.len() < 2 {
        return ABSENT;
    }
    let line = line(window.times, window.values, window.step_time);
    line.intercept + line.slope * args[0]
}

struct Line {
    /// Per second.
    slope: f64,
    /// The value at the time from which is counted.
    intercept: f64,
}

/// The least-squares line; flat for constant values, NaN for constant infinities.
fn line(times: &[i64], values: &[f64], zero: i64) -> Line {
    let first = values[0];
    if values.iter().all(|v| *v == first) {
        return if first.is_infinite() {
            Line {
                slope: f64::NAN,
                intercept: f64::NAN,
            }
        } else {
            Line {
                slope: 0.0,
                intercept: first,
            }
        };
    }
    let (mut x, mut y, mut xy, mut x2) = (
        Sum::default(),
        Sum::default(),
        Sum::default(),
        Sum::default(),
    );
    for (time, value) in times.iter().zip(values) {
        let seconds = time.saturating_sub(zero) as f64 / 1e3;
        x.add(seconds);
        y.add(*value);
        xy.add(seconds * value);
        x2.add(seconds * seconds);
    }
    let [x, y, xy, x2] = [x, y, xy, x2].map(|sum| sum.value());
    let count = values.len() as f64;
    let covariance = xy - x * y / count;
    let variance = x2 - x * x / count;
    let slope = covariance / variance;
    Line {
        slope,
        intercept: y / count - slope * x / count,
    }
}

/// `double_exponential_smoothing` (formerly `holt_winters`), with a smoothing factor and a trend factor that
/// [`check_factors`] has accepted.
pub(super) fn double_exponential_smoothing(
    window: &Window<'_>,
    args: &[f64],
    _: &mut Notes<'_>,
) -> f64 {
    let (smoothing, trend_factor) = (args[0], args[1]);
    let values = window.values;
    if values.len() < 2 {
        return ABSENT;
    }
    let mut before = 0.0;
    let mut smoothed = values[0];
    let mut trend = values[1] - values[0];
    for (i, value) in values[1..].iter().enumerate() {
        if i > 0 {
            trend = trend_factor * (smoothed - before) + (1.0 - trend_factor) * trend;
        }
        let level = (1.0 - smoothing) * (smoothed + trend);
        (before, smoothed) = (smoothed, smoothing * value + level);
    }
    smoothed
}

/// Whether the factors of `double_exponential_smoothing` lie between 0 and 1, both exclusive, or are NaN; the error's text if not.
pub(super) fn check_factors(args: &[f64]) -> Result<(), String> {
    let (smoothing, trend) = (args[0], args[1]);
    let within = |factor: f64| !(factor <= 0.0 || factor >= 1.0);
    if !within(smoothing) {
        return Err(format!(
            "invalid smoothing factor. Expected: 0 < sf < 1, got: {smoothing:.6}"
        ));
    }
    if !within(trend) {
        return Err(format!(
            "invalid trend factor. Expected: 0 < tf < 1, got: {trend:.6}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

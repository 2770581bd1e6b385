//! Range functions over all windows of a column at once, where that is cheaper than window by window.
//!
//! Windows of successive steps overlap: with a range of an hour and a step of 15 seconds every sample is in 240 of them. So an extreme is
//! kept in a monotonic queue, sums of whole numbers are differences of running sums, and whether a counter ever fell is looked up once. All of it
//! is exact: the results are those of the function applied to each window, but for the sign of a zero.
//! Where exactness forbids a short cut (sums of fractions are compensated in the order of the samples) several windows are summed side by side, so
//! that their chains of additions overlap.

use crate::functions::kahan::{self, Mean, Sum};
use crate::functions::{Bounds, Grid, rate};
use crate::value::ABSENT;

/// `rate`.
pub(super) fn rate(grid: &mut Grid, values: &[f64], out: &mut Vec<f64>) {
    change(grid, values, out, rate::Change::Rate);
}

/// `increase`.
pub(super) fn increase(grid: &mut Grid, values: &[f64], out: &mut Vec<f64>) {
    change(grid, values, out, rate::Change::Increase);
}

fn change(grid: &mut Grid, values: &[f64], out: &mut Vec<f64>, kind: rate::Change) {
    let falls = rate::falls(values);
    if grid.extrapolations.len() < grid.windows.len() {
        let mut extrapolation = rate::Extrapolation::default();
        grid.extrapolations.extend(grid.windows.iter().map(|w| {
            if w.high - w.low >= 2 {
                extrapolation.place(&grid.times[w.low..w.high], (w.start, w.end), kind);
            }
            extrapolation
        }));
    }
    let windows = grid.windows.iter().zip(&grid.extrapolations);
    out.extend(windows.map(|(w, extrapolation)| {
        let values = &values[w.low..w.high];
        match rate::observed(values, kind, falls) {
            Some(change) => change * extrapolation.factor(values[0], change),
            None => ABSENT,
        }
    }));
}

/// `max_over_time`.
pub(super) fn max(grid: &mut Grid, values: &[f64], out: &mut Vec<f64>) {
    extremes(values, &grid.windows, out, |value, last| value > last);
}

/// `min_over_time`.
pub(super) fn min(grid: &mut Grid, values: &[f64], out: &mut Vec<f64>) {
    extremes(values, &grid.windows, out, |value, last| value < last);
}

/// The queue holds the indexes of samples that no later one beats, so the first within a window is its best. NaN does not enter; where nothing
/// else is, it is the answer.
fn extremes(
    values: &[f64],
    windows: &[Bounds],
    out: &mut Vec<f64>,
    beats: impl Fn(f64, f64) -> bool,
) {
    let mut queue: Vec<usize> = Vec::new();
    let mut front = 0;
    let mut next = 0;
    for window in windows {
        if window.low >= next {
            queue.clear();
            (front, next) = (0, window.low);
        }
        for (index, value) in (next..).zip(&values[next..window.high.max(next)]) {
            if value.is_nan() {
                continue;
            }
            while queue.len() > front
                && queue
                    .last()
                    .is_some_and(|last| beats(*value, values[*last]))
            {
                queue.pop();
            }
            queue.push(index);
        }
        next = next.max(window.high);
        while queue.get(front).is_some_and(|index| *index < window.low) {
            front += 1;
        }
        out.push(if window.low == window.high {
            ABSENT
        } else {
            queue.get(front).map_or(f64::NAN, |index| values[*index])
        });
    }
}

/// `sum_over_time`.
pub(super) fn sum(grid: &mut Grid, values: &[f64], out: &mut Vec<f64>) {
    let windows = &grid.windows;
    match running_sums(values) {
        Some(running) => each_window(windows, out, |w| running[w.high] - running[w.low]),
        None => sums(values, windows, out, |_, sum| sum.value()),
    }
}

/// `avg_over_time`.
pub(super) fn avg(grid: &mut Grid, values: &[f64], out: &mut Vec<f64>) {
    let windows = &grid.windows;
    let count = |w: &Bounds| (w.high - w.low) as f64;
    match running_sums(values) {
        Some(running) => each_window(windows, out, |w| {
            (running[w.high] - running[w.low]) / count(w)
        }),
        None => sums(values, windows, out, |w, sum| {
            if sum.sum.is_finite() {
                return sum.sum / count(w) + sum.correction / count(w);
            }
            let mut mean = Mean::default();
            values[w.low..w.high]
                .iter()
                .for_each(|value| mean.add(*value));
            mean.value()
        }),
    }
}

fn each_window(windows: &[Bounds], out: &mut Vec<f64>, result: impl Fn(&Bounds) -> f64) {
    out.extend(
        windows
            .iter()
            .map(|w| if w.low == w.high { ABSENT } else { result(w) }),
    );
}

/// The sum of the first `i` values for every `i`, where all are whole and so small that no sum of them loses anything; then differences of
/// these sums lose nothing either.
fn running_sums(values: &[f64]) -> Option<Vec<f64>> {
    const EXACT_MAX: f64 = (1u64 << 53) as f64;
    let mut whole = true;
    let mut total = 0.0;
    for value in values {
        whole &= value.trunc() == *value;
        total += value.abs();
    }
    // False for NaN and infinities.
    if !(whole && total < EXACT_MAX) {
        return None;
    }
    let mut running = Vec::with_capacity(values.len() + 1);
    let mut sum = 0.0;
    running.push(sum);
    running.extend(values.iter().map(|value| {
        sum += value;
        sum
    }));
    Some(running)
}

/// Windows that are summed side by side.
const LANES: usize = 4;

/// Compensated sums of all windows, each in the order of its samples.
fn sums(
    values: &[f64],
    windows: &[Bounds],
    out: &mut Vec<f64>,
    result: impl Fn(&Bounds, Sum) -> f64,
) {
    let mut chunks = windows.chunks_exact(LANES);
    for chunk in &mut chunks {
        let length = chunk[0].high - chunk[0].low;
        if chunk.iter().any(|w| w.high - w.low != length) {
            each_window(chunk, out, |w| result(w, sum_of(&values[w.low..w.high])));
            continue;
        }
        let lanes: [&[f64]; LANES] = std::array::from_fn(|i| &values[chunk[i].low..][..length]);
        let (mut sum, mut correction) = ([0.0; LANES], [0.0; LANES]);
        let [a, b, c, d] = lanes;
        for (((a, b), c), d) in a.iter().zip(b).zip(c).zip(d) {
            for (lane, value) in [a, b, c, d].into_iter().enumerate() {
                let (next, lost) = kahan::two_sum(sum[lane], *value);
                sum[lane] = next;
                correction[lane] += lost;
            }
        }
        for (lane, window) in chunk.iter().enumerate() {
            let sum = Sum {
                sum: sum[lane],
                correction: correction[lane],
            };
            out.push(if length == 0 {
                ABSENT
            } else {
                result(window, sum)
            });
        }
    }
    each_window(chunks.remainder(), out, |w| {
        result(w, sum_of(&values[w.low..w.high]))
    });
}

fn sum_of(values: &[f64]) -> Sum {
    let mut sum = Sum::default();
    values.iter().for_each(|value| sum.add(*value));
    sum
}

#[cfg(test)]
mod tests;

//! Functions of change: `rate`, `increase`, `delta`, their instant forms, `changes` and `resets`.
//!
//! A range selector sees the samples in `(start, end]`, whose first and last seldom lie on the ends; so the three extended
//! ones extrapolate the observed change to the whole range, but not further than half of the mean distance between samples where the
//! range reaches far beyond them, and for a counter never below zero. Source: Prometheus `promql/functions.go`.
//!
//! `anchored` and `smoothed` selectors do not extrapolate: the first takes the last sample before the range as its start, the second
//! interpolates on both ends; see [`extended`].

use crate::annotations::Notes;
use crate::functions::{Edges, Window};
use crate::value::ABSENT;

/// What becomes of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// `rate`: of a counter, per second.
    Rate,
    /// `increase`: of a counter.
    Increase,
    /// `delta`: of a gauge.
    Delta,
}

/// `rate`.
pub(super) fn rate(window: &Window<'_>, _: &[f64], _: &mut Notes<'_>) -> f64 {
    change(window, Change::Rate)
}

/// `increase`.
pub(super) fn increase(window: &Window<'_>, _: &[f64], _: &mut Notes<'_>) -> f64 {
    change(window, Change::Increase)
}

/// `delta`.
pub(super) fn delta(window: &Window<'_>, _: &[f64], _: &mut Notes<'_>) -> f64 {
    change(window, Change::Delta)
}

fn change(window: &Window<'_>, kind: Change) -> f64 {
    match window.edges {
        Edges::Plain => extrapolated(
            window.times,
            window.values,
            (window.start, window.end),
            kind,
            falls(window.values),
        ),
        Edges::Anchored => extended(window, kind, false),
        Edges::Smoothed => extended(window, kind, true),
    }
}

/// The change over the range `(start, end]`. `falls` is false if it is known that no value is smaller than the one before.
pub(super) fn extrapolated(
    times: &[i64],
    values: &[f64],
    (start, end): (i64, i64),
    kind: Change,
    falls: bool,
) -> f64 {
    debug_assert_eq!(times.len(), values.len());
    match observed(values, kind, falls) {
        Some(change) => change * extrapolation(times, (start, end), kind, values[0], change),
        None => ABSENT,
    }
}

/// The change from the first to the last value, `None` of fewer than two.
#[inline]
pub(super) fn observed(values: &[f64], kind: Change, falls: bool) -> Option<f64> {
    let [first, .., last] = values else {
        return None;
    };
    let change = last - first;
    if !falls || kind == Change::Delta {
        return Some(change);
    }
    // A counter that fell had started from zero again: what it had counted is added.
    let resets = values.windows(2).filter(|pair| pair[1] < pair[0]);
    Some(resets.fold(change, |change, pair| change + pair[0]))
}

/// By what a change between the first and the last sample is multiplied to become the one over the range `(start, end]`.
///
/// There are at least two samples; `first` is the value of the first one and `change` the change, of a histogram their counts.
#[inline]
pub(super) fn extrapolation(
    times: &[i64],
    (start, end): (i64, i64),
    kind: Change,
    first: f64,
    change: f64,
) -> f64 {
    let mut extrapolation = Extrapolation::default();
    extrapolation.place(times, (start, end), kind);
    extrapolation.factor(first, change)
}

/// The part of an extrapolation that depends on times alone. Scrapes are regular and so are steps: in the windows of a query it is
/// nearly always the same as in the window before, and its divisions are most of the work of a `rate`.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Extrapolation {
    /// Distances in milliseconds from the start of the range to the first sample, to the last one, to the end, and how many samples.
    place: (i64, i64, i64, usize),
    counter: bool,
    /// Seconds of the range, by which `rate` divides; 1 else.
    range: f64,
    sampled: f64,
    to_start: f64,
    to_end: f64,
    /// The factor of a change that is not cut at zero.
    factor: f64,
}

impl Extrapolation {
    /// Sets it for the samples of a window, of which there are at least two.
    #[inline]
    pub(super) fn place(&mut self, times: &[i64], (start, end): (i64, i64), kind: Change) {
        let [first, .., last] = times else {
            panic!("a change needs two samples");
        };
        let place = (
            first.saturating_sub(start),
            last.saturating_sub(*first),
            end.saturating_sub(*last),
            times.len(),
        );
        // No two samples have one time: the place of a new one is never met.
        if place != self.place {
            self.set(place, seconds(start, end), kind);
        }
    }

    #[cold]
    fn set(&mut self, place: (i64, i64, i64, usize), range: f64, kind: Change) {
        let (to_first, sampled, to_end, count) = place;
        let of_ms = |ms: i64| ms as f64 / 1000.0;
        self.place = place;
        self.counter = kind != Change::Delta;
        self.range = if kind == Change::Rate { range } else { 1.0 };
        self.sampled = of_ms(sampled);
        let mean_distance = self.sampled / (count - 1) as f64;
        let threshold = mean_distance * 1.1;
        let limited = |distance: f64| {
            if distance >= threshold {
                mean_distance / 2.0
            } else {
                distance
            }
        };
        self.to_start = limited(of_ms(to_first));
        self.to_end = limited(of_ms(to_end));
        self.factor = self.of(self.to_start);
    }

    /// By what the change is multiplied that began at `first`.
    #[inline]
    pub(super) fn factor(&self, first: f64, change: f64) -> f64 {
        // A counter starts at zero. Where it would have been zero within the time to extrapolate, extrapolation ends. That is seldom so,
        // and where it is far from being so it is seen without a division.
        if self.counter && change > 0.0 && first >= 0.0 {
            const SURELY: f64 = 1.0 + 1e-9;
            let far = self.sampled * first > self.to_start * change * SURELY;
            if !far {
                let to_zero = self.sampled * (first / change);
                if to_zero < self.to_start {
                    return self.of(to_zero);
                }
            }
        }
        self.factor
    }

    /// With that much before the first sample.
    fn of(&self, to_start: f64) -> f64 {
        (self.sampled + to_start + self.to_end) / self.sampled / self.range
    }
}

/// Whether any value is smaller than the one before. Most windows hold no reset; looking for one first vectorises.
#[inline]
pub(super) fn falls(values: &[f64]) -> bool {
    let after = values.get(1..).unwrap_or_default();
    values
        .iter()
        .zip(after)
        .fold(false, |any, (before, now)| any | (now < before))
}

#[inline]
fn seconds(from: i64, to: i64) -> f64 {
    to.saturating_sub(from) as f64 / 1000.0
}

/// The change between the values at the two ends of the range, found by taking the last sample before the start (`anchored`) or by
/// interpolation on both ends (`smoothed`).
fn extended(window: &Window<'_>, kind: Change, smoothed: bool) -> f64 {
    let Window {
        times,
        values,
        start,
        end,
        ..
    } = *window;
    if times.is_empty() {
        return ABSENT;
    }
    let counter = kind != Change::Delta;
    let mut last = times.len() - 1;
    let mut first = times[..last]
        .partition_point(|t| *t <= start)
        .saturating_sub(1);
    if smoothed {
        last = times[..last].partition_point(|t| *t < end);
    }
    if times[last] <= start || (smoothed && times[first] > end) {
        return ABSENT;
    }
    let left = if smoothed && times[first] < start {
        interpolate(times, values, first, start, counter)
    } else {
        values[first]
    };
    let right = if smoothed && last > 0 && times[last] > end {
        interpolate(times, values, last - 1, end, counter)
    } else {
        values[last]
    };
    let mut result = right - left;
    if counter {
        // Resets at the ends are in `left` and `right`; here those between the samples within.
        if times[first] <= start {
            first += 1;
        }
        let mut within_end = last + 1;
        if times[last] >= end {
            within_end -= 1;
        }
        let mut previous = left;
        for value in values.get(first..within_end).unwrap_or_default() {
            if *value < previous {
                result += previous;
            }
            previous = *value;
        }
        if right < previous {
            result += previous;
        }
    }
    if kind == Change::Rate {
        result /= seconds(start, end);
    }
    result
}

/// The value at `at` on the line from sample `i` to the next. A counter that was reset between them started from zero, so the line does; what was before is added
/// where the values of the range are gone through.
pub(super) fn interpolate(times: &[i64], values: &[f64], i: usize, at: i64, counter: bool) -> f64 {
    let Some((&[from, to], &[mut low, high])) =
        times[i..].first_chunk().zip(values[i..].first_chunk())
    else {
        return values[i];
    };
    if counter && high < low {
        low = 0.0;
    }
    low + (high - low) * (at.saturating_sub(from) as f64) / (to.saturating_sub(from) as f64)
}

/// `irate`.
pub(super) fn irate(window: &Window<'_>, _: &[f64], _: &mut Notes<'_>) -> f64 {
    instant(window.times, window.values, true)
}

/// `idelta`.
pub(super) fn idelta(window: &Window<'_>, _: &[f64], _: &mut Notes<'_>) -> f64 {
    instant(window.times, window.values, false)
}

/// The change between the last two samples.
fn instant(times: &[i64], values: &[f64], per_second: bool) -> f64 {
    let (Some(&[from, to]), Some(&[before, now])) = (times.last_chunk(), values.last_chunk())
    else {
        return ABSENT;
    };
    let distance = to.saturating_sub(from);
    if distance == 0 {
        return ABSENT;
    }
    if !per_second {
        return now - before;
    }
    // A counter that fell had started at zero. A NaN is no fall.
    let change = if now < before { now } else { now - before };
    change / (distance as f64 / 1000.0)
}

/// `changes`: how often a value differs from the one before; NaN equals NaN.
pub(super) fn changes(window: &Window<'_>, _: &[f64], _: &mut Notes<'_>) -> f64 {
    transitions(window, |before, now| {
        before != now && !(before.is_nan() && now.is_nan())
    })
}

/// `resets`: how often a value is smaller than the one before.
pub(super) fn resets(window: &Window<'_>, _: &[f64], _: &mut Notes<'_>) -> f64 {
    transitions(window, |before, now| now < before)
}

fn transitions(window: &Window<'_>, counts: impl Fn(f64, f64) -> bool) -> f64 {
    let values = match window.edges {
        Edges::Plain => window.values,
        // The last sample at or before the start is the first to compare with.
        Edges::Anchored | Edges::Smoothed => {
            let first = window.times.partition_point(|t| *t <= window.start);
            let end = window.times.partition_point(|t| *t <= window.end);
            if first == end {
                return ABSENT;
            }
            &window.values[first.saturating_sub(1)..end]
        }
    };
    if values.is_empty() {
        return ABSENT;
    }
    values
        .windows(2)
        .filter(|pair| counts(pair[0], pair[1]))
        .count() as f64
}

#[cfg(test)]
mod tests;

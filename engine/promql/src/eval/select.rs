//! From decoded samples to one value per step: the newest sample within the lookback, and the window of a range.
//!
//! Times of steps never decrease, so one pass with pointers that only move forward serves all steps.

use crate::functions::{Bounds, Edges};
use crate::plan::Moment;
use crate::source::Columns;
use crate::value::{ABSENT, Steps, is_absent};

/// Removes staleness markers: windows do not see them.
pub(super) fn remove_stale(columns: &mut Columns) {
    let Some(first) = columns.values.iter().position(|v| is_absent(*v)) else {
        return;
    };
    let mut to = first;
    for from in first..columns.values.len() {
        if !is_absent(columns.values[from]) {
            columns.values[to] = columns.values[from];
            columns.times[to] = columns.times[from];
            to += 1;
        }
    }
    columns.values.truncate(to);
    columns.times.truncate(to);
}

/// What a selector gives at each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// The value of the newest sample.
    Value,
    /// Its time, in seconds.
    Time,
}

/// Fills `out` with one value per step and returns how many there are.
///
/// A sample counts for `(its time, its time + lookback)`; a staleness marker is absence itself, since it has the same bits.
pub(super) fn newest(
    columns: &Columns,
    steps: Steps,
    moment: Moment,
    lookback: i64,
    take: Take,
    out: &mut Vec<f64>,
) -> u64 {
    let (times, values) = (&columns.times[..], &columns.values[..]);
    let mut next = 0;
    let mut count = 0;
    out.clear();
    out.reserve(steps.count);
    for step in steps.times() {
        let time = moment.of(step);
        while next < times.len() && times[next] <= time {
            next += 1;
        }
        let value = match next.checked_sub(1) {
            Some(at) if times[at] > time.saturating_sub(lookback) && !is_absent(values[at]) => {
                count += 1;
                match take {
                    Take::Value => values[at],
                    Take::Time => times[at] as f64 / 1000.0,
                }
            }
            _ => ABSENT,
        };
        out.push(value);
    }
    count
}

/// As [`newest`] for a `smoothed` selector: between two samples the straight line, after the last one its value.
pub(super) fn smoothed(
    columns: &Columns,
    steps: Steps,
    moment: Moment,
    lookback: i64,
    out: &mut Vec<f64>,
) -> u64 {
    let (times, values) = (&columns.times[..], &columns.values[..]);
    let mut next = 0;
    let mut count = 0;
    out.clear();
    out.reserve(steps.count);
    for step in steps.times() {
        let time = moment.of(step);
        while next < times.len() && times[next] <= time {
            next += 1;
        }
        let before = next
            .checked_sub(1)
            .filter(|at| times[*at] > time.saturating_sub(lookback));
        let after = Some(next)
            .filter(|at| *at < times.len() && times[*at] <= time.saturating_add(lookback));
        let value = match (before, after) {
            (Some(a), Some(b)) if times[a] < time => {
                let fraction = (time - times[a]) as f64 / (times[b] - times[a]) as f64;
                values[a] + (values[b] - values[a]) * fraction
            }
            (Some(a), _) => values[a],
            (None, _) => ABSENT,
        };
        count += u64::from(!is_absent(value));
        out.push(value);
    }
    count
}

/// The index ranges of the windows of a range selector, step by step.
pub(super) struct Windows<'a> {
    times: &'a [i64],
    range: i64,
    moment: Moment,
    before: i64,
    after: i64,
    low: usize,
    high: usize,
}

impl<'a> Windows<'a> {
    pub(super) fn new(
        times: &'a [i64],
        range: i64,
        moment: Moment,
        edges: Edges,
        lookback: i64,
    ) -> Windows<'a> {
        Windows {
            times,
            range,
            moment,
            before: if edges == Edges::Plain { 0 } else { lookback },
            after: if edges == Edges::Smoothed {
                lookback
            } else {
                0
            },
            low: 0,
            high: 0,
        }
    }

    /// The window of the step at `step`; steps must not decrease.
    #[inline]
    pub(super) fn at(&mut self, step: i64) -> Bounds {
        let end = self.moment.of(step);
        let start = end.saturating_sub(self.range);
        let last = end.saturating_add(self.after);
        let open = start.saturating_sub(self.before);
        while self.high < self.times.len() && self.times[self.high] <= last {
            self.high += 1;
        }
        while self.low < self.high && self.times[self.low] <= open {
            self.low += 1;
        }
        Bounds {
            low: self.low,
            high: self.high,
            start,
            end,
        }
    }
}

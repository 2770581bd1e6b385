//! Change of histograms with `anchored` and `smoothed` selectors: nothing is extrapolated, the ends of the range have histograms of their own.
//!
//! At an end stands a sample (`anchored`: the last one at or before the start) or what lies on the line between the samples beside it
//! (`smoothed`). Counters that were reset between two samples start from zero after the first one. Source: Prometheus `promql/functions.go`.

use model::{CounterReset, FloatHistogram, quoted};

use super::{Change, Mixed, Outcome, RECONCILED, warn_of_kinds};
use crate::annotations::Notes;
use crate::functions::Edges;
use crate::histogram::Incompatible;
use crate::histogram::buckets::scale;
use crate::histogram::is_custom;
use crate::histogram::reset::detect_reset;
use crate::histogram::sum::Sums;

/// A sample: its time and its histogram.
type Point<'a> = (i64, &'a FloatHistogram);

/// The histogram at `time` on the line from one sample to the next, a time between theirs. Errors: one of both is exponential, the other custom.
pub(crate) fn interpolate(
    before: Point<'_>,
    after: Point<'_>,
    time: i64,
    is_counter: bool,
    arg: usize,
    notes: &mut Notes<'_>,
) -> Result<FloatHistogram, Incompatible> {
    debug_assert!(before.0 <= time && time <= after.0 && before.0 < after.0);
    if is_custom(before.1) != is_custom(after.1) {
        return Err(Incompatible);
    }
    if time == before.0 || time == after.0 {
        let point = if time == before.0 { before } else { after };
        return Ok(point.1.clone());
    }
    let fraction = (time - before.0) as f64 / (after.0 - before.0) as f64;
    if is_counter && detect_reset(after.1, before.1) {
        let mut since_zero = after.1.clone();
        scale(&mut since_zero, fraction);
        return Ok(since_zero);
    }
    let mut sums = Sums::new(after.1);
    if sums.subtract(before.1)?.reconciled_bounds {
        notes.info(arg, &format!("{RECONCILED} subtraction"));
    }
    sums.scale(fraction);
    if sums.add(before.1)?.reconciled_bounds {
        notes.info(arg, &format!("{RECONCILED} addition"));
    }
    Ok(sums.value())
}

/// The change over the range, of a window that has histograms only and may reach beyond the range.
pub(super) fn extended(
    window: &Mixed<'_>,
    kind: Change,
    arg: usize,
    notes: &mut Notes<'_>,
) -> Outcome {
    match change(window, kind, arg, notes) {
        Ok(Some(histogram)) => Outcome::Histogram(histogram),
        Ok(None) => Outcome::Absent,
        Err(Incompatible) => {
            warn_of_kinds(arg, notes);
            Outcome::Absent
        }
    }
}

fn change(
    window: &Mixed<'_>,
    kind: Change,
    arg: usize,
    notes: &mut Notes<'_>,
) -> Result<Option<FloatHistogram>, Incompatible> {
    let Mixed {
        floats,
        times,
        histograms,
    } = *window;
    let (start, end) = (floats.start, floats.end);
    let smoothed = floats.edges == Edges::Smoothed;
    let is_counter = kind != Change::Delta;
    let mut last = times.len() - 1;
    let first = times[..last]
        .partition_point(|t| *t <= start)
        .saturating_sub(1);
    if smoothed {
        last = times[..last].partition_point(|t| *t < end);
    }
    if times[last] <= start || (smoothed && times[first] > end) {
        return Ok(None);
    }
    let used = &histograms[first..=last];
    if used
        .iter()
        .any(|(_, h)| is_custom(h) != is_custom(&used[0].1))
    {
        return Err(Incompatible);
    }
    let is_gauge = |h: &FloatHistogram| h.counter_reset == CounterReset::Gauge;
    let metric = notes.metric;
    if is_counter && used.iter().any(|(_, h)| is_gauge(h)) {
        notes.warn(
            arg,
            &format!(
                "this native histogram metric is not a counter: {}",
                quoted(metric)
            ),
        );
    }
    let point = |index: usize| (times[index], &histograms[index].1);
    let left = if smoothed && times[first] < start {
        interpolate(
            point(first),
            point(first + 1),
            start,
            is_counter,
            arg,
            notes,
        )?
    } else {
        histograms[first].1.clone()
    };
    let right = if smoothed && last > 0 && times[last] > end {
        interpolate(point(last - 1), point(last), end, is_counter, arg, notes)?
    } else {
        histograms[last].1.clone()
    };
    let gauges = is_gauge(&left) && is_gauge(&right);
    if !is_counter && !gauges {
        notes.warn(
            arg,
            &format!(
                "this native histogram metric is not a gauge: {}",
                quoted(metric)
            ),
        );
    }
    let mut sums = Sums::new(&right);
    if sums.subtract(&left)?.reconciled_bounds {
        notes.info(arg, &format!("{RECONCILED} subtraction"));
    }
    if is_counter {
        for lost in lost_in_resets(window, first, last, &left, &right) {
            if sums.add(lost)?.reconciled_bounds {
                notes.info(arg, &format!("{RECONCILED} addition"));
            }
        }
    }
    if kind == Change::Rate {
        sums.divide(end.saturating_sub(start) as f64 / 1000.0);
    }
    sums.make_gauge();
    Ok(Some(sums.value()))
}

/// What a counter had counted before each reset between the ends of the range, which are `left` and `right`, of the samples `first` and `last`.
fn lost_in_resets<'h>(
    window: &Mixed<'h>,
    first: usize,
    last: usize,
    left: &'h FloatHistogram,
    right: &FloatHistogram,
) -> Vec<&'h FloatHistogram> {
    let Mixed {
        floats,
        times,
        histograms,
    } = *window;
    let histogram = |index: usize| &histograms[index].1;
    let (mut next, mut previous) = (first + 1, left);
    let smoothed = floats.edges == Edges::Smoothed;
    if smoothed
        && times[first] < floats.start
        && detect_reset(histogram(first + 1), histogram(first))
    {
        // The left end lies between these two, and is that much after the reset already.
        previous = histogram(first + 1);
        next += 1;
    }
    let mut lost = Vec::new();
    if next > last {
        return lost;
    }
    // The last sample is `right`, or `right` lies just before it: it has that one's word on resets and is compared in its place.
    for now in (next..last).map(histogram) {
        if detect_reset(now, previous) {
            lost.push(previous);
        }
        previous = now;
    }
    if detect_reset(right, previous) {
        lost.push(previous);
    }
    lost
}

//! Counter resets between histograms, and the change of a histogram over a range.
//!
//! A counter histogram was reset when any of its numbers fell, or when its layout changed in a way that hides whether one did: higher
//! resolution, narrower zero bucket, another kind. Unless the sender says whether it was.

use model::{CounterReset, FloatHistogram};

use super::sum::{Notice, Sums};
use crate::functions::kahan::Sum;
use crate::histogram::{Incompatible, compatible, is_custom};

/// Whether a counter was reset between `previous` and `current`.
pub(crate) fn detect_reset(current: &FloatHistogram, previous: &FloatHistogram) -> bool {
    match current.counter_reset {
        CounterReset::Yes => return true,
        CounterReset::No => return false,
        CounterReset::Unknown | CounterReset::Gauge => {}
    }
    if current.count < previous.count || !compatible(current, previous) {
        return true;
    }
    if is_custom(current) {
        let (mut now, mut before) = (Sums::new(current), Sums::new(previous));
        if current.custom_values != previous.custom_values {
            now.reconcile(&mut before);
        }
        return fell(&now, &before);
    }
    if current.schema > previous.schema || current.zero_threshold < previous.zero_threshold {
        return true;
    }
    let now = Sums::new(current);
    let mut before = Sums::new(previous);
    if current.zero_threshold > previous.zero_threshold {
        before.widen(current.zero_threshold);
    }
    let (zero_count, threshold) = before.zero();
    if threshold != current.zero_threshold || current.zero_count < zero_count {
        // Either the new zero bucket ends within a filled old bucket, or it has lost observations.
        return true;
    }
    before.reduce_schema(current.schema);
    fell(&now, &before)
}

/// Whether any bucket that had observations has fewer now.
fn fell(now: &Sums, before: &Sums) -> bool {
    now.sides()
        .into_iter()
        .zip(before.sides())
        .any(|(now, before)| {
            let count_now = |index: i32| {
                now.binary_search_by_key(&index, |(index, _)| *index)
                    .map_or(Sum::default(), |at| now[at].1)
            };
            before
                .iter()
                .any(|(index, count)| count_now(*index).value() < count.value())
        })
}

/// The change of a histogram, and what is to be said about it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Change {
    /// A gauge without empty buckets; nothing where exponential and custom histograms meet.
    pub(crate) value: Option<FloatHistogram>,
    /// A gauge was met.
    pub(crate) gauge: bool,
    /// Something that is no gauge stands at an end.
    pub(crate) counter: bool,
    /// Exponential and custom histograms meet.
    pub(crate) mixed: bool,
    /// Custom bounds were reconciled in the subtraction.
    pub(crate) reconciled_subtracting: bool,
    /// Custom bounds were reconciled when what was lost in a reset was added.
    pub(crate) reconciled_adding: bool,
}

/// The change over a range from its first to its last histogram. Of a counter, what was lost in resets is added.
///
/// `points` has at least two; the number with each is of no interest. Where the counter was reset right after the first histogram, that one
/// is ignored, whatever its layout.
pub(crate) fn change(points: &[(u32, FloatHistogram)], is_counter: bool) -> Change {
    let [(_, first), within @ .., (_, last)] = points else {
        panic!("a change needs two histograms");
    };
    let is_gauge = |h: &FloatHistogram| h.counter_reset == CounterReset::Gauge;
    let mut change = Change {
        gauge: is_gauge(first) || is_gauge(last),
        counter: !is_gauge(first) || !is_gauge(last),
        ..Change::default()
    };
    let second = &points[1].1;
    let nothing;
    let mut previous = first;
    if is_counter && detect_reset(second, first) {
        nothing = FloatHistogram {
            schema: second.schema,
            custom_values: second.custom_values.clone(),
            zero_threshold: if is_custom(second) {
                0.0
            } else {
                second.zero_threshold
            },
            ..FloatHistogram::default()
        };
        previous = &nothing;
    }
    change.mixed = !compatible(last, previous);
    if is_counter {
        for (_, histogram) in within {
            change.gauge |= is_gauge(histogram);
            change.mixed |= !compatible(histogram, previous);
        }
    }
    if change.mixed {
        return change;
    }
    let mut sums = Sums::new(last);
    if !is_custom(last) {
        let lowest = if is_counter { within } else { &[] }
            .iter()
            .map(|(_, histogram)| histogram.schema)
            .fold(last.schema.min(previous.schema), i32::min);
        sums.reduce_schema(lowest);
    }
    // That both ends contradict each other about resets says nothing here: resets are looked for one by one.
    let Ok(notice) = sums.subtract(previous) else {
        change.mixed = true;
        return change;
    };
    change.reconciled_subtracting = notice.reconciled_bounds;
    if is_counter {
        for (_, current) in &points[1..] {
            if detect_reset(current, previous) {
                let Ok(notice) = sums.add(previous) else {
                    change.mixed = true;
                    return change;
                };
                change.reconciled_adding |= notice.reconciled_bounds;
            }
            previous = current;
        }
    }
    sums.make_gauge();
    change.value = Some(sums.value());
    change
}

/// The change between two histograms, as `irate` (of a counter: from zero after a reset) and `idelta` have it.
pub(crate) fn instant_change(
    before: &FloatHistogram,
    now: &FloatHistogram,
    is_counter: bool,
) -> Change {
    let is_gauge = |h: &FloatHistogram| h.counter_reset == CounterReset::Gauge;
    let mut change = Change {
        gauge: is_gauge(before) || is_gauge(now),
        counter: !is_gauge(before) || !is_gauge(now),
        ..Change::default()
    };
    let mut sums = Sums::new(now);
    if !is_counter || !detect_reset(now, before) {
        match sums.subtract(before) {
            Ok(Notice {
                reconciled_bounds, ..
            }) => change.reconciled_subtracting = reconciled_bounds,
            Err(Incompatible) => {
                change.mixed = true;
                return change;
            }
        }
    }
    sums.make_gauge();
    change.value = Some(sums.value());
    change
}

#[cfg(test)]
mod tests;

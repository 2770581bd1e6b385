//! Resets and changes by hand.

use super::*;
use crate::histogram::testing::{about, both, custom, exponential, summing};

fn with(counter_reset: CounterReset, histogram: FloatHistogram) -> FloatHistogram {
    FloatHistogram {
        counter_reset,
        ..histogram
    }
}

#[test]
fn any_falling_number_is_a_reset_and_growth_is_none() {
    let before = both(0, (0.5, 2.0), &[1.0, 2.0], &[3.0]);
    for (now, reset) in [
        (both(0, (0.5, 2.0), &[1.0, 2.0], &[3.0]), false),
        (both(0, (0.5, 9.0), &[1.0, 2.0, 5.0], &[3.0, 1.0]), false),
        (both(0, (0.5, 1.0), &[2.0, 2.0], &[3.0]), true),
        (both(0, (0.5, 2.0), &[0.0, 9.0], &[3.0]), true),
        (both(0, (0.5, 2.0), &[1.0, 2.0, 9.0], &[2.0]), true),
        (exponential(0, &[1.0]), true),
    ] {
        assert_eq!(detect_reset(&now, &before), reset, "{now:?}");
    }
}

#[test]
fn the_sender_knows_best() {
    let (large, small) = (exponential(0, &[5.0]), exponential(0, &[1.0]));
    assert!(detect_reset(
        &with(CounterReset::Yes, large.clone()),
        &small
    ));
    assert!(!detect_reset(&with(CounterReset::No, small), &large));
}

#[test]
fn a_coarser_layout_that_only_grew_is_no_reset() {
    let before = exponential(1, &[1.0, 1.0, 1.0]);
    assert!(!detect_reset(&exponential(0, &[1.0, 2.0]), &before));
    assert!(detect_reset(&exponential(0, &[2.0, 1.0]), &before));
    assert!(detect_reset(&exponential(2, &[1.0, 2.0]), &before));
    // A wider zero bucket has swallowed buckets, if it ends where a bucket ends.
    let before = both(0, (0.5, 1.0), &[2.0, 3.0], &[]);
    let widened = |threshold, zero, positive: &[f64]| both(0, (threshold, zero), positive, &[]);
    assert!(!detect_reset(&widened(1.0, 3.0, &[0.0, 3.0]), &before));
    assert!(detect_reset(&widened(1.0, 2.0, &[0.0, 5.0]), &before));
    assert!(detect_reset(&widened(0.7, 3.0, &[0.0, 4.0]), &before));
    assert!(detect_reset(&widened(0.2, 1.0, &[2.0, 3.0]), &before));
}

#[test]
fn custom_buckets_are_compared_on_common_bounds() {
    let before = custom(&[2.0, 4.0, 6.0], &[1.0, 2.0, 5.0, 7.0]);
    assert!(detect_reset(
        &custom(&[2.0, 3.0, 4.0, 6.0], &[1.0, 0.0, 1.0, 5.0, 8.0]),
        &before
    ));
    assert!(!detect_reset(
        &custom(&[2.0, 3.0, 4.0, 6.0], &[1.0, 1.0, 1.0, 5.0, 7.0]),
        &before
    ));
    assert!(detect_reset(&exponential(0, &[99.0]), &before));
}

#[test]
fn a_change_adds_what_was_lost_in_resets() {
    let points = [[1.0, 2.0, 1.0], [1.0, 1.0, 3.0], [1.0, 2.0, 3.0]]
        .map(|counts| (0, exponential(0, &counts)));
    let counter = change(&points, true);
    assert_eq!(
        counter.value,
        Some(with(CounterReset::Gauge, exponential(0, &[1.0, 2.0, 3.0])))
    );
    assert!(!counter.gauge && !counter.mixed);
    let gauge = change(&points, false).value.unwrap();
    about(gauge.count, 2.0);
    assert_eq!(gauge.positive_counts, [2.0]);
}

#[test]
fn a_first_histogram_before_a_reset_may_have_any_layout() {
    let points = [
        (0, custom(&[5.0, 10.0], &[1.0])),
        (1, exponential(0, &[1.0, 2.0, 1.0])),
    ];
    let value = change(&points, true).value.unwrap();
    assert_eq!(
        value,
        with(CounterReset::Gauge, exponential(0, &[1.0, 2.0, 1.0]))
    );
    assert!(change(&points, false).mixed);
    let between = [points[1].clone(), points[0].clone(), points[1].clone()];
    assert!(change(&between, true).mixed);
}

#[test]
fn a_change_has_the_lowest_resolution_of_a_counter() {
    let points = [
        (0, exponential(1, &[1.0, 1.0])),
        (1, exponential(0, &[1.0, 2.0])),
        (2, with(CounterReset::No, exponential(1, &[2.0, 2.0, 2.0]))),
    ];
    let value = change(&points, true).value.unwrap();
    assert_eq!((value.schema, value.positive_counts), (0, vec![1.0, 3.0]));
}

#[test]
fn an_instant_change_of_a_counter_starts_from_zero_after_a_reset() {
    let (large, small) = (
        summing(9.0, exponential(0, &[5.0])),
        summing(2.0, exponential(0, &[1.0])),
    );
    let value = |is_counter| instant_change(&large, &small, is_counter).value.unwrap();
    assert_eq!((value(true).count, value(true).sum), (1.0, 2.0));
    assert_eq!((value(false).count, value(false).sum), (-4.0, -7.0));
    assert!(instant_change(&large, &custom(&[1.0], &[1.0, 9.0]), false).mixed);
}

//! Parts of histograms by hand, and against fractions.

use proptest::prelude::*;

use super::*;
use crate::histogram::estimate;
use crate::histogram::testing::{about, both, custom, summing};

const INF: f64 = f64::INFINITY;

#[track_caller]
fn trimmed(histogram: &FloatHistogram, keep: Keep, value: f64, count: f64, sum: f64) {
    let left = trim(histogram, value, keep);
    about(left.count, count);
    about(left.sum, sum);
}

#[test]
fn nothing_is_changed_where_nothing_goes() {
    let histogram = summing(123.0, both(0, (0.001, 1.0), &[2.0, 4.0], &[1.0]));
    assert_eq!(trim(&histogram, INF, Keep::Below), histogram);
    assert_eq!(trim(&histogram, -INF, Keep::Above), histogram);
    let bounds = summing(172.5, custom(&[5.0, 10.0], &[1.0, 6.0, 4.0]));
    assert_eq!(trim(&bounds, 0.0, Keep::Above), bounds);
}

#[test]
fn exponential_buckets_are_divided_on_a_logarithmic_scale() {
    let histogram = summing(
        12.8,
        both(2, (0.001, 1.0), &[1.0, 2.0, 4.0], &[1.0, 5.0, 3.0]),
    );
    let left = trim(&histogram, 1.13, Keep::Below);
    about(left.positive_counts[1], 1.410582181123704);
    about(left.count, 10.0 + 2.410582181123704);
    let left = trim(&histogram, -1.3, Keep::Above);
    about(left.negative_counts[2], 1.54213947904476);
}

#[test]
fn the_zero_bucket_reaches_only_to_where_there_are_buckets() {
    let positive = both(0, (0.5, 2.0), &[10.0], &[]);
    trimmed(&positive, Keep::Below, 0.5, 2.0, 0.5);
    trimmed(&positive, Keep::Below, 0.1, 0.4, 0.02);
    trimmed(&positive, Keep::Below, 0.0, 0.0, 0.0);
    let negative = both(0, (0.5, 2.0), &[], &[10.0]);
    trimmed(&negative, Keep::Below, -0.1, 11.6, -7.551067811865476);
    let alone = both(0, (0.1, 5.0), &[], &[]);
    trimmed(&alone, Keep::Above, 0.05, 1.25, 0.09375);
    trimmed(&alone, Keep::Below, 0.05, 3.75, -0.09375);
}

#[test]
fn custom_buckets_without_width_stay_or_go_whole() {
    let split = custom(&[5.0], &[1.0, 100.0]);
    for (keep, value, count, sum) in [
        (Keep::Below, 0.0, 0.0, 0.0),
        (Keep::Below, -10.0, 0.0, 0.0),
        (Keep::Above, -10.0, 100.0, 500.0),
        (Keep::Above, 2.0, 100.6, 502.1),
        (Keep::Above, 10.0, 100.0, 1000.0),
    ] {
        trimmed(&split, keep, value, count, sum);
    }
    let below_zero = custom(&[-10.0, 5.0], &[2.0, 1.0, 6.0]);
    trimmed(&below_zero, Keep::Below, 2.0, 2.8, -23.2);
    trimmed(&below_zero, Keep::Below, -15.0, 2.0, -30.0);
    let boundless = summing(100.0, custom(&[], &[100.0]));
    trimmed(&boundless, Keep::Below, 10.0, 0.0, 0.0);
    trimmed(&boundless, Keep::Above, INF, 0.0, 0.0);
    trimmed(&boundless, Keep::Below, INF, 100.0, 100.0);
}

#[test]
fn an_empty_histogram_stays_empty() {
    for value in [-INF, -1.0, 0.0, 1.0, INF] {
        for keep in [Keep::Above, Keep::Below] {
            let empty = FloatHistogram::default();
            assert_eq!(trim(&empty, value, keep), empty);
        }
    }
}

proptest! {
    #[test]
    fn what_is_left_is_the_fraction_of_that_side(
        positive in prop::collection::vec(0..9u32, 0..8),
        negative in prop::collection::vec(0..9u32, 0..8),
        zero in 1..5u32,
        value in -6.0..6.0f64,
    ) {
        let counts = |counts: &[u32]| counts.iter().map(|c| f64::from(*c)).collect::<Vec<_>>();
        let histogram = both(1, (1e-3, f64::from(zero)), &counts(&positive), &counts(&negative));
        let below = trim(&histogram, value, Keep::Below).count;
        let above = trim(&histogram, value, Keep::Above).count;
        let fraction = estimate::fraction(-INF, value, &histogram).value;
        prop_assert!((below - fraction * histogram.count).abs() < 1e-9);
        prop_assert!((below + above - histogram.count).abs() < 1e-9);
    }
}

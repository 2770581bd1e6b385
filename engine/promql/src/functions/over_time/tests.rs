//! Aggregations over a window, by hand.

use super::*;
use crate::functions::RangeFn;
use crate::functions::testing;

fn over(eval: RangeFn, values: &[f64]) -> f64 {
    let samples: Vec<(i64, f64)> = (1..)
        .map(|i| i * 10_053)
        .zip(values.iter().copied())
        .collect();
    testing::over(eval, &samples, (0, 1_000_000), &[0.25]).0
}

#[test]
fn nan_is_neither_smallest_nor_largest_unless_alone() {
    let nan = f64::NAN;
    for rotation in 0..9 {
        let mut values = [3.0, nan, 1.0, 2.0, nan, 5.0, 4.0, nan, 2.5];
        values.rotate_left(rotation);
        assert_eq!(over(min, &values), 1.0);
        assert_eq!(over(max, &values), 5.0);
    }
    assert!(over(min, &[nan, nan]).is_nan());
    assert!(over(max, &[nan]).is_nan());
}

#[test]
fn means_agree_with_their_incremental_form() {
    assert_eq!(over(avg, &[52.0; 10]), 52.0);
    assert_eq!(
        over(avg, &[f64::INFINITY, 0.0, f64::INFINITY]),
        f64::INFINITY
    );
    assert_eq!(over(avg, &[9.98846567431158e307; 2]), 9.98846567431158e307);
    assert!(over(avg, &[1.0, f64::NAN, 2.0]).is_nan());
    assert!(over(avg, &[1.0, f64::INFINITY, f64::NEG_INFINITY]).is_nan());
}

#[test]
fn equal_values_have_no_variance() {
    assert_eq!(over(stdvar, &[1.5990505637277868; 3]), 0.0);
    assert_eq!(over(stddev, &[1.0, 3.0]), 1.0);
    assert_eq!(over(stdvar, &[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]), 4.0);
    assert!(over(stdvar, &[f64::INFINITY]).is_nan());
}

#[test]
fn the_time_of_an_extreme_is_that_of_the_last_of_equals() {
    let values = [1.0, 2.0, 0.0, 0.0, 6.0, 2.0, 6.0, 4.0];
    assert_eq!(over(ts_of_min, &values), 40.212);
    assert_eq!(over(ts_of_max, &values), 70.371);
    assert_eq!(over(ts_of_first, &values), 10.053);
    assert_eq!(over(ts_of_last, &values), 80.424);
    assert_eq!(over(ts_of_max, &[f64::NAN, 1.0, f64::NAN]), 20.106);
}

#[test]
fn the_median_absolute_deviation_ignores_an_outlier() {
    assert_eq!(over(mad, &[4.0, 6.0, 2.0, 1.0, 999.0, 1.0, 2.0]), 1.0);
}

#[test]
fn a_quantile_out_of_range_is_infinite_and_warned_about() {
    let samples = [(10, 1.0), (20, 2.0)];
    let (value, notes) = testing::over(quantile, &samples, (0, 20), &[1.5]);
    assert_eq!(value, f64::INFINITY);
    assert_eq!(
        notes.warnings(),
        ["PromQL warning: quantile value should be between 0 and 1, got 1.5 (1:1)"]
    );
    assert_eq!(over(quantile, &[0.0, 4.0]), 1.0);
}

#[test]
fn counting_and_picking_look_at_every_sample() {
    let values = [3.0, f64::NAN, 7.0];
    assert_eq!(over(count, &values), 3.0);
    assert_eq!(over(present, &values), 1.0);
    assert_eq!(over(first, &values), 3.0);
    assert_eq!(over(last, &values), 7.0);
    assert!(over(sum, &values).is_nan());
    assert_eq!(over(sum, &[1.0, 1e100, 1.0, -1e100]), 2.0);
}

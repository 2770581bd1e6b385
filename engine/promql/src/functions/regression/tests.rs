//! Lines through points on a line, and trends.

use super::*;
use crate::functions::testing::over;
use crate::value::is_absent;

fn every_10s(value: impl Fn(i64) -> f64, count: i64) -> Vec<(i64, f64)> {
    (0..count).map(|i| (i * 10_000, value(i))).collect()
}

#[test]
fn points_on_a_line_give_that_line() {
    let samples = every_10s(|i| 5.0 + 20.0 * i as f64, 11);
    let (slope, _) = over(deriv, &samples, (0, 100_000), &[]);
    assert!((slope - 2.0).abs() < 1e-12, "{slope}");
    let (value, _) = over(predict_linear, &samples, (0, 100_000), &[50.0]);
    assert!((value - 305.0).abs() < 1e-9, "{value}");
}

#[test]
fn constant_values_have_slope_zero_and_constant_infinities_none() {
    let flat = every_10s(|_| 7.1, 5);
    assert_eq!(over(deriv, &flat, (0, 50_000), &[]).0, 0.0);
    assert_eq!(over(predict_linear, &flat, (0, 50_000), &[1e9]).0, 7.1);
    let infinite = every_10s(|_| f64::INFINITY, 5);
    assert!(over(deriv, &infinite, (0, 50_000), &[]).0.is_nan());
}

#[test]
fn one_sample_makes_no_line() {
    for eval in [deriv, predict_linear, double_exponential_smoothing] {
        assert!(is_absent(over(eval, &[(10, 1.0)], (0, 20), &[0.5, 0.5]).0));
    }
}

#[test]
fn smoothing_follows_a_trend() {
    let samples = every_10s(|i| 10.0 * i as f64, 7);
    let (value, _) = over(
        double_exponential_smoothing,
        &samples,
        (0, 60_000),
        &[0.01, 0.1],
    );
    assert!((value - 60.0).abs() < 1e-9, "{value}");
}

#[test]
fn factors_lie_between_zero_and_one_exclusively() {
    assert_eq!(check_factors(&[0.5, 0.1]), Ok(()));
    assert_eq!(
        check_factors(&[1.0, 0.1]),
        Err("invalid smoothing factor. Expected: 0 < sf < 1, got: 1.000000".to_owned())
    );
    assert_eq!(
        check_factors(&[0.5, 0.0]),
        Err("invalid trend factor. Expected: 0 < tf < 1, got: 0.000000".to_owned())
    );
    assert_eq!(check_factors(&[f64::NAN, 0.5]), Ok(()));
}

//! Extrapolation, resets and the edges of a range, by hand.

use super::*;
use crate::functions::testing::{over, over_edges};
use crate::value::is_absent;

/// Samples every 5 minutes from 0 on.
fn every_5m(values: &[f64]) -> Vec<(i64, f64)> {
    (0..)
        .map(|i| i * 300_000)
        .zip(values.iter().copied())
        .collect()
}

#[track_caller]
fn about(got: f64, expected: f64) {
    assert!((got - expected).abs() < 1e-9, "{got} is not {expected}");
}

#[test]
fn an_increase_is_extrapolated_to_the_range_but_not_below_zero() {
    let from = |first: f64| {
        every_5m(
            &(0..=10)
                .map(|i| first + 10.0 * f64::from(i))
                .collect::<Vec<_>>(),
        )
    };
    let range = (-50 * 60_000, 50 * 60_000);
    for (first, expected) in [(0.0, 100.0), (10.0, 105.0), (1.0, 101.0)] {
        about(over(increase, &from(first), range, &[]).0, expected);
    }
    // `delta` of a gauge goes below zero.
    about(over(delta, &from(1.0), range, &[]).0, 105.0);
}

#[test]
fn a_reset_counts_from_zero_again() {
    let samples = every_5m(&[0.0, 1.0, 2.0, 3.0, 2.0, 3.0, 4.0]);
    about(over(increase, &samples, (0, 1_800_000), &[]).0, 7.0);
    about(over(rate, &samples, (0, 1_800_000), &[]).0, 7.0 / 1800.0);
    about(over(resets, &samples, (0, 1_800_000), &[]).0, 1.0);
}

#[test]
fn one_sample_is_no_change() {
    for eval in [rate, increase, delta, irate, idelta] {
        assert!(is_absent(over(eval, &[(10, 1.0)], (0, 20), &[]).0));
    }
}

#[test]
fn instant_changes_use_the_last_two_samples_only() {
    let samples = [(0, 1.0), (10_000, 50.0), (20_000, 10.0)];
    about(over(irate, &samples, (-1, 20_000), &[]).0, 1.0);
    about(over(idelta, &samples, (-1, 20_000), &[]).0, -40.0);
    let nan = [(0, f64::NAN), (10_000, 5.0)];
    assert!(over(irate, &nan, (-1, 10_000), &[]).0.is_nan());
}

#[test]
fn nan_to_nan_is_no_change() {
    let samples = every_5m(&[1.0, f64::NAN, f64::NAN, 2.0, 2.0]);
    about(over(changes, &samples, (-1, 2_000_000), &[]).0, 2.0);
}

#[test]
fn anchored_ranges_start_at_the_last_sample_before_them() {
    let samples: Vec<(i64, f64)> = [1.0, 2.0, 3.0, 4.0, 5.0, 9.0, 10.0]
        .iter()
        .enumerate()
        .map(|(i, v)| (i as i64 * 15_000, *v))
        .collect();
    let at = |end: i64| {
        let seen: Vec<_> = samples.iter().copied().filter(|s| s.0 <= end).collect();
        over_edges(increase, &seen, (end - 60_000, end), &[], Edges::Anchored).0
    };
    about(at(65_000), 4.0);
    about(at(80_000), 7.0);
}

#[test]
fn smoothed_ranges_interpolate_on_both_ends() {
    let samples: Vec<(i64, f64)> = [(0, 1.0), (15, 2.0), (30, 3.0), (75, 9.0), (90, 10.0)]
        .iter()
        .map(|(t, v)| (t * 1000, *v))
        .collect();
    for (end, expected) in [
        (5, 1.0 / 3.0),
        (20, 4.0 / 3.0),
        (35, 8.0 / 3.0),
        (50, 14.0 / 3.0),
        (80, 7.0),
    ] {
        let (start, end) = ((end - 60) * 1000, end * 1000);
        about(
            over_edges(increase, &samples, (start, end), &[], Edges::Smoothed).0,
            expected,
        );
    }
}

#[test]
fn edges_with_a_reset_between_them_count_it_once() {
    // Falls from 10 to 2: at the left end the counter is 0 then, at the right end it goes on from 10.
    let samples = [(0, 10.0), (10_000, 2.0), (20_000, 4.0)];
    about(
        over_edges(increase, &samples, (5_000, 20_000), &[], Edges::Smoothed).0,
        3.0,
    );
    about(
        over_edges(increase, &samples, (0, 5_000), &[], Edges::Smoothed).0,
        1.0,
    );
}

#[test]
fn samples_that_all_lie_before_the_range_are_no_change() {
    let samples = [(0, 1.0), (1_000, 2.0)];
    for edges in [Edges::Anchored, Edges::Smoothed] {
        assert!(is_absent(
            over_edges(rate, &samples, (2_000, 9_000), &[], edges).0
        ));
    }
    assert!(is_absent(
        over_edges(changes, &samples, (2_000, 9_000), &[], Edges::Anchored).0
    ));
}

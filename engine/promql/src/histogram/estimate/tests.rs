//! Quantiles and fractions by hand, and against each other.

use proptest::prelude::*;

use super::*;
use crate::histogram::testing::{about, both, custom, exponential, summing};

#[test]
fn quantiles_are_interpolated_on_the_scale_of_their_bucket() {
    let positive = both(0, (0.001, 2.0), &[2.0, 3.0, 0.0, 1.0, 4.0], &[]);
    for (q, expected) in [
        (1.0, 16.0),
        (0.99, 16.0 * 2f64.powf(-0.03)),
        (0.5, 2f64.powf(2.0 / 3.0)),
        (0.1, 0.0006),
        (0.0, 0.0),
    ] {
        about(quantile(q, &positive).value, expected);
    }
    let negative = both(0, (0.001, 2.0), &[], &[2.0, 3.0, 0.0, 1.0, 4.0]);
    for q in [0.0, 0.1, 0.25, 0.5, 0.9, 0.99, 1.0] {
        about(
            quantile(q, &negative).value,
            -quantile(1.0 - q, &positive).value,
        );
    }
    about(
        quantile(0.5, &custom(&[5.0, 10.0], &[1.0, 2.0, 1.0])).value,
        7.5,
    );
}

#[test]
fn quantiles_in_a_bucket_without_width_are_its_finite_bound() {
    let ends = custom(&[-5.0, 10.0], &[3.0, 1.0, 3.0]);
    assert_eq!(quantile(0.1, &ends).value, -5.0);
    assert_eq!(quantile(0.9, &ends).value, 10.0);
    about(quantile(0.25, &custom(&[4.0], &[2.0, 2.0])).value, 2.0);
    assert!(quantile(0.5, &custom(&[], &[7.0])).value.is_nan());
}

#[test]
fn quantiles_out_of_range_or_of_nothing_are_infinite_or_nan() {
    let one = exponential(0, &[1.0]);
    assert_eq!(quantile(-0.1, &one).value, f64::NEG_INFINITY);
    assert_eq!(quantile(1.1, &one).value, f64::INFINITY);
    assert!(quantile(f64::NAN, &one).value.is_nan());
    assert!(quantile(0.5, &exponential(0, &[])).value.is_nan());
}

#[test]
fn nan_observations_count_above_all_quantiles_and_outside_of_all_fractions() {
    let nan = FloatHistogram {
        count: 15.0,
        ..summing(f64::NAN, exponential(0, &[12.0]))
    };
    for (q, expected) in [(0.4, 0.5f64.sqrt()), (0.8, 1.0)] {
        about(quantile(q, &nan).value, expected);
    }
    assert!(quantile(0.81, &nan).value.is_nan() && quantile(0.81, &nan).nan_observed);
    about(fraction(f64::NEG_INFINITY, f64::INFINITY, &nan).value, 0.8);
    about(fraction(f64::NEG_INFINITY, 0.5f64.sqrt(), &nan).value, 0.4);
}

#[test]
fn fractions_of_zero_and_custom_buckets_are_linear() {
    let zero = both(0, (0.001, 2.0), &[2.0, 3.0, 0.0, 1.0, 4.0], &[]);
    for (lower, upper, expected) in [
        (0.0, f64::INFINITY, 1.0),
        (-0.001, 0.0, 0.0),
        (0.0, 0.0005, 1.0 / 12.0),
        (1.0, 2.0, 0.25),
        (2.0, 1.0, 0.0),
    ] {
        about(fraction(lower, upper, &zero).value, expected);
    }
    let bounds = custom(&[5.0, 10.0, 15.0, 20.0], &[1.0, 6.0, 4.0, 3.0, 1.0]);
    about(fraction(f64::NEG_INFINITY, 13.0, &bounds).value, 9.4 / 15.0);
    about(fraction(25.0, 30.0, &bounds).value, 0.0);
    about(fraction(25.0, f64::INFINITY, &bounds).value, 1.0 / 15.0);
    assert!(fraction(f64::NAN, 1.0, &bounds).value.is_nan());
}

#[test]
fn the_variance_is_that_of_the_middles_of_the_buckets() {
    let ten = summing(
        -100.0,
        both(0, (0.0, 0.0), &[], &[0.0, 0.0, 0.0, 0.0, 10.0]),
    );
    about(variance(&ten), 1.725830020304794);
    about(
        variance(&summing(30.0, custom(&[2.0, 4.0], &[0.0, 10.0]))),
        0.0,
    );
}

proptest! {
    #[test]
    fn the_fraction_below_a_quantile_is_the_quantile(
        schema in -1..4i32,
        positive in prop::collection::vec(1..9u32, 1..8),
        negative in prop::collection::vec(1..9u32, 0..8),
        zero in 0..5u32,
        q in 0.01..0.99f64,
    ) {
        let counts = |counts: &[u32]| counts.iter().map(|c| f64::from(*c)).collect::<Vec<_>>();
        let histogram = both(schema, (1e-3, f64::from(zero)), &counts(&positive), &counts(&negative));
        let at = quantile(q, &histogram).value;
        let below = fraction(f64::NEG_INFINITY, at, &histogram).value;
        prop_assert!((below - q).abs() < 1e-9, "{below} is below {at}, not {q}");
    }
}

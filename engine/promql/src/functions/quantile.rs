//! Quantiles of a set of values, and the order of floats in which NaN comes first.

use std::cmp::Ordering;

use crate::annotations::Notes;

/// Ascending, NaN before all numbers, -0 equal to 0.
#[inline]
pub(crate) fn nan_first(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b)
        .unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

/// The q-quantile, interpolated between the two nearest values; NaN counts as smaller than every number.
///
/// NaN without values or for a NaN `q`, -Inf for `q < 0`, +Inf for `q > 1`. Leaves `values` in another order. Cost: linear, by
/// selection.
pub(crate) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let last = values.len() - 1;
    let rank = q * last as f64;
    let weight = rank - rank.floor();
    let (_, low, above) =
        values.select_nth_unstable_by((rank.floor() as usize).min(last), |a, b| nan_first(*a, *b));
    let low = *low;
    let high = above
        .iter()
        .copied()
        .min_by(|a, b| nan_first(*a, *b))
        .unwrap_or(low);
    low * (1.0 - weight) + high * weight
}

/// The middle value.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    quantile(0.5, values)
}

/// Warns about a quantile outside of 0 to 1, given as argument `arg`.
pub(crate) fn check(q: f64, arg: usize, notes: &mut Notes<'_>) {
    if !(0.0..=1.0).contains(&q) {
        notes.warn(
            arg,
            &format!(
                "quantile value should be between 0 and 1, got {}",
                go_number(q)
            ),
        );
    }
}

/// A float as Go's `%g` writes it, for texts that quote numbers.
pub(crate) fn go_number(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let plain = format!("{value:e}");
    let (digits, exponent) = plain
        .split_once('e')
        .expect("scientific notation has an exponent");
    let exponent: i32 = exponent.parse().expect("an exponent is a small integer");
    if (-4..6).contains(&exponent) {
        format!("{value}")
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}e{sign}{:02}", exponent.abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_the_two_nearest_values() {
        for (q, values, expected) in [
            (0.8, vec![0.0, 1.0], 0.8),
            (0.8, vec![2.0, 0.0, 1.0], 1.6),
            (0.8, vec![4.0, 0.0, 1.0], 2.8),
            (0.8, vec![0.0, f64::NAN, 1.0], 0.6),
            (0.0, vec![5.0, 3.0], 3.0),
            (1.0, vec![5.0, 3.0], 5.0),
            (0.5, vec![7.0], 7.0),
        ] {
            let got = quantile(q, &mut values.clone());
            assert!((got - expected).abs() < 1e-12, "{q} of {values:?}: {got}");
        }
        assert!(quantile(0.2, &mut [0.0, f64::NAN, 1.0]).is_nan());
    }

    #[test]
    fn quantiles_out_of_range_are_infinite() {
        assert_eq!(quantile(-0.1, &mut [1.0]), f64::NEG_INFINITY);
        assert_eq!(quantile(1.1, &mut [1.0]), f64::INFINITY);
        assert!(quantile(f64::NAN, &mut [1.0]).is_nan());
        assert!(quantile(0.5, &mut []).is_nan());
    }

    #[test]
    fn numbers_are_quoted_as_go_does() {
        for (value, text) in [
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (-0.1, "-0.1"),
            (1e6, "1e+06"),
            (2.0, "2"),
            (1e-5, "1e-05"),
            (1.25e-7, "1.25e-07"),
        ] {
            assert_eq!(go_number(value), text);
        }
    }
}

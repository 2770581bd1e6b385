//! Compensated summation as Prometheus does it (Neumaier's variant of Kahan's), with its rule for infinities.
//!
//! All sums of the language go through here, so that adding 1e100, 1 and -1e100 gives 1. The running value is the pair
//! (sum, correction); the result is their sum. Once the sum is infinite the correction is zero, or it would become NaN.
//!
//! Also the mean: a plain compensated sum as long as that does not overflow, an incremental mean from then on.

/// A compensated sum.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Sum {
    /// The sum as plain addition has it.
    pub(crate) sum: f64,
    /// What plain addition has lost.
    pub(crate) correction: f64,
}

impl Sum {
    /// The sum that starts with `value`.
    pub(crate) fn new(value: f64) -> Sum {
        Sum {
            sum: value,
            correction: 0.0,
        }
    }

    /// Adds one value.
    #[inline]
    pub(crate) fn add(&mut self, value: f64) {
        let (next, lost) = two_sum(self.sum, value);
        self.sum = next;
        self.correction += lost;
    }

    /// Adds another partial sum.
    pub(crate) fn merge(&mut self, other: Sum) {
        self.add(other.sum);
        if other.correction != 0.0 && other.sum.is_finite() {
            self.add(other.correction);
        }
    }

    /// The result. Once the sum is infinite it stays so or becomes NaN, and the correction means nothing.
    #[inline]
    pub(crate) fn value(&self) -> f64 {
        if self.sum.is_infinite() {
            self.sum
        } else {
            self.sum + self.correction
        }
    }
}

/// A sum and what it lost.
///
/// The loss is computed without asking which of both is larger (Knuth): it is the same as in Neumaier's variant, but a loop has no branch, so
/// that over columns it vectorises, and over a window only the sum itself is a chain of dependent additions. NaN when the sum is not finite.
#[inline]
pub(crate) fn two_sum(sum: f64, value: f64) -> (f64, f64) {
    let next = sum + value;
    let added = next - sum;
    (next, (sum - (next - added)) + (value - added))
}

/// One step of the compensated sum: the new (sum, correction). No correction remains when the sum becomes infinite.
#[inline]
pub(crate) fn increase(value: f64, sum: f64, correction: f64) -> (f64, f64) {
    let (next, lost) = two_sum(sum, value);
    let correction = if next.is_infinite() {
        0.0
    } else {
        correction + lost
    };
    (next, correction)
}

/// A mean whose sum may exceed what a float can hold.
///
/// Merged means of partitions equal the mean of the whole up to rounding, and exactly in which values are infinite or NaN.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Mean {
    count: f64,
    /// The sum so far, or the mean so far once `incremental`.
    value: Sum,
    incremental: bool,
}

impl Mean {
    /// The mean of `count` values with that sum, which is finite (or has no value yet).
    pub(crate) fn of_sum(sum: Sum, count: f64) -> Mean {
        Mean {
            count,
            value: sum,
            incremental: false,
        }
    }

    /// Adds one value.
    #[inline]
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.value = Sum::new(value);
            return;
        }
        if !self.incremental {
            let (sum, correction) = increase(value, self.value.sum, self.value.correction);
            if !sum.is_infinite() {
                self.value = Sum { sum, correction };
                return;
            }
            self.make_incremental(self.count - 1.0);
        }
        self.step(value / self.count, (self.count - 1.0) / self.count);
    }

    /// Adds another partial mean.
    pub(crate) fn merge(&mut self, mut other: Mean) {
        if other.count == 0.0 {
            return;
        }
        if self.count == 0.0 {
            *self = other;
            return;
        }
        if !self.incremental && !other.incremental {
            let mut sum = self.value;
            sum.merge(other.value);
            if !sum.sum.is_infinite() {
                self.value = sum;
                self.count += other.count;
                return;
            }
        }
        if !self.incremental {
            self.make_incremental(self.count);
        }
        if !other.incremental {
            other.make_incremental(other.count);
        }
        let count = self.count + other.count;
        self.step(
            other.value.value() * (other.count / count),
            self.count / count,
        );
        self.count = count;
    }

    fn make_incremental(&mut self, count: f64) {
        debug_assert!(count > 0.0);
        self.incremental = true;
        self.value.sum /= count;
        self.value.correction /= count;
    }

    /// `mean * weight + share`.
    fn step(&mut self, share: f64, weight: f64) {
        let (sum, correction) = increase(
            share,
            weight * self.value.sum,
            weight * self.value.correction,
        );
        self.value = Sum { sum, correction };
    }

    /// How many values there were.
    pub(crate) fn count(&self) -> f64 {
        self.count
    }

    /// The result; NaN when there was no value.
    pub(crate) fn value(&self) -> f64 {
        if self.incremental {
            self.value.sum + self.value.correction
        } else {
            self.value.sum / self.count + self.value.correction / self.count
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(values: &[f64]) -> f64 {
        let mut sum = Sum::default();
        values.iter().for_each(|v| sum.add(*v));
        sum.value()
    }

    fn mean(values: &[f64]) -> Mean {
        let mut mean = Mean::default();
        values.iter().for_each(|v| mean.add(*v));
        mean
    }

    #[test]
    fn small_values_survive_between_large_ones() {
        assert_eq!(sum(&[2.0, 8.0, 1e100, -1e100]), 10.0);
        assert_eq!(mean(&[2.0, 8.0, 1e100, -1e100]).value(), 2.5);
    }

    proptest! {
        #[test]
        fn what_is_lost_is_what_the_smaller_one_lost(
            sum in prop::num::f64::NORMAL,
            value in prop::num::f64::NORMAL,
        ) {
            let next = sum + value;
            prop_assume!(next.is_finite());
            let neumaier = if sum.abs() >= value.abs() {
                (sum - next) + value
            } else {
                (value - next) + sum
            };
            prop_assert_eq!(increase(value, sum, 0.0), (next, neumaier));
        }
    }

    #[test]
    fn infinities_stay_infinite_and_cancel_to_nan() {
        assert_eq!(sum(&[1.0, f64::INFINITY, 3.0]), f64::INFINITY);
        assert!(sum(&[f64::NEG_INFINITY, 1.0, f64::INFINITY]).is_nan());
        assert_eq!(
            mean(&[0.0, f64::INFINITY, f64::INFINITY, 0.0]).value(),
            f64::INFINITY
        );
        assert!(
            mean(&[f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY])
                .value()
                .is_nan()
        );
    }

    #[test]
    fn a_mean_does_not_overflow_where_its_sum_would() {
        let big = 9.98846567431158e307;
        assert_eq!(mean(&[big; 4]).value(), big);
        assert_eq!(mean(&[-big; 3]).value(), -big);
        assert_eq!(mean(&[-big, -big, big, big]).value(), 0.0);
    }

    #[test]
    fn merged_means_equal_the_mean_of_the_whole() {
        let big = 9.98846567431158e307;
        for values in [
            vec![1.0, 2.5, -3.0, 1e100, -1e100, 7.0],
            vec![big; 7],
            vec![f64::INFINITY, 1.0, 2.0, f64::INFINITY],
        ] {
            let whole = mean(&values).value();
            for cut in 0..=values.len() {
                let mut merged = mean(&values[..cut]);
                merged.merge(mean(&values[cut..]));
                assert_eq!(merged.count(), values.len() as f64);
                let difference = (merged.value() - whole).abs();
                assert!(
                    merged.value() == whole || difference <= whole.abs() * 1e-15,
                    "{values:?} cut at {cut}: {} is not {whole}",
                    merged.value()
                );
            }
        }
    }
}

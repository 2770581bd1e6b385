//! Estimates from a histogram: quantiles, fractions, variance.
//!
//! Within an exponential bucket observations are taken to lie evenly on a logarithmic scale, within the zero bucket and within custom
//! buckets evenly on a linear one. A zero bucket beside positive buckets only begins at zero, beside negative ones only it ends there. A custom
//! bucket without a finite width is not divided: its observations lie at its finite bound, but for a first one with a positive
//! bound, which begins at zero.
//!
//! Observations of NaN are counted but lie in no bucket; the sum is NaN then.

use model::FloatHistogram;

use super::buckets::{Bucket, ascending};
use crate::functions::kahan::Sum;
use crate::histogram::is_custom;

/// An estimate, and whether NaN observations had a part in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) value: f64,
    pub(crate) nan_observed: bool,
}

impl Estimate {
    fn certain(value: f64) -> Estimate {
        Estimate {
            value,
            nan_observed: false,
        }
    }
}

/// The buckets ascending, the ends of zero and first bucket drawn in as the histogram's other buckets suggest.
fn drawn_in(histogram: &FloatHistogram) -> Vec<Bucket> {
    let mut buckets = ascending(histogram);
    if is_custom(histogram) {
        if let Some(first) = buckets.first_mut()
            && first.lower == f64::NEG_INFINITY
            && first.upper > 0.0
        {
            first.lower = 0.0;
        }
        return buckets;
    }
    let no_negative = histogram.negative_counts.is_empty();
    let no_positive = histogram.positive_counts.is_empty();
    for bucket in &mut buckets {
        if bucket.lower < 0.0 && bucket.upper > 0.0 {
            if no_negative && !no_positive {
                bucket.lower = 0.0;
            } else if no_positive && !no_negative {
                bucket.upper = 0.0;
            }
        }
    }
    buckets
}

/// The q-quantile: infinite for `q` out of range, NaN without observations or where it falls among NaN observations.
pub(crate) fn quantile(q: f64, histogram: &FloatHistogram) -> Estimate {
    if q < 0.0 {
        return Estimate::certain(f64::NEG_INFINITY);
    }
    if q > 1.0 {
        return Estimate::certain(f64::INFINITY);
    }
    // A single custom bucket without bounds says nothing.
    let boundless = is_custom(histogram) && histogram.custom_values.is_empty();
    if histogram.count == 0.0 || q.is_nan() || boundless {
        return Estimate::certain(f64::NAN);
    }
    let mut buckets = drawn_in(histogram);
    buckets.retain(|bucket| bucket.count != 0.0);
    let nan_observed = histogram.sum.is_nan();
    // From the nearer end, for precision; but NaN observations are not at the upper end of the buckets.
    let forward = nan_observed || q < 0.5;
    let rank = if forward { q } else { 1.0 - q } * histogram.count;
    let mut count = 0.0;
    let mut found = None;
    let mut reach = |bucket: &Bucket| {
        count += bucket.count;
        found = Some(*bucket);
        count >= rank
    };
    if forward {
        buckets.iter().any(&mut reach);
    } else {
        buckets.iter().rev().any(&mut reach);
    }
    let estimate = |value| Estimate {
        value,
        nan_observed,
    };
    let Some(bucket) = found else {
        return estimate(f64::NAN);
    };
    let count = count.min(histogram.count);
    if count < rank && nan_observed {
        return estimate(f64::NAN);
    }
    if is_custom(histogram) {
        if bucket.lower == f64::NEG_INFINITY {
            return estimate(bucket.upper);
        }
        if bucket.upper == f64::INFINITY {
            return estimate(bucket.lower);
        }
    }
    if count < rank {
        // Counts that do not add up: the end that was reached.
        return estimate(if forward { bucket.upper } else { bucket.lower });
    }
    let fraction = if forward {
        (rank - (count - bucket.count)) / bucket.count
    } else {
        (count - rank) / bucket.count
    };
    if is_custom(histogram) || (bucket.lower <= 0.0 && bucket.upper >= 0.0) {
        return estimate(bucket.lower + (bucket.upper - bucket.lower) * fraction);
    }
    let (low, high) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    estimate(if bucket.lower > 0.0 {
        (low + (high - low) * fraction).exp2()
    } else {
        -(high + (low - high) * (1.0 - fraction)).exp2()
    })
}

/// Where in a bucket a value within it lies: the fraction of the observations below it.
pub(super) fn fraction_below(value: f64, bucket: &Bucket, linear: bool) -> f64 {
    if linear {
        return (value - bucket.lower) / (bucket.upper - bucket.lower);
    }
    let (low, high) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    let at = value.abs().log2();
    if value > 0.0 {
        (at - low) / (high - low)
    } else {
        1.0 - (at - high) / (low - high)
    }
}

/// The fraction of observations between two values; NaN ones are not between any. NaN without observations or with a NaN bound, 0 where
/// `lower >= upper`.
pub(crate) fn fraction(lower: f64, upper: f64, histogram: &FloatHistogram) -> Estimate {
    if histogram.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return Estimate::certain(f64::NAN);
    }
    if lower >= upper {
        return Estimate::certain(0.0);
    }
    let buckets = drawn_in(histogram);
    let nan_observed = histogram.sum.is_nan();
    let total = if nan_observed {
        buckets.iter().map(|bucket| bucket.count).sum()
    } else {
        histogram.count
    };
    let rank = |value| rank_of(value, &buckets, is_custom(histogram), total);
    Estimate {
        value: (rank(upper) - rank(lower)) / histogram.count,
        nan_observed,
    }
}

/// How many observations lie below a value.
fn rank_of(value: f64, buckets: &[Bucket], custom: bool, total: f64) -> f64 {
    let mut rank = 0.0f64;
    for bucket in buckets {
        if bucket.lower >= value {
            return rank.min(total);
        }
        if bucket.upper > value {
            let within = if bucket.lower == f64::NEG_INFINITY {
                bucket.count
            } else if bucket.upper == f64::INFINITY && custom {
                0.0
            } else {
                let linear = custom || (bucket.lower <= 0.0 && bucket.upper >= 0.0);
                bucket.count * fraction_below(value, bucket, linear)
            };
            return (rank + within).min(total);
        }
        rank += bucket.count;
    }
    total
}

/// The variance of the observations, each taken to lie in the middle of its bucket: geometric for exponential ones, zero for the zero bucket.
pub(crate) fn variance(histogram: &FloatHistogram) -> f64 {
    let mean = histogram.sum / histogram.count;
    let mut sum = Sum::default();
    for bucket in ascending(histogram).iter().filter(|b| b.count != 0.0) {
        let middle = if is_custom(histogram) {
            (bucket.upper + bucket.lower) / 2.0
        } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            0.0
        } else {
            (bucket.upper * bucket.lower).sqrt().copysign(bucket.upper)
        };
        let distance = middle - mean;
        sum.add(bucket.count * distance * distance);
    }
    sum.value() / histogram.count
}

#[cfg(test)]
mod tests;

//! Classic histograms: quantile and fraction from cumulative buckets.
//!
//! A bucket has an upper bound (the `le` label) and the count of all observations at or below it, so counts must not fall with
//! rising bounds. Scrapes and rates are not atomic, so sometimes they do: differences without numerical meaning are
//! evened out silently, real ones are flattened and reported. Source: Prometheus `promql/quantile.go`.

/// A cumulative bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bucket {
    /// Upper bound, inclusive.
    pub(crate) upper: f64,
    /// Observations at or below it.
    pub(crate) count: f64,
}

/// Buckets whose counts had to be flattened: between which bounds, and by how much at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Flattened {
    /// Smallest upper bound concerned.
    pub(crate) lowest: f64,
    /// Largest upper bound concerned.
    pub(crate) highest: f64,
    /// Largest difference.
    pub(crate) difference_max: f64,
}

/// Relative differences up to this have no numerical meaning.
const TOLERANCE: f64 = 1e-12;

/// The q-quantile by linear interpolation within a bucket, and what had to be flattened.
///
/// `buckets` are sorted by bound, not empty, and are used up. NaN without a +Inf bucket, without another one, or without observations;
/// infinite for `q` out of range. In the last bucket the bound before it is the answer, in a first bucket with a bound not
/// above zero its own bound.
pub(crate) fn quantile(q: f64, buckets: &mut Vec<Bucket>) -> (f64, Option<Flattened>) {
    debug_assert!(buckets.is_sorted_by(|a, b| a.upper.total_cmp(&b.upper).is_le()));
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if !ends_in_infinity(buckets) {
        return (f64::NAN, None);
    }
    coalesce(buckets);
    let flattened = flatten(buckets);
    let last = buckets.len() - 1;
    if last == 0 || buckets[last].count == 0.0 {
        return (f64::NAN, flattened);
    }
    let mut rank = q * buckets[last].count;
    // The first bucket that reaches the rank. With a NaN count none does, and it is the last.
    let at =
        buckets[..last].partition_point(|b| b.count < rank || b.count.is_nan() || rank.is_nan());
    if at == last {
        return (buckets[last - 1].upper, flattened);
    }
    if at == 0 && buckets[0].upper <= 0.0 {
        return (buckets[0].upper, flattened);
    }
    let mut lower = 0.0;
    let mut count = buckets[at].count;
    if at > 0 {
        lower = buckets[at - 1].upper;
        count -= buckets[at - 1].count;
        rank -= buckets[at - 1].count;
    }
    (
        lower + (buckets[at].upper - lower) * (rank / count),
        flattened,
    )
}

/// The fraction of observations between two values by linear interpolation. A bucket without a finite width is not divided: all its
/// observations lie at its finite bound.
///
/// `buckets` are sorted by bound, not empty, and are used up. NaN without a +Inf bucket, without observations or with a NaN
/// bound; 0 where `lower >= upper`.
pub(crate) fn fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if !ends_in_infinity(buckets) {
        return f64::NAN;
    }
    coalesce(buckets);
    let count = buckets[buckets.len() - 1].count;
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    (rank_of(upper, buckets) - rank_of(lower, buckets)) / count
}

/// How many observations lie below a value.
fn rank_of(value: f64, buckets: &[Bucket]) -> f64 {
    let total = buckets[buckets.len() - 1].count;
    let mut rank = 0.0f64;
    for (i, bucket) in buckets.iter().enumerate() {
        let low = match i {
            0 if bucket.upper > 0.0 => 0.0,
            0 => f64::NEG_INFINITY,
            _ => buckets[i - 1].upper,
        };
        if low >= value {
            return rank.min(total);
        }
        if bucket.upper > value {
            let within = if low == f64::NEG_INFINITY {
                bucket.count
            } else if bucket.upper == f64::INFINITY {
                rank
            } else {
                rank + (bucket.count - rank) * (value - low) / (bucket.upper - low)
            };
            return within.min(total);
        }
        rank = bucket.count;
    }
    total
}

fn ends_in_infinity(buckets: &[Bucket]) -> bool {
    buckets
        .last()
        .is_some_and(|bucket| bucket.upper == f64::INFINITY)
}

/// Adds up buckets with the same bound, which may be written in several ways.
fn coalesce(buckets: &mut Vec<Bucket>) {
    buckets.dedup_by(|next, kept| {
        let same = next.upper == kept.upper;
        if same {
            kept.count += next.count;
        }
        same
    });
}

/// Makes the counts rise.
fn flatten(buckets: &mut [Bucket]) -> Option<Flattened> {
    let mut flattened: Option<Flattened> = None;
    let mut previous = buckets[0].count;
    for bucket in &mut buckets[1..] {
        let count = bucket.count;
        if count == previous {
            continue;
        }
        if almost_equal(previous, count, TOLERANCE) {
            bucket.count = previous;
            continue;
        }
        if count < previous {
            let found = Flattened {
                lowest: bucket.upper,
                highest: bucket.upper,
                difference_max: previous - count,
            };
            flattened = Some(flattened.map_or(found, |all| all.and(found)));
            bucket.count = previous;
            continue;
        }
        previous = count;
    }
    flattened
}

impl Flattened {
    /// Both.
    pub(crate) fn and(self, other: Flattened) -> Flattened {
        Flattened {
            lowest: self.lowest.min(other.lowest),
            highest: self.highest.max(other.highest),
            difference_max: self.difference_max.max(other.difference_max),
        }
    }
}

/// Equal up to a relative difference; NaNs are equal. Source: Prometheus `util/almost`.
pub(crate) fn almost_equal(a: f64, b: f64, tolerance: f64) -> bool {
    if a == b || (a.is_nan() && b.is_nan()) {
        return true;
    }
    let sum = a.abs() + b.abs();
    let difference = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < tolerance * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < tolerance
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(pairs: &[(f64, f64)]) -> Vec<Bucket> {
        pairs
            .iter()
            .map(|&(upper, count)| Bucket { upper, count })
            .collect()
    }

    const INF: f64 = f64::INFINITY;

    #[test]
    fn quantiles_are_interpolated_within_a_bucket() {
        let positive = [(0.1, 50.0), (0.2, 70.0), (1.0, 110.0), (INF, 120.0)];
        for (q, expected) in [
            (0.0, 0.0),
            (0.25, 0.06),
            (0.5, 0.15),
            (0.75, 0.6),
            (1.0, 1.0),
        ] {
            let (got, flattened) = quantile(q, &mut buckets(&positive));
            assert!((got - expected).abs() < 1e-12, "{q}: {got}");
            assert_eq!(flattened, None);
        }
        let negative = [(-0.2, 10.0), (-0.1, 20.0), (0.3, 20.0), (INF, 30.0)];
        for (q, expected) in [(0.0, -0.2), (0.25, -0.2), (0.5, -0.15), (1.0, 0.3)] {
            let (got, _) = quantile(q, &mut buckets(&negative));
            assert!((got - expected).abs() < 1e-12, "{q}: {got}");
        }
    }

    #[test]
    fn quantiles_without_the_last_bucket_or_observations_are_nan() {
        for pairs in [
            &[(1.0, 5.0), (2.0, 6.0)][..],
            &[(INF, 5.0)],
            &[(1.0, 0.0), (INF, 0.0)],
        ] {
            assert!(quantile(0.5, &mut buckets(pairs)).0.is_nan(), "{pairs:?}");
        }
        assert_eq!(quantile(2.0, &mut buckets(&[(INF, 1.0)])).0, INF);
        assert_eq!(quantile(-2.0, &mut buckets(&[(INF, 1.0)])).0, -INF);
    }

    #[test]
    fn falling_counts_are_flattened_and_reported() {
        let falling = [
            (0.1, 20.0),
            (1.0, 10.0),
            (10.0, 50.0),
            (100.0, 40.0),
            (1e3, 90.0),
            (INF, 80.0),
        ];
        let (got, flattened) = quantile(0.5, &mut buckets(&falling));
        assert!((got - 8.5).abs() < 1e-9, "{got}");
        assert_eq!(
            flattened,
            Some(Flattened {
                lowest: 1.0,
                highest: INF,
                difference_max: 10.0
            })
        );
        let noise = [(1.0, 10.0), (2.0, 10.0 - 1e-12), (INF, 20.0)];
        assert_eq!(quantile(0.5, &mut buckets(&noise)).1, None);
    }

    #[test]
    fn equal_bounds_count_together() {
        let mixed = [
            (0.1, 10.0),
            (0.2, 10.0),
            (0.2, 10.0),
            (0.2, 10.0),
            (INF, 40.0),
        ];
        let (got, _) = quantile(0.5, &mut buckets(&mixed));
        assert!((got - 0.15).abs() < 1e-12, "{got}");
    }

    #[test]
    fn fractions_do_not_divide_a_bucket_without_a_width() {
        let positive = [(1.0, 1.0), (2.0, 3.0), (3.0, 6.0), (INF, 100.0)];
        let negative = [(-3.0, 10.0), (-2.0, 12.0), (-1.0, 15.0), (INF, 100.0)];
        for (pairs, lower, upper, expected) in [
            (&positive, 0.0, 1.5, 0.02),
            (&positive, -INF, INF, 1.0),
            (&positive, 4.0, 5.0, 0.0),
            (&positive, 2.0, 5.0, 0.03),
            (&positive, 400.0, INF, 0.94),
            (&positive, 2.0, 2.0, 0.0),
            (&positive, 3.0, 2.0, 0.0),
            (&positive, -10.0, -5.0, 0.0),
            (&negative, -4.0, -2.0, 0.02),
            (&negative, -INF, INF, 1.0),
            (&negative, 0.0, 1.0, 0.0),
            (&negative, -INF, -2.5, 0.11),
        ] {
            let got = fraction(lower, upper, &mut buckets(pairs));
            assert!((got - expected).abs() < 1e-12, "{lower} to {upper}: {got}");
        }
        assert!(fraction(f64::NAN, 1.0, &mut buckets(&positive)).is_nan());
        assert!(fraction(0.0, 1.0, &mut buckets(&[(1.0, 1.0)])).is_nan());
    }
}

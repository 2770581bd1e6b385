//! The part of a histogram above or below a value (`>/`, `</`).
//!
//! Whole buckets stay or go; the one that holds the value is divided as in [`super::estimate`]. What is left has a new count, and a
//! new sum from the middles of what is left of each bucket. Where nothing goes, nothing is changed. NaN observations lie nowhere and go with the first
//! change.

use model::FloatHistogram;

use super::buckets::{Bucket, compact, negative, positive};
use super::estimate::fraction_below;
use crate::histogram::is_custom;

/// Which part is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// At and below the value (`</`).
    Below,
    /// Above the value (`>/`).
    Above,
}

/// What is left of a bucket, and the middle of that.
struct Left {
    count: f64,
    middle: f64,
}

impl Left {
    const NOTHING: Left = Left {
        count: 0.0,
        middle: 0.0,
    };
}

/// Trims a histogram at `value`; without empty buckets.
pub(crate) fn trim(histogram: &FloatHistogram, value: f64, keep: Keep) -> FloatHistogram {
    let custom = is_custom(histogram);
    let mut trimmed = histogram.clone();
    let (mut count, mut sum, mut changed) = (0.0, 0.0, false);
    let mut take = |into: &mut f64, left: Left| {
        changed |= left.count != *into;
        *into = left.count;
        count += left.count;
        if left.count != 0.0 {
            sum += left.count * left.middle;
        }
    };
    let kind = if custom {
        Kind::Custom
    } else {
        Kind::Exponential
    };
    for (bucket, into) in positive(histogram).zip(&mut trimmed.positive_counts) {
        take(into, left_of(&bucket, value, keep, kind));
    }
    for (bucket, into) in negative(histogram)
        .iter()
        .zip(trimmed.negative_counts.iter_mut().rev())
    {
        take(into, left_of(bucket, value, keep, kind));
    }
    if !custom {
        let bucket = zero_bucket(histogram);
        take(
            &mut trimmed.zero_count,
            left_of(&bucket, value, keep, Kind::Zero),
        );
    }
    if changed {
        (trimmed.count, trimmed.sum) = (count, sum);
    }
    compact(&mut trimmed);
    trimmed
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exponential,
    Custom,
    Zero,
}

fn zero_bucket(histogram: &FloatHistogram) -> Bucket {
    let no_negative = histogram.negative_counts.is_empty();
    let no_positive = histogram.positive_counts.is_empty();
    let zero = histogram.zero_threshold;
    Bucket {
        lower: if no_negative && !no_positive {
            0.0
        } else {
            -zero
        },
        upper: if no_positive && !no_negative {
            0.0
        } else {
            zero
        },
        count: histogram.zero_count,
    }
}

fn left_of(bucket: &Bucket, value: f64, keep: Keep, kind: Kind) -> Left {
    let whole = Left {
        count: bucket.count,
        middle: middle(bucket.lower, bucket.upper, kind),
    };
    match keep {
        Keep::Below if bucket.upper <= value => whole,
        Keep::Above if bucket.lower >= value => whole,
        Keep::Below if bucket.lower < value => divided(bucket, value, keep, kind),
        Keep::Above if bucket.upper > value => divided(bucket, value, keep, kind),
        _ => Left::NOTHING,
    }
}

/// What is left of a bucket that holds the value.
fn divided(bucket: &Bucket, value: f64, keep: Keep, kind: Kind) -> Left {
    let all_at_value = Left {
        count: bucket.count,
        middle: value,
    };
    let mut bucket = *bucket;
    if bucket.lower == f64::NEG_INFINITY {
        let from_zero = bucket.upper > 0.0 && bucket.upper.is_finite();
        match keep {
            Keep::Below if bucket.upper <= 0.0 => return all_at_value,
            Keep::Below if !from_zero || value <= 0.0 => return Left::NOTHING,
            Keep::Above if !from_zero || value < 0.0 => return Left::NOTHING,
            _ => bucket.lower = 0.0,
        }
    } else if bucket.upper == f64::INFINITY {
        return match keep {
            Keep::Below => Left::NOTHING,
            Keep::Above => all_at_value,
        };
    }
    let below = fraction_below(value, &bucket, kind != Kind::Exponential);
    match keep {
        Keep::Below => Left {
            count: bucket.count * below,
            middle: middle(bucket.lower, value, kind),
        },
        Keep::Above => Left {
            count: bucket.count * (1.0 - below),
            middle: middle(value, bucket.upper, kind),
        },
    }
}

/// The middle of an interval: the geometric one in an exponential bucket, the finite end of an infinite one (but half of a positive end that
/// nothing is known below).
fn middle(lower: f64, upper: f64, kind: Kind) -> f64 {
    match (lower.is_infinite(), upper.is_infinite()) {
        (true, true) => 0.0,
        (true, false) if upper > 0.0 => upper / 2.0,
        (true, false) => upper,
        (false, true) => lower,
        (false, false) if kind == Kind::Exponential => (lower * upper).abs().sqrt().copysign(upper),
        (false, false) => (lower + upper) / 2.0,
    }
}

#[cfg(test)]
mod tests;

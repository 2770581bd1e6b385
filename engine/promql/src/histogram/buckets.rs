//! Bounds of buckets, and buckets in order of the values they hold.

use std::fmt::Write as _;

use model::{CounterReset, FloatHistogram, Span};

use crate::functions::quantile::go_number;
use crate::histogram::is_custom;

/// A bucket as an interval of values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bucket {
    pub(crate) lower: f64,
    pub(crate) upper: f64,
    pub(crate) count: f64,
}

/// The upper bound of exponential bucket `index`.
///
/// The bucket that ends where floats do ends at the largest float; the one after it, for infinities, at infinity.
pub(crate) fn exponential_bound(index: i32, schema: i32) -> f64 {
    debug_assert!((-4..=8).contains(&schema), "schema {schema}");
    if schema < 0 {
        let exponent = i64::from(index) << -schema;
        return if exponent == 1024 {
            f64::MAX
        } else {
            power_of_two(exponent)
        };
    }
    let per_doubling = 1i32 << schema;
    let fraction = f64::from(index & (per_doubling - 1)) / f64::from(per_doubling);
    let whole = index >> schema;
    if fraction == 0.0 && whole == 1024 {
        return f64::MAX;
    }
    fraction.exp2() * power_of_two(i64::from(whole))
}

fn power_of_two(exponent: i64) -> f64 {
    2f64.powi(exponent.clamp(-1100, 1100) as i32)
}

/// The upper bound of custom bucket `index`; -Inf below the first, +Inf from the last on.
pub(crate) fn custom_bound(index: i32, bounds: &[f64]) -> f64 {
    match usize::try_from(index) {
        Err(_) => f64::NEG_INFINITY,
        Ok(index) => bounds.get(index).copied().unwrap_or(f64::INFINITY),
    }
}

/// Index and count of every bucket that the spans describe, ascending by index.
pub(crate) fn indexed<'a>(
    spans: &'a [Span],
    counts: &'a [f64],
) -> impl Iterator<Item = (i32, f64)> + 'a {
    let mut next = 0i32;
    spans
        .iter()
        .flat_map(move |span| {
            let start = next.saturating_add(span.offset);
            next = start.saturating_add_unsigned(span.length);
            start..next
        })
        .zip(counts.iter().copied())
}

/// Spans and counts of buckets given ascending by index.
pub(crate) fn spanned(buckets: impl Iterator<Item = (i32, f64)>) -> (Vec<Span>, Vec<f64>) {
    let mut spans: Vec<Span> = Vec::new();
    let mut counts = Vec::new();
    let mut next = 0i32;
    for (index, count) in buckets {
        match spans.last_mut() {
            Some(span) if index == next => span.length += 1,
            _ => spans.push(Span {
                offset: index.wrapping_sub(next),
                length: 1,
            }),
        }
        next = index.saturating_add(1);
        counts.push(count);
    }
    (spans, counts)
}

/// The positive buckets of a histogram of either kind, ascending.
pub(crate) fn positive(histogram: &FloatHistogram) -> impl Iterator<Item = Bucket> + '_ {
    let custom = is_custom(histogram);
    let bound = move |index: i32| {
        if custom {
            custom_bound(index, &histogram.custom_values)
        } else {
            exponential_bound(index, histogram.schema)
        }
    };
    indexed(&histogram.positive_spans, &histogram.positive_counts).map(move |(index, count)| {
        Bucket {
            lower: bound(index - 1),
            upper: bound(index),
            count,
        }
    })
}

/// The negative buckets by falling distance from zero, so ascending by value.
pub(crate) fn negative(histogram: &FloatHistogram) -> Vec<Bucket> {
    let mut buckets: Vec<Bucket> = indexed(&histogram.negative_spans, &histogram.negative_counts)
        .map(|(index, count)| Bucket {
            lower: -exponential_bound(index, histogram.schema),
            upper: -exponential_bound(index - 1, histogram.schema),
            count,
        })
        .collect();
    buckets.reverse();
    buckets
}

/// All buckets ascending by value, the zero bucket among them if it has observations. Where a bucket overlaps the zero bucket, it is cut.
pub(crate) fn ascending(histogram: &FloatHistogram) -> Vec<Bucket> {
    let zero = histogram.zero_threshold;
    let mut buckets = negative(histogram);
    for bucket in &mut buckets {
        if bucket.upper < 0.0 && bucket.upper > -zero {
            bucket.upper = -zero;
        }
    }
    if histogram.zero_count > 0.0 {
        buckets.push(Bucket {
            lower: -zero,
            upper: zero,
            count: histogram.zero_count,
        });
    }
    buckets.extend(positive(histogram).map(|mut bucket| {
        if bucket.lower > 0.0 && bucket.lower < zero {
            bucket.lower = zero;
        }
        bucket
    }));
    buckets
}

/// Multiplies everything by a number. A negative one makes a gauge of it.
pub(crate) fn scale(histogram: &mut FloatHistogram, factor: f64) {
    map(histogram, |value| value * factor);
    if factor < 0.0 {
        histogram.counter_reset = CounterReset::Gauge;
    }
}

/// Divides everything by a number. A negative one makes a gauge of it; zero leaves no buckets but the zero bucket.
pub(crate) fn divide(histogram: &mut FloatHistogram, divisor: f64) {
    if divisor == 0.0 {
        histogram.positive_spans.clear();
        histogram.positive_counts.clear();
        histogram.negative_spans.clear();
        histogram.negative_counts.clear();
    }
    map(histogram, |value| value / divisor);
    if divisor < 0.0 {
        histogram.counter_reset = CounterReset::Gauge;
    }
}

fn map(histogram: &mut FloatHistogram, change: impl Fn(f64) -> f64) {
    let FloatHistogram {
        zero_count,
        count,
        sum,
        positive_counts,
        negative_counts,
        ..
    } = histogram;
    for value in [zero_count, count, sum]
        .into_iter()
        .chain(positive_counts)
        .chain(negative_counts)
    {
        *value = change(*value);
    }
}

/// Drops the buckets without observations.
pub(crate) fn compact(histogram: &mut FloatHistogram) {
    for (spans, counts) in [
        (
            &mut histogram.positive_spans,
            &mut histogram.positive_counts,
        ),
        (
            &mut histogram.negative_spans,
            &mut histogram.negative_counts,
        ),
    ] {
        if counts.contains(&0.0) {
            let kept = indexed(spans, counts).filter(|(_, count)| *count != 0.0);
            let (new_spans, new_counts) = spanned(kept);
            (*spans, *counts) = (new_spans, new_counts);
        }
    }
}

/// As Prometheus prints it: `{count:3, sum:5, [-0.001,0.001]:1, (0.5,1]:2}`.
pub(crate) fn text(histogram: &FloatHistogram) -> String {
    let mut out = format!(
        "{{count:{}, sum:{}",
        go_number(histogram.count),
        go_number(histogram.sum)
    );
    let mut put = |open: char, bucket: &Bucket, close: char| {
        if bucket.count != 0.0 {
            write!(
                out,
                ", {open}{},{}{close}:{}",
                go_number(bucket.lower),
                go_number(bucket.upper),
                go_number(bucket.count)
            )
            .expect("writing to a string cannot fail");
        }
    };
    for bucket in negative(histogram) {
        put('[', &bucket, ')');
    }
    if histogram.zero_count != 0.0 {
        let zero = Bucket {
            lower: -histogram.zero_threshold,
            upper: histogram.zero_threshold,
            count: histogram.zero_count,
        };
        put('[', &zero, ']');
    }
    for bucket in positive(histogram) {
        let open = if bucket.lower == f64::NEG_INFINITY {
            '['
        } else {
            '('
        };
        put(open, &bucket, ']');
    }
    out + "}"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_a_schema_contain_those_of_the_next_lower_one() {
        for schema in -3..=8 {
            for index in -40..40 {
                assert_eq!(
                    exponential_bound(2 * index, schema),
                    exponential_bound(index, schema - 1),
                    "index {index} of schema {schema}"
                );
            }
        }
        assert_eq!(exponential_bound(0, 3), 1.0);
        assert_eq!(exponential_bound(3, 1), 2.0 * 2f64.sqrt());
        assert_eq!(exponential_bound(-1, -4), 1.0 / 65536.0);
    }

    #[test]
    fn the_last_bucket_ends_at_the_largest_float() {
        for schema in -4..=8i32 {
            let last = if schema < 0 {
                1024 >> -schema
            } else {
                1024 << schema
            };
            assert_eq!(exponential_bound(last, schema), f64::MAX);
            assert_eq!(exponential_bound(last + 1, schema), f64::INFINITY);
            assert!(exponential_bound(last - 1, schema) < f64::MAX);
        }
        assert_eq!(exponential_bound(i32::MIN, 0), 0.0);
        assert_eq!(exponential_bound(i32::MAX, -4), f64::INFINITY);
    }

    #[test]
    fn spans_survive_a_round_trip_without_empty_buckets() {
        let mut histogram = FloatHistogram {
            positive_spans: vec![
                Span {
                    offset: -2,
                    length: 3,
                },
                Span {
                    offset: 4,
                    length: 2,
                },
            ],
            positive_counts: vec![1.0, 0.0, 2.0, 3.0, 0.0],
            ..FloatHistogram::default()
        };
        let before: Vec<_> =
            indexed(&histogram.positive_spans, &histogram.positive_counts).collect();
        assert_eq!(before, [(-2, 1.0), (-1, 0.0), (0, 2.0), (5, 3.0), (6, 0.0)]);
        compact(&mut histogram);
        let after: Vec<_> =
            indexed(&histogram.positive_spans, &histogram.positive_counts).collect();
        assert_eq!(after, [(-2, 1.0), (0, 2.0), (5, 3.0)]);
        assert_eq!(histogram.positive_spans.len(), 3);
    }

    #[test]
    fn dividing_by_zero_leaves_no_buckets() {
        let mut histogram = FloatHistogram {
            count: 3.0,
            sum: -3.0,
            positive_spans: vec![Span {
                offset: 0,
                length: 1,
            }],
            positive_counts: vec![3.0],
            ..FloatHistogram::default()
        };
        scale(&mut histogram, -2.0);
        assert_eq!(
            (histogram.count, histogram.counter_reset),
            (-6.0, CounterReset::Gauge)
        );
        divide(&mut histogram, 0.0);
        assert_eq!(
            (histogram.count, histogram.sum),
            (f64::NEG_INFINITY, f64::INFINITY)
        );
        assert!(histogram.positive_counts.is_empty() && histogram.zero_count.is_nan());
    }

    #[test]
    fn a_histogram_is_printed_with_its_filled_buckets() {
        let histogram = FloatHistogram {
            count: 20.0,
            sum: 10.0,
            zero_threshold: 0.001,
            zero_count: 2.0,
            positive_spans: vec![Span {
                offset: 0,
                length: 2,
            }],
            positive_counts: vec![1.0, 2.0],
            negative_spans: vec![Span {
                offset: 0,
                length: 2,
            }],
            negative_counts: vec![1.0, 2.0],
            ..FloatHistogram::default()
        };
        assert_eq!(
            text(&histogram),
            "{count:20, sum:10, [-2,-1):2, [-1,-0.5):1, [-0.001,0.001]:2, (0.5,1]:1, (1,2]:2}"
        );
    }
}

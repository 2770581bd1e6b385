//! Short ways to write histograms in tests. Their counts add up; their sums are given or zero.

use model::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram};

use super::buckets::spanned;

/// Positive buckets from index 0 on.
pub(super) fn exponential(schema: i32, positive: &[f64]) -> FloatHistogram {
    both(schema, (0.0, 0.0), positive, &[])
}

/// Zero bucket (width, count), positive and negative buckets from index 0 on.
pub(super) fn both(
    schema: i32,
    zero: (f64, f64),
    positive: &[f64],
    negative: &[f64],
) -> FloatHistogram {
    let layout = |counts: &[f64]| spanned((0..).zip(counts.iter().copied()));
    let (positive_spans, positive_counts) = layout(positive);
    let (negative_spans, negative_counts) = layout(negative);
    FloatHistogram {
        schema,
        zero_threshold: zero.0,
        zero_count: zero.1,
        count: zero.1 + positive.iter().chain(negative).sum::<f64>(),
        positive_spans,
        positive_counts,
        negative_spans,
        negative_counts,
        ..FloatHistogram::default()
    }
}

/// Custom bounds and the counts of as many buckets and one more.
pub(super) fn custom(bounds: &[f64], counts: &[f64]) -> FloatHistogram {
    FloatHistogram {
        custom_values: bounds.to_vec(),
        ..exponential(CUSTOM_BUCKETS_SCHEMA, counts)
    }
}

/// With a sum.
pub(super) fn summing(sum: f64, histogram: FloatHistogram) -> FloatHistogram {
    FloatHistogram { sum, ..histogram }
}

#[track_caller]
pub(super) fn about(got: f64, expected: f64) {
    assert!(
        got == expected || (got - expected).abs() < 1e-9 * expected.abs().max(1e-3),
        "{got} is not {expected}"
    );
}

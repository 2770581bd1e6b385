//! Arithmetic of native histograms, pure functions over [`model::FloatHistogram`].
//!
//! Two kinds: *exponential* ones (schema -4 to 8; bucket `i` ends at `2^(i * 2^-schema)`, so a schema halves into the next lower one exactly)
//! and ones with *custom* bounds (schema -53). They never mix; two with different custom bounds meet on the bounds that both have. The zero
//! bucket of exponential ones has a width of its own, and meets at the larger width.
//!
//! - `buckets`: bounds, and iterating in order of values.
//! - `sum`: [`sum::Sums`], the compensated accumulator behind `+`, `-`, `sum`, `avg` and their `_over_time` forms; partials merge.
//! - `reset`: whether a counter was reset between two histograms; the change over a range (`rate` and its kin).
//! - `estimate`: quantiles, fractions, variance. `trim`: the part above or below a value.
//!
//! What cannot be done is returned as a value ([`Incompatible`], [`sum::Notice`]); wording it is up to the caller.
//! Source: Prometheus `model/histogram/float_histogram.go`, `promql/quantile.go`.

pub(crate) mod buckets;
pub(crate) mod estimate;
pub(crate) mod mean;
pub(crate) mod reset;
pub(crate) mod sum;
#[cfg(test)]
mod testing;
pub(crate) mod trim;

use model::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram};

/// One of two histograms is exponential, the other has custom bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Incompatible;

/// Whether two histograms are of one kind.
pub(crate) fn compatible(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    is_custom(a) == is_custom(b)
}

/// Whether a histogram has custom bounds.
pub(crate) fn is_custom(histogram: &FloatHistogram) -> bool {
    histogram.schema == CUSTOM_BUCKETS_SCHEMA
}

/// Whether two histograms are the same, whatever they say about resets. NaN is equal to NaN with the same bits.
pub(crate) fn equal(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    let numbers =
        |h: &FloatHistogram| [h.zero_threshold, h.zero_count, h.count, h.sum].map(f64::to_bits);
    let side = |a: (&[_], &[f64]), b: (&[_], &[f64])| {
        buckets::indexed(a.0, a.1)
            .map(|(index, count)| (index, count.to_bits()))
            .eq(buckets::indexed(b.0, b.1).map(|(index, count)| (index, count.to_bits())))
    };
    a.schema == b.schema
        && numbers(a) == numbers(b)
        && a.custom_values == b.custom_values
        && side(
            (&a.positive_spans, &a.positive_counts),
            (&b.positive_spans, &b.positive_counts),
        )
        && side(
            (&a.negative_spans, &a.negative_counts),
            (&b.negative_spans, &b.negative_counts),
        )
}

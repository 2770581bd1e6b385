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

//! Sums of histograms, every number compensated.
//!
//! A sum has the lowest resolution and the widest zero bucket, or only the common custom bounds, of all its terms; it is brought
//! down as they come. So the order of the terms changes last digits, and where zero buckets of different width end within filled buckets,
//! their common width too.

use std::cmp::Ordering;

use model::{CounterReset, FloatHistogram};

use super::buckets::{compact, custom_bound, exponential_bound, indexed, spanned};
use crate::functions::kahan::Sum;
use crate::histogram::Incompatible;

/// What a sum had to overlook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Notice {
    /// One term says that a counter reset precedes it, another that none does.
    pub(crate) conflicting_resets: bool,
    /// Custom bounds differed; what is not common was given up.
    pub(crate) reconciled_bounds: bool,
}

/// Buckets ascending by index.
type Buckets = Vec<(i32, Sum)>;

/// A sum of histograms.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sums {
    counter_reset: CounterReset,
    schema: i32,
    zero_threshold: f64,
    zero_count: Sum,
    count: Sum,
    sum: Sum,
    positive: Buckets,
    negative: Buckets,
    custom_values: Vec<f64>,
}

impl Sums {
    /// The sum of one histogram.
    pub(crate) fn new(histogram: &FloatHistogram) -> Sums {
        let sums = |spans: &[_], counts: &[f64]| {
            indexed(spans, counts)
                .map(|(index, count)| (index, Sum::new(count)))
                .collect()
        };
        Sums {
            counter_reset: histogram.counter_reset,
            schema: histogram.schema,
            zero_threshold: histogram.zero_threshold,
            zero_count: Sum::new(histogram.zero_count),
            count: Sum::new(histogram.count),
            sum: Sum::new(histogram.sum),
            positive: sums(&histogram.positive_spans, &histogram.positive_counts),
            negative: sums(&histogram.negative_spans, &histogram.negative_counts),
            custom_values: histogram.custom_values.clone(),
        }
    }

    /// Whether it is one of histograms with custom bounds.
    pub(super) fn is_custom(&self) -> bool {
        self.schema == model::CUSTOM_BUCKETS_SCHEMA
    }

    /// Adds a histogram. Errors: one of both is exponential, the other custom; then nothing is changed.
    pub(crate) fn add(&mut self, histogram: &FloatHistogram) -> Result<Notice, Incompatible> {
        self.merge(Sums::new(histogram))
    }

    /// Subtracts a histogram; as [`Sums::add`].
    pub(crate) fn subtract(&mut self, histogram: &FloatHistogram) -> Result<Notice, Incompatible> {
        let mut negated = Sums::new(histogram);
        negated.scale(-1.0);
        self.merge(negated)
    }

    /// Adds another sum; as [`Sums::add`].
    pub(crate) fn merge(&mut self, mut other: Sums) -> Result<Notice, Incompatible> {
        if self.is_custom() != other.is_custom() {
            return Err(Incompatible);
        }
        let mut notice = Notice::default();
        (self.counter_reset, notice.conflicting_resets) =
            combined_resets(self.counter_reset, other.counter_reset);
        if self.is_custom() {
            if self.custom_values != other.custom_values {
                notice.reconciled_bounds = true;
                let common = common_bounds(&self.custom_values, &other.custom_values);
                self.reduce_bounds(&common);
                other.reduce_bounds(&common);
            }
        } else {
            self.widen_both(&mut other);
            let schema = self.schema.min(other.schema);
            self.reduce_schema(schema);
            other.reduce_schema(schema);
        }
        self.zero_count.merge(other.zero_count);
        self.count.merge(other.count);
        self.sum.merge(other.sum);
        merge_buckets(&mut self.positive, other.positive);
        merge_buckets(&mut self.negative, other.negative);
        Ok(notice)
    }

    /// Multiplies everything, what was lost included. Says nothing about resets.
    pub(crate) fn scale(&mut self, factor: f64) {
        self.map(|sum| {
            sum.sum *= factor;
            sum.correction *= factor;
        });
    }

    /// Divides everything, what was lost included.
    pub(crate) fn divide(&mut self, divisor: f64) {
        self.map(|sum| {
            sum.sum /= divisor;
            sum.correction /= divisor;
        });
    }

    fn map(&mut self, change: impl Fn(&mut Sum)) {
        change(&mut self.zero_count);
        change(&mut self.count);
        change(&mut self.sum);
        let buckets = self.positive.iter_mut().chain(&mut self.negative);
        buckets.for_each(|(_, sum)| change(sum));
    }

    /// Whether a number in it is infinite.
    pub(crate) fn overflows(&self) -> bool {
        let buckets = self.positive.iter().chain(&self.negative);
        [self.zero_count, self.count, self.sum]
            .iter()
            .chain(buckets.map(|(_, sum)| sum))
            .any(|sum| sum.sum.is_infinite())
    }

    /// The sum, without empty buckets.
    pub(crate) fn value(&self) -> FloatHistogram {
        let values =
            |buckets: &Buckets| spanned(buckets.iter().map(|(index, sum)| (*index, sum.value())));
        let (positive_spans, positive_counts) = values(&self.positive);
        let (negative_spans, negative_counts) = values(&self.negative);
        let mut histogram = FloatHistogram {
            counter_reset: self.counter_reset,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count.value(),
            count: self.count.value(),
            sum: self.sum.value(),
            positive_spans,
            positive_counts,
            negative_spans,
            negative_counts,
            custom_values: self.custom_values.clone(),
        };
        compact(&mut histogram);
        histogram
    }

    /// Joins buckets until the resolution is that of `schema`, which is not higher.
    pub(crate) fn reduce_schema(&mut self, schema: i32) {
        assert!(schema <= self.schema && !self.is_custom());
        let by = self.schema - schema;
        if by == 0 {
            return;
        }
        for buckets in [&mut self.positive, &mut self.negative] {
            renumber(buckets, |index| ((index - 1) >> by) + 1);
        }
        self.schema = schema;
    }

    /// Joins custom buckets until only `bounds` are left, which are some of the own ones.
    fn reduce_bounds(&mut self, bounds: &[f64]) {
        let own = std::mem::take(&mut self.custom_values);
        renumber(&mut self.positive, |index| {
            let upper = custom_bound(index, &own);
            bounds.partition_point(|bound| *bound < upper) as i32
        });
        self.custom_values = bounds.to_vec();
    }

    /// Widens the narrower zero bucket; where it would end within a bucket that has observations it takes that one whole, and then the
    /// other one may have to follow.
    fn widen_both(&mut self, other: &mut Sums) {
        while self.zero_threshold != other.zero_threshold {
            // A NaN would never become equal.
            if self.zero_threshold.is_nan() || other.zero_threshold.is_nan() {
                return;
            }
            if self.zero_threshold < other.zero_threshold {
                self.widen(other.zero_threshold);
            } else {
                other.widen(self.zero_threshold);
            }
        }
    }

    /// Widens the zero bucket to `threshold`, or to the end of a filled bucket around it.
    pub(crate) fn widen(&mut self, mut threshold: f64) {
        let bound = |index: i32| exponential_bound(index, self.schema);
        loop {
            let cut = self
                .positive
                .iter()
                .chain(&self.negative)
                .find(|(index, sum)| {
                    sum.value() != 0.0 && bound(index - 1) < threshold && bound(*index) > threshold
                });
            match cut {
                Some((index, _)) => threshold = bound(*index),
                None => break,
            }
        }
        for buckets in [&mut self.positive, &mut self.negative] {
            let inside = buckets
                .iter()
                .take_while(|(index, _)| exponential_bound(index - 1, self.schema) < threshold)
                .count();
            for (_, sum) in buckets.drain(..inside) {
                self.zero_count.merge(sum);
            }
        }
        self.zero_threshold = threshold;
    }

    /// The count of the zero bucket, and its width.
    pub(super) fn zero(&self) -> (f64, f64) {
        (self.zero_count.value(), self.zero_threshold)
    }

    /// Positive and negative buckets by index.
    pub(super) fn sides(&self) -> [&[(i32, Sum)]; 2] {
        [&self.positive, &self.negative]
    }

    /// Declares it to be a gauge.
    pub(crate) fn make_gauge(&mut self) {
        self.counter_reset = CounterReset::Gauge;
    }

    /// Brings both to their common custom bounds.
    pub(super) fn reconcile(&mut self, other: &mut Sums) {
        let common = common_bounds(&self.custom_values, &other.custom_values);
        self.reduce_bounds(&common);
        other.reduce_bounds(&common);
    }
}

/// Gives buckets new indexes that rise with the old ones; equal ones are joined.
fn renumber(buckets: &mut Buckets, new: impl Fn(i32) -> i32) {
    for (index, _) in buckets.iter_mut() {
        *index = new(*index);
    }
    buckets.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1.merge(next.1);
        }
        same
    });
}

fn merge_buckets(into: &mut Buckets, from: Buckets) {
    if into.is_empty() {
        *into = from;
        return;
    }
    // Mostly the layout is the same.
    if into.len() == from.len() && into.iter().zip(&from).all(|(a, b)| a.0 == b.0) {
        into.iter_mut().zip(from).for_each(|(a, b)| a.1.merge(b.1));
        return;
    }
    let mut merged = Vec::with_capacity(into.len() + from.len());
    let (mut left, mut right) = (into.drain(..).peekable(), from.into_iter().peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (Some(a), Some(b)) => a.0.cmp(&b.0),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => break,
        };
        let mut next = match order {
            Ordering::Greater => right.next(),
            _ => left.next(),
        }
        .expect("it was peeked at");
        if order == Ordering::Equal {
            next.1.merge(right.next().expect("it was peeked at").1);
        }
        merged.push(next);
    }
    drop(left);
    *into = merged;
}

/// The bounds that both have; both ascend.
fn common_bounds(a: &[f64], b: &[f64]) -> Vec<f64> {
    let mut rest = b;
    a.iter()
        .copied()
        .filter(|bound| {
            rest = &rest[rest.partition_point(|other| other < bound)..];
            rest.first() == Some(bound)
        })
        .collect()
}

/// What a sum says about resets before it, and whether its terms contradict each other.
fn combined_resets(a: CounterReset, b: CounterReset) -> (CounterReset, bool) {
    use CounterReset::{Gauge, Unknown};
    match (a, b) {
        _ if a == b => (a, false),
        (Gauge, _) | (_, Gauge) => (Gauge, false),
        (Unknown, _) | (_, Unknown) => (Unknown, false),
        _ => (Unknown, true),
    }
}

#[cfg(test)]
mod tests;

//! Histograms of the naive evaluator: every bucket in a map by its index, nothing compensated, nothing merged from partial results.
//!
//! It shares with `crate::histogram` the bound of a bucket and nothing else.

use std::collections::BTreeMap;

use model::{CounterReset, FloatHistogram, Span};

use crate::histogram::buckets::exponential_bound;

type Buckets = BTreeMap<i32, f64>;

/// A histogram. `bounds` makes it a custom one.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::eval) struct Hist {
    pub(in crate::eval) reset: CounterReset,
    pub(in crate::eval) bounds: Option<Vec<f64>>,
    schema: i32,
    width: f64,
    zero: f64,
    pub(in crate::eval) count: f64,
    pub(in crate::eval) sum: f64,
    positive: Buckets,
    negative: Buckets,
}

/// Exponential and custom histograms have met.
#[derive(Debug, PartialEq)]
pub(in crate::eval) struct Unlike;

/// A bucket as an interval.
struct Interval {
    lower: f64,
    upper: f64,
    count: f64,
}

impl Interval {
    /// Even on a linear scale rather than on a logarithmic one.
    fn linear(&self, custom: bool) -> bool {
        custom || self.lower <= 0.0 && self.upper >= 0.0
    }

    /// The value below which a fraction of the observations lies.
    fn at(&self, fraction: f64, custom: bool) -> f64 {
        if self.linear(custom) {
            return self.lower + (self.upper - self.lower) * fraction;
        }
        let sign = self.lower.signum();
        let (a, b) = (self.lower.abs().ln(), self.upper.abs().ln());
        sign * (a + (b - a) * fraction).exp()
    }

    /// The fraction of the observations below a value within.
    fn below(&self, value: f64, custom: bool) -> f64 {
        if self.linear(custom) {
            return (value - self.lower) / (self.upper - self.lower);
        }
        let (a, b) = (self.lower.abs().ln(), self.upper.abs().ln());
        (value.abs().ln() - a) / (b - a)
    }

    fn middle(&self, custom: bool) -> f64 {
        match () {
            () if custom => (self.lower + self.upper) / 2.0,
            () if self.linear(custom) => 0.0,
            () => self.lower.signum() * (self.lower * self.upper).sqrt(),
        }
    }
}

fn buckets(spans: &[Span], counts: &[f64]) -> Buckets {
    let (mut index, mut counts) = (0, counts.iter());
    let mut found = Buckets::new();
    for span in spans {
        index += span.offset;
        for _ in 0..span.length {
            found.insert(index, *counts.next().expect("a count for every bucket"));
            index += 1;
        }
    }
    found
}

impl Hist {
    pub(in crate::eval) fn of(histogram: &FloatHistogram) -> Hist {
        let custom = histogram.schema == model::CUSTOM_BUCKETS_SCHEMA;
        Hist {
            reset: histogram.counter_reset,
            bounds: custom.then(|| histogram.custom_values.clone()),
            schema: histogram.schema,
            width: histogram.zero_threshold,
            zero: histogram.zero_count,
            count: histogram.count,
            sum: histogram.sum,
            positive: buckets(&histogram.positive_spans, &histogram.positive_counts),
            negative: buckets(&histogram.negative_spans, &histogram.negative_counts),
        }
        .compact()
    }

    fn compact(mut self) -> Hist {
        self.positive.retain(|_, count| *count != 0.0);
        self.negative.retain(|_, count| *count != 0.0);
        self
    }

    /// Whether two are the same but for what they say about resets, up to rounding errors of about `tolerance` of the largest number.
    pub(in crate::eval) fn same(&self, other: &Hist, tolerance: f64) -> bool {
        let numbers = |h: &Hist| {
            let mut all = vec![h.zero, h.count, h.sum];
            all.extend(h.positive.values().chain(h.negative.values()));
            all
        };
        let largest = numbers(self)
            .into_iter()
            .chain(numbers(other))
            .filter(|n| n.is_finite())
            .fold(0.0f64, |a, b| a.max(b.abs()));
        let close = |a: f64, b: f64| {
            a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= tolerance * largest
        };
        // What cancels out here may leave a trace there.
        let side = |a: &Buckets, b: &Buckets| {
            let count = |of: &Buckets, index: &i32| of.get(index).copied().unwrap_or(0.0);
            a.keys()
                .chain(b.keys())
                .all(|index| close(count(a, index), count(b, index)))
        };
        self.bounds == other.bounds
            && (self.bounds.is_some() || self.schema == other.schema && self.width == other.width)
            && close(self.zero, other.zero)
            && close(self.count, other.count)
            && close(self.sum, other.sum)
            && side(&self.positive, &other.positive)
            && side(&self.negative, &other.negative)
    }

    pub(in crate::eval) fn scale(mut self, factor: f64) -> Hist {
        self.numbers(|n| *n *= factor);
        if factor < 0.0 {
            self.reset = CounterReset::Gauge;
        }
        self.compact()
    }

    pub(in crate::eval) fn divide(mut self, by: f64) -> Hist {
        self.numbers(|n| *n /= by);
        if by == 0.0 {
            // Prometheus has it so: nothing but infinities would be left in the buckets.
            (self.positive, self.negative) = Default::default();
        }
        if by < 0.0 {
            self.reset = CounterReset::Gauge;
        }
        self.compact()
    }

    fn numbers(&mut self, change: impl Fn(&mut f64)) {
        for number in [&mut self.zero, &mut self.count, &mut self.sum] {
            change(number);
        }
        let sides = self.positive.values_mut().chain(self.negative.values_mut());
        sides.for_each(change);
    }

    /// Brings both to the bounds, or the resolution and zero bucket, that both can have.
    fn meet(&mut self, other: &mut Hist) -> Result<(), Unlike> {
        match (&mut self.bounds, &mut other.bounds) {
            (None, None) => {
                let (width, schema) = (self.width.max(other.width), self.schema.min(other.schema));
                for one in [self, other] {
                    one.widen(width);
                    one.coarsen(schema);
                }
                Ok(())
            }
            (Some(a), Some(b)) => {
                let mut common = a.clone();
                common.retain(|bound| b.contains(bound));
                for one in [self, other] {
                    let own = one.bounds.replace(common.clone()).expect("it is custom");
                    let mut moved = Buckets::new();
                    for (index, count) in &one.positive {
                        let upper = own.get(*index as usize).copied().unwrap_or(f64::INFINITY);
                        let place = common.iter().filter(|bound| **bound < upper).count();
                        *moved.entry(place as i32).or_default() += count;
                    }
                    one.positive = moved;
                }
                Ok(())
            }
            _ => Err(Unlike),
        }
    }

    /// The tests' widths are bounds of buckets at every resolution, so no bucket is cut.
    fn widen(&mut self, width: f64) {
        for side in [&mut self.positive, &mut self.negative] {
            for (index, count) in std::mem::take(side) {
                if exponential_bound(index, self.schema) <= width {
                    self.zero += count;
                } else {
                    side.insert(index, count);
                }
            }
        }
        self.width = width;
    }

    /// At the lowest resolution of itself and others; custom ones stay as they are.
    pub(in crate::eval) fn coarsest<'a>(mut self, others: impl Iterator<Item = &'a Hist>) -> Hist {
        if self.bounds.is_none() {
            let lowest = others.map(|other| other.schema).fold(self.schema, i32::min);
            self.coarsen(lowest);
        }
        self
    }

    fn coarsen(&mut self, schema: i32) {
        let by = f64::from(1 << (self.schema - schema));
        for side in [&mut self.positive, &mut self.negative] {
            for (index, count) in std::mem::take(side) {
                let joined = (f64::from(index) / by).ceil() as i32;
                *side.entry(joined).or_default() += count;
            }
        }
        self.schema = schema;
    }

    /// The sum of two.
    pub(in crate::eval) fn plus(mut self, mut other: Hist) -> Result<Hist, Unlike> {
        self.meet(&mut other)?;
        self.zero += other.zero;
        self.count += other.count;
        self.sum += other.sum;
        for (into, from) in [
            (&mut self.positive, other.positive),
            (&mut self.negative, other.negative),
        ] {
            for (index, count) in from {
                *into.entry(index).or_default() += count;
            }
        }
        use CounterReset::{Gauge, Unknown};
        self.reset = match (self.reset, other.reset) {
            (a, b) if a == b => a,
            (Gauge, _) | (_, Gauge) => Gauge,
            _ => Unknown,
        };
        Ok(self.compact())
    }

    /// The difference of two, which is a gauge.
    pub(in crate::eval) fn minus(self, other: Hist) -> Result<Hist, Unlike> {
        let mut result = self.plus(other.scale(-1.0))?;
        result.reset = CounterReset::Gauge;
        Ok(result)
    }

    /// Whether a counter was reset between `before` and this one.
    pub(in crate::eval) fn was_reset(&self, before: &Hist) -> bool {
        match self.reset {
            CounterReset::Yes => return true,
            CounterReset::No => return false,
            CounterReset::Unknown | CounterReset::Gauge => {}
        }
        let (mut now, mut before) = (self.clone(), before.clone());
        if now.bounds.is_none()
            && before.bounds.is_none()
            && (now.schema > before.schema || now.width < before.width)
        {
            return true;
        }
        if now.count < before.count || now.meet(&mut before).is_err() {
            return true;
        }
        let fell = |now: &Buckets, before: &Buckets| {
            before
                .iter()
                .any(|(index, count)| now.get(index).copied().unwrap_or(0.0) < *count)
        };
        now.zero < before.zero
            || fell(&now.positive, &before.positive)
            || fell(&now.negative, &before.negative)
    }

    /// An empty one of the same layout.
    pub(in crate::eval) fn emptied(&self) -> Hist {
        let mut empty = self.clone().scale(0.0);
        empty.reset = CounterReset::Unknown;
        (empty.zero, empty.count, empty.sum) = (0.0, 0.0, 0.0);
        empty
    }

    /// All buckets that have observations, ascending, drawn in at zero where the other side has none.
    fn ascending(&self) -> Vec<Interval> {
        if let Some(bounds) = &self.bounds {
            let bound = |index: i32| match index {
                ..0 => f64::NEG_INFINITY,
                _ => bounds.get(index as usize).copied().unwrap_or(f64::INFINITY),
            };
            let interval = |(index, count): (&i32, &f64)| Interval {
                lower: bound(index - 1),
                upper: bound(*index),
                count: *count,
            };
            return self.positive.iter().map(interval).collect();
        }
        let bound = |index: i32| exponential_bound(index, self.schema);
        let mut all: Vec<Interval> = self
            .negative
            .iter()
            .rev()
            .map(|(index, count)| Interval {
                lower: -bound(*index),
                upper: -bound(index - 1),
                count: *count,
            })
            .collect();
        // Of a negative count Prometheus makes no bucket.
        if self.zero > 0.0 {
            all.push(Interval {
                lower: -self.width,
                upper: self.width,
                count: self.zero,
            });
        }
        all.extend(self.positive.iter().map(|(index, count)| Interval {
            lower: bound(index - 1),
            upper: bound(*index),
            count: *count,
        }));
        all
    }

    fn drawn_in(&self) -> Vec<Interval> {
        let mut all = self.ascending();
        let custom = self.bounds.is_some();
        for one in &mut all {
            if custom && one.lower == f64::NEG_INFINITY && one.upper > 0.0 {
                one.lower = 0.0;
            }
            if !custom && one.lower < 0.0 && one.upper > 0.0 {
                match (self.negative.is_empty(), self.positive.is_empty()) {
                    (true, false) => one.lower = 0.0,
                    (false, true) => one.upper = 0.0,
                    _ => {}
                }
            }
        }
        all
    }

    /// Whether it can have come from observations.
    pub(in crate::eval) fn is_observed(&self) -> bool {
        let buckets = self.positive.values().chain(self.negative.values());
        self.zero >= 0.0 && self.count >= 0.0 && buckets.clone().all(|count| *count >= 0.0)
    }

    /// A quantile of 0 to 1.
    pub(in crate::eval) fn quantile(&self, q: f64) -> f64 {
        if self.count == 0.0 {
            return f64::NAN;
        }
        let rank = q * self.count;
        let mut before = 0.0;
        for one in self.drawn_in() {
            if before + one.count >= rank {
                if self.bounds.is_some() && one.lower == f64::NEG_INFINITY {
                    return one.upper;
                }
                if self.bounds.is_some() && one.upper == f64::INFINITY {
                    return one.lower;
                }
                return one.at((rank - before) / one.count, self.bounds.is_some());
            }
            before += one.count;
        }
        f64::NAN
    }

    /// The fraction between two finite values that are not in a custom bucket without an end.
    pub(in crate::eval) fn fraction(&self, lower: f64, upper: f64) -> f64 {
        let custom = self.bounds.is_some();
        let below = |value: f64| -> f64 {
            let part = |one: &Interval| match () {
                () if one.upper <= value => one.count,
                () if one.lower >= value || custom && one.upper == f64::INFINITY => 0.0,
                () => one.count * one.below(value, custom),
            };
            self.drawn_in().iter().map(part).sum()
        };
        if self.count == 0.0 {
            f64::NAN
        } else {
            (below(upper) - below(lower)) / self.count
        }
    }

    pub(in crate::eval) fn variance(&self) -> f64 {
        let mean = self.sum / self.count;
        let part = |one: &Interval| one.count * (one.middle(self.bounds.is_some()) - mean).powi(2);
        self.ascending().iter().map(part).sum::<f64>() / self.count
    }

    /// The part at and below a value, or above it. Of exponential ones only, that have come from observations.
    pub(in crate::eval) fn trim(&self, value: f64, keep_below: bool) -> Option<Hist> {
        if self.bounds.is_some() || !self.is_observed() {
            return None;
        }
        let mut left = self.clone();
        left.zero = 0.0;
        (left.positive, left.negative) = Default::default();
        let (mut count, mut sum) = (0.0, 0.0);
        let mut part = |one: &Interval| {
            let (mut lower, mut upper, mut kept) = (one.lower, one.upper, one.count);
            if lower < value && value < upper {
                let below = one.count * one.below(value, false);
                if keep_below {
                    (upper, kept) = (value, below);
                } else {
                    (lower, kept) = (value, one.count - below);
                }
            } else if keep_below != (upper <= value) {
                return 0.0;
            }
            // The middle of what is left of the zero bucket is that of its ends, of which one may be zero.
            let middle = if one.linear(false) {
                (lower + upper) / 2.0
            } else {
                lower.signum() * (lower * upper).sqrt()
            };
            count += kept;
            sum += kept * middle;
            kept
        };
        let zero = self.drawn_in().into_iter().find(|one| one.linear(false));
        if let Some(zero) = zero {
            left.zero = part(&zero);
        }
        let bound = |index: i32| exponential_bound(index, self.schema);
        for (index, count) in &self.positive {
            let (lower, upper) = (bound(index - 1), bound(*index));
            let kept = part(&Interval {
                lower,
                upper,
                count: *count,
            });
            left.positive.insert(*index, kept);
        }
        for (index, count) in &self.negative {
            let (lower, upper) = (-bound(*index), -bound(index - 1));
            let kept = part(&Interval {
                lower,
                upper,
                count: *count,
            });
            left.negative.insert(*index, kept);
        }
        left = left.compact();
        if left.zero != self.zero
            || left.positive != self.positive
            || left.negative != self.negative
        {
            (left.count, left.sum) = (count, sum);
        }
        Some(left)
    }
}

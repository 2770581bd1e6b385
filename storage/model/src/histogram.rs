//! Native histograms as they cross our layers: integer and float, exponential and custom buckets.
//!
//! Bucket layout as in Prometheus: spans of consecutive buckets, an integer histogram's bucket counts as deltas to the bucket
//! before, a float histogram's absolute. Schema -53 has custom bounds (`custom_values`, the upper bounds without +Inf) and no
//! negative or zero bucket. Here they are values that travel; the arithmetic lives in `promql`.

/// A run of consecutive buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Span {
    /// Gap to the end of the span before (or index of the first bucket, in the first span).
    pub offset: i32,
    /// Number of buckets.
    pub length: u32,
}

/// What the sender said about a counter reset before this sample. Numbers as in remote write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum CounterReset {
    /// Must be found by comparing.
    #[default]
    Unknown = 0,
    /// There was one.
    Yes = 1,
    /// There was none.
    No = 2,
    /// A gauge histogram: no such thing.
    Gauge = 3,
}

/// Schema of histograms with custom bounds.
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// A histogram with integer counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histogram {
    /// Whether a reset precedes.
    pub counter_reset: CounterReset,
    /// -4 to 8, or -53 for custom bounds.
    pub schema: i32,
    /// Width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: u64,
    /// All observations.
    pub count: u64,
    /// Sum of all observations.
    pub sum: f64,
    /// Layout of the positive buckets.
    pub positive_spans: Vec<Span>,
    /// Counts as deltas.
    pub positive_deltas: Vec<i64>,
    /// Layout of the negative buckets.
    pub negative_spans: Vec<Span>,
    /// Counts as deltas.
    pub negative_deltas: Vec<i64>,
    /// Upper bounds for schema -53.
    pub custom_values: Vec<f64>,
}

/// A histogram with float counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FloatHistogram {
    /// Whether a reset precedes.
    pub counter_reset: CounterReset,
    /// -4 to 8, or -53 for custom bounds.
    pub schema: i32,
    /// Width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// All observations.
    pub count: f64,
    /// Sum of all observations.
    pub sum: f64,
    /// Layout of the positive buckets.
    pub positive_spans: Vec<Span>,
    /// Counts, absolute.
    pub positive_counts: Vec<f64>,
    /// Layout of the negative buckets.
    pub negative_spans: Vec<Span>,
    /// Counts, absolute.
    pub negative_counts: Vec<f64>,
    /// Upper bounds for schema -53.
    pub custom_values: Vec<f64>,
}

/// Either kind, as written by a sender.
#[derive(Debug, Clone, PartialEq)]
pub enum HistogramSample {
    /// Integer counts.
    Int(Histogram),
    /// Float counts.
    Float(FloatHistogram),
}

impl HistogramSample {
    /// What is said about a reset before it.
    pub fn counter_reset(&self) -> CounterReset {
        match self {
            HistogramSample::Int(h) => h.counter_reset,
            HistogramSample::Float(h) => h.counter_reset,
        }
    }

    /// Replaces what is said about resets, unless it is a gauge: the sample before it is not the one that this was said of.
    pub fn forget_counter_reset(&mut self) {
        let reset = match self {
            HistogramSample::Int(h) => &mut h.counter_reset,
            HistogramSample::Float(h) => &mut h.counter_reset,
        };
        if *reset != CounterReset::Gauge {
            *reset = CounterReset::Unknown;
        }
    }

    /// -4 to 8, or -53 for custom bounds.
    pub fn schema(&self) -> i32 {
        match self {
            HistogramSample::Int(h) => h.schema,
            HistogramSample::Float(h) => h.schema,
        }
    }

    /// Width of the zero bucket.
    pub fn zero_threshold(&self) -> f64 {
        match self {
            HistogramSample::Int(h) => h.zero_threshold,
            HistogramSample::Float(h) => h.zero_threshold,
        }
    }

    /// Sum of all observations; the staleness marker in it makes one of the histogram.
    pub fn sum(&self) -> f64 {
        match self {
            HistogramSample::Int(h) => h.sum,
            HistogramSample::Float(h) => h.sum,
        }
    }

    /// Layout of the positive and of the negative buckets.
    pub fn spans(&self) -> (&[Span], &[Span]) {
        match self {
            HistogramSample::Int(h) => (&h.positive_spans, &h.negative_spans),
            HistogramSample::Float(h) => (&h.positive_spans, &h.negative_spans),
        }
    }

    /// How many positive and how many negative buckets have a count.
    pub fn bucket_counts(&self) -> (usize, usize) {
        match self {
            HistogramSample::Int(h) => (h.positive_deltas.len(), h.negative_deltas.len()),
            HistogramSample::Float(h) => (h.positive_counts.len(), h.negative_counts.len()),
        }
    }

    /// Buckets of both sides.
    pub fn bucket_count(&self) -> usize {
        let (positive, negative) = self.bucket_counts();
        positive + negative
    }

    /// Upper bounds for schema -53.
    pub fn custom_values(&self) -> &[f64] {
        match self {
            HistogramSample::Int(h) => &h.custom_values,
            HistogramSample::Float(h) => &h.custom_values,
        }
    }

    /// Bytes on the heap, for accounting.
    pub fn heap_bytes(&self) -> usize {
        let (positive, negative) = self.spans();
        size_of::<HistogramSample>()
            + 8 * (positive.len()
                + negative.len()
                + self.bucket_count()
                + self.custom_values().len())
    }

    /// Whether it says the same as another of the same time: by bits, so that NaNs equal themselves; what is said about resets
    /// does not count, as in Prometheus.
    pub fn same_value(&self, other: &HistogramSample) -> bool {
        let bits = |a: &[f64], b: &[f64]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
        };
        let numbers = match (self, other) {
            (HistogramSample::Int(a), HistogramSample::Int(b)) => {
                a.zero_count == b.zero_count
                    && a.count == b.count
                    && a.positive_deltas == b.positive_deltas
                    && a.negative_deltas == b.negative_deltas
            }
            (HistogramSample::Float(a), HistogramSample::Float(b)) => {
                bits(&[a.zero_count, a.count], &[b.zero_count, b.count])
                    && bits(&a.positive_counts, &b.positive_counts)
                    && bits(&a.negative_counts, &b.negative_counts)
            }
            _ => false,
        };
        numbers
            && self.schema() == other.schema()
            && bits(
                &[self.sum(), self.zero_threshold()],
                &[other.sum(), other.zero_threshold()],
            )
            && self.spans() == other.spans()
            && bits(self.custom_values(), other.custom_values())
    }
}

/// Why counts and spans do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistogramError {
    /// The spans describe another number of buckets than there are.
    #[error("histogram has {buckets} buckets but its spans describe {spanned}")]
    SpanMismatch {
        /// Counts given.
        buckets: usize,
        /// Counts described.
        spanned: u64,
    },
    /// Not -4..=8 and not -53.
    #[error("histogram schema {0} is not supported")]
    Schema(i32),
    /// A bucket count below zero.
    #[error("histogram has a negative bucket count")]
    NegativeCount,
}

impl Histogram {
    /// The same with absolute float counts.
    ///
    /// Errors: spans that do not describe the buckets, an unknown schema, a count below zero.
    pub fn to_float(&self) -> Result<FloatHistogram, HistogramError> {
        self.check()?;
        Ok(FloatHistogram {
            counter_reset: self.counter_reset,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count as f64,
            count: self.count as f64,
            sum: self.sum,
            positive_spans: self.positive_spans.clone(),
            positive_counts: absolute(&self.positive_deltas).collect(),
            negative_spans: self.negative_spans.clone(),
            negative_counts: absolute(&self.negative_deltas).collect(),
            custom_values: self.custom_values.clone(),
        })
    }
}

impl Histogram {
    /// Whether the structure is sound; sums are not looked at.
    ///
    /// Errors: spans that do not describe the buckets, an unknown schema, a bucket count below zero.
    pub fn check(&self) -> Result<(), HistogramError> {
        check_schema(self.schema)?;
        check_side(&self.positive_spans, &self.positive_deltas)?;
        check_side(&self.negative_spans, &self.negative_deltas)
    }
}

fn check_schema(schema: i32) -> Result<(), HistogramError> {
    match schema {
        -4..=8 | CUSTOM_BUCKETS_SCHEMA => Ok(()),
        other => Err(HistogramError::Schema(other)),
    }
}

fn check_side(spans: &[Span], deltas: &[i64]) -> Result<(), HistogramError> {
    let spanned: u64 = spans.iter().map(|s| u64::from(s.length)).sum();
    if spanned != deltas.len() as u64 {
        return Err(HistogramError::SpanMismatch {
            buckets: deltas.len(),
            spanned,
        });
    }
    let mut count = 0i64;
    for delta in deltas {
        count = count.saturating_add(*delta);
        if count < 0 {
            return Err(HistogramError::NegativeCount);
        }
    }
    Ok(())
}

fn absolute(deltas: &[i64]) -> impl Iterator<Item = f64> + '_ {
    deltas.iter().scan(0i64, |count, delta| {
        *count = count.saturating_add(*delta);
        Some(*count as f64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_become_absolute_counts() {
        let h = Histogram {
            positive_spans: vec![
                Span {
                    offset: 0,
                    length: 2,
                },
                Span {
                    offset: 3,
                    length: 1,
                },
            ],
            positive_deltas: vec![3, -1, 4],
            ..Histogram::default()
        };
        assert_eq!(h.to_float().unwrap().positive_counts, [3.0, 2.0, 6.0]);
    }

    #[test]
    fn inconsistent_histograms_are_refused_by_reason() {
        let spans = vec![Span {
            offset: 0,
            length: 2,
        }];
        let short = Histogram {
            positive_spans: spans.clone(),
            positive_deltas: vec![1],
            ..Histogram::default()
        };
        assert_eq!(
            short.to_float(),
            Err(HistogramError::SpanMismatch {
                buckets: 1,
                spanned: 2
            })
        );
        let below = Histogram {
            positive_spans: spans,
            positive_deltas: vec![1, -2],
            ..Histogram::default()
        };
        assert_eq!(below.to_float(), Err(HistogramError::NegativeCount));
        assert_eq!(
            Histogram {
                schema: 9,
                ..Histogram::default()
            }
            .to_float(),
            Err(HistogramError::Schema(9))
        );
    }
}

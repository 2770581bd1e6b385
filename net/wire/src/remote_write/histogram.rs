//! Native histograms of remote write, decoded when somebody wants them.
//!
//! ```text
//! Histogram { 1 count_int | 2 count_float, 3 sum, 4 sint32 schema, 5 zero_threshold, 6 zero_count_int | 7 zero_count_float,
//!             8 negative_spans, 9 negative_deltas, 10 negative_counts, 11 positive_spans, 12 positive_deltas,
//!             13 positive_counts, 14 reset_hint, 15 int64 timestamp in ms, 16 custom_values, 17 int64 start timestamp in ms (version 2) }
//! BucketSpan { 1 sint32 offset, 2 uint32 length }
//! ```
//!
//! A sample with `count_float` is a float histogram, any other an integer one. Repeated numbers come packed or one by one.
//! What is checked is the structure, as far as a reader would otherwise compute nonsense: schema, spans against buckets,
//! no count below zero, custom bounds ascending, and buckets within them, and of an integer histogram that the count is that of the buckets: more
//! it may be where the sum is NaN, since observations of NaN are in no bucket. Sums of floats are not compared.

use model::{
    CUSTOM_BUCKETS_SCHEMA, CounterReset, FloatHistogram, Histogram, HistogramError,
    HistogramSample, Span, varint,
};

use crate::limits::HISTOGRAM_PARTS_MAX;
use crate::proto::{self, BYTES, FIXED64, Malformed, Reader, VARINT};

/// Why bytes are not a histogram that can be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not protobuf.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Counts and spans do not fit together.
    #[error(transparent)]
    Inconsistent(#[from] HistogramError),
    /// A span after the first goes backwards.
    #[error("histogram has a span with a negative offset")]
    SpanOffset,
    /// Custom bounds that do not ascend or are not finite, or custom bounds of an exponential schema.
    #[error("histogram has inconsistent custom bounds")]
    CustomBounds,
    /// Custom bounds beside what only exponential schemas have.
    #[error("histogram with custom bounds has a zero bucket or negative buckets")]
    CustomSides,
    /// Buckets beyond the one behind the last custom bound.
    #[error("histogram has buckets beyond its {bounds} custom bounds")]
    BeyondBounds {
        /// Bounds there are.
        bounds: usize,
    },
    /// More observations in the buckets than in all, or fewer without one of NaN.
    #[error("{found} observations found in buckets, but the Count field is {count}")]
    Count {
        /// In the buckets.
        found: u64,
        /// In all, as the sender says.
        count: u64,
    },
    /// More spans, buckets or bounds than any sender makes.
    #[error("histogram has more than {max} spans, buckets or bounds")]
    TooManyParts {
        /// Allowed.
        max: usize,
    },
}

/// All fields, before it is known which kind they make.
#[derive(Default)]
struct Fields {
    count: Number,
    zero_count: Number,
    sum: f64,
    schema: i32,
    zero_threshold: f64,
    negative: Buckets,
    positive: Buckets,
    counter_reset: CounterReset,
    time: i64,
    custom_values: Vec<f64>,
}

#[derive(Default)]
struct Buckets {
    spans: Vec<Span>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

#[derive(Clone, Copy)]
enum Number {
    Int(u64),
    Float(f64),
}

impl Default for Number {
    fn default() -> Number {
        Number::Int(0)
    }
}

/// Decodes and checks a histogram sample; the time is in milliseconds.
///
/// Cost: memory of at most eight times the message.
pub fn decode(message: &[u8]) -> Result<(i64, HistogramSample), Error> {
    let (time, sample) = decode_taken(message)?;
    if let HistogramSample::Int(histogram) = &sample {
        check_count(histogram)?;
    }
    Ok((time, sample))
}

/// As [`decode`], of one that another node has taken: the count is not compared with the buckets.
pub fn decode_taken(message: &[u8]) -> Result<(i64, HistogramSample), Error> {
    let fields = read(message)?;
    let time = fields.time;
    let histogram = match fields.count {
        Number::Int(count) => HistogramSample::Int(fields.into_int(count)?),
        Number::Float(count) => HistogramSample::Float(fields.into_float(count)?),
    };
    Ok((time, histogram))
}

/// When the observations of a histogram of version 2 began, in milliseconds; 0 where that is not said. Cost: a walk over its fields.
pub fn start(message: &[u8]) -> Result<i64, Malformed> {
    let mut reader = Reader::new(message);
    let mut start = 0;
    while !reader.is_empty() {
        match reader.tag()? {
            (17, kind) => start = read_varint(&mut reader, 17, kind)? as i64,
            (field, kind) => reader.skip(field, kind)?,
        }
    }
    Ok(start)
}

fn read(message: &[u8]) -> Result<Fields, Malformed> {
    let mut reader = Reader::new(message);
    let mut fields = Fields::default();
    while !reader.is_empty() {
        let (field, kind) = reader.tag()?;
        match field {
            1 => fields.count = Number::Int(read_varint(&mut reader, field, kind)?),
            2 => fields.count = Number::Float(read_double(&mut reader, field, kind)?),
            3 => fields.sum = read_double(&mut reader, field, kind)?,
            4 => fields.schema = read_sint32(&mut reader, field, kind)?,
            5 => fields.zero_threshold = read_double(&mut reader, field, kind)?,
            6 => fields.zero_count = Number::Int(read_varint(&mut reader, field, kind)?),
            7 => fields.zero_count = Number::Float(read_double(&mut reader, field, kind)?),
            8 => fields
                .negative
                .spans
                .push(read_span(&mut reader, field, kind)?),
            9 => read_deltas(&mut reader, field, kind, &mut fields.negative.deltas)?,
            10 => read_doubles(&mut reader, field, kind, &mut fields.negative.counts)?,
            11 => fields
                .positive
                .spans
                .push(read_span(&mut reader, field, kind)?),
            12 => read_deltas(&mut reader, field, kind, &mut fields.positive.deltas)?,
            13 => read_doubles(&mut reader, field, kind, &mut fields.positive.counts)?,
            14 => {
                fields.counter_reset = match read_varint(&mut reader, field, kind)? {
                    1 => CounterReset::Yes,
                    2 => CounterReset::No,
                    3 => CounterReset::Gauge,
                    _ => CounterReset::Unknown,
                }
            }
            15 => fields.time = read_varint(&mut reader, field, kind)? as i64,
            16 => read_doubles(&mut reader, field, kind, &mut fields.custom_values)?,
            _ => reader.skip(field, kind)?,
        }
    }
    Ok(fields)
}

impl Fields {
    fn into_int(self, count: u64) -> Result<Histogram, Error> {
        self.check()?;
        let histogram = Histogram {
            counter_reset: self.counter_reset,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: match self.zero_count {
                Number::Int(n) => n,
                Number::Float(n) => n as u64,
            },
            count,
            sum: self.sum,
            positive_spans: self.positive.spans,
            positive_deltas: self.positive.deltas,
            negative_spans: self.negative.spans,
            negative_deltas: self.negative.deltas,
            custom_values: self.custom_values,
        };
        histogram.check()?;
        Ok(histogram)
    }

    fn into_float(self, count: f64) -> Result<FloatHistogram, Error> {
        self.check()?;
        self.positive.check_counts()?;
        self.negative.check_counts()?;
        let zero_count = match self.zero_count {
            Number::Int(n) => n as f64,
            Number::Float(n) => n,
        };
        if count < 0.0 || zero_count < 0.0 {
            return Err(HistogramError::NegativeCount.into());
        }
        Ok(FloatHistogram {
            counter_reset: self.counter_reset,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count,
            count,
            sum: self.sum,
            positive_spans: self.positive.spans,
            positive_counts: self.positive.counts,
            negative_spans: self.negative.spans,
            negative_counts: self.negative.counts,
            custom_values: self.custom_values,
        })
    }

    /// What both kinds have in common.
    fn check(&self) -> Result<(), Error> {
        let custom = self.schema == CUSTOM_BUCKETS_SCHEMA;
        if !custom && !(-4..=8).contains(&self.schema) {
            return Err(HistogramError::Schema(self.schema).into());
        }
        let late = |buckets: &Buckets| buckets.spans.iter().skip(1).any(|span| span.offset < 0);
        if late(&self.positive) || late(&self.negative) {
            return Err(Error::SpanOffset);
        }
        let parts = [&self.positive, &self.negative]
            .into_iter()
            .flat_map(|side| [side.spans.len(), side.deltas.len(), side.counts.len()])
            .chain([self.custom_values.len()]);
        if parts.into_iter().any(|count| count > HISTOGRAM_PARTS_MAX) {
            let max = HISTOGRAM_PARTS_MAX;
            return Err(Error::TooManyParts { max });
        }
        if !custom {
            return match self.custom_values.is_empty() {
                true => Ok(()),
                false => Err(Error::CustomBounds),
            };
        }
        let ascending = self.custom_values.iter().all(|bound| bound.is_finite())
            && self.custom_values.is_sorted_by(|a, b| a < b);
        if !ascending {
            return Err(Error::CustomBounds);
        }
        let zero_count = match self.zero_count {
            Number::Int(count) => count != 0,
            Number::Float(count) => count != 0.0,
        };
        if zero_count || self.zero_threshold != 0.0 || !self.negative.spans.is_empty() {
            return Err(Error::CustomSides);
        }
        let end: i64 = (self.positive.spans.iter())
            .map(|span| i64::from(span.offset) + i64::from(span.length))
            .sum();
        let begins = self.positive.spans.first().map_or(0, |span| span.offset);
        let bounds = self.custom_values.len();
        if begins < 0 || end > bounds as i64 + 1 {
            return Err(Error::BeyondBounds { bounds });
        }
        Ok(())
    }
}

impl Buckets {
    fn check_counts(&self) -> Result<(), Error> {
        let spanned: u64 = self.spans.iter().map(|span| u64::from(span.length)).sum();
        if spanned != self.counts.len() as u64 {
            let buckets = self.counts.len();
            return Err(HistogramError::SpanMismatch { buckets, spanned }.into());
        }
        if self.counts.iter().any(|&count| count < 0.0) {
            return Err(HistogramError::NegativeCount.into());
        }
        Ok(())
    }
}

/// Observations of NaN are in no bucket, and make the sum NaN.
fn check_count(histogram: &Histogram) -> Result<(), Error> {
    let count = histogram.count;
    let sides = [&histogram.positive_deltas, &histogram.negative_deltas];
    let found = (sides.into_iter().map(|deltas| observations(deltas)))
        .fold(histogram.zero_count, u64::saturating_add);
    if found > count || found < count && !histogram.sum.is_nan() {
        return Err(Error::Count { found, count });
    }
    Ok(())
}

/// In buckets whose counts, each told by its distance from the one before, are not below zero.
fn observations(deltas: &[i64]) -> u64 {
    let mut count = 0_u64;
    let counts = deltas.iter().map(|delta| {
        count = count.saturating_add_signed(*delta);
        count
    });
    counts.fold(0, u64::saturating_add)
}

fn read_varint(reader: &mut Reader<'_>, field: u32, kind: u8) -> Result<u64, Malformed> {
    proto::expect(field, kind, VARINT)?;
    reader.varint()
}

fn read_sint32(reader: &mut Reader<'_>, field: u32, kind: u8) -> Result<i32, Malformed> {
    Ok(varint::unzigzag(read_varint(reader, field, kind)?) as i32)
}

fn read_double(reader: &mut Reader<'_>, field: u32, kind: u8) -> Result<f64, Malformed> {
    proto::expect(field, kind, FIXED64)?;
    reader.fixed64().map(f64::from_bits)
}

fn read_span(reader: &mut Reader<'_>, field: u32, kind: u8) -> Result<Span, Malformed> {
    proto::expect(field, kind, BYTES)?;
    let mut inner = Reader::new(reader.bytes()?);
    let mut span = Span::default();
    while !inner.is_empty() {
        match inner.tag()? {
            (1, kind) => span.offset = read_sint32(&mut inner, 1, kind)?,
            (2, kind) => span.length = read_varint(&mut inner, 2, kind)? as u32,
            (field, kind) => inner.skip(field, kind)?,
        }
    }
    Ok(span)
}

fn read_deltas(
    reader: &mut Reader<'_>,
    field: u32,
    kind: u8,
    out: &mut Vec<i64>,
) -> Result<(), Malformed> {
    if kind == VARINT {
        out.push(varint::unzigzag(reader.varint()?));
        return Ok(());
    }
    proto::expect(field, kind, BYTES)?;
    let mut packed = Reader::new(reader.bytes()?);
    while !packed.is_empty() {
        out.push(varint::unzigzag(packed.varint()?));
    }
    Ok(())
}

fn read_doubles(
    reader: &mut Reader<'_>,
    field: u32,
    kind: u8,
    out: &mut Vec<f64>,
) -> Result<(), Malformed> {
    if kind == FIXED64 {
        out.push(f64::from_bits(reader.fixed64()?));
        return Ok(());
    }
    proto::expect(field, kind, BYTES)?;
    let mut packed = Reader::new(reader.bytes()?);
    while !packed.is_empty() {
        out.push(f64::from_bits(packed.fixed64()?));
    }
    Ok(())
}

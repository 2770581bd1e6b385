//! Native histograms in chunks of Prometheus: integer and float counts.
//!
//! ```text
//! count u16 big-endian | flags byte (counter reset in the two high bits) | layout | samples
//! layout: zero threshold | schema | spans (positive, negative): count, (length, offset).. | custom bounds, of schema -53 only
//! first sample: time, count, zero count, sum, buckets; then times, counts and integer buckets as deltas of deltas, sum and float buckets as XOR
//! numbers: 0 -> 0; 10 + 3 bits; 110 + 6; 1110 + 9; 11110 + 12; 111110 + 18; 1111110 + 25; 11111110 + 56; 11111111 + 64
//! ```
//!
//! A chunk has one layout and, behind its first sample, no counter reset; what is otherwise begins the next chunk. Markers of staleness have no buckets, and nothing but such
//! follows them in a chunk.
//!
//! Source: Prometheus `tsdb/chunkenc/histogram.go`, `float_histogram.go`, `varbit.go`, `tsdb/docs/format/chunks.md`.

use model::{
    CUSTOM_BUCKETS_SCHEMA, CounterReset, FloatHistogram, Histogram, HistogramSample, Span,
};

use super::{BitReader, BitWriter, NO_WINDOW, NotPrometheus, Window, put_xor};
use crate::HISTOGRAM_PARTS_MAX;
use crate::histogram::{Layout, is_codable};

/// Bits of a number by the ones in front of it.
const NUMBER_BITS: [u32; 9] = [0, 3, 6, 9, 12, 18, 25, 56, 64];

/// Largest custom bound, in thousandths, that is a number.
const BOUND_MAX: f64 = 33_554_430.0;

/// Spans and bounds of all samples of a chunk together: 64 MiB of them decoded.
const PARTS_MAX: usize = 1 << 23;

/// What the two high bits of the flags say.
const RESET: u8 = 0b1000_0000;
const NO_RESET: u8 = 0b0100_0000;
const GAUGE: u8 = 0b1100_0000;

fn put_prefix(out: &mut BitWriter, ones: usize) {
    match ones {
        8 => out.put(0xff, 8),
        ones => out.put((1 << (ones + 1)) - 2, ones as u32 + 1),
    }
}

fn put_number(out: &mut BitWriter, value: i64) {
    let fits = |bits: u32| bits == 64 || -(1i64 << (bits - 1)) < value && value <= 1 << (bits - 1);
    let ones = match value {
        0 => 0,
        _ => (1..9)
            .find(|&n| fits(NUMBER_BITS[n]))
            .expect("64 bits hold it"),
    };
    put_prefix(out, ones);
    out.put(value as u64, NUMBER_BITS[ones]);
}

fn put_count(out: &mut BitWriter, value: u64) {
    let fits = |bits: u32| bits == 64 || value < 1 << bits;
    let ones = (0..9)
        .find(|&n| fits(NUMBER_BITS[n]))
        .expect("64 bits hold it");
    put_prefix(out, ones);
    out.put(value, NUMBER_BITS[ones]);
}

impl BitReader<'_> {
    fn prefix(&mut self) -> Result<u32, NotPrometheus> {
        for bits in &NUMBER_BITS[..8] {
            if self.take(1)? == 0 {
                return Ok(*bits);
            }
        }
        Ok(64)
    }

    fn number(&mut self) -> Result<i64, NotPrometheus> {
        let bits = self.prefix()?;
        let value = self.take(bits)?;
        let negative = bits > 0 && bits < 64 && value > 1 << (bits - 1);
        Ok(match negative {
            true => value.wrapping_sub(1 << bits) as i64,
            false => value as i64,
        })
    }

    fn count(&mut self) -> Result<u64, NotPrometheus> {
        let bits = self.prefix()?;
        self.take(bits)
    }

    fn double(&mut self) -> Result<f64, NotPrometheus> {
        self.take(64).map(f64::from_bits)
    }

    fn length(&mut self) -> Result<usize, NotPrometheus> {
        let length = self.count()?;
        let length = usize::try_from(length).map_err(|_| NotPrometheus)?;
        match length <= HISTOGRAM_PARTS_MAX {
            true => Ok(length),
            false => Err(NotPrometheus),
        }
    }

    fn spans(&mut self) -> Result<(Vec<Span>, usize), NotPrometheus> {
        let mut buckets = 0;
        let mut spans = Vec::new();
        for _ in 0..self.length()? {
            let length = self.length()?;
            let offset = i32::try_from(self.number()?).map_err(|_| NotPrometheus)?;
            buckets += length;
            if buckets > HISTOGRAM_PARTS_MAX {
                return Err(NotPrometheus);
            }
            let length = length as u32;
            spans.push(Span { offset, length });
        }
        Ok((spans, buckets))
    }

    fn bound(&mut self) -> Result<f64, NotPrometheus> {
        match self.count()? {
            0 => self.double(),
            thousandths => Ok((thousandths - 1) as f64 / 1000.0),
        }
    }
}

impl Layout {
    fn put(&self, out: &mut BitWriter) {
        put_threshold(out, self.zero_threshold);
        put_number(out, i64::from(self.schema));
        for spans in [&self.positive, &self.negative] {
            put_count(out, spans.len() as u64);
            for span in spans {
                put_count(out, u64::from(span.length));
                put_number(out, i64::from(span.offset));
            }
        }
        if self.schema == CUSTOM_BUCKETS_SCHEMA {
            put_count(out, self.custom.len() as u64);
            for &bound in &self.custom {
                let thousandths = bound * 1000.0;
                let whole = (0.0..=BOUND_MAX).contains(&thousandths) && thousandths.fract() == 0.0;
                let number = thousandths as u64;
                // Only what comes back as it was.
                if whole && (number as f64 / 1000.0).to_bits() == bound.to_bits() {
                    put_count(out, number + 1);
                } else {
                    out.put(0, 1);
                    out.put(bound.to_bits(), 64);
                }
            }
        }
    }

    /// The layout, and the buckets of either side.
    fn take(bits: &mut BitReader<'_>) -> Result<(Layout, usize, usize), NotPrometheus> {
        let zero_threshold = take_threshold(bits)?;
        let schema = i32::try_from(bits.number()?).map_err(|_| NotPrometheus)?;
        let (positive, positive_count) = bits.spans()?;
        let (negative, negative_count) = bits.spans()?;
        let mut custom = Vec::new();
        if schema == CUSTOM_BUCKETS_SCHEMA {
            for _ in 0..bits.length()? {
                custom.push(bits.bound()?);
            }
        }
        let layout = Layout {
            schema,
            zero_threshold,
            positive,
            negative,
            custom,
        };
        Ok((layout, positive_count, negative_count))
    }
}

/// A power of two from 2^-243 to 2^10 is a byte.
fn put_threshold(out: &mut BitWriter, threshold: f64) {
    if threshold.to_bits() == 0 {
        return out.put(0, 8);
    }
    let exponent = (1..255u32).find(|&byte| power(byte).to_bits() == threshold.to_bits());
    match exponent {
        Some(byte) => out.put(u64::from(byte), 8),
        None => {
            out.put(255, 8);
            out.put(threshold.to_bits(), 64);
        }
    }
}

fn take_threshold(bits: &mut BitReader<'_>) -> Result<f64, NotPrometheus> {
    match bits.take(8)? {
        0 => Ok(0.0),
        255 => bits.double(),
        byte => Ok(power(byte as u32)),
    }
}

fn power(byte: u32) -> f64 {
    2f64.powi(byte as i32 - 244)
}

/// An integer that is told by how its change changed.
#[derive(Debug, Clone, Copy, Default)]
struct Steady {
    value: i64,
    delta: i64,
}

impl Steady {
    fn put(&mut self, out: &mut BitWriter, value: i64) {
        let delta = value.wrapping_sub(self.value);
        put_number(out, delta.wrapping_sub(self.delta));
        *self = Steady { value, delta };
    }

    fn take(&mut self, bits: &mut BitReader<'_>) -> Result<i64, NotPrometheus> {
        self.delta = self.delta.wrapping_add(bits.number()?);
        self.value = self.value.wrapping_add(self.delta);
        Ok(self.value)
    }
}

/// A float that is told by what it has in common with the one before.
#[derive(Debug, Clone, Copy)]
struct Xored {
    bits: u64,
    window: Window,
}

impl Xored {
    fn new(value: f64) -> Xored {
        let window = Window {
            leading: NO_WINDOW,
            trailing: 0,
        };
        Xored {
            bits: value.to_bits(),
            window,
        }
    }

    fn put(&mut self, out: &mut BitWriter, value: f64) {
        put_xor(out, self.bits ^ value.to_bits(), &mut self.window);
        self.bits = value.to_bits();
    }

    fn take(&mut self, bits: &mut BitReader<'_>) -> Result<f64, NotPrometheus> {
        self.bits ^= bits.xor(&mut self.window)?;
        Ok(f64::from_bits(self.bits))
    }
}

fn is_stale(sample: &HistogramSample) -> bool {
    model::is_stale(sample.sum())
}

/// A chunk of Prometheus with histograms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrometheusHistograms {
    /// Time of the first sample, and of the last.
    pub times: (i64, i64),
    /// Samples.
    pub count: u16,
    /// Whether counts are floats, which is another encoding.
    pub floats: bool,
    /// The chunk, without encoding and checksum.
    pub bytes: Vec<u8>,
}

/// Encodes histograms, ascending in time, as chunks of Prometheus: a new one where kind or layout changes, a counter was reset, or one is
/// full. Panics if one is not [`is_codable`].
pub fn encode_prometheus_histograms(
    times: &[i64],
    samples: &[HistogramSample],
) -> Vec<PrometheusHistograms> {
    assert_eq!(times.len(), samples.len(), "a column for each");
    let mut chunks = Vec::new();
    let mut from = 0;
    while from < samples.len() {
        let mut to = from + 1;
        while to < samples.len()
            && to - from < super::PROMETHEUS_CHUNK_SAMPLES
            && joins(&samples[to - 1], &samples[to], &samples[from])
        {
            to += 1;
        }
        chunks.push(encode(&times[from..to], &samples[from..to]));
        from = to;
    }
    chunks
}

/// Whether a sample can stand behind another in the chunk that `first` has begun.
fn joins(before: &HistogramSample, sample: &HistogramSample, first: &HistogramSample) -> bool {
    let float = |s: &HistogramSample| matches!(s, HistogramSample::Float(_));
    let gauge = |s: &HistogramSample| s.counter_reset() == CounterReset::Gauge;
    if float(first) != float(sample) {
        return false;
    }
    if is_stale(sample) {
        return true;
    }
    !is_stale(before)
        && gauge(first) == gauge(sample)
        && Layout::of(first).is_of(sample)
        && match sample.counter_reset() {
            CounterReset::Gauge | CounterReset::No => true,
            CounterReset::Yes => false,
            CounterReset::Unknown => !is_reset(before, sample),
        }
}

/// Whether anything has become less.
fn is_reset(before: &HistogramSample, sample: &HistogramSample) -> bool {
    match (before, sample) {
        (HistogramSample::Int(a), HistogramSample::Int(b)) => {
            let less = |a: &[i64], b: &[i64]| {
                let (mut x, mut y) = (0i64, 0i64);
                a.iter().zip(b).any(|(a, b)| {
                    (x, y) = (x.wrapping_add(*a), y.wrapping_add(*b));
                    y < x
                })
            };
            b.count < a.count
                || b.zero_count < a.zero_count
                || less(&a.positive_deltas, &b.positive_deltas)
                || less(&a.negative_deltas, &b.negative_deltas)
        }
        (HistogramSample::Float(a), HistogramSample::Float(b)) => {
            let less = |a: &[f64], b: &[f64]| a.iter().zip(b).any(|(a, b)| b < a);
            b.count < a.count
                || b.zero_count < a.zero_count
                || less(&a.positive_counts, &b.positive_counts)
                || less(&a.negative_counts, &b.negative_counts)
        }
        _ => true,
    }
}

fn encode(times: &[i64], samples: &[HistogramSample]) -> PrometheusHistograms {
    assert!(samples.iter().all(is_codable), "spans and counts agree");
    let count = u16::try_from(samples.len()).expect("bounded by the caller");
    let mut out = BitWriter::default();
    out.put_bytes(&count.to_be_bytes());
    let first = &samples[0];
    out.put(
        u64::from(match first.counter_reset() {
            CounterReset::Unknown => 0,
            CounterReset::Yes => RESET,
            CounterReset::No => NO_RESET,
            CounterReset::Gauge => GAUGE,
        }),
        8,
    );
    let layout = match is_stale(first) {
        true => Layout::default(),
        false => Layout::of(first),
    };
    layout.put(&mut out);
    let floats = matches!(first, HistogramSample::Float(_));
    match floats {
        false => put_ints(&mut out, times, samples),
        true => put_floats(&mut out, times, samples),
    }
    PrometheusHistograms {
        times: (times[0], times[times.len() - 1]),
        count,
        floats,
        bytes: out.bytes,
    }
}

fn put_ints(out: &mut BitWriter, times: &[i64], samples: &[HistogramSample]) {
    let mut time = Steady::default();
    let (mut count, mut zero_count) = (Steady::default(), Steady::default());
    let mut sum = Xored::new(0.0);
    let mut buckets: Vec<Steady> = Vec::new();
    for (at, (&now, sample)) in times.iter().zip(samples).enumerate() {
        let HistogramSample::Int(sample) = sample else {
            unreachable!("a chunk is of one kind");
        };
        let stale = model::is_stale(sample.sum);
        let deltas = sample.positive_deltas.iter().chain(&sample.negative_deltas);
        if at == 0 {
            put_number(out, now);
            time.value = now;
            let (n, zeros) = match stale {
                true => (0, 0),
                false => (sample.count, sample.zero_count),
            };
            put_count(out, n);
            put_count(out, zeros);
            (count.value, zero_count.value) = (n as i64, zeros as i64);
            out.put(sample.sum.to_bits(), 64);
            sum = Xored::new(sample.sum);
            if !stale {
                for &value in deltas {
                    put_number(out, value);
                    buckets.push(Steady { value, delta: 0 });
                }
            }
            continue;
        }
        time.put(out, now);
        if stale {
            out.put(0, 2);
            sum.put(out, sample.sum);
            continue;
        }
        count.put(out, sample.count as i64);
        zero_count.put(out, sample.zero_count as i64);
        sum.put(out, sample.sum);
        for (bucket, &value) in buckets.iter_mut().zip(deltas) {
            bucket.put(out, value);
        }
    }
}

fn put_floats(out: &mut BitWriter, times: &[i64], samples: &[HistogramSample]) {
    let mut time = Steady::default();
    let mut numbers: Vec<Xored> = Vec::new();
    for (at, (&now, sample)) in times.iter().zip(samples).enumerate() {
        let HistogramSample::Float(sample) = sample else {
            unreachable!("a chunk is of one kind");
        };
        let stale = model::is_stale(sample.sum);
        let counts = sample.positive_counts.iter().chain(&sample.negative_counts);
        if at == 0 {
            put_number(out, now);
            time.value = now;
            let heads = match stale {
                true => [0.0, 0.0, sample.sum],
                false => [sample.count, sample.zero_count, sample.sum],
            };
            let all = heads.iter().chain(counts.take(match stale {
                true => 0,
                false => usize::MAX,
            }));
            for &value in all {
                out.put(value.to_bits(), 64);
                numbers.push(Xored::new(value));
            }
            continue;
        }
        time.put(out, now);
        if stale {
            out.put(0, 2);
            numbers[2].put(out, sample.sum);
            continue;
        }
        let all = [sample.count, sample.zero_count, sample.sum];
        for (number, &value) in numbers.iter_mut().zip(all.iter().chain(counts)) {
            number.put(out, value);
        }
    }
}

/// Appends the histograms of a chunk; `floats` is its encoding.
///
/// Errors: bytes that end within a sample or mean nothing; some samples may have been appended then. Memory: what the samples need, bounded by their count and
/// [`HISTOGRAM_PARTS_MAX`].
pub fn decode_prometheus_histograms(
    bytes: &[u8],
    floats: bool,
    times: &mut Vec<i64>,
    samples: &mut Vec<HistogramSample>,
) -> Result<(), NotPrometheus> {
    let mut bits = BitReader { bytes, at: 0 };
    let bits = &mut bits;
    let count = bits.take(16)?;
    let flags = bits.take(8)? as u8 & GAUGE;
    if count == 0 {
        return Ok(());
    }
    let (layout, positive, negative) = Layout::take(bits)?;
    // Every bucket has a bit in every sample; these have not, and each sample has its own.
    let parts = layout.positive.len() + layout.negative.len() + layout.custom.len();
    if parts * count as usize > PARTS_MAX {
        return Err(NotPrometheus);
    }
    let mut time = Steady::default();
    let (mut count_of, mut zero_count) = (Steady::default(), Steady::default());
    let mut ints: Vec<Steady> = Vec::new();
    let mut doubles: Vec<Xored> = Vec::new();
    let mut sum = Xored::new(0.0);
    for at in 0..count {
        let counter_reset = match (flags, at) {
            (GAUGE, _) => CounterReset::Gauge,
            (_, 1..) => CounterReset::No,
            (RESET, _) => CounterReset::Yes,
            _ => CounterReset::Unknown,
        };
        if at == 0 {
            time.value = bits.number()?;
            if floats {
                for _ in 0..2 {
                    doubles.push(Xored::new(bits.double()?));
                }
            } else {
                count_of.value = bits.count()? as i64;
                zero_count.value = bits.count()? as i64;
            }
            sum = Xored::new(bits.double()?);
            for _ in 0..positive + negative {
                match floats {
                    true => doubles.push(Xored::new(bits.double()?)),
                    false => ints.push(Steady {
                        value: bits.number()?,
                        delta: 0,
                    }),
                }
            }
        } else {
            time.take(bits)?;
            if floats {
                doubles[0].take(bits)?;
                doubles[1].take(bits)?;
            } else {
                count_of.take(bits)?;
                zero_count.take(bits)?;
            }
            if !model::is_stale(sum.take(bits)?) {
                for bucket in &mut ints {
                    bucket.take(bits)?;
                }
                for bucket in doubles.iter_mut().skip(2) {
                    bucket.take(bits)?;
                }
            }
        }
        times.push(time.value);
        let sum = f64::from_bits(sum.bits);
        let stale = model::is_stale(sum);
        let double = |xored: &Xored| f64::from_bits(xored.bits);
        samples.push(match floats {
            _ if stale && floats => HistogramSample::Float(FloatHistogram {
                sum,
                ..FloatHistogram::default()
            }),
            _ if stale => HistogramSample::Int(Histogram {
                sum,
                ..Histogram::default()
            }),
            true => HistogramSample::Float(FloatHistogram {
                counter_reset,
                schema: layout.schema,
                zero_threshold: layout.zero_threshold,
                zero_count: double(&doubles[1]),
                count: double(&doubles[0]),
                sum,
                positive_spans: layout.positive.clone(),
                positive_counts: doubles[2..2 + positive].iter().map(double).collect(),
                negative_spans: layout.negative.clone(),
                negative_counts: doubles[2 + positive..].iter().map(double).collect(),
                custom_values: layout.custom.clone(),
            }),
            false => HistogramSample::Int(Histogram {
                counter_reset,
                schema: layout.schema,
                zero_threshold: layout.zero_threshold,
                zero_count: zero_count.value as u64,
                count: count_of.value as u64,
                sum,
                positive_spans: layout.positive.clone(),
                positive_deltas: ints[..positive].iter().map(|s| s.value).collect(),
                negative_spans: layout.negative.clone(),
                negative_deltas: ints[positive..].iter().map(|s| s.value).collect(),
                custom_values: layout.custom.clone(),
            }),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;

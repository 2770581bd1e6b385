//! Bodies of native histograms: integer and float counts, exponential and custom buckets.
//!
//! Kept as given: whether spans and counts agree is judged where histograms are used. Layout in `docs/formats/wal.md`.

use model::{CounterReset, FloatHistogram, Histogram, HistogramSample, Span, varint};

use super::take_fixed_u64;
use crate::error::Error;
use crate::limits::HISTOGRAM_PARTS_MAX;

const RESET_MASK: u8 = 3;
const NEGATIVE: u8 = 4;
const CUSTOM: u8 = 8;

/// Appends either kind.
///
/// Errors: [`Error::TooLarge`] for more spans, buckets or bounds than a reader accepts.
pub(super) fn put(out: &mut Vec<u8>, histogram: &HistogramSample) -> Result<(), Error> {
    let parts = match histogram {
        HistogramSample::Int(h) => [
            h.positive_spans.len(),
            h.positive_deltas.len(),
            h.negative_spans.len(),
            h.negative_deltas.len(),
            h.custom_values.len(),
        ],
        HistogramSample::Float(h) => [
            h.positive_spans.len(),
            h.positive_counts.len(),
            h.negative_spans.len(),
            h.negative_counts.len(),
            h.custom_values.len(),
        ],
    };
    let largest = parts.into_iter().max().unwrap_or(0);
    if largest > HISTOGRAM_PARTS_MAX {
        return Err(Error::TooLarge {
            bytes: largest,
            max: HISTOGRAM_PARTS_MAX,
        });
    }
    match histogram {
        HistogramSample::Int(h) => put_int(out, h),
        HistogramSample::Float(h) => put_float(out, h),
    }
    Ok(())
}

fn put_int(out: &mut Vec<u8>, h: &Histogram) {
    let negative = !h.negative_spans.is_empty() || !h.negative_deltas.is_empty();
    put_front(
        out,
        h.counter_reset,
        negative,
        !h.custom_values.is_empty(),
        h.schema,
        h.zero_threshold,
    );
    varint::put_u64(out, h.zero_count);
    varint::put_u64(out, h.count);
    put_f64(out, h.sum);
    let mut put = |spans: &[Span], deltas: &[i64]| {
        put_spans(out, spans);
        put_count(out, deltas.len());
        deltas.iter().for_each(|&delta| varint::put_i64(out, delta));
    };
    put(&h.positive_spans, &h.positive_deltas);
    if negative {
        put(&h.negative_spans, &h.negative_deltas);
    }
    put_floats_if_any(out, &h.custom_values);
}

fn put_float(out: &mut Vec<u8>, h: &FloatHistogram) {
    let negative = !h.negative_spans.is_empty() || !h.negative_counts.is_empty();
    put_front(
        out,
        h.counter_reset,
        negative,
        !h.custom_values.is_empty(),
        h.schema,
        h.zero_threshold,
    );
    put_f64(out, h.zero_count);
    put_f64(out, h.count);
    put_f64(out, h.sum);
    let mut put = |spans: &[Span], counts: &[f64]| {
        put_spans(out, spans);
        put_floats(out, counts);
    };
    put(&h.positive_spans, &h.positive_counts);
    if negative {
        put(&h.negative_spans, &h.negative_counts);
    }
    put_floats_if_any(out, &h.custom_values);
}

pub(super) fn take_int(rest: &mut &[u8]) -> Option<Histogram> {
    let front = take_front(rest)?;
    let mut h = Histogram {
        counter_reset: front.reset,
        schema: front.schema,
        zero_threshold: front.zero_threshold,
        zero_count: varint::take_u64(rest)?,
        count: varint::take_u64(rest)?,
        sum: take_f64(rest)?,
        positive_spans: take_spans(rest)?,
        positive_deltas: take_deltas(rest)?,
        ..Histogram::default()
    };
    if front.negative {
        h.negative_spans = take_spans(rest)?;
        h.negative_deltas = take_deltas(rest)?;
    }
    if front.custom {
        h.custom_values = take_floats(rest)?;
    }
    Some(h)
}

pub(super) fn take_float(rest: &mut &[u8]) -> Option<FloatHistogram> {
    let front = take_front(rest)?;
    let mut h = FloatHistogram {
        counter_reset: front.reset,
        schema: front.schema,
        zero_threshold: front.zero_threshold,
        zero_count: take_f64(rest)?,
        count: take_f64(rest)?,
        sum: take_f64(rest)?,
        positive_spans: take_spans(rest)?,
        positive_counts: take_floats(rest)?,
        ..FloatHistogram::default()
    };
    if front.negative {
        h.negative_spans = take_spans(rest)?;
        h.negative_counts = take_floats(rest)?;
    }
    if front.custom {
        h.custom_values = take_floats(rest)?;
    }
    Some(h)
}

struct Front {
    reset: CounterReset,
    negative: bool,
    custom: bool,
    schema: i32,
    zero_threshold: f64,
}

fn put_front(
    out: &mut Vec<u8>,
    reset: CounterReset,
    negative: bool,
    custom: bool,
    schema: i32,
    zero_threshold: f64,
) {
    let flags = if negative { NEGATIVE } else { 0 } | if custom { CUSTOM } else { 0 };
    out.push(reset as u8 | flags);
    varint::put_i64(out, i64::from(schema));
    put_f64(out, zero_threshold);
}

fn take_front(rest: &mut &[u8]) -> Option<Front> {
    let (&flags, tail) = rest.split_first()?;
    *rest = tail;
    if flags & !(RESET_MASK | NEGATIVE | CUSTOM) != 0 {
        return None;
    }
    let reset = match flags & RESET_MASK {
        0 => CounterReset::Unknown,
        1 => CounterReset::Yes,
        2 => CounterReset::No,
        _ => CounterReset::Gauge,
    };
    Some(Front {
        reset,
        negative: flags & NEGATIVE != 0,
        custom: flags & CUSTOM != 0,
        schema: i32::try_from(varint::take_i64(rest)?).ok()?,
        zero_threshold: take_f64(rest)?,
    })
}

fn put_spans(out: &mut Vec<u8>, spans: &[Span]) {
    put_count(out, spans.len());
    for span in spans {
        varint::put_i64(out, i64::from(span.offset));
        varint::put_u64(out, u64::from(span.length));
    }
}

fn take_spans(rest: &mut &[u8]) -> Option<Vec<Span>> {
    let count = take_count(rest, 2)?;
    let mut spans = Vec::with_capacity(count);
    for _ in 0..count {
        let offset = i32::try_from(varint::take_i64(rest)?).ok()?;
        let length = u32::try_from(varint::take_u64(rest)?).ok()?;
        spans.push(Span { offset, length });
    }
    Some(spans)
}

fn take_deltas(rest: &mut &[u8]) -> Option<Vec<i64>> {
    let count = take_count(rest, 1)?;
    let mut deltas = Vec::with_capacity(count);
    for _ in 0..count {
        deltas.push(varint::take_i64(rest)?);
    }
    Some(deltas)
}

fn put_floats_if_any(out: &mut Vec<u8>, values: &[f64]) {
    if !values.is_empty() {
        put_floats(out, values);
    }
}

fn put_floats(out: &mut Vec<u8>, values: &[f64]) {
    put_count(out, values.len());
    values.iter().for_each(|&value| put_f64(out, value));
}

fn take_floats(rest: &mut &[u8]) -> Option<Vec<f64>> {
    let count = take_count(rest, 8)?;
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        values.push(take_f64(rest)?);
    }
    Some(values)
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    assert!(count <= HISTOGRAM_PARTS_MAX, "a histogram of {count} parts");
    varint::put_u64(out, count as u64);
}

/// A count that the bytes left can hold, each part taking at least `bytes_min`: so nothing is allocated for a lie.
fn take_count(rest: &mut &[u8], bytes_min: usize) -> Option<usize> {
    let count = usize::try_from(varint::take_u64(rest)?).ok()?;
    (count <= HISTOGRAM_PARTS_MAX && count <= rest.len() / bytes_min).then_some(count)
}

fn put_f64(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

fn take_f64(rest: &mut &[u8]) -> Option<f64> {
    take_fixed_u64(rest).map(f64::from_bits)
}

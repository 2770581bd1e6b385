//! From the payload of a chunk to histograms.
//!
//! One pass that keeps the appender's [`State`]. What a layout claims is checked before memory is taken for it; a reader that has
//! run behind the end of the stream stops at the next sample; the parts of all samples together have a bound. So no bytes
//! whatever take more time or memory than the largest chunk that can be written.

use model::{CounterReset, FloatHistogram, Histogram, HistogramSample, Span};

use super::{Kind, Layout, NUMBER_BITS, Number, State};
use crate::Error;
use crate::bits::{Reader, mask};
use crate::limits::{DECODED_PARTS_MAX, HISTOGRAM_PARTS_MAX};
use crate::xor::{TIME_BITS, split, take_value};

pub(crate) use crate::xor::first_time;

/// Where a chunk ends, for going on with it.
pub(super) struct End<'a> {
    pub(super) first_time: i64,
    pub(super) state: State,
    pub(super) stream: &'a [u8],
    /// Length of the stream.
    pub(super) bits: u64,
}

/// Appends the histograms of `min..=max` and their times. On an error both are as they were.
pub(crate) fn decode(
    (kind, count, payload): (Kind, u16, &[u8]),
    (min, max): (i64, i64),
    times: &mut Vec<i64>,
    histograms: &mut Vec<HistogramSample>,
) -> Result<(), Error> {
    collect(
        (kind, count, payload),
        (min, max),
        times,
        histograms,
        |state| state.sample(kind),
    )
}

/// As [`decode`], with float counts whatever the chunk has.
pub(crate) fn decode_floats(
    (kind, count, payload): (Kind, u16, &[u8]),
    (min, max): (i64, i64),
    times: &mut Vec<i64>,
    histograms: &mut Vec<FloatHistogram>,
) -> Result<(), Error> {
    collect(
        (kind, count, payload),
        (min, max),
        times,
        histograms,
        |state| state.float(kind),
    )
}

fn collect<T>(
    (kind, count, payload): (Kind, u16, &[u8]),
    (min, max): (i64, i64),
    times: &mut Vec<i64>,
    histograms: &mut Vec<T>,
    take: impl Fn(&State) -> T,
) -> Result<(), Error> {
    let before = (times.len(), histograms.len());
    let walked = walk(kind, count, payload, |state| {
        if state.time > max {
            return false;
        }
        if state.time >= min {
            times.push(state.time);
            histograms.push(take(state));
        }
        true
    });
    if walked.is_err() {
        times.truncate(before.0);
        histograms.truncate(before.1);
    }
    walked.map(drop)
}

/// Hands the state at every sample to `visit`, until that says stop.
pub(super) fn walk(
    kind: Kind,
    count: u16,
    payload: &[u8],
    mut visit: impl FnMut(&State) -> bool,
) -> Result<End<'_>, Error> {
    let mut state = State::default();
    if count == 0 {
        return match payload {
            [] => Ok(End {
                first_time: 0,
                state,
                stream: &[],
                bits: 0,
            }),
            _ => Err(Error::Malformed("payload without samples")),
        };
    }
    let (first_time, stream) = split(payload)?;
    let mut reader = Reader::new(stream);
    state.time = first_time;
    let mut parts = 0;
    for index in 0..count {
        if index > 0 {
            take_time(&mut reader, &mut state)?;
        }
        take_head(&mut reader, &mut state)?;
        parts += state.layout.parts();
        if parts > DECODED_PARTS_MAX && index > 0 {
            return Err(Error::Malformed("larger than any chunk can be"));
        }
        take_numbers(&mut reader, &mut state, kind)?;
        if reader.position() > stream.len() as u64 * 8 {
            return Err(Error::Malformed("more samples than bits"));
        }
        if !visit(&state) {
            let bits = reader.position();
            return Ok(End {
                first_time,
                state,
                stream,
                bits,
            });
        }
    }
    if !reader.finished() {
        return Err(Error::Malformed("the samples do not end where the bits do"));
    }
    let bits = reader.position();
    Ok(End {
        first_time,
        state,
        stream,
        bits,
    })
}

fn take_time(reader: &mut Reader<'_>, state: &mut State) -> Result<(), Error> {
    if reader.take(1) == 1 {
        let width = TIME_BITS[reader.take(2) as usize];
        let change = signed(reader.take(width), width);
        state.delta = state.delta.wrapping_add(change as u64);
    }
    let next = state.time.wrapping_add(state.delta as i64);
    if next <= state.time {
        return Err(Error::Malformed("times do not ascend"));
    }
    state.time = next;
    Ok(())
}

fn take_head(reader: &mut Reader<'_>, state: &mut State) -> Result<(), Error> {
    if reader.take(1) == 0 {
        return Ok(());
    }
    state.reset = match reader.take(2) {
        0 => CounterReset::Unknown,
        1 => CounterReset::Yes,
        2 => CounterReset::No,
        _ => CounterReset::Gauge,
    };
    if reader.take(1) == 1 {
        let layout = take_layout(reader)?;
        state.relayout(layout);
    }
    Ok(())
}

fn take_layout(reader: &mut Reader<'_>) -> Result<Layout, Error> {
    let schema = take_number(reader);
    let zero_threshold = f64::from_bits(reader.take(64));
    let positive = take_spans(reader)?;
    let negative = take_spans(reader)?;
    let count = take_count(reader)?;
    let mut custom = Vec::new();
    for _ in 0..count {
        custom.push(f64::from_bits(reader.take(64)));
        check_within(reader)?;
    }
    Ok(Layout {
        schema: i32::try_from(schema).map_err(|_| Error::Malformed("schema out of range"))?,
        zero_threshold,
        positive,
        negative,
        custom,
    })
}

fn take_spans(reader: &mut Reader<'_>) -> Result<Vec<Span>, Error> {
    let count = take_count(reader)?;
    let mut spans = Vec::new();
    let mut buckets = 0u64;
    for _ in 0..count {
        let offset = i32::try_from(take_number(reader));
        let length = u32::try_from(take_number(reader));
        let (Ok(offset), Ok(length)) = (offset, length) else {
            return Err(Error::Malformed("span out of range"));
        };
        buckets += u64::from(length);
        if buckets > HISTOGRAM_PARTS_MAX as u64 {
            return Err(Error::Malformed("too many buckets"));
        }
        spans.push(Span { offset, length });
        check_within(reader)?;
    }
    Ok(spans)
}

fn take_count(reader: &mut Reader<'_>) -> Result<usize, Error> {
    let count = usize::try_from(take_number(reader));
    match count {
        Ok(count) if count <= HISTOGRAM_PARTS_MAX => Ok(count),
        _ => Err(Error::Malformed("too many parts of a layout")),
    }
}

/// Stops where the reader has run out of bytes and only yields zeros.
fn check_within(reader: &Reader<'_>) -> Result<(), Error> {
    match reader.is_behind_end() {
        true => Err(Error::Malformed("a layout is cut short")),
        false => Ok(()),
    }
}

fn take_numbers(reader: &mut Reader<'_>, state: &mut State, kind: Kind) -> Result<(), Error> {
    let State {
        zero_count,
        count,
        sum,
        buckets,
        ..
    } = state;
    match kind {
        Kind::Int => {
            take_int(reader, zero_count);
            take_int(reader, count);
            take_float(reader, sum)?;
            buckets
                .iter_mut()
                .for_each(|number| take_int(reader, number));
        }
        Kind::Float => {
            take_float(reader, zero_count)?;
            take_float(reader, count)?;
            take_float(reader, sum)?;
            for number in buckets {
                take_float(reader, number)?;
            }
        }
    }
    Ok(())
}

#[inline]
fn take_int(reader: &mut Reader<'_>, number: &mut Number) {
    number.memory = number.memory.wrapping_add(take_number(reader) as u64);
    number.value = number.value.wrapping_add(number.memory);
}

fn take_float(reader: &mut Reader<'_>, number: &mut Number) -> Result<(), Error> {
    let mut window = number.window();
    number.value ^= take_value(reader, &mut window)?;
    number.set_window(window);
    Ok(())
}

#[inline]
fn take_number(reader: &mut Reader<'_>) -> i64 {
    reader.refill();
    let ones = reader.peek().trailing_ones().min(7);
    reader.skip((ones + 1).min(7));
    let width = NUMBER_BITS[ones as usize];
    signed(reader.take(width), width)
}

/// The low `bits` bits of a two's complement number.
fn signed(value: u64, bits: u32) -> i64 {
    debug_assert!(value & !mask(bits) == 0);
    match bits {
        0 => 0,
        bits => ((value << (64 - bits)) as i64) >> (64 - bits),
    }
}

impl State {
    /// The histogram at this point.
    pub(super) fn sample(&self, kind: Kind) -> HistogramSample {
        match kind {
            Kind::Int => HistogramSample::Int(self.int()),
            Kind::Float => HistogramSample::Float(self.float(kind)),
        }
    }

    fn int(&self) -> Histogram {
        let (positive, negative) = self.sides();
        let deltas = |numbers: &[Number]| {
            let mut before = 0u64;
            let delta = |number: &Number| {
                let delta = number.value.wrapping_sub(before);
                before = number.value;
                delta as i64
            };
            numbers.iter().map(delta).collect()
        };
        Histogram {
            counter_reset: self.reset,
            schema: self.layout.schema,
            zero_threshold: self.layout.zero_threshold,
            zero_count: self.zero_count.value,
            count: self.count.value,
            sum: f64::from_bits(self.sum.value),
            positive_spans: self.layout.positive.clone(),
            positive_deltas: deltas(positive),
            negative_spans: self.layout.negative.clone(),
            negative_deltas: deltas(negative),
            custom_values: self.layout.custom.clone(),
        }
    }

    /// With float counts; those of an integer histogram are converted.
    pub(super) fn float(&self, kind: Kind) -> FloatHistogram {
        let value = |value: u64| match kind {
            Kind::Int => value as f64,
            Kind::Float => f64::from_bits(value),
        };
        let bucket = |number: &Number| match kind {
            Kind::Int => number.value as i64 as f64,
            Kind::Float => f64::from_bits(number.value),
        };
        let (positive, negative) = self.sides();
        FloatHistogram {
            counter_reset: self.reset,
            schema: self.layout.schema,
            zero_threshold: self.layout.zero_threshold,
            zero_count: value(self.zero_count.value),
            count: value(self.count.value),
            sum: f64::from_bits(self.sum.value),
            positive_spans: self.layout.positive.clone(),
            positive_counts: positive.iter().map(bucket).collect(),
            negative_spans: self.layout.negative.clone(),
            negative_counts: negative.iter().map(bucket).collect(),
            custom_values: self.layout.custom.clone(),
        }
    }

    fn sides(&self) -> (&[Number], &[Number]) {
        self.buckets.split_at(self.layout.counts().0)
    }
}

//! Late samples take their place among the others of their series, on the way into a file.
//!
//! 1. The chunks of a series, sorted by their first times, fall into *groups*: one joins the group before it when it overlaps it, or comes right behind
//!    a chunk of late samples. Most groups are one chunk, which goes on as it is.
//! 2. A group is decoded and sorted by time. Of two samples of a time the one that was logged later stays.
//! 3. What a histogram says of a reset was said of the sample before it as it came. Where another one stands there now it is forgotten, as it is when a query
//!    joins the same chunks (`query::merge`): so no answer changes by a cut.

use block::SealedRun;
use chunk::{Encoding, HistogramAppender};
use model::HistogramSample;

use crate::limits::{CHUNK_SAMPLES_DEFAULT, HISTOGRAM_CHUNK_BYTES};
use crate::message::ChunkSlice;

/// A sample of a group.
pub(crate) struct Sample {
    time: i64,
    order: u64,
    /// Chunk of the group and place in it.
    at: (u32, u32),
    value: Value,
}

#[cfg(test)]
impl Sample {
    /// What a histogram says of a reset.
    pub(crate) fn hint(&self) -> Option<model::CounterReset> {
        match &self.value {
            Value::Float(_) => None,
            Value::Histogram(histogram) => Some(histogram.counter_reset()),
        }
    }
}

enum Value {
    Float(f64),
    Histogram(Box<HistogramSample>),
}

/// Whether any chunk has late samples.
pub(crate) fn is_needed(chunks: &[ChunkSlice]) -> bool {
    chunks.iter().any(|chunk| chunk.bytes.is_late())
}

/// The indexes of the chunks, group by group.
pub(crate) fn groups(chunks: &[ChunkSlice]) -> Vec<Vec<usize>> {
    let mut sorted: Vec<usize> = (0..chunks.len()).collect();
    sorted.sort_by_key(|&at| chunks[at].min_time);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let (mut end, mut behind_late) = (i64::MIN, false);
    for at in sorted {
        let chunk = &chunks[at];
        match groups.last_mut() {
            Some(group) if behind_late || chunk.min_time <= end => group.push(at),
            _ => {
                groups.push(vec![at]);
                end = chunk.max_time;
            }
        }
        end = end.max(chunk.max_time);
        behind_late = chunk.bytes.is_late();
    }
    groups
}

/// Adds the samples of a sealed chunk, the `number`th of its group. Errors: why it cannot be decoded; nothing was added.
pub(crate) fn decode(
    sealed: &[u8],
    order: u64,
    number: u32,
    into: &mut Vec<Sample>,
) -> Result<(), String> {
    let failed = |error: chunk::Error| error.to_string();
    let mut times = Vec::new();
    let mut add = |times: &[i64], values: &mut dyn Iterator<Item = Value>| {
        let samples = times.iter().zip(values).zip(0..);
        into.extend(samples.map(|((&time, value), place)| Sample {
            time,
            order,
            at: (number, place),
            value,
        }));
    };
    match chunk::encoding(sealed).map_err(failed)? {
        Encoding::Xor => {
            let mut values = Vec::new();
            chunk::decode(sealed, &mut times, &mut values).map_err(failed)?;
            add(&times, &mut values.into_iter().map(Value::Float));
        }
        Encoding::Histogram | Encoding::FloatHistogram => {
            let mut histograms = Vec::new();
            let (min, max) = (i64::MIN, i64::MAX);
            chunk::decode_histograms(sealed, min, max, &mut times, &mut histograms)
                .map_err(failed)?;
            let values = histograms.into_iter().map(Box::new).map(Value::Histogram);
            add(&times, &mut values.into_iter());
        }
    }
    Ok(())
}

/// Puts the samples of a group in order, each time once.
pub(crate) fn straighten(samples: &mut Vec<Sample>) {
    samples.sort_by_key(|sample| (sample.time, std::cmp::Reverse(sample.order)));
    samples.dedup_by_key(|sample| sample.time);
    let mut before: Option<(u32, u32)> = None;
    for sample in samples {
        let (number, place) = sample.at;
        // The first of a group has the one before the group before it, as ever.
        let as_logged =
            before.is_none_or(|before| place > 0 && before == (number, place.wrapping_sub(1)));
        if let (Value::Histogram(histogram), false) = (&mut sample.value, as_logged) {
            histogram.forget_counter_reset();
        }
        before = Some(sample.at);
    }
}

/// Adds ordered samples to the series that a builder is at. Errors: the builder's.
pub(crate) fn add(builder: &mut block::Builder, samples: &[Sample]) -> Result<(), block::Error> {
    let (mut times, mut values) = (Vec::new(), Vec::new());
    let mut open: Option<HistogramAppender> = None;
    for sample in samples {
        match &sample.value {
            Value::Float(value) => {
                close(builder, &mut open)?;
                times.push(sample.time);
                values.push(*value);
            }
            Value::Histogram(histogram) => {
                builder.samples(&times, &values)?;
                times.clear();
                values.clear();
                let room = |chunk: &HistogramAppender| {
                    chunk.count() < CHUNK_SAMPLES_DEFAULT
                        && chunk.has_room_for(histogram, HISTOGRAM_CHUNK_BYTES)
                };
                if !open.as_ref().is_some_and(room) {
                    close(builder, &mut open)?;
                }
                let chunk = open.get_or_insert_with(|| HistogramAppender::for_kind_of(histogram));
                chunk.append(sample.time, histogram);
            }
        }
    }
    close(builder, &mut open)?;
    builder.samples(&times, &values)
}

fn close(
    builder: &mut block::Builder,
    open: &mut Option<HistogramAppender>,
) -> Result<(), block::Error> {
    let Some(chunk) = open.take() else {
        return Ok(());
    };
    builder.sealed(&SealedRun {
        min_time: chunk.first_time(),
        max_time: chunk.last_time(),
        count: u64::from(chunk.count()),
        bytes: &chunk.seal(),
    })
}

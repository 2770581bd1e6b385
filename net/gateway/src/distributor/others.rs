//! Native histograms and exemplars: decoded, checked and held to the tenant's limits, each on its own. One that is refused
//! takes nothing else with it.
//!
//! Reasons as in Cortex. A histogram with more buckets than allowed is made coarser, by halving its resolution, until it fits;
//! one with custom bounds cannot be.

use model::{
    CUSTOM_BUCKETS_SCHEMA, CounterReset, Exemplar, FloatHistogram, Histogram, HistogramError,
    HistogramSample, Span, TenantLimits,
};
use shard::{OtherSample, OtherValue, Zero};
use wire::Malformed;
use wire::remote_write::{exemplar, histogram};

use super::names::{LabelIter, Names};
use super::texts;
use super::validate::{Invalid, Reason, Unusable, lossy_metric, lossy_set};

/// UTF-8 characters in the names and values of an exemplar's labels. Source: OpenMetrics.
const EXEMPLAR_CHARS_MAX: usize = 128;

/// The lowest resolution there is.
const SCHEMA_MIN: i32 = -4;

/// Decodes a histogram and checks it.
pub(crate) fn histogram(
    message: &[u8],
    labels: LabelIter<'_>,
    limits: &TenantLimits,
) -> Result<(i64, HistogramSample), Unusable> {
    let refuse = |reason, text: String| {
        let text = format!("{text}: series {}", lossy_metric(labels.clone()));
        Err(Unusable::Invalid(Invalid::new(reason, text)))
    };
    let size_max = limits.max_native_histogram_sample_size_bytes as usize;
    if size_max != 0 && message.len() > size_max {
        let size = message.len();
        let text = format!("native histogram too large (actual: {size} bytes, limit: {size_max})");
        return refuse(Reason::HistogramSize, text);
    }
    let (time, mut sample) = match histogram::decode(message) {
        Ok(decoded) => decoded,
        Err(histogram::Error::Malformed(what)) => return Err(Unusable::Malformed(what)),
        Err(error) => {
            let reason = match error {
                histogram::Error::Inconsistent(HistogramError::Schema(_)) => {
                    Reason::HistogramSchema
                }
                _ => Reason::HistogramInvalid,
            };
            return refuse(reason, error.to_string());
        }
    };
    let buckets_max = limits.max_native_histogram_buckets as usize;
    if buckets_max != 0 {
        let sent = sample.bucket_count();
        while sample.bucket_count() > buckets_max {
            if sample.schema() == CUSTOM_BUCKETS_SCHEMA || sample.schema() <= SCHEMA_MIN {
                let text = format!(
                    "native histogram has too many buckets (actual: {sent}, limit: {buckets_max})"
                );
                return refuse(Reason::HistogramBuckets, text);
            }
            sample = coarser(&sample);
        }
    }
    Ok((time, sample))
}

/// What stands for a histogram that begins: the same layout without observations. One that is a gauge never begins.
pub(crate) fn zero(sample: &HistogramSample) -> Zero {
    let counter_reset = CounterReset::Yes;
    let zero = match sample {
        HistogramSample::Int(h) if h.counter_reset != CounterReset::Gauge => {
            HistogramSample::Int(Histogram {
                counter_reset,
                schema: h.schema,
                zero_threshold: h.zero_threshold,
                custom_values: h.custom_values.clone(),
                ..Histogram::default()
            })
        }
        HistogramSample::Float(h) if h.counter_reset != CounterReset::Gauge => {
            HistogramSample::Float(FloatHistogram {
                counter_reset,
                schema: h.schema,
                zero_threshold: h.zero_threshold,
                custom_values: h.custom_values.clone(),
                ..FloatHistogram::default()
            })
        }
        _ => return Zero::None,
    };
    Zero::Histogram(Box::new(zero))
}

/// The same observations at half the resolution.
fn coarser(sample: &HistogramSample) -> HistogramSample {
    match sample {
        HistogramSample::Int(h) => {
            let mut coarse = h.clone();
            coarse.schema -= 1;
            for (spans, deltas) in [
                (&mut coarse.positive_spans, &mut coarse.positive_deltas),
                (&mut coarse.negative_spans, &mut coarse.negative_deltas),
            ] {
                let counts = deltas.iter().scan(0i64, |count, delta| {
                    *count = count.saturating_add(*delta);
                    Some(*count)
                });
                let (new_spans, counts) = merged(spans, counts, i64::saturating_add);
                let mut before = 0;
                let delta = |count: &i64| count - std::mem::replace(&mut before, *count);
                (*deltas, *spans) = (counts.iter().map(delta).collect(), new_spans);
            }
            HistogramSample::Int(coarse)
        }
        HistogramSample::Float(h) => {
            let mut coarse = h.clone();
            coarse.schema -= 1;
            for (spans, counts) in [
                (&mut coarse.positive_spans, &mut coarse.positive_counts),
                (&mut coarse.negative_spans, &mut coarse.negative_counts),
            ] {
                (*spans, *counts) = merged(spans, counts.iter().copied(), |a, b| a + b);
            }
            HistogramSample::Float(coarse)
        }
    }
}

/// Buckets two by two: `2n - 1` and `2n` become `n`.
fn merged<T: Copy>(
    spans: &[Span],
    counts: impl Iterator<Item = T>,
    add: impl Fn(T, T) -> T,
) -> (Vec<Span>, Vec<T>) {
    let mut next = 0i64;
    let indexes = spans.iter().flat_map(|span| {
        let start = next + i64::from(span.offset);
        next = start + i64::from(span.length);
        start..next
    });
    let (mut new_spans, mut new_counts): (Vec<Span>, Vec<T>) = Default::default();
    let mut end = 0i64;
    for (index, count) in indexes.zip(counts) {
        let index = ((index - 1) >> 1) + 1;
        match (new_spans.last_mut(), new_counts.last_mut()) {
            (Some(_), Some(last)) if index + 1 == end => {
                *last = add(*last, count);
                continue;
            }
            (Some(span), _) if index == end => span.length += 1,
            _ => new_spans.push(Span {
                offset: (index - end).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32,
                length: 1,
            }),
        }
        new_counts.push(count);
        end = index + 1;
    }
    (new_spans, new_counts)
}

/// Why an exemplar is not kept: the reason in `cortex_discarded_exemplars_total`, and the words.
pub(crate) type ExemplarRefused = (&'static str, String);

/// Decodes an exemplar and checks it. One later than `time_max` would silence its series: what comes before the newest is out of order.
pub(crate) fn exemplar(
    message: &[u8],
    names: Names<'_>,
    labels: LabelIter<'_>,
    time_max: i64,
) -> Result<Result<Exemplar, ExemplarRefused>, Malformed> {
    let decoded = match names {
        Names::V1 => exemplar::decode(message),
        Names::V2 { body, table } => exemplar::decode_v2(message, body, table.symbols()),
    };
    let exemplar = match decoded {
        Ok(exemplar) => exemplar,
        Err(exemplar::Error::Malformed(what)) => return Err(what),
        Err(error) => {
            let text = format!("{error}: series {}", lossy_metric(labels.clone()));
            return Ok(Err(("exemplar_labels_invalid", text)));
        }
    };
    // Order and texts as in Cortex.
    let refuse = |reason, what: String| {
        let text = format!(
            "{what}, timestamp: {} series: {} labels: {}",
            exemplar.time.0,
            lossy_set(labels.clone()),
            texts::label_set(exemplar.labels.iter())
        );
        Ok(Err((reason, text)))
    };
    if exemplar.labels.is_empty() {
        let what = "exemplar missing labels".to_owned();
        return refuse("exemplar_labels_missing", what);
    }
    if exemplar.labels.iter().any(|(name, _)| name.is_empty()) {
        let what = "exemplar label name is empty".to_owned();
        return refuse("exemplar_labels_invalid", what);
    }
    if exemplar.time.0 == 0 {
        let what = "exemplar missing timestamp".to_owned();
        return refuse("exemplar_timestamp_invalid", what);
    }
    // Cortex takes it; reason as in Mimir.
    if exemplar.time.0 > time_max {
        let what = "exemplar timestamp too new".to_owned();
        return refuse("exemplar_too_far_in_future", what);
    }
    let chars = |text: &str| text.chars().count();
    let pairs = exemplar.labels.iter();
    let labels_chars: usize = pairs.map(|(n, v)| chars(n) + chars(v)).sum();
    if labels_chars > EXEMPLAR_CHARS_MAX {
        let what = format!("exemplar combined labelset exceeds {EXEMPLAR_CHARS_MAX} characters");
        return refuse("exemplar_labels_too_long", what);
    }
    Ok(Ok(exemplar))
}

/// Gives each its place among the floats of its series, which stand in the column from `begin` on: a histogram before those of later times,
/// the start of a counter before its sample, an exemplar behind all.
pub(super) fn placed<S: Copy>(
    mut others: Vec<(i64, OtherValue)>,
    series: S,
    begin: usize,
    floats: &[i64],
) -> impl Iterator<Item = OtherSample<S>> {
    others.sort_by_key(|(time, value)| {
        let behind = matches!(value, OtherValue::Exemplar(_));
        (behind, *time, !matches!(value, OtherValue::Start(_)))
    });
    let mut end = begin;
    let floats = floats.to_vec();
    others.into_iter().map(move |(time, value)| {
        let before = match &value {
            OtherValue::Histogram(_) | OtherValue::Start(_) => {
                begin + floats.partition_point(|float| *float < time)
            }
            OtherValue::Exemplar(_) => begin + floats.len(),
        };
        // Ascends also where the sender's floats do not.
        end = end.max(before);
        OtherSample {
            series,
            before: u32::try_from(end).expect("samples are part of the body"),
            time,
            value,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(pairs: &[(i32, u32)]) -> Vec<Span> {
        let span = |&(offset, length)| Span { offset, length };
        pairs.iter().map(span).collect()
    }

    #[test]
    fn halving_the_resolution_merges_the_buckets_that_end_at_the_same_bound() {
        // Buckets -3, -2, -1, 0, 1, 2 and 6: the coarse ones are -1 (of -3 and -2), 0 (of -1 and 0), 1 (of 1 and 2), 3 (of 6).
        let fine = HistogramSample::Float(FloatHistogram {
            schema: 2,
            positive_spans: spans(&[(-3, 6), (3, 1)]),
            positive_counts: vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0],
            ..FloatHistogram::default()
        });
        let HistogramSample::Float(coarse) = coarser(&fine) else {
            panic!("the kind stays");
        };
        assert_eq!(coarse.schema, 1);
        assert_eq!(coarse.positive_spans, spans(&[(-1, 3), (1, 1)]));
        assert_eq!(coarse.positive_counts, [3.0, 12.0, 48.0, 64.0]);
        let fine = HistogramSample::Int(Histogram {
            schema: 2,
            negative_spans: spans(&[(1, 2), (0, 1)]),
            negative_deltas: vec![5, -2, 4],
            ..Histogram::default()
        });
        let HistogramSample::Int(coarse) = coarser(&fine) else {
            panic!("the kind stays");
        };
        assert_eq!(coarse.negative_spans, spans(&[(1, 2)]));
        assert_eq!(coarse.negative_deltas, [8, -1]);
    }
}

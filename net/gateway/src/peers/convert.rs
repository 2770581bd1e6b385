//! Messages of the mailboxes as messages between nodes, and back.
//!
//! What comes in is checked as far as a core relies on it: a peer of another version, or nonsense, is an error and never a panic.

use std::sync::Arc;

use bytes::Bytes;
use model::{
    Exemplar, HistogramSample, Labels, MatchOp, Matcher, Metadata, MetricType, Projection,
    SeriesId, SeriesKey, SeriesRef, TenantId, TimeMs, Windows, identity,
};
use rpc::ingester as proto;
use shard::{
    ChunkBytes, ChunkSlice, CounterStart, FreshSamples, FreshSeries, History, KnownSamples,
    OtherSample, OtherSamples, OtherValue, Push, PushOutcome, Refusal, RejectReason, Rejection,
    SelectedSeries, Zero,
};
use wire::remote_write::{encode, histogram};

/// Bytes that are not what they must be: what is wrong.
pub(super) type Wrong = String;

/// Of a series that was refused.
const NO_KEY: u64 = u64::MAX;

/// What makes keys of this process its own: generations that leave it are mixed with a number that another process does not have, so that a key
/// of another one, kept by a distributor over a restart, is of a generation that there is not. The side that only keeps keys has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Seal(u32);

impl Seal {
    pub(super) fn of(incarnation: u64) -> Seal {
        Seal((incarnation ^ (incarnation >> 32)) as u32)
    }

    fn key_to(self, key: SeriesKey) -> u64 {
        u64::from(key.series.0) << 32 | u64::from(key.generation.0 ^ self.0)
    }

    fn key_of(self, key: u64) -> SeriesKey {
        SeriesKey {
            series: SeriesRef((key >> 32) as u32),
            generation: model::Generation(key as u32 ^ self.0),
        }
    }
}

/// Of a distributor: keys as they came.
const AS_GIVEN: Seal = Seal(0);

/// The samples of a push for one core, as a message.
pub(super) fn part_to(core: u16, credits: u32, push: Push) -> proto::PushPart {
    let Push {
        known,
        fresh,
        others,
        ..
    } = push;
    let ends = |end: fn(&FreshSeries) -> u32| fresh.series.iter().map(end).collect();
    proto::PushPart {
        core: u32::from(core),
        credits,
        keys: known.keys.iter().map(|key| AS_GIVEN.key_to(*key)).collect(),
        times: known.times,
        values: known.values,
        labels_end: ends(|series| series.labels_end),
        samples_end: ends(|series| series.samples_end),
        labels: Bytes::from(fresh.labels),
        fresh_times: fresh.times,
        fresh_values: fresh.values,
        known_others: others
            .known
            .into_iter()
            .map(|other| {
                other_to(
                    AS_GIVEN.key_to(other.series),
                    other.before,
                    other.time,
                    other.value,
                )
            })
            .collect(),
        fresh_others: others
            .fresh
            .into_iter()
            .map(|other| {
                let index = u64::from(other.series);
                other_to(index, other.before, other.time, other.value)
            })
            .collect(),
    }
}

fn other_to(series: u64, before: u32, time: i64, value: OtherValue) -> proto::Other {
    use proto::other::Value;
    let value = match value {
        OtherValue::Histogram(histogram) => Value::Histogram(histogram_to(time, &histogram)),
        OtherValue::Exemplar(exemplar) => Value::Exemplar(exemplar_to(&exemplar)),
        OtherValue::Start(start) => Value::Start(proto::Start {
            start: start.start,
            zero_float: matches!(start.zero, Zero::Float),
            zero_histogram: match &start.zero {
                Zero::Histogram(histogram) => histogram_to(start.start, histogram),
                Zero::None | Zero::Float => Bytes::new(),
            },
        }),
    };
    proto::Other {
        series,
        before,
        time,
        value: Some(value),
    }
}

fn histogram_to(time: i64, histogram: &HistogramSample) -> Bytes {
    Bytes::from(encode::histogram_message(time, histogram))
}

fn histogram_of(message: &[u8]) -> Result<Box<HistogramSample>, Wrong> {
    let (_, histogram) = histogram::decode_taken(message).map_err(|error| error.to_string())?;
    Ok(Box::new(histogram))
}

fn exemplar_to(exemplar: &Exemplar) -> proto::Exemplar {
    proto::Exemplar {
        labels: Bytes::copy_from_slice(exemplar.labels.packed()),
        value: exemplar.value,
        time: exemplar.time.0,
    }
}

fn exemplar_of(exemplar: &proto::Exemplar) -> Result<Exemplar, Wrong> {
    Ok(Exemplar {
        labels: labels_of(&exemplar.labels)?,
        value: exemplar.value,
        time: TimeMs(exemplar.time),
    })
}

fn labels_of(packed: &[u8]) -> Result<Labels, Wrong> {
    Labels::from_packed(packed).map_err(|error| error.to_string())
}

/// What a core gets of a part.
#[derive(Debug)]
pub(super) struct Samples {
    pub(super) known: KnownSamples,
    pub(super) fresh: FreshSamples,
    pub(super) others: OtherSamples,
}

/// The samples of a part, checked; `place` tells the core of a placement hash.
pub(super) fn part_of(
    tenant: &TenantId,
    part: proto::PushPart,
    seal: Seal,
    place: impl Fn(u64) -> u16,
) -> Result<Samples, Wrong> {
    let columns = [part.keys.len(), part.times.len(), part.values.len()];
    if columns.iter().any(|len| *len != columns[0]) {
        return Err("columns of different lengths".to_owned());
    }
    if part.fresh_times.len() != part.fresh_values.len()
        || part.labels_end.len() != part.samples_end.len()
    {
        return Err("columns of new series of different lengths".to_owned());
    }
    let fresh = fresh_of(tenant, &part, place)?;
    let known_others = others_of(&part.known_others, part.keys.len(), |key| {
        Ok(seal.key_of(key))
    })?;
    if !known_others.is_sorted_by_key(|other| other.before) {
        return Err("histograms of known series are not in order".to_owned());
    }
    let count = fresh.series.len();
    let fresh_others = others_of(&part.fresh_others, fresh.times.len(), |index| {
        let index = u32::try_from(index).ok();
        let index = index.filter(|index| (*index as usize) < count);
        index.ok_or_else(|| "a histogram of a series that is not there".to_owned())
    })?;
    if !fresh_others.is_sorted_by_key(|other| (other.series, other.before)) {
        return Err("histograms of new series are not in order".to_owned());
    }
    let known = KnownSamples {
        keys: part.keys.iter().map(|key| seal.key_of(*key)).collect(),
        times: part.times,
        values: part.values,
    };
    Ok(Samples {
        known,
        fresh,
        others: OtherSamples {
            known: known_others,
            fresh: fresh_others,
        },
    })
}

fn fresh_of(
    tenant: &TenantId,
    part: &proto::PushPart,
    place: impl Fn(u64) -> u16,
) -> Result<FreshSamples, Wrong> {
    let mut scratch = Vec::new();
    let (mut label, mut sample) = (0, 0);
    let mut series = Vec::with_capacity(part.labels_end.len());
    for (&labels_end, &samples_end) in part.labels_end.iter().zip(&part.samples_end) {
        let packed = part.labels.get(label..labels_end as usize);
        let packed = packed.ok_or_else(|| "labels end before they begin".to_owned())?;
        if samples_end < sample || samples_end as usize > part.fresh_times.len() {
            return Err("samples end before they begin".to_owned());
        }
        let labels = labels_of(packed)?;
        let core = place(identity::placement(tenant, &labels, &mut scratch));
        if u32::from(core) != part.core {
            return Err(format!(
                "a series was sent to core {} and belongs to core {core}: the sender counts on another number of cores",
                part.core
            ));
        }
        series.push(FreshSeries {
            id: identity::series_id(tenant, packed, &mut scratch),
            labels_end,
            samples_end,
        });
        (label, sample) = (labels_end as usize, samples_end);
    }
    if label != part.labels.len() || sample as usize != part.fresh_times.len() {
        return Err("labels or samples of no series".to_owned());
    }
    Ok(FreshSamples {
        series,
        labels: part.labels.to_vec(),
        times: part.fresh_times.clone(),
        values: part.fresh_values.clone(),
    })
}

fn others_of<S>(
    others: &[proto::Other],
    samples: usize,
    series: impl Fn(u64) -> Result<S, Wrong>,
) -> Result<Vec<OtherSample<S>>, Wrong> {
    use proto::other::Value;
    let other = |other: &proto::Other| {
        if other.before as usize > samples {
            return Err("a histogram behind the last sample".to_owned());
        }
        let value = other.value.as_ref();
        let value = match value.ok_or_else(|| "neither histogram nor exemplar".to_owned())? {
            Value::Histogram(message) => OtherValue::Histogram(histogram_of(message)?),
            Value::Exemplar(exemplar) => OtherValue::Exemplar(Box::new(exemplar_of(exemplar)?)),
            Value::Start(start) => OtherValue::Start(CounterStart {
                start: start.start,
                zero: match (start.zero_histogram.is_empty(), start.zero_float) {
                    (false, _) => Zero::Histogram(histogram_of(&start.zero_histogram)?),
                    (true, true) => Zero::Float,
                    (true, false) => Zero::None,
                },
            }),
        };
        Ok(OtherSample {
            series: series(other.series)?,
            before: other.before,
            time: other.time,
            value,
        })
    };
    others.iter().map(other).collect()
}

const REASONS: [(RejectReason, proto::Reason); 9] = [
    (RejectReason::OutOfOrder, proto::Reason::OutOfOrder),
    (RejectReason::TooOld, proto::Reason::TooOld),
    (RejectReason::OutOfBounds, proto::Reason::OutOfBounds),
    (
        RejectReason::NewValueForTimestamp,
        proto::Reason::NewValueForTimestamp,
    ),
    (
        RejectReason::PerUserSeriesLimit,
        proto::Reason::PerUserSeriesLimit,
    ),
    (
        RejectReason::PerMetricSeriesLimit,
        proto::Reason::PerMetricSeriesLimit,
    ),
    (RejectReason::LabelsTooLarge, proto::Reason::LabelsTooLarge),
    (RejectReason::NoMemory, proto::Reason::NoMemory),
    (
        RejectReason::HistogramTooLarge,
        proto::Reason::HistogramTooLarge,
    ),
];

fn reason_to(reason: RejectReason) -> i32 {
    let found = REASONS.iter().find(|(known, _)| *known == reason);
    found.map_or(0, |(_, number)| *number as i32)
}

fn reason_of(number: i32) -> Result<RejectReason, Wrong> {
    let found = REASONS.iter().find(|(_, known)| *known as i32 == number);
    found
        .map(|(reason, _)| *reason)
        .ok_or_else(|| format!("reason {number} is not known"))
}

/// Reasons for which cores drop exemplars; others are counted under a name of their own.
const DROPPED: [&str; 5] = [
    "unknown_series",
    "exemplars_disabled",
    "exemplar_labels_too_long",
    "memory_limit",
    "exemplar_out_of_order",
];

/// What became of a part.
pub(super) fn outcome_to(outcome: PushOutcome, seal: Seal) -> proto::PartOutcome {
    let rejected = |rejection: &Rejection| {
        let (labels, time, value) = &rejection.first;
        proto::Rejection {
            reason: reason_to(rejection.reason),
            count: rejection.count,
            labels: Bytes::copy_from_slice(labels.packed()),
            time: *time,
            value: *value,
            limit: rejection.limit,
            first_index: rejection.first_index,
        }
    };
    let (refused_series, reasons): (Vec<u32>, Vec<i32>) = (outcome.refused_series.iter())
        .map(|(index, reason)| (*index, reason_to(*reason)))
        .unzip();
    let dropped = |(reason, count): &(&str, u32)| proto::Dropped {
        reason: (*reason).to_owned(),
        count: *count,
    };
    proto::PartOutcome {
        refused: outcome.refused.map(|refusal| refusal.to_string()),
        stored: outcome.stored,
        repeated_samples: outcome.repeated,
        late: outcome.late,
        histograms: outcome.histograms,
        histograms_repeated: outcome.histograms_repeated,
        exemplars: outcome.exemplars,
        starts_ignored: outcome.starts_ignored,
        exemplars_dropped: outcome.exemplars_dropped.iter().map(dropped).collect(),
        rejected: outcome.rejected.iter().map(rejected).collect(),
        dead: outcome.dead,
        dead_others: outcome.dead_others,
        keys: (outcome.keys.iter())
            .map(|key| key.map_or(NO_KEY, |key| seal.key_to(key)))
            .collect(),
        refused_series,
        refused_reasons: reasons,
    }
}

/// Sizes of what was sent, against which indexes of the answer are checked: known samples, known others, new series, new others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) known: usize,
    pub(super) known_others: usize,
    pub(super) fresh: usize,
}

impl Sent {
    pub(super) fn of(push: &Push) -> Sent {
        Sent {
            known: push.known.keys.len(),
            known_others: push.others.known.len(),
            fresh: push.fresh.series.len(),
        }
    }
}

/// What a node says became of a part.
pub(super) fn outcome_of(
    node: &str,
    sent: Sent,
    outcome: proto::PartOutcome,
) -> Result<PushOutcome, Wrong> {
    if let Some(reason) = outcome.refused {
        return Ok(refused(node, &reason));
    }
    let below = |list: &[u32], count: usize| list.iter().all(|index| (*index as usize) < count);
    let refused = &outcome.refused_series;
    let sound = below(&outcome.dead, sent.known)
        && below(&outcome.dead_others, sent.known_others)
        && below(refused, sent.fresh)
        && outcome.refused_reasons.len() == refused.len()
        && outcome.keys.len() == sent.fresh;
    if !sound {
        return Err("an answer that does not fit what was sent".to_owned());
    }
    let keys = outcome.keys.iter();
    let keys = keys.map(|key| (*key != NO_KEY).then(|| AS_GIVEN.key_of(*key)));
    let reasons = outcome
        .refused_reasons
        .iter()
        .map(|number| reason_of(*number));
    let refused_series = refused.iter().copied().zip(reasons);
    let refused_series = refused_series
        .map(|(index, reason)| Ok((index, reason?)))
        .collect::<Result<_, Wrong>>()?;
    let rejection = |rejected: &proto::Rejection| {
        Ok(Rejection {
            reason: reason_of(rejected.reason)?,
            count: rejected.count,
            first: (labels_of(&rejected.labels)?, rejected.time, rejected.value),
            limit: rejected.limit,
            first_index: rejected.first_index,
        })
    };
    let dropped = |dropped: &proto::Dropped| {
        let known = DROPPED.iter().find(|reason| **reason == dropped.reason);
        (known.copied().unwrap_or("other"), dropped.count)
    };
    Ok(PushOutcome {
        refused: None,
        stored: outcome.stored,
        repeated: outcome.repeated_samples,
        late: outcome.late,
        histograms: outcome.histograms,
        histograms_repeated: outcome.histograms_repeated,
        exemplars: outcome.exemplars,
        starts_ignored: outcome.starts_ignored,
        exemplars_dropped: outcome.exemplars_dropped.iter().map(dropped).collect(),
        rejected: (outcome.rejected.iter())
            .map(rejection)
            .collect::<Result<_, Wrong>>()?,
        dead: outcome.dead,
        dead_others: outcome.dead_others,
        keys: keys.collect(),
        refused_series,
    })
}

/// The outcome of a part that a node did not take.
pub(super) fn refused(node: &str, reason: &str) -> PushOutcome {
    PushOutcome {
        refused: Some(Refusal::Elsewhere(format!("ingester {node}: {reason}"))),
        ..PushOutcome::default()
    }
}

pub(super) fn matchers_to(matchers: &[Matcher]) -> Vec<proto::Matcher> {
    use proto::matcher::Op;
    let matcher = |matcher: &Matcher| proto::Matcher {
        op: match matcher.op() {
            MatchOp::Equal => Op::Equal,
            MatchOp::NotEqual => Op::NotEqual,
            MatchOp::Regex => Op::Regex,
            MatchOp::NotRegex => Op::NotRegex,
        } as i32,
        name: matcher.name().to_owned(),
        value: matcher.value().to_owned(),
    };
    matchers.iter().map(matcher).collect()
}

pub(super) fn matchers_of(matchers: &[proto::Matcher]) -> Result<Arc<[Matcher]>, Wrong> {
    use proto::matcher::Op;
    let matcher = |matcher: &proto::Matcher| {
        let op = match Op::try_from(matcher.op).map_err(|error| error.to_string())? {
            Op::Equal => MatchOp::Equal,
            Op::NotEqual => MatchOp::NotEqual,
            Op::Regex => MatchOp::Regex,
            Op::NotRegex => MatchOp::NotRegex,
        };
        Matcher::new(op, &matcher.name, &matcher.value).map_err(|error| error.to_string())
    };
    matchers.iter().map(matcher).collect()
}

/// What changed at a node.
pub(super) fn history_to(history: &History) -> proto::ChangesReply {
    proto::ChangesReply {
        life: history.id.0,
        watch: history.id.1,
        mark: history.mark,
        after: history.lows.iter().map(|(after, _)| *after).collect(),
        low: history.lows.iter().map(|(_, low)| *low).collect(),
    }
}

/// Errors: it is no history.
pub(super) fn history_of(reply: proto::ChangesReply) -> Result<History, Wrong> {
    let lows: Vec<(u64, i64)> = reply.after.iter().copied().zip(reply.low.clone()).collect();
    let ascends = lows.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1);
    if reply.after.len() != reply.low.len() || !ascends {
        return Err("changes that do not ascend".to_owned());
    }
    Ok(History {
        id: (reply.life, reply.watch),
        mark: reply.mark,
        lows,
    })
}

pub(super) fn projection_to(projection: &Projection) -> (bool, Vec<String>) {
    match projection {
        Projection::All => (false, Vec::new()),
        Projection::Only(names) => (true, names.iter().map(|name| name.to_string()).collect()),
    }
}

pub(super) fn projection_of(project: bool, names: &[String]) -> Projection {
    match project {
        false => Projection::All,
        true => Projection::only(names),
    }
}

pub(super) fn windows_to(windows: Windows) -> proto::Windows {
    proto::Windows {
        end: windows.end(),
        step: windows.step() as u64,
        width: windows.width() as u64,
    }
}

/// `None` also where they make no sense: then nothing is left out.
pub(super) fn windows_of(windows: Option<proto::Windows>) -> Option<Windows> {
    let proto::Windows { end, step, width } = windows?;
    Windows::new(end, i64::try_from(step).ok()?, i64::try_from(width).ok()?)
}

/// A series whose chunks are in memory.
pub(super) fn series_to(series: &SelectedSeries) -> Result<proto::Series, Wrong> {
    let chunk = |chunk: &ChunkSlice| {
        let bytes = chunk.bytes.read().map_err(|error| error.to_string())?;
        Ok(proto::Chunk {
            min_time: chunk.min_time,
            max_time: chunk.max_time,
            bytes: Bytes::copy_from_slice(&bytes),
            order: chunk.bytes.order(),
            late: chunk.bytes.is_late(),
        })
    };
    Ok(proto::Series {
        id_high: (series.id.0 >> 64) as u64,
        id_low: series.id.0 as u64,
        labels: Bytes::copy_from_slice(series.labels.packed()),
        chunks: series
            .chunks
            .iter()
            .map(chunk)
            .collect::<Result<_, Wrong>>()?,
        exemplars: series.exemplars.iter().map(exemplar_to).collect(),
    })
}

pub(super) fn series_of(series: &proto::Series) -> Result<SelectedSeries, Wrong> {
    let chunk = |chunk: &proto::Chunk| ChunkSlice {
        min_time: chunk.min_time,
        max_time: chunk.max_time,
        bytes: ChunkBytes::told(Arc::from(&*chunk.bytes), chunk.order, chunk.late),
    };
    Ok(SelectedSeries {
        id: SeriesId(u128::from(series.id_high) << 64 | u128::from(series.id_low)),
        labels: labels_of(&series.labels)?,
        chunks: series.chunks.iter().map(chunk).collect(),
        exemplars: (series.exemplars.iter())
            .map(exemplar_of)
            .collect::<Result<_, Wrong>>()?,
        starts: Vec::new(),
    })
}

pub(super) fn metadata_to(metric: &str, metadata: &Metadata) -> proto::MetricMetadata {
    proto::MetricMetadata {
        metric: metric.to_owned(),
        r#type: metadata.kind as u32,
        help: metadata.help.clone(),
        unit: metadata.unit.clone(),
    }
}

pub(super) fn metadata_of(record: proto::MetricMetadata) -> (String, Metadata) {
    let metadata = Metadata {
        kind: MetricType::from_number(u64::from(record.r#type)),
        help: record.help,
        unit: record.unit,
    };
    (record.metric, metadata)
}

#[cfg(test)]
mod tests;

//! What the log can say: kinds of records, how each is written and read back.
//!
//! A record is a `u32` of kind and length, then its body (`docs/formats/wal.md`). The same [`Record`] is written and read. Writing goes
//! through a scratch vector, except for samples, which are coded in place (`samples.rs`). Reading is [`Decoder`]: it knows what may be referred to
//! (tenant names of this segment, last values of its series), bounds everything before it allocates, and never panics on
//! bytes, however damaged.

mod bases;
mod histogram;

use std::borrow::Cow;

use model::{
    Exemplar, Generation, HistogramSample, Labels, MatchOp, Metadata, MetricType, SeriesId,
    SeriesRef, TenantId, TimeMs, varint,
};

use crate::error::Error;
use crate::frame::{u32_at, u64_at};
use crate::group::Group;
use crate::limits::{RECORD_HEADER_BYTES, SERIES_REF_MAX, TOMBSTONE_MATCHERS_MAX};
use crate::samples;
use crate::tenants::Tenants;
use bases::Bases;

/// The kinds, by their number on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Tenant = 1,
    Series = 2,
    Samples = 3,
    Chunk = 4,
    Histogram = 5,
    FloatHistogram = 6,
    Exemplar = 7,
    Metadata = 8,
    StartTimestamp = 9,
    Tombstone = 10,
    StoredChunk = 11,
    LateSamples = 12,
    LateHistogram = 13,
    LateFloatHistogram = 14,
    Purge = 15,
    PurgeEnd = 16,
    /// Totals at the end of a checkpoint.
    End = 255,
}

impl Kind {
    fn of(number: u8) -> Option<Kind> {
        Some(match number {
            1 => Kind::Tenant,
            2 => Kind::Series,
            3 => Kind::Samples,
            4 => Kind::Chunk,
            5 => Kind::Histogram,
            6 => Kind::FloatHistogram,
            7 => Kind::Exemplar,
            8 => Kind::Metadata,
            9 => Kind::StartTimestamp,
            10 => Kind::Tombstone,
            11 => Kind::StoredChunk,
            12 => Kind::LateSamples,
            13 => Kind::LateHistogram,
            14 => Kind::LateFloatHistogram,
            15 => Kind::Purge,
            16 => Kind::PurgeEnd,
            255 => Kind::End,
            _ => return None,
        })
    }
}

/// A record, to be written or read back.
#[derive(Debug, Clone, PartialEq)]
pub enum Record<'a> {
    /// A series exists from here on; comes before everything that names its ref.
    Series(SeriesRecord<'a>),
    /// Samples in the order in which they were logged. Written, they are coded absolutely; the way for many is `Log::sample`.
    Samples(&'a [LoggedSample]),
    /// A sealed chunk of a series.
    Chunk(ChunkRecord<'a>),
    /// A sealed chunk of a series that lies in a file of its own.
    StoredChunk(StoredChunkRecord),
    /// A native histogram.
    Histogram {
        /// Its series.
        series: SeriesRef,
        /// When.
        time: TimeMs,
        /// What.
        histogram: Cow<'a, HistogramSample>,
    },
    /// Samples that are older than the newest of their series: all of them, for there is nothing to tell them from samples that a checkpoint
    /// holds already. Of one series and time the one that was logged last counts.
    LateSamples(&'a [LoggedSample]),
    /// As [`Record::LateSamples`], of a native histogram.
    LateHistogram {
        /// Its series.
        series: SeriesRef,
        /// When.
        time: TimeMs,
        /// What.
        histogram: Cow<'a, HistogramSample>,
    },
    /// An exemplar.
    Exemplar {
        /// Its series.
        series: SeriesRef,
        /// The exemplar.
        exemplar: Cow<'a, Exemplar>,
    },
    /// What a metric is.
    Metadata {
        /// Whose.
        tenant: &'a TenantId,
        /// Metric family.
        metric: &'a str,
        /// Type, help, unit.
        metadata: Cow<'a, Metadata>,
    },
    /// When the counter of a sample began.
    StartTimestamp {
        /// The series.
        series: SeriesRef,
        /// Of the sample.
        time: TimeMs,
        /// Of the counter.
        start: TimeMs,
    },
    /// A deletion begins; one selector of it. The series follow one by one, each as a [`Record::Purge`].
    Tombstone(TombstoneRecord<'a>),
    /// What a series has in a range, at this place of the log, is deleted.
    Purge {
        /// The series.
        series: SeriesRef,
        /// From, inclusive.
        first: TimeMs,
        /// To, inclusive.
        last: TimeMs,
    },
    /// The deletion that began with the tombstones before it is complete.
    PurgeEnd {
        /// How many tombstones it began with: the last ones before this record.
        selectors: u64,
    },
}

/// A series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeriesRecord<'a> {
    /// Index on the core.
    pub series: SeriesRef,
    /// How often that index has been given out.
    pub generation: Generation,
    /// Identity.
    pub id: SeriesId,
    /// Whose.
    pub tenant: &'a TenantId,
    /// Packed labels, as [`Labels::packed`]; checked when read.
    pub labels: &'a [u8],
}

/// A float sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoggedSample {
    /// Its series.
    pub series: SeriesRef,
    /// Milliseconds.
    pub time: i64,
    /// Value.
    pub value: f64,
}

/// A sealed chunk, not interpreted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRecord<'a> {
    /// Its series.
    pub series: SeriesRef,
    /// Time of its first sample.
    pub first: TimeMs,
    /// Time of its last sample, not before the first.
    pub last: TimeMs,
    /// As sealed by the `chunk` crate.
    pub sealed: &'a [u8],
}

/// Where a sealed chunk lies (`docs/formats/chunkfile.md`); not interpreted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredChunkRecord {
    /// Its series.
    pub series: SeriesRef,
    /// Time of its first sample.
    pub first: TimeMs,
    /// Time of its last sample, not before the first.
    pub last: TimeMs,
    /// Samples in it, and two marks (`docs/formats/wal.md`).
    pub count: u16,
    /// Number of the chunk file.
    pub file: u32,
    /// Where in the file.
    pub offset: u32,
    /// Bytes of the sealed chunk.
    pub len: u32,
}

/// A deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TombstoneRecord<'a> {
    /// Whose.
    pub tenant: &'a TenantId,
    /// From, inclusive.
    pub first: TimeMs,
    /// To, inclusive.
    pub last: TimeMs,
    /// All must match: operator, label name, value. Not compiled here.
    pub matchers: Vec<(MatchOp, &'a str, &'a str)>,
}

/// Writes kind and length.
pub(crate) fn put_header(out: &mut [u8], kind: Kind, len: usize) {
    assert!(len <= crate::limits::RECORD_BYTES_MAX);
    let header = (len as u32) << 8 | u32::from(kind as u8);
    out[..RECORD_HEADER_BYTES].copy_from_slice(&header.to_le_bytes());
}

/// A record ready to be copied into a group, as soon as it is known which segment that is.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    body: Vec<u8>,
}

impl Staged {
    /// Encodes all of a record but the tenant index, with which the body begins where there is one. Returns how much room it needs at
    /// most, a record for its tenant included.
    ///
    /// Errors: [`Error::TooLarge`] for more parts than a reader accepts.
    pub(crate) fn encode(&mut self, record: &Record<'_>) -> Result<usize, Error> {
        self.body.clear();
        encode_body(&mut self.body, record)?;
        let tenant =
            owner(record).map_or(0, |tenant| RECORD_HEADER_BYTES + 10 + tenant.as_str().len());
        Ok(tenant + RECORD_HEADER_BYTES + self.body.len())
    }

    /// Copies the record into the group, preceded by the record of its tenant where this file does not have it.
    pub(crate) fn append(&mut self, record: &Record<'_>, group: &mut Group, tenants: &mut Tenants) {
        let mut prefix = [0u8; 5];
        let mut prefix_len = 0;
        if let Some(tenant) = owner(record) {
            let (index, is_new) = tenants.index(tenant);
            prefix_len = put_index(&mut prefix, index);
            if is_new {
                group.record(
                    Kind::Tenant,
                    &prefix[..prefix_len],
                    tenant.as_str().as_bytes(),
                );
            }
        }
        group.record(kind(record), &prefix[..prefix_len], &self.body);
    }

    /// Copies the totals of a checkpoint into the group.
    pub(crate) fn append_end(&mut self, series: u64, chunks: u64, group: &mut Group) {
        self.body.clear();
        self.body.extend_from_slice(&series.to_le_bytes());
        self.body.extend_from_slice(&chunks.to_le_bytes());
        group.record(Kind::End, &[], &self.body);
    }
}

/// Room that the totals of a checkpoint need.
pub(crate) const END_BYTES: usize = RECORD_HEADER_BYTES + 16;

fn owner<'a>(record: &Record<'a>) -> Option<&'a TenantId> {
    match record {
        Record::Series(series) => Some(series.tenant),
        Record::Metadata { tenant, .. } => Some(tenant),
        Record::Tombstone(tombstone) => Some(tombstone.tenant),
        _ => None,
    }
}

fn kind(record: &Record<'_>) -> Kind {
    match record {
        Record::Series(_) => Kind::Series,
        Record::Samples(_) => Kind::Samples,
        Record::Chunk(_) => Kind::Chunk,
        Record::StoredChunk(_) => Kind::StoredChunk,
        Record::Histogram { histogram, .. } => match &**histogram {
            HistogramSample::Int(_) => Kind::Histogram,
            HistogramSample::Float(_) => Kind::FloatHistogram,
        },
        Record::LateSamples(_) => Kind::LateSamples,
        Record::LateHistogram { histogram, .. } => match &**histogram {
            HistogramSample::Int(_) => Kind::LateHistogram,
            HistogramSample::Float(_) => Kind::LateFloatHistogram,
        },
        Record::Exemplar { .. } => Kind::Exemplar,
        Record::Metadata { .. } => Kind::Metadata,
        Record::StartTimestamp { .. } => Kind::StartTimestamp,
        Record::Tombstone(_) => Kind::Tombstone,
        Record::Purge { .. } => Kind::Purge,
        Record::PurgeEnd { .. } => Kind::PurgeEnd,
    }
}

fn put_index(out: &mut [u8; 5], mut index: u32) -> usize {
    let mut at = 0;
    while index >= 0x80 {
        out[at] = index as u8 | 0x80;
        index >>= 7;
        at += 1;
    }
    out[at] = index as u8;
    at + 1
}

fn encode_body(out: &mut Vec<u8>, record: &Record<'_>) -> Result<(), Error> {
    match record {
        Record::Series(series) => {
            out.extend_from_slice(&series.series.0.to_le_bytes());
            out.extend_from_slice(&series.generation.0.to_le_bytes());
            out.extend_from_slice(&series.id.0.to_le_bytes());
            out.extend_from_slice(series.labels);
        }
        Record::Samples(_) => panic!("samples are coded in place"),
        Record::Chunk(chunk) => {
            assert!(chunk.first <= chunk.last, "a chunk ends before it begins");
            put_point(out, chunk.series, chunk.first);
            varint::put_u64(out, chunk.last.0.wrapping_sub(chunk.first.0) as u64);
            out.extend_from_slice(chunk.sealed);
        }
        Record::StoredChunk(chunk) => {
            assert!(chunk.first <= chunk.last, "a chunk ends before it begins");
            put_point(out, chunk.series, chunk.first);
            varint::put_u64(out, chunk.last.0.wrapping_sub(chunk.first.0) as u64);
            varint::put_u64(out, u64::from(chunk.count));
            varint::put_u64(out, u64::from(chunk.file));
            varint::put_u64(out, u64::from(chunk.offset));
            varint::put_u64(out, u64::from(chunk.len));
        }
        Record::Histogram {
            series,
            time,
            histogram,
        }
        | Record::LateHistogram {
            series,
            time,
            histogram,
        } => {
            put_point(out, *series, *time);
            histogram::put(out, histogram)?;
        }
        Record::LateSamples(samples) => samples::put_absolute(out, samples),
        Record::Exemplar { series, exemplar } => {
            put_point(out, *series, exemplar.time);
            out.extend_from_slice(&exemplar.value.to_bits().to_le_bytes());
            out.extend_from_slice(exemplar.labels.packed());
        }
        Record::Metadata {
            metric, metadata, ..
        } => {
            out.push(metadata.kind as u8);
            put_bytes(out, metric.as_bytes());
            put_bytes(out, metadata.help.as_bytes());
            put_bytes(out, metadata.unit.as_bytes());
        }
        Record::StartTimestamp {
            series,
            time,
            start,
        } => {
            put_point(out, *series, *time);
            varint::put_i64(out, start.0);
        }
        Record::Tombstone(tombstone) => put_tombstone(out, tombstone)?,
        Record::Purge {
            series,
            first,
            last,
        } => {
            put_point(out, *series, *first);
            varint::put_i64(out, last.0);
        }
        Record::PurgeEnd { selectors } => varint::put_u64(out, *selectors),
    }
    Ok(())
}

fn put_tombstone(out: &mut Vec<u8>, tombstone: &TombstoneRecord<'_>) -> Result<(), Error> {
    let count = tombstone.matchers.len();
    if count > TOMBSTONE_MATCHERS_MAX {
        return Err(Error::TooLarge {
            bytes: count,
            max: TOMBSTONE_MATCHERS_MAX,
        });
    }
    varint::put_i64(out, tombstone.first.0);
    varint::put_i64(out, tombstone.last.0);
    varint::put_u64(out, count as u64);
    for (op, name, value) in &tombstone.matchers {
        out.push(match op {
            MatchOp::Equal => 0,
            MatchOp::NotEqual => 1,
            MatchOp::Regex => 2,
            MatchOp::NotRegex => 3,
        });
        put_bytes(out, name.as_bytes());
        put_bytes(out, value.as_bytes());
    }
    Ok(())
}

fn put_point(out: &mut Vec<u8>, series: SeriesRef, time: TimeMs) {
    varint::put_u64(out, u64::from(series.0));
    varint::put_i64(out, time.0);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Why records do not decode; the caller knows file and offset.
pub(crate) type Fault = String;

/// Reads the records of one segment or checkpoint after another.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    tenants: Vec<TenantId>,
    bases: Bases,
    rows: Vec<LoggedSample>,
    pub(crate) counts: Counts,
}

/// How many records of each kind were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Records of any kind.
    pub records: u64,
    /// Series records.
    pub series: u64,
    /// Float samples.
    pub samples: u64,
    /// Chunk records, stored ones included.
    pub chunks: u64,
    /// Histograms, exemplars, metadata, start timestamps, tombstones.
    pub others: u64,
}

impl Decoder {
    /// Forgets what holds within one file only: tenant indexes and last values.
    pub(crate) fn next_file(&mut self) {
        self.tenants.clear();
        self.bases.clear();
    }

    /// Reads all records of a frame, handing each to `sink`. Totals of a checkpoint are checked here.
    ///
    /// Errors: what is wrong with the bytes, or what the sink said, told apart by [`Stop`].
    pub(crate) fn frame(
        &mut self,
        mut bytes: &[u8],
        sink: &mut dyn FnMut(&Record<'_>) -> Result<(), String>,
    ) -> Result<(), Stop> {
        while !bytes.is_empty() {
            if bytes.len() < RECORD_HEADER_BYTES {
                return Err(Stop::Fault("a record header is cut short".into()));
            }
            let header = u32_at(bytes, 0);
            let (number, len) = (header as u8, (header >> 8) as usize);
            let rest = &bytes[RECORD_HEADER_BYTES..];
            let Some(body) = rest.get(..len) else {
                let reason = format!("a record of {len} bytes where {} are left", rest.len());
                return Err(Stop::Fault(reason));
            };
            let Some(kind) = Kind::of(number) else {
                return Err(Stop::Fault(format!("unknown record kind {number}")));
            };
            self.record(kind, body, sink)?;
            bytes = &rest[len..];
        }
        Ok(())
    }

    fn record(
        &mut self,
        kind: Kind,
        body: &[u8],
        sink: &mut dyn FnMut(&Record<'_>) -> Result<(), String>,
    ) -> Result<(), Stop> {
        let fault = |what: &str| Stop::Fault(format!("{kind:?} record: {what}"));
        self.counts.records += 1;
        let mut rest = body;
        let record = match kind {
            Kind::Tenant => return self.take_tenant(body).map_err(|what| fault(&what)),
            Kind::End => return self.check_end(body).map_err(|what| fault(&what)),
            Kind::Samples => {
                self.take_samples(body).map_err(|what| fault(&what))?;
                self.counts.samples += self.rows.len() as u64;
                return sink(&Record::Samples(&self.rows)).map_err(Stop::Sink);
            }
            Kind::LateSamples => {
                self.take_late(body).map_err(fault)?;
                self.counts.samples += self.rows.len() as u64;
                return sink(&Record::LateSamples(&self.rows)).map_err(Stop::Sink);
            }
            Kind::Series => {
                self.counts.series += 1;
                Record::Series(take_series(&mut rest, &self.tenants).map_err(|what| fault(&what))?)
            }
            Kind::Chunk => {
                self.counts.chunks += 1;
                take_chunk(&mut rest)
                    .map(Record::Chunk)
                    .ok_or_else(|| fault("malformed"))?
            }
            Kind::StoredChunk => {
                self.counts.chunks += 1;
                take_stored_chunk(&mut rest)
                    .map(Record::StoredChunk)
                    .ok_or_else(|| fault("malformed"))?
            }
            other => {
                self.counts.others += 1;
                take_other(other, &mut rest, &self.tenants).ok_or_else(|| fault("malformed"))?
            }
        };
        if !rest.is_empty() {
            return Err(fault("bytes left over"));
        }
        sink(&record).map_err(Stop::Sink)
    }

    fn take_tenant(&mut self, body: &[u8]) -> Result<(), Fault> {
        let mut rest = body;
        let index = varint::take_u64(&mut rest).ok_or("cut short")?;
        if index != self.tenants.len() as u64 {
            return Err(format!("index {index} where {} is due", self.tenants.len()));
        }
        let name = std::str::from_utf8(rest).map_err(|_| "not UTF-8")?;
        self.tenants
            .push(TenantId::new(name).map_err(|error| error.to_string())?);
        Ok(())
    }

    fn take_samples(&mut self, body: &[u8]) -> Result<(), Fault> {
        self.rows.clear();
        let mut decoder = samples::Decoder::new(body).ok_or("cut short")?;
        while !decoder.is_done() {
            let coded = decoder.take().ok_or("malformed")?;
            let base = self
                .bases
                .slot(coded.series)
                .ok_or("series out of bounds")?;
            let value = match (coded.relative, *base) {
                (false, _) => coded.value(0.0),
                (true, Some(last)) => coded.value(last),
                (true, None) => {
                    return Err(format!("series {} has no sample to build on", coded.series));
                }
            };
            *base = Some(value);
            let series = SeriesRef(coded.series);
            self.rows.push(LoggedSample {
                series,
                time: coded.time,
                value,
            });
        }
        Ok(())
    }

    /// They build on nothing, and nothing builds on them.
    fn take_late(&mut self, body: &[u8]) -> Result<(), &'static str> {
        self.rows.clear();
        let mut decoder = samples::Decoder::new(body).ok_or("cut short")?;
        while !decoder.is_done() {
            let coded = decoder.take().ok_or("malformed")?;
            if coded.relative {
                return Err("a late sample builds on another");
            }
            if coded.series >= SERIES_REF_MAX {
                return Err("series out of bounds");
            }
            self.rows.push(LoggedSample {
                series: SeriesRef(coded.series),
                time: coded.time,
                value: coded.value(0.0),
            });
        }
        match self.rows.is_empty() {
            true => Err("empty"),
            false => Ok(()),
        }
    }

    fn check_end(&self, body: &[u8]) -> Result<(), Fault> {
        if body.len() != 16 {
            return Err(format!("{} bytes", body.len()));
        }
        let (series, chunks) = (u64_at(body, 0), u64_at(body, 8));
        if (series, chunks) != (self.counts.series, self.counts.chunks) {
            return Err(format!(
                "{series} series and {chunks} chunks announced, {} and {} found",
                self.counts.series, self.counts.chunks
            ));
        }
        Ok(())
    }
}

/// Why a frame was not read to its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The bytes are no records.
    Fault(Fault),
    /// The sink does not want one.
    Sink(String),
}

impl Stop {
    /// In words.
    pub(crate) fn into_reason(self) -> String {
        match self {
            Stop::Fault(reason) | Stop::Sink(reason) => reason,
        }
    }
}

fn take_series<'a>(
    rest: &mut &'a [u8],
    tenants: &'a [TenantId],
) -> Result<SeriesRecord<'a>, Fault> {
    let tenant = take_tenant_index(rest, tenants).ok_or("unknown tenant index")?;
    let (fixed, labels) = rest.split_first_chunk::<24>().ok_or("cut short")?;
    *rest = &[];
    Labels::check_packed(labels).map_err(|error| error.to_string())?;
    Ok(SeriesRecord {
        series: SeriesRef(u32_at(fixed, 0)),
        generation: Generation(u32_at(fixed, 4)),
        id: SeriesId(u128::from(u64_at(fixed, 8)) | u128::from(u64_at(fixed, 16)) << 64),
        tenant,
        labels,
    })
}

fn take_chunk<'a>(rest: &mut &'a [u8]) -> Option<ChunkRecord<'a>> {
    let series = take_ref(rest)?;
    let first = varint::take_i64(rest)?;
    let span = varint::take_u64(rest)?;
    let last = first.checked_add_unsigned(span)?;
    let sealed = std::mem::take(rest);
    Some(ChunkRecord {
        series,
        first: TimeMs(first),
        last: TimeMs(last),
        sealed,
    })
}

fn take_stored_chunk(rest: &mut &[u8]) -> Option<StoredChunkRecord> {
    let (series, first) = (take_ref(rest)?, take_time(rest)?);
    let last = first.0.checked_add_unsigned(varint::take_u64(rest)?)?;
    Some(StoredChunkRecord {
        series,
        first,
        last: TimeMs(last),
        count: u16::try_from(varint::take_u64(rest)?).ok()?,
        file: take_u32(rest)?,
        offset: take_u32(rest)?,
        len: take_u32(rest)?,
    })
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    u32::try_from(varint::take_u64(rest)?).ok()
}

fn take_other<'a>(kind: Kind, rest: &mut &'a [u8], tenants: &'a [TenantId]) -> Option<Record<'a>> {
    Some(match kind {
        Kind::Histogram | Kind::FloatHistogram => {
            let (series, time) = (take_ref(rest)?, take_time(rest)?);
            let histogram = match kind {
                Kind::Histogram => HistogramSample::Int(histogram::take_int(rest)?),
                _ => HistogramSample::Float(histogram::take_float(rest)?),
            };
            Record::Histogram {
                series,
                time,
                histogram: Cow::Owned(histogram),
            }
        }
        Kind::LateHistogram | Kind::LateFloatHistogram => {
            let (series, time) = (take_ref(rest)?, take_time(rest)?);
            let histogram = match kind {
                Kind::LateHistogram => HistogramSample::Int(histogram::take_int(rest)?),
                _ => HistogramSample::Float(histogram::take_float(rest)?),
            };
            Record::LateHistogram {
                series,
                time,
                histogram: Cow::Owned(histogram),
            }
        }
        Kind::Exemplar => {
            let (series, time) = (take_ref(rest)?, take_time(rest)?);
            let value = f64::from_bits(take_fixed_u64(rest)?);
            let labels = Labels::from_packed(std::mem::take(rest)).ok()?;
            let exemplar = Exemplar {
                labels,
                value,
                time,
            };
            Record::Exemplar {
                series,
                exemplar: Cow::Owned(exemplar),
            }
        }
        Kind::Metadata => {
            let tenant = take_tenant_index(rest, tenants)?;
            let (&number, tail) = rest.split_first()?;
            *rest = tail;
            let kind = MetricType::from_number(u64::from(number));
            if kind as u8 != number {
                return None;
            }
            let metric = take_str(rest)?;
            let (help, unit) = (take_str(rest)?.to_owned(), take_str(rest)?.to_owned());
            let metadata = Metadata { kind, help, unit };
            Record::Metadata {
                tenant,
                metric,
                metadata: Cow::Owned(metadata),
            }
        }
        Kind::StartTimestamp => {
            let (series, time, start) = (take_ref(rest)?, take_time(rest)?, take_time(rest)?);
            Record::StartTimestamp {
                series,
                time,
                start,
            }
        }
        Kind::Tombstone => Record::Tombstone(take_tombstone(rest, tenants)?),
        Kind::Purge => {
            let (series, first, last) = (take_ref(rest)?, take_time(rest)?, take_time(rest)?);
            Record::Purge {
                series,
                first,
                last,
            }
        }
        Kind::PurgeEnd => {
            let selectors = varint::take_u64(rest)?;
            Record::PurgeEnd { selectors }
        }
        Kind::Tenant
        | Kind::Series
        | Kind::Samples
        | Kind::LateSamples
        | Kind::Chunk
        | Kind::StoredChunk
        | Kind::End => {
            unreachable!("handled by the caller")
        }
    })
}

fn take_tombstone<'a>(rest: &mut &'a [u8], tenants: &'a [TenantId]) -> Option<TombstoneRecord<'a>> {
    let tenant = take_tenant_index(rest, tenants)?;
    let (first, last) = (take_time(rest)?, take_time(rest)?);
    let count = usize::try_from(varint::take_u64(rest)?).ok()?;
    if count > TOMBSTONE_MATCHERS_MAX {
        return None;
    }
    let mut matchers = Vec::with_capacity(count);
    for _ in 0..count {
        let (&op, tail) = rest.split_first()?;
        *rest = tail;
        let op = match op {
            0 => MatchOp::Equal,
            1 => MatchOp::NotEqual,
            2 => MatchOp::Regex,
            3 => MatchOp::NotRegex,
            _ => return None,
        };
        matchers.push((op, take_str(rest)?, take_str(rest)?));
    }
    Some(TombstoneRecord {
        tenant,
        first,
        last,
        matchers,
    })
}

fn take_tenant_index<'a>(rest: &mut &[u8], tenants: &'a [TenantId]) -> Option<&'a TenantId> {
    tenants.get(usize::try_from(varint::take_u64(rest)?).ok()?)
}

fn take_ref(rest: &mut &[u8]) -> Option<SeriesRef> {
    u32::try_from(varint::take_u64(rest)?).ok().map(SeriesRef)
}

fn take_time(rest: &mut &[u8]) -> Option<TimeMs> {
    varint::take_i64(rest).map(TimeMs)
}

fn take_fixed_u64(rest: &mut &[u8]) -> Option<u64> {
    let (eight, tail) = rest.split_first_chunk::<8>()?;
    *rest = tail;
    Some(u64::from_le_bytes(*eight))
}

fn take_str<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let len = usize::try_from(varint::take_u64(rest)?).ok()?;
    let (head, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    std::str::from_utf8(head).ok()
}

#[cfg(test)]
mod tests;

//! The memtable is filled from the log: what `append` does, in the order of the log and without admission.
//!
//! A checkpoint is fuzzy: it was written while samples went on, so the segments behind it repeat some of what it holds. Times of
//! a series ascend in the log, hence whatever is not after the last sample is known already; those that came late are records of their own, and of
//! them the last one counts, however often they are read. Limits are not enforced: what was
//! acknowledged under other limits is still there.
//!
//! Live rows have at least one sample, so a series record waits until the first chunk or sample names it; one that stays alone
//! (its push was torn from it) leaves no series behind. Of a checkpoint's chunks of a series the last one becomes the open chunk
//! again, so that restarts do not break chunks into pieces. Those before it stay where they are, in chunk files; what a checkpoint of the first version
//! holds itself, and what is closed during replay, goes into a new one.
//!
//! A series that left memory and came back has two numbers in the log: the later one supersedes the earlier, whose samples are
//! older than what is kept.
//!
//! What was deleted is deleted again at the same place of the log. What a core had let go of before a deletion (expired, or cut and idle) is in no record, and
//! an older checkpoint may name it: so it is deleted at the end of each deletion, as whatever matches and was not named.
//!
//! After a change of the number of cores every core reads every old log and keeps what is placed on it, under new numbers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use chunk::{Encoding, HistogramAppender, XorAppender};
use model::identity::{core_of, placement};
use model::{CoreId, Exemplar, HistogramSample, Labels, Matcher, SeriesId, TenantId};
use wal::{StoredChunkRecord, TombstoneRecord};

use super::append::SeriesLimits;
use super::exemplars::Judgement;
use super::native::{Native, Value};
use super::starts::Start;
use super::{LATE, Memtable, NO_TENANT, Retired, Sealed, cut_after};
use crate::chunkfile::{ChunkFiles, Place};

/// Which series a replay keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The log is this core's own: all of them, under the numbers that the log will go on using.
    Own,
    /// The logs of another number of cores: those that are placed on `core` of `count`, under new numbers.
    Placed {
        /// This core.
        core: CoreId,
        /// Cores from now on.
        count: u16,
    },
}

/// Fills a memtable.
pub(crate) struct Replay<'a> {
    memtable: &'a mut Memtable,
    keep: Keep,
    now_s: u32,
    /// By the log's number: series that no chunk or sample has named yet.
    announced: BTreeMap<u32, Announced>,
    /// By the log's number: ours, and the generation in the log. Only where they differ.
    numbers: HashMap<u32, (u32, u32)>,
    /// Numbers of the log whose series came back under another one.
    superseded: HashSet<u32>,
    /// Chunks of one series that have come in sequence.
    loading: Option<Loading>,
    /// Directory and core of the log that is replayed, where it is not this core's own: chunks are named by them.
    source: (PathBuf, u16),
    /// Samples applied, and samples that named no series (only salvage makes those).
    pub(crate) samples: u64,
    pub(crate) orphans: u64,
    /// Of these, by the log's number.
    orphans_of: HashMap<u32, u64>,
    /// Deletions that have begun.
    deletions: Vec<Deletion>,
    scratch: Vec<u8>,
}

/// A series of a checkpoint.
struct Loading {
    number: u32,
    closed: Vec<Sealed>,
    /// The last chunk, held back: it is the open one.
    last: Option<Last>,
}

struct Last {
    min_time: i64,
    max_time: i64,
    bytes: Vec<u8>,
}

/// The last chunk of a checkpoint, as it goes on.
enum OpenChunk {
    Floats(XorAppender),
    Histograms(HistogramAppender),
}

impl OpenChunk {
    fn count(&self) -> u16 {
        match self {
            OpenChunk::Floats(chunk) => chunk.count(),
            OpenChunk::Histograms(chunk) => chunk.count(),
        }
    }
}

/// Exemplars of a tenant and core that a replay holds: which of them are the oldest is only known at its end, and then the limit in force applies.
const EXEMPLARS_REPLAYED_MAX: usize = 1 << 20;

struct Announced {
    generation: u32,
    tenant: TenantId,
    id: SeriesId,
    packed: Box<[u8]>,
}

/// A selector of a deletion that has begun.
struct Deletion {
    tenant: TenantId,
    matchers: Vec<Matcher>,
    first: i64,
    last: i64,
    /// Our numbers of the series that match and have not been named yet.
    left: HashSet<u32>,
}

/// A record that contradicts what came before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) String);

impl<'a> Replay<'a> {
    pub(crate) fn new(memtable: &'a mut Memtable, keep: Keep, now_s: u32) -> Replay<'a> {
        Replay {
            memtable,
            keep,
            now_s,
            announced: BTreeMap::new(),
            numbers: HashMap::new(),
            superseded: HashSet::new(),
            loading: None,
            source: Default::default(),
            samples: 0,
            orphans: 0,
            orphans_of: HashMap::new(),
            deletions: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// The next log begins, of this core in this directory: its numbers mean other series.
    pub(crate) fn next_log(&mut self, dir: &Path, core: u16) -> Result<(), Malformed> {
        self.finish_loading()?;
        self.source = (dir.to_owned(), core);
        self.announced.clear();
        self.numbers.clear();
        self.superseded.clear();
        self.orphans_of.clear();
        self.deletions.clear();
        Ok(())
    }

    /// A series record.
    pub(crate) fn series(
        &mut self,
        number: u32,
        generation: u32,
        tenant: &TenantId,
        id: SeriesId,
        packed: &[u8],
    ) -> Result<(), Malformed> {
        self.finish_loading()?;
        if let Keep::Placed { core, count } = self.keep {
            let labels = Labels::from_packed(packed).map_err(|e| Malformed(e.to_string()))?;
            let hash = placement(tenant, &labels, &mut self.scratch);
            if core_of(hash, count) != core {
                self.announced.remove(&number);
                self.numbers.remove(&number);
                return Ok(());
            }
            if self
                .numbers
                .get(&number)
                .is_some_and(|(_, known)| *known == generation)
            {
                return Ok(()); // From the checkpoint.
            }
            self.numbers.remove(&number);
        } else {
            while self.memtable.rows.count() <= number {
                self.memtable.push_row();
            }
            let row = &self.memtable.rows[number];
            if row.tenant != NO_TENANT {
                if row.generation == generation {
                    return Ok(());
                }
                return Err(Malformed(format!(
                    "series {number} has generation {} and is announced as {generation}",
                    row.generation
                )));
            }
        }
        self.superseded.remove(&number);
        let (tenant, packed) = (tenant.clone(), Box::from(packed));
        self.announced.insert(
            number,
            Announced {
                generation,
                tenant,
                id,
                packed,
            },
        );
        Ok(())
    }

    /// A sealed chunk: closed, where a checkpoint of the first version holds it; else the open one.
    pub(crate) fn chunk(
        &mut self,
        number: u32,
        min_time: i64,
        max_time: i64,
        bytes: &[u8],
    ) -> Result<(), Malformed> {
        if self.announced.contains_key(&number) {
            self.expect_chunk(number, min_time, max_time)?;
            let loading = self.loading.as_mut().expect("begun above");
            loading.last = Some(Last {
                min_time,
                max_time,
                bytes: bytes.to_vec(),
            });
            return Ok(());
        }
        if self.is_foreign(number) {
            return Ok(());
        }
        // Of a series that has samples already: whatever is new in it.
        let malformed = |e: chunk::Error| Malformed(e.to_string());
        let mut times = Vec::new();
        if chunk::encoding(bytes).map_err(malformed)? == Encoding::Xor {
            let mut values = Vec::new();
            chunk::decode(bytes, &mut times, &mut values).map_err(malformed)?;
            let mut samples = times.into_iter().zip(values);
            return samples.try_for_each(|(time, value)| self.sample(number, time, value));
        }
        let mut histograms = Vec::new();
        let (min, max) = (i64::MIN, i64::MAX);
        chunk::decode_histograms(bytes, min, max, &mut times, &mut histograms)
            .map_err(malformed)?;
        let mut samples = times.into_iter().zip(&histograms);
        samples.try_for_each(|(time, histogram)| self.histogram(number, time, histogram))
    }

    /// A closed chunk in a chunk file.
    pub(crate) fn stored_chunk(&mut self, chunk: &StoredChunkRecord) -> Result<(), Malformed> {
        let (number, min, max) = (chunk.series.0, chunk.first.0, chunk.last.0);
        if chunk.count & LATE != 0 {
            return self.late_chunk(chunk);
        }
        if !self.announced.contains_key(&number) {
            if self.is_foreign(number) {
                return Ok(());
            }
            let reason = format!("series {number} has a stored chunk behind its samples");
            return Err(Malformed(reason));
        }
        self.expect_chunk(number, min, max)?;
        let sealed = self.adopt(chunk, chunk.count)?;
        let loading = self.loading.as_mut().expect("begun above");
        loading.closed.push(sealed);
        Ok(())
    }

    /// One of late samples: it comes behind the others of its series.
    fn late_chunk(&mut self, chunk: &StoredChunkRecord) -> Result<(), Malformed> {
        self.finish_loading()?;
        let number = chunk.series.0;
        let Some(series) = self.number_of(number) else {
            // A salvage may have left it without any others.
            self.note_orphans(number, u64::from(chunk.count & !LATE));
            return Ok(());
        };
        let sealed = self.adopt(chunk, chunk.count & !LATE)?;
        let count = u64::from(sealed.count());
        let tenant = self.memtable.rows[series].tenant;
        self.memtable.adopt_late(series, sealed);
        let (oldest, newest) = (sealed.min_time(), sealed.max_time());
        self.memtable.note_samples(tenant, count, oldest, newest);
        self.samples += count;
        Ok(())
    }

    /// Takes over what a record says of a chunk.
    fn adopt(&mut self, chunk: &StoredChunkRecord, count: u16) -> Result<Sealed, Malformed> {
        let file = match self.keep {
            Keep::Own => chunk.file,
            Keep::Placed { .. } => {
                let (dir, core) = &self.source;
                self.memtable.chunks.foreign(dir, *core, chunk.file)
            }
        };
        let place = Place {
            file,
            offset: chunk.offset,
            len: chunk.len,
        };
        let sealed = Sealed::new(chunk.first.0, chunk.last.0, count, place);
        let sealed = sealed.ok_or_else(|| too_long(chunk.series.0))?;
        self.memtable.chunks.adopt(place);
        Ok(sealed)
    }

    /// A late sample. Putting it where a checkpoint has put it already changes nothing.
    pub(crate) fn late(
        &mut self,
        number: u32,
        time: i64,
        value: Value<'_>,
    ) -> Result<(), Malformed> {
        if self.loading.is_some() {
            self.finish_loading()?;
        }
        if let Value::Histogram(histogram) = value
            && !chunk::is_codable(histogram)
        {
            let reason = format!("a late histogram of series {number} contradicts itself");
            return Err(Malformed(reason));
        }
        let Some(series) = self.number_of(number) else {
            self.note_orphans(number, 1);
            return Ok(());
        };
        let row = &mut self.memtable.rows[series];
        row.written_s = self.now_s;
        let tenant = row.tenant;
        self.memtable.put_late(series, time, value);
        self.memtable.note_samples(tenant, 1, time, time);
        self.samples += 1;
        Ok(())
    }

    /// Of another core, after a change of their number.
    fn is_foreign(&self, number: u32) -> bool {
        self.keep != Keep::Own && !self.numbers.contains_key(&number)
    }

    /// The next chunk of an announced series: closes the one before, where its bytes came along.
    fn expect_chunk(&mut self, number: u32, min: i64, max: i64) -> Result<(), Malformed> {
        if self.loading.as_ref().is_some_and(|l| l.number != number) {
            self.finish_loading()?;
        }
        let loading = self.loading.get_or_insert_with(|| Loading {
            number,
            closed: Vec::new(),
            last: None,
        });
        if let Some(last) = loading.last.take() {
            let malformed = |e: chunk::Error| Malformed(e.to_string());
            let count = chunk::count(&last.bytes).map_err(malformed)?;
            let place = self.memtable.chunks.put(&last.bytes);
            let sealed = Sealed::new(last.min_time, last.max_time, count, place);
            loading.closed.push(sealed.ok_or_else(|| too_long(number))?);
        }
        let before = loading.closed.last();
        let ascends = before.is_none_or(|before| before.max_time() < min);
        if !ascends || min > max {
            return Err(Malformed(format!("chunks of series {number} overlap")));
        }
        Ok(())
    }

    /// A sample.
    pub(crate) fn sample(&mut self, number: u32, time: i64, value: f64) -> Result<(), Malformed> {
        let Some(series) = self.started(number, (time, Value::Float(value)))? else {
            return Ok(());
        };
        if time <= self.memtable.last_time(series) {
            return Ok(());
        }
        if self.memtable.is_parked(series) {
            self.memtable.unpark(series, time);
        }
        let row = &mut self.memtable.rows[series];
        row.written_s = self.now_s;
        let tenant = row.tenant;
        if time >= row.cut_time || row.chunk.count() >= self.memtable.chunk_samples_max {
            self.memtable.cut(series, time);
        }
        self.memtable.rows[series].chunk.append(time, value);
        self.memtable.note_samples(tenant, 1, time, time);
        self.samples += 1;
        Ok(())
    }

    /// Where closed chunks wait to be written.
    pub(crate) fn chunks(&mut self) -> &mut ChunkFiles {
        &mut self.memtable.chunks
    }

    /// A native histogram.
    pub(crate) fn histogram(
        &mut self,
        number: u32,
        time: i64,
        histogram: &HistogramSample,
    ) -> Result<(), Malformed> {
        if !chunk::is_codable(histogram) {
            let reason = format!("a histogram of series {number} contradicts itself");
            return Err(Malformed(reason));
        }
        let first = (time, Value::Histogram(histogram));
        let Some(series) = self.started(number, first)? else {
            return Ok(());
        };
        if time <= self.memtable.last_time(series) {
            return Ok(());
        }
        self.memtable.append_histogram(series, time, histogram);
        let row = &mut self.memtable.rows[series];
        row.written_s = self.now_s;
        let tenant = row.tenant;
        self.memtable.note_samples(tenant, 1, time, time);
        self.samples += 1;
        Ok(())
    }

    /// An exemplar. Those of series that are not there are passed over: they may have left.
    pub(crate) fn exemplar(&mut self, number: u32, exemplar: &Exemplar) -> Result<(), Malformed> {
        if self.loading.is_some() {
            self.finish_loading()?;
        }
        if let Some(series) = self.number_of(number) {
            let tenant = self.memtable.rows[series].tenant;
            let held = &mut self.memtable.tenant_mut(tenant).exemplars;
            if held.judge(series, exemplar) == Judgement::Keep {
                held.put(series, exemplar.clone(), EXEMPLARS_REPLAYED_MAX);
            }
        }
        Ok(())
    }

    /// The start of a counter. Those of series that are not there are passed over: they may have left.
    pub(crate) fn start(&mut self, number: u32, start: Start) -> Result<(), Malformed> {
        if self.loading.is_some() {
            self.finish_loading()?;
        }
        if let Some(series) = self.number_of(number) {
            let tenant = self.memtable.rows[series].tenant;
            let held = &mut self.memtable.tenant_mut(tenant).starts;
            if held.is_news(series, start) {
                held.put(series, start);
            }
        }
        Ok(())
    }

    fn note_orphans(&mut self, number: u32, count: u64) {
        if self.keep == Keep::Own && !self.superseded.contains(&number) {
            self.orphans += count;
            *self.orphans_of.entry(number).or_default() += count;
        }
    }

    /// A deletion begins: notes which series it is about.
    pub(crate) fn begin_purge(&mut self, tombstone: &TombstoneRecord<'_>) -> Result<(), Malformed> {
        self.finish_loading()?;
        let compiled = tombstone.matchers.iter();
        let compiled = compiled.map(|&(op, name, value)| Matcher::new(op, name, value));
        let matchers = compiled.collect::<Result<Vec<_>, _>>();
        let mut deletion = Deletion {
            tenant: tombstone.tenant.clone(),
            matchers: matchers.map_err(|error| Malformed(error.to_string()))?,
            first: tombstone.first.0,
            last: tombstone.last.0,
            left: HashSet::new(),
        };
        let left: HashSet<u32> = match self.keep {
            Keep::Own => (0..self.memtable.rows.count())
                .filter(|&series| self.is_of(series, &deletion))
                .collect(),
            Keep::Placed { .. } => {
                let ours = self.numbers.values().map(|(series, _)| *series);
                ours.filter(|&series| self.is_of(series, &deletion))
                    .collect()
            }
        };
        deletion.left = left;
        self.deletions.push(deletion);
        Ok(())
    }

    fn is_of(&self, series: u32, deletion: &Deletion) -> bool {
        if !self.memtable.is_live(series) {
            return false;
        }
        let tenant = self.memtable.rows[series].tenant;
        if self.memtable.tenant(tenant).id != deletion.tenant {
            return false;
        }
        let labels = self.memtable.labels(series);
        let mut matchers = deletion.matchers.iter();
        matchers.all(|matcher| matcher.matches(labels.get(matcher.name()).unwrap_or("")))
    }

    /// What a series has in a range is deleted.
    pub(crate) fn purge(&mut self, number: u32, first: i64, last: i64) -> Result<(), Malformed> {
        self.finish_loading()?;
        let Some(series) = self.number_of(number) else {
            // It left with this, and the checkpoint was taken behind it.
            self.orphans -= self.orphans_of.remove(&number).unwrap_or(0);
            return Ok(());
        };
        for deletion in &mut self.deletions {
            deletion.left.remove(&series);
        }
        let purged = self.memtable.purge(series, first, last);
        if purged.map_err(Malformed)?.left {
            self.numbers.remove(&number);
        }
        Ok(())
    }

    /// The deletion that began with the last so many tombstones is complete: of the series that match the core had those alone that have been named.
    pub(crate) fn end_purge(&mut self, selectors: u64) -> Result<(), Malformed> {
        self.finish_loading()?;
        let count = usize::try_from(selectors).unwrap_or(usize::MAX);
        let from = self.deletions.len().saturating_sub(count);
        let ended = self.deletions.split_off(from);
        self.deletions.clear();
        for deletion in ended {
            for &series in &deletion.left {
                if !self.is_of(series, &deletion) {
                    continue;
                }
                let (first, last) = (deletion.first, deletion.last);
                let purged = self.memtable.purge(series, first, last);
                if purged.map_err(Malformed)?.left {
                    self.numbers.retain(|_, (ours, _)| *ours != series);
                }
            }
        }
        Ok(())
    }

    /// Our number of a live series, to which the caller adds this sample; nothing where the sample began it, or where there is none.
    fn started(
        &mut self,
        number: u32,
        (time, value): (i64, Value<'_>),
    ) -> Result<Option<u32>, Malformed> {
        if self.loading.is_some() {
            self.finish_loading()?;
        }
        if let Some(series) = self.number_of(number) {
            return Ok(Some(series));
        }
        let Some(announced) = self.announced.remove(&number) else {
            self.note_orphans(number, 1);
            return Ok(None);
        };
        let series = self.enter(number, &announced);
        let tenant = self.memtable.tenant_slot(&announced.tenant);
        let memtable = &mut *self.memtable;
        match value {
            Value::Float(value) => {
                memtable.start_series(series, tenant, announced.generation, (time, value));
            }
            Value::Histogram(histogram) => {
                let first = (time, histogram);
                memtable.start_histogram_series(series, tenant, announced.generation, first);
            }
        }
        memtable.rows[series].written_s = self.now_s;
        memtable.note_samples(tenant, 1, time, time);
        self.samples += 1;
        Ok(None)
    }

    /// The last log has ended. Numbers that hold no series may still be named by segments up to `segment`.
    pub(crate) fn finish(mut self, segment: u32) -> Result<(), Malformed> {
        self.finish_loading()?;
        for (number, announced) in &self.announced {
            if self.keep == Keep::Own {
                self.memtable.rows[*number].generation = announced.generation;
            }
        }
        let memtable = self.memtable;
        for tenant in memtable.tenants.iter_mut().flatten() {
            while tenant.index.sweep(&memtable.secret, usize::MAX).is_none() {}
            tenant.exemplars.sort();
        }
        memtable.free.clear();
        let dead = (0..memtable.rows.count()).filter(|&series| !memtable.is_live(series));
        memtable.retired = dead
            .map(|series| Retired {
                series,
                segment,
                read: 0,
            })
            .collect();
        Ok(())
    }

    /// Our number of a live series.
    fn number_of(&self, number: u32) -> Option<u32> {
        match self.keep {
            Keep::Own => self.memtable.is_live(number).then_some(number),
            Keep::Placed { .. } => self.numbers.get(&number).map(|(series, _)| *series),
        }
    }

    /// Counts and indexes a series, and gives it its number.
    fn enter(&mut self, number: u32, announced: &Announced) -> u32 {
        let series = match self.keep {
            Keep::Own => number,
            Keep::Placed { .. } => self.memtable.push_row(),
        };
        let tenant = self.memtable.tenant_slot(&announced.tenant);
        if let Some(old) = self
            .memtable
            .find_series(tenant, announced.id, &announced.packed)
        {
            self.memtable.remove_series(old);
            let of_old = self.numbers.iter().find(|(_, (series, _))| *series == old);
            let number_of_old = of_old.map_or(old, |(number, _)| *number);
            self.numbers.remove(&number_of_old);
            self.superseded.insert(number_of_old);
        }
        let limits = SeriesLimits::default();
        let Announced { id, packed, .. } = announced;
        let entered = self
            .memtable
            .enter_series(tenant, *id, packed, series, limits);
        assert!(
            entered.is_ok(),
            "without limits there is only the size of the index, which it had before"
        );
        if self.keep != Keep::Own {
            self.numbers.insert(number, (series, announced.generation));
        }
        series
    }

    /// The chunks that have come in sequence become a series.
    fn finish_loading(&mut self) -> Result<(), Malformed> {
        let Some(Loading {
            number,
            closed,
            last,
        }) = self.loading.take()
        else {
            return Ok(());
        };
        let announced = self
            .announced
            .remove(&number)
            .expect("only announced series are loaded");
        // A series without an open chunk is parked.
        let malformed = |e: chunk::Error| Malformed(e.to_string());
        let mut open = OpenChunk::Floats(XorAppender::new());
        if let Some(last) = &last {
            open = match chunk::encoding(&last.bytes).map_err(malformed)? {
                Encoding::Xor => {
                    OpenChunk::Floats(XorAppender::reopen(&last.bytes).map_err(malformed)?)
                }
                Encoding::Histogram | Encoding::FloatHistogram => OpenChunk::Histograms(
                    HistogramAppender::reopen(&last.bytes).map_err(malformed)?,
                ),
            };
            if open.count() == 0 {
                return Err(Malformed(format!(
                    "a chunk of series {number} has no samples"
                )));
            }
        }
        let series = self.enter(number, &announced);
        let memtable = &mut *self.memtable;
        let tenant = memtable.tenant_slot(&announced.tenant);
        let mut count = u64::from(open.count());
        let row = &mut memtable.rows[series];
        row.generation = announced.generation;
        row.tenant = tenant;
        row.written_s = self.now_s;
        match open {
            OpenChunk::Floats(chunk) => {
                // That of a parked series is set with its next sample, and until then does not say that histograms are open.
                row.cut_time = match chunk.is_empty() {
                    true => i64::MAX,
                    false => cut_after(chunk.first_time()),
                };
                memtable.totals.parked += u64::from(chunk.is_empty());
                row.chunk = chunk;
            }
            OpenChunk::Histograms(chunk) => {
                memtable.colds[series].native = Some(Native::new(chunk));
                memtable.mark_histograms_open(series);
            }
        }
        for chunk in &closed {
            count += u64::from(chunk.count());
            memtable.totals.sealed_chunks += 1;
            memtable.totals.sealed_bytes += u64::from(chunk.place().len);
        }
        memtable.colds[series].sealed = closed;
        let (oldest, newest) = (memtable.first_time(series), memtable.last_time(series));
        memtable.note_samples(tenant, count, oldest, newest);
        self.samples += count;
        Ok(())
    }
}

fn too_long(number: u32) -> Malformed {
    Malformed(format!(
        "a chunk of series {number} spans more than any chunk can"
    ))
}

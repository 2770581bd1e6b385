//! Samples that came behind the newest one of their series: late, or out of order.
//!
//! They have no place in the chunks of a series, which only grow at their end, and are rare; so they are kept apart, in a table of those
//! series of a tenant that have some. A series without any has no byte of it, and a sample in order does not look at it.
//!
//! 1. A late sample is admitted when its time is within the tenant's window behind the newest sample of its series (`append`), and nothing in memory has its time.
//! 2. It is logged as what it is (`docs/formats/wal.md`, kinds 12 to 14), for replay could not tell it from one that a checkpoint holds already. Then it goes
//!    into the *buffer* of its series, sorted by time; a full one is closed into chunks of the chunk file, none across a multiple of two hours.
//! 3. Reads get the late chunks, and copies of the buffer, beside the others. Each has a rank (`ChunkBytes::order`): of two samples of a time the one that
//!    was logged later counts. That happens only where the core could not look (`chunkfile::ChunkFiles::look_up`), or where the earlier one is in a block.
//! 4. A cut closes what is before its limit and moves it like any chunk; the keeper joins it with the chunks that it overlaps (`cut::write`).
//!
//! A checkpoint names the late chunks and holds the buffers; replay may put what they hold once more into a buffer, which changes nothing.
//!
//! Bounds: [`LATE_SAMPLES_MAX`] and [`LATE_HISTOGRAMS_MAX`] samples a buffer, [`LATE_CHUNKS_MAX`] chunks a series; a cut is due at [`LATE_CUT_CHUNKS`]
//! chunks of a tenant; in tight memory no series gets its first late sample. What a sender says about the reset of a late histogram was said of another neighbour, and is
//! forgotten; that of the sample behind it is when they are joined.

use std::collections::HashMap;

use chunk::{HistogramAppender, XorAppender};
use model::HistogramSample;

use super::native::{Stored, Value};
use super::read::sample_at;
use super::{Memtable, NO_TENANT, Sealed, Totals, cut_after};
use crate::chunkfile::{ChunkFiles, Place};
use crate::limits::{
    HISTOGRAM_CHUNK_BYTES, LATE_CHUNKS_MAX, LATE_CUT_CHUNKS, LATE_HISTOGRAMS_MAX, LATE_SAMPLES_MAX,
};
use crate::message::ChunkSlice;

/// Tables of a tenant: one that grows moves a part of the series only.
const SHARDS: usize = 64;

/// The late samples of one tenant.
#[derive(Debug, Default)]
pub(crate) struct Lates {
    /// By series; none before the first late sample.
    shards: Vec<HashMap<u32, Late>>,
    /// Chunks closed since the last cut.
    pub(crate) closed: usize,
}

/// The late samples of one series.
#[derive(Debug, Default)]
pub(crate) struct Late {
    /// The buffer, each half ascending in time; no time is in both.
    floats: Vec<(i64, f64)>,
    histograms: Vec<(i64, Box<HistogramSample>)>,
    /// In the order in which they were closed. They may overlap.
    sealed: Vec<Sealed>,
}

/// A closed piece of late samples.
pub(crate) struct Piece {
    pub(crate) min_time: i64,
    pub(crate) max_time: i64,
    pub(crate) count: u16,
    pub(crate) bytes: Vec<u8>,
}

impl Lates {
    /// Those of a series.
    pub(crate) fn of(&self, series: u32) -> Option<&Late> {
        self.shards.get(series as usize % SHARDS)?.get(&series)
    }

    fn of_mut(&mut self, series: u32) -> Option<&mut Late> {
        let shard = self.shards.get_mut(series as usize % SHARDS)?;
        shard.get_mut(&series)
    }

    fn entry(&mut self, series: u32) -> &mut Late {
        if self.shards.is_empty() {
            self.shards.resize_with(SHARDS, HashMap::new);
        }
        self.shards[series as usize % SHARDS]
            .entry(series)
            .or_default()
    }

    fn remove(&mut self, series: u32) -> Option<Late> {
        let shard = self.shards.get_mut(series as usize % SHARDS)?;
        let removed = shard.remove(&series);
        if removed.is_some() && self.shards.iter().all(HashMap::is_empty) {
            self.shards = Vec::new();
        }
        removed
    }

    /// Changes those of a series, which are forgotten when there are none left.
    pub(super) fn change(&mut self, series: u32, how: impl FnOnce(&mut Late)) {
        if let Some(late) = self.of_mut(series) {
            how(late);
            if late.is_empty() {
                self.remove(series);
            }
        }
    }

    /// Whether no series has any.
    pub(crate) fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// Heap bytes of the tables.
    pub(crate) fn bytes(&self) -> usize {
        let slots: usize = self.shards.iter().map(HashMap::capacity).sum();
        slots * (size_of::<(u32, Late)>() + 1)
            + self.shards.capacity() * size_of::<HashMap<u32, Late>>()
    }
}

impl Late {
    fn is_empty(&self) -> bool {
        self.floats.is_empty() && self.histograms.is_empty() && self.sealed.is_empty()
    }

    /// To be replaced.
    pub(super) fn sealed_mut(&mut self) -> &mut Vec<Sealed> {
        &mut self.sealed
    }

    /// Lets go of what the buffer has at times of which `gone` says so.
    pub(super) fn drop_buffered(&mut self, gone: &dyn Fn(i64) -> bool) {
        self.floats.retain(|float| !gone(float.0));
        self.histograms.retain(|histogram| !gone(histogram.0));
    }

    /// Its chunks.
    pub(crate) fn sealed(&self) -> &[Sealed] {
        &self.sealed
    }

    /// The floats of the buffer.
    pub(crate) fn floats(&self) -> &[(i64, f64)] {
        &self.floats
    }

    /// The histograms of the buffer.
    pub(crate) fn histograms(&self) -> &[(i64, Box<HistogramSample>)] {
        &self.histograms
    }

    /// Whether a chunk or the buffer overlaps a range of times.
    fn overlaps(&self, min: i64, max: i64) -> bool {
        let within = |first: i64, last: i64| first <= max && last >= min;
        let mut sealed = self.sealed.iter();
        let ends = |first: Option<i64>, last: Option<i64>| first.zip(last);
        let floats = ends(
            self.floats.first().map(|f| f.0),
            self.floats.last().map(|f| f.0),
        );
        let histograms = ends(
            self.histograms.first().map(|h| h.0),
            self.histograms.last().map(|h| h.0),
        );
        sealed.any(|chunk| within(chunk.min_time(), chunk.max_time()))
            || floats.is_some_and(|(first, last)| within(first, last))
            || histograms.is_some_and(|(first, last)| within(first, last))
    }

    fn first_time(&self) -> i64 {
        let sealed = self.sealed.iter().map(Sealed::min_time).min();
        let floats = self.floats.first().map(|float| float.0);
        let histograms = self.histograms.first().map(|histogram| histogram.0);
        let times = [sealed, floats, histograms];
        times.into_iter().flatten().min().unwrap_or(i64::MAX)
    }

    /// What the buffer has at a time.
    fn buffered(&self, time: i64) -> Option<Stored> {
        if let Ok(at) = self.floats.binary_search_by_key(&time, |float| float.0) {
            return Some(Stored::Float(self.floats[at].1));
        }
        let at = self.histograms.binary_search_by_key(&time, |h| h.0).ok()?;
        Some(Stored::Histogram((*self.histograms[at].1).clone()))
    }

    /// Puts a sample into the buffer, in place of what is there at its time.
    fn put(&mut self, time: i64, value: Value<'_>) {
        let float = self.floats.binary_search_by_key(&time, |float| float.0);
        let histogram = self.histograms.binary_search_by_key(&time, |h| h.0);
        match value {
            Value::Float(value) => {
                if let Ok(at) = histogram {
                    self.histograms.remove(at);
                }
                match float {
                    Ok(at) => self.floats[at].1 = value,
                    Err(at) => self.floats.insert(at, (time, value)),
                }
            }
            Value::Histogram(value) => {
                if let Ok(at) = float {
                    self.floats.remove(at);
                }
                let value = Box::new(forgetting(value));
                match histogram {
                    Ok(at) => self.histograms[at].1 = value,
                    Err(at) => self.histograms.insert(at, (time, value)),
                }
            }
        }
    }

    /// What the buffer has, as chunks.
    pub(crate) fn pieces(&self, each: &mut dyn FnMut(Piece)) {
        float_pieces(&self.floats, each);
        histogram_pieces(&self.histograms, each);
    }

    /// Heap bytes.
    fn bytes(&self) -> usize {
        let boxed =
            |(_, h): &(i64, Box<HistogramSample>)| size_of::<HistogramSample>() + h.heap_bytes();
        self.floats.capacity() * size_of::<(i64, f64)>()
            + self.histograms.capacity() * size_of::<(i64, Box<HistogramSample>)>()
            + self.histograms.iter().map(boxed).sum::<usize>()
            + self.sealed.capacity() * size_of::<Sealed>()
    }
}

/// A histogram that says nothing of its neighbour.
fn forgetting(histogram: &HistogramSample) -> HistogramSample {
    let mut histogram = histogram.clone();
    histogram.forget_counter_reset();
    histogram
}

/// Chunks of ascending samples.
pub(super) fn float_pieces(samples: &[(i64, f64)], each: &mut dyn FnMut(Piece)) {
    let mut chunk = XorAppender::new();
    let mut rest = samples.iter().peekable();
    while let Some(&(time, value)) = rest.next() {
        chunk.append(time, value);
        if rest.peek().is_none_or(|next| next.0 >= cut_after(time)) {
            each(Piece {
                min_time: chunk.first_time(),
                max_time: time,
                count: chunk.count(),
                bytes: chunk.seal(),
            });
            chunk.clear();
        }
    }
}

/// As [`float_pieces`]; a chunk has histograms of one kind.
pub(super) fn histogram_pieces(
    samples: &[(i64, Box<HistogramSample>)],
    each: &mut dyn FnMut(Piece),
) {
    let mut rest = samples.iter().peekable();
    let mut open: Option<HistogramAppender> = None;
    while let Some((time, value)) = rest.next() {
        let chunk = open.get_or_insert_with(|| HistogramAppender::for_kind_of(value));
        chunk.append(*time, value);
        let ends = rest.peek().is_none_or(|(next, value)| {
            *next >= cut_after(*time) || !chunk.has_room_for(value, HISTOGRAM_CHUNK_BYTES)
        });
        if ends {
            each(Piece {
                min_time: chunk.first_time(),
                max_time: *time,
                count: chunk.count(),
                bytes: chunk.seal(),
            });
            open = None;
        }
    }
}

impl Memtable {
    /// The late samples of a live series.
    pub(crate) fn late(&self, series: u32) -> Option<&Late> {
        let lates = &self.tenant(self.rows[series].tenant).lates;
        lates.of(series)
    }

    fn late_mut(&mut self, series: u32) -> Option<&mut Late> {
        let slot = self.rows[series].tenant;
        self.tenant_mut(slot).lates.of_mut(series)
    }

    /// The late sample of a live series at that time; see `value_at`.
    pub(super) fn late_value_at(&mut self, series: u32, time: i64) -> Option<Stored> {
        let late = self.late(series)?;
        if let Some(stored) = late.buffered(time) {
            return Some(stored);
        }
        let covers = |chunk: &&Sealed| (chunk.min_time()..=chunk.max_time()).contains(&time);
        let places: Vec<Place> = late
            .sealed
            .iter()
            .rev()
            .filter(covers)
            .map(Sealed::place)
            .collect();
        places.into_iter().find_map(|place| {
            let bytes = self.chunks.look_up(place)?;
            sample_at(&bytes.read().ok()?, time)
        })
    }

    /// Whether a live series may have one more late sample. `tight`: there is no memory for series that have none.
    pub(super) fn has_room_for_late(&mut self, series: u32, tight: bool) -> bool {
        let Some(late) = self.late(series) else {
            return !tight;
        };
        if late.sealed.len() < LATE_CHUNKS_MAX {
            return true;
        }
        // The next look finds that a cut is due.
        let slot = self.rows[series].tenant;
        let lates = &mut self.tenant_mut(slot).lates;
        lates.closed = lates.closed.max(LATE_CUT_CHUNKS);
        false
    }

    /// Adds a late sample to a live series, in place of one that the buffer has at its time. The caller accounts for it.
    pub(crate) fn put_late(&mut self, series: u32, time: i64, value: Value<'_>) {
        let slot = self.rows[series].tenant;
        let floats_max = LATE_SAMPLES_MAX.min(usize::from(self.chunk_samples_max));
        let late = self.tenant_mut(slot).lates.entry(series);
        late.put(time, value);
        if late.floats.len() >= floats_max || late.histograms.len() >= LATE_HISTOGRAMS_MAX {
            self.close_late(series, i64::MAX);
        }
    }

    /// The late samples of the tenant of a live series, and what closed chunks are kept in and counted by.
    pub(super) fn parts_of_late(
        &mut self,
        series: u32,
    ) -> (&mut Lates, &mut ChunkFiles, &mut Totals) {
        let slot = self.rows[series].tenant;
        let tenant = self.tenants[slot as usize].as_mut();
        let tenant = tenant.expect("slots in use have a tenant");
        (&mut tenant.lates, &mut self.chunks, &mut self.totals)
    }

    /// Closes what the buffer of a live series has before a time.
    pub(crate) fn close_late(&mut self, series: u32, before: i64) {
        let (lates, chunks, totals) = self.parts_of_late(series);
        let Some(late) = lates.of_mut(series) else {
            return;
        };
        let floats = late.floats.partition_point(|float| float.0 < before);
        let histograms = late.histograms.partition_point(|h| h.0 < before);
        let mut closed = Vec::new();
        let mut close = |piece: Piece| {
            let place = chunks.put(&piece.bytes);
            totals.sealed_chunks += 1;
            totals.sealed_bytes += u64::from(place.len);
            let Piece {
                min_time, max_time, ..
            } = piece;
            let sealed = Sealed::new(min_time, max_time, piece.count, place);
            closed.push(sealed.expect("a chunk is shorter than a cut"));
        };
        float_pieces(&late.floats[..floats], &mut close);
        histogram_pieces(&late.histograms[..histograms], &mut close);
        late.floats.drain(..floats);
        late.histograms.drain(..histograms);
        if late.floats.is_empty() {
            late.floats = Vec::new();
        }
        late.sealed.reserve_exact(closed.len());
        let count = closed.len();
        late.sealed.append(&mut closed);
        lates.closed += count;
    }

    /// Adds a late chunk that a checkpoint names.
    pub(super) fn adopt_late(&mut self, series: u32, sealed: Sealed) {
        let slot = self.rows[series].tenant;
        self.totals.sealed_chunks += 1;
        self.totals.sealed_bytes += u64::from(sealed.place().len);
        let lates = &mut self.tenant_mut(slot).lates;
        lates.closed += 1;
        lates.entry(series).sealed.push(sealed);
    }

    /// Lets go of the late chunks of a live series for which that is asked; returns how many.
    pub(crate) fn release_late(&mut self, series: u32, goes: impl Fn(&Sealed) -> bool) -> usize {
        let (lates, chunks, totals) = self.parts_of_late(series);
        let Some(late) = lates.of_mut(series) else {
            return 0;
        };
        let before = late.sealed.len();
        late.sealed.retain(|chunk| {
            let goes = goes(chunk);
            if goes {
                chunks.release(chunk.place());
                totals.sealed_chunks -= 1;
                totals.sealed_bytes -= u64::from(chunk.place().len);
            }
            !goes
        });
        late.sealed.shrink_to_fit();
        let gone = before - late.sealed.len();
        if late.is_empty() {
            lates.remove(series);
        }
        gone
    }

    /// Lets go of late samples of a live series before a time.
    pub(super) fn collect_late(&mut self, series: u32, horizon: i64) {
        if self.late(series).is_none() {
            return;
        }
        if let Some(late) = self.late_mut(series) {
            late.floats.retain(|float| float.0 >= horizon);
            late.histograms.retain(|h| h.0 >= horizon);
        }
        self.release_late(series, |chunk| chunk.max_time() < horizon);
    }

    /// All late samples of a series that leaves.
    pub(super) fn forget_late(&mut self, series: u32, slot: u32) {
        let tenant = self.tenants[slot as usize].as_mut();
        let lates = &mut tenant.expect("a live row has a tenant").lates;
        let Some(late) = lates.remove(series) else {
            return;
        };
        for chunk in &late.sealed {
            self.totals.sealed_chunks -= 1;
            self.totals.sealed_bytes -= u64::from(chunk.place().len);
            self.chunks.release(chunk.place());
        }
    }

    /// Calls `each` with every late chunk of a series, live or not.
    pub(super) fn for_each_late(&mut self, series: u32, mut each: impl FnMut(&mut Sealed)) {
        if self.rows[series].tenant != NO_TENANT
            && let Some(late) = self.late_mut(series)
        {
            late.sealed.iter_mut().for_each(&mut each);
        }
    }

    /// Time of the oldest late sample of a live series; `i64::MAX` without any.
    pub(super) fn late_first_time(&self, series: u32) -> i64 {
        self.late(series).map_or(i64::MAX, Late::first_time)
    }

    /// As `Memtable::overlaps`, of late samples.
    pub(super) fn late_overlaps(&self, series: u32, min: i64, max: i64) -> bool {
        self.late(series)
            .is_some_and(|late| late.overlaps(min, max))
    }

    /// Adds what a live series has of late samples that overlaps a range of times, and puts all in the order of their first times.
    pub(super) fn add_late_slices(
        &self,
        series: u32,
        (min, max): (i64, i64),
        slices: &mut Vec<ChunkSlice>,
    ) {
        let Some(late) = self.late(series) else {
            return;
        };
        let before = slices.len();
        let wanted = |first: i64, last: i64| first <= max && last >= min;
        for (rank, chunk) in (1..).zip(&late.sealed) {
            if wanted(chunk.min_time(), chunk.max_time()) {
                let mut slice = self.slice_of(chunk, max);
                slice.bytes = slice.bytes.late(rank);
                slices.push(slice);
            }
        }
        late.pieces(&mut |piece| {
            if wanted(piece.min_time, piece.max_time) {
                slices.push(piece.slice(max));
            }
        });
        if slices.len() > before {
            slices.sort_by_key(|slice| slice.min_time);
        }
    }

    /// Late bytes on the heap of a live series, the table apart.
    pub(super) fn late_bytes(&self, series: u32) -> usize {
        self.late(series).map_or(0, Late::bytes)
    }

    /// The core is poisoned, and this late sample never became durable: it is taken out again. What it was closed with goes back into the buffer.
    pub(crate) fn take_back_late(&mut self, series: u32, time: i64) {
        if !self.is_live(series) {
            return;
        }
        let Some(late) = self.late_mut(series) else {
            return;
        };
        let (floats, histograms) = (late.floats.len(), late.histograms.len());
        late.floats.retain(|float| float.0 != time);
        late.histograms.retain(|h| h.0 != time);
        if late.floats.len() + late.histograms.len() < floats + histograms {
            return;
        }
        let covers = |chunk: &Sealed| (chunk.min_time()..=chunk.max_time()).contains(&time);
        // The last one that has it: of an earlier one it would be another sample.
        let mut at = late.sealed.len();
        while let Some(before) = at.checked_sub(1) {
            at = before;
            let chunk = self.late(series).expect("looked at above").sealed[at];
            if !covers(&chunk) {
                continue;
            }
            // What cannot be read cannot be shown either.
            let read = self.chunks.read(chunk.place());
            let Ok(sealed) = read.read() else { return };
            if sample_at(&sealed, time).is_none() {
                continue;
            }
            let samples = samples_of(&sealed);
            let late = self.late_mut(series).expect("looked at above");
            late.sealed.remove(at);
            for (other, stored) in samples {
                let known = late.buffered(other).is_some();
                if other != time && !known {
                    late.put(other, stored.value());
                }
            }
            return;
        }
    }
}

impl Piece {
    /// As an answer has it: logged later than every late chunk.
    pub(crate) fn slice(self, max: i64) -> ChunkSlice {
        ChunkSlice {
            min_time: self.min_time,
            max_time: self.max_time.min(max),
            bytes: crate::ChunkBytes::from(self.bytes).late(u32::MAX),
        }
    }
}

/// The samples of a chunk; none where it is damaged.
pub(super) fn samples_of(sealed: &[u8]) -> Vec<(i64, Stored)> {
    let mut times = Vec::new();
    if !chunk::holds_histograms(sealed) {
        let mut values = Vec::new();
        let decoded = chunk::decode(sealed, &mut times, &mut values);
        let values = values.into_iter().map(Stored::Float);
        return decoded.map_or(Vec::new(), |()| times.into_iter().zip(values).collect());
    }
    let mut histograms = Vec::new();
    let (min, max) = (i64::MIN, i64::MAX);
    let decoded = chunk::decode_histograms(sealed, min, max, &mut times, &mut histograms);
    let values = histograms.into_iter().map(Stored::Histogram);
    decoded.map_or(Vec::new(), |()| times.into_iter().zip(values).collect())
}

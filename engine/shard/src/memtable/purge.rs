//! Samples of a series are deleted (`purge`): the series is as if they had never come.
//!
//! Chunks that lie in the range whole are let go. Of those that it meets in part (at most the two at its ends, but for late ones) the rest is closed anew, in the
//! chunk file; an open one is built anew. A series of which nothing is left leaves at once, its exemplars with it, so that whoever writes it next makes a new one; where only
//! late samples are left, or some that are newer than all in order, these become its samples in order: a live row has at least one of those, and none late is newer.
//!
//! Everything is read before anything is changed. The log does the same at the same place (`replay`), so a sample that comes later stays, whatever its time.
//! Of native histograms what a sender says of the one before is forgotten where that one is gone from the same chunk.

use std::collections::BTreeMap;

use chunk::{HistogramAppender, XorAppender};

use super::late::{Late, Piece, float_pieces, histogram_pieces, samples_of};
use super::native::Stored;
use super::{Memtable, NO_SEGMENT, Sealed, Totals, first_cut_after};
use crate::chunkfile::ChunkFiles;

/// What a deletion did to a series.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Purged {
    /// Something of it is gone.
    pub(crate) changed: bool,
    /// All of it is.
    pub(crate) left: bool,
    /// Chunks that had to be read.
    pub(crate) reads: usize,
}

/// What becomes of a chunk.
enum Fate {
    Stays,
    Goes,
    /// What is left of it.
    Partly(Vec<(i64, Stored)>),
}

/// What is taken out: a range of times, both ends included, and all behind a time.
#[derive(Debug, Clone, Copy)]
struct Taken {
    min: i64,
    max: i64,
    behind: i64,
}

impl Taken {
    fn has(self, time: i64) -> bool {
        (self.min..=self.max).contains(&time) || time > self.behind
    }

    fn covers(self, min: i64, max: i64) -> bool {
        (self.min <= min && max <= self.max) || min > self.behind
    }

    fn meets(self, min: i64, max: i64) -> bool {
        (min <= self.max && max >= self.min) || max > self.behind
    }

    /// The samples of a chunk that stay; `None` where all do.
    fn rest(self, samples: Vec<(i64, Stored)>) -> Option<Vec<(i64, Stored)>> {
        let count = samples.len();
        let mut gap = false;
        let mut rest = Vec::with_capacity(count);
        for (time, mut stored) in samples {
            if self.has(time) {
                gap = true;
                continue;
            }
            if let (true, Stored::Histogram(histogram)) = (gap, &mut stored) {
                histogram.forget_counter_reset();
            }
            gap = false;
            rest.push((time, stored));
        }
        (rest.len() < count).then_some(rest)
    }
}

/// Decides about a closed chunk. One that is damaged, or whose file is, stays: nobody can see what is in it.
///
/// Errors: it cannot be read now.
fn fate(
    chunks: &ChunkFiles,
    chunk: &Sealed,
    taken: Taken,
    reads: &mut usize,
) -> Result<Fate, String> {
    let (min, max) = (chunk.min_time(), chunk.max_time());
    if !taken.meets(min, max) {
        return Ok(Fate::Stays);
    }
    if taken.covers(min, max) {
        return Ok(Fate::Goes);
    }
    *reads += 1;
    let Some(bytes) = chunks.try_read(chunk.place()) else {
        return Ok(Fate::Stays);
    };
    let sealed = bytes.read().map_err(|error| error.to_string())?;
    Ok(match taken.rest(samples_of(&sealed)) {
        Some(rest) => Fate::Partly(rest),
        None => Fate::Stays,
    })
}

/// Calls `each` with chunks of ascending samples, which are of one kind.
fn pieces(samples: Vec<(i64, Stored)>, each: &mut dyn FnMut(Piece)) {
    let (mut floats, mut histograms) = (Vec::new(), Vec::new());
    for (time, stored) in samples {
        match stored {
            Stored::Float(value) => floats.push((time, value)),
            Stored::Histogram(histogram) => histograms.push((time, Box::new(histogram))),
        }
    }
    float_pieces(&floats, each);
    histogram_pieces(&histograms, each);
}

/// Puts the fates of chunks into force.
fn settle(list: &mut Vec<Sealed>, fates: Vec<Fate>, chunks: &mut ChunkFiles, totals: &mut Totals) {
    assert_eq!(list.len(), fates.len(), "each chunk has a fate");
    let mut left = Vec::with_capacity(list.len());
    for (chunk, fate) in list.drain(..).zip(fates) {
        if matches!(fate, Fate::Stays) {
            left.push(chunk);
            continue;
        }
        totals.sealed_chunks -= 1;
        totals.sealed_bytes -= u64::from(chunk.place().len);
        chunks.release(chunk.place());
        if let Fate::Partly(rest) = fate {
            pieces(rest, &mut |piece| {
                let place = chunks.put(&piece.bytes);
                totals.sealed_chunks += 1;
                totals.sealed_bytes += u64::from(place.len);
                let sealed = Sealed::new(piece.min_time, piece.max_time, piece.count, place);
                let mut sealed = sealed.expect("a part of a chunk is shorter than it");
                if chunk.is_in_block() {
                    sealed.mark_in_block();
                }
                left.push(sealed);
            });
        }
    }
    *list = left;
}

impl Memtable {
    /// Takes what a live series has in `min..=max`, both included, out of memory.
    ///
    /// Errors: a chunk cannot be read; nothing has changed then. Cost: a read and a new chunk for each chunk that the range meets in part.
    pub(crate) fn purge(&mut self, series: u32, min: i64, max: i64) -> Result<Purged, String> {
        let mut purged = Purged::default();
        if !self.holds(series, min, max) {
            purged.changed = self.purge_beside(series, min, max);
            return Ok(purged);
        }
        let mut taken = Taken {
            min,
            max,
            behind: i64::MAX,
        };
        let mut fates_of = |list: &[Sealed], taken| -> Result<Vec<Fate>, String> {
            let fates = list.iter();
            let fates = fates.map(|chunk| fate(&self.chunks, chunk, taken, &mut purged.reads));
            fates.collect()
        };
        let sealed = &self.colds[series].sealed;
        let fates = fates_of(sealed, taken)?;
        let open = self.open(series);
        let was_parked = open.is_empty();
        let rest = match !was_parked && taken.meets(open.first_time(), open.last_time()) {
            true => taken.rest(samples_of(&open.seal())),
            false => None,
        };
        // The newest sample in order that stays. Late ones are not behind it.
        let of_open = match &rest {
            Some(rest) => rest.last().map(|(time, _)| *time),
            None => (!was_parked).then(|| open.last_time()),
        };
        let of_closed = || {
            let chunks = sealed.iter().zip(&fates).rev();
            let mut last = chunks.map(|(chunk, fate)| match fate {
                Fate::Stays => Some(chunk.max_time()),
                Fate::Goes => None,
                Fate::Partly(rest) => rest.last().map(|(time, _)| *time),
            });
            last.find_map(|last| last)
        };
        let last = of_open.or_else(of_closed);
        taken.behind = last.unwrap_or(i64::MIN);
        let late_fates = fates_of(self.late(series).map_or(&[][..], Late::sealed), taken)?;
        let promoted = self.late_behind(series, taken, &mut purged.reads)?;

        // From here on nothing fails.
        self.purge_beside(series, min, max);
        purged.changed = true;
        let (chunks, totals) = (&mut self.chunks, &mut self.totals);
        settle(&mut self.colds[series].sealed, fates, chunks, totals);
        self.purge_late(series, late_fates, taken);
        if let Some(rest) = rest {
            self.rebuild_open(series, rest);
        }
        // Whatever comes next has nothing to build on.
        self.rows[series].segment = NO_SEGMENT;
        if last.is_none() && promoted.is_empty() {
            self.remove_series(series);
            purged.left = true;
        }
        for (time, stored) in promoted {
            self.append_stored(series, time, &stored);
        }
        Ok(purged)
    }

    /// What lies beside the samples of a series; says whether something is gone.
    fn purge_beside(&mut self, series: u32, min: i64, max: i64) -> bool {
        let slot = self.rows[series].tenant;
        let tenant = self.tenant_mut(slot);
        let exemplars = tenant.exemplars.purge(series, min, max);
        tenant.starts.purge(series, min, max) | exemplars
    }

    /// The late samples of a series that stay and are behind all in order that do, the one that counts of each time.
    ///
    /// Errors: a chunk cannot be read, or is damaged.
    fn late_behind(
        &self,
        series: u32,
        taken: Taken,
        reads: &mut usize,
    ) -> Result<BTreeMap<i64, Stored>, String> {
        let mut found = BTreeMap::new();
        let Some(late) = self.late(series) else {
            return Ok(found);
        };
        for chunk in late.sealed() {
            let deleted = taken.min <= chunk.min_time() && chunk.max_time() <= taken.max;
            if chunk.max_time() <= taken.behind || deleted {
                continue;
            }
            *reads += 1;
            let bytes = self.chunks.try_read(chunk.place());
            let bytes = bytes.ok_or("a chunk of late samples is missing")?;
            let sealed = bytes.read().map_err(|error| error.to_string())?;
            let samples = samples_of(&sealed);
            if samples.is_empty() {
                return Err(bytes.damaged("it is damaged".to_owned()).to_string());
            }
            found.extend(samples);
        }
        let floats = late.floats().iter();
        found.extend(floats.map(|&(time, value)| (time, Stored::Float(value))));
        let histograms = late.histograms().iter();
        found.extend(histograms.map(|(time, h)| (*time, Stored::Histogram((**h).clone()))));
        found.retain(|time, _| *time > taken.behind && !(taken.min..=taken.max).contains(time));
        Ok(found)
    }

    fn purge_late(&mut self, series: u32, fates: Vec<Fate>, taken: Taken) {
        let (lates, chunks, totals) = self.parts_of_late(series);
        lates.change(series, |late| {
            late.drop_buffered(&|time| taken.has(time));
            settle(late.sealed_mut(), fates, chunks, totals);
        });
    }

    /// The open chunk of a series has only these samples left; without any the series is parked, and the caller sees to it that it has others.
    fn rebuild_open(&mut self, series: u32, rest: Vec<(i64, Stored)>) {
        let of_histograms = self.holds_histograms(series);
        if rest.is_empty() {
            self.colds[series].native = None;
            let row = &mut self.rows[series];
            row.chunk = XorAppender::default();
            row.cut_time = i64::MAX;
            self.totals.parked += 1;
            return;
        }
        if of_histograms {
            let native = self.colds[series].native.as_mut();
            let native = native.expect("the cut time says that there is one");
            let mut chunk: Option<HistogramAppender> = None;
            for (time, stored) in &rest {
                if let Stored::Histogram(histogram) = stored {
                    chunk
                        .get_or_insert_with(|| HistogramAppender::for_kind_of(histogram))
                        .append(*time, histogram);
                }
            }
            native.chunk = chunk.expect("a chunk of histograms has histograms");
            return;
        }
        let mut chunk = XorAppender::new();
        for (time, stored) in &rest {
            if let Stored::Float(value) = stored {
                chunk.append(*time, *value);
            }
        }
        self.rows[series].chunk = chunk;
    }

    /// Appends a sample behind all others of a row; one that has none is parked.
    fn append_stored(&mut self, series: u32, time: i64, stored: &Stored) {
        let value = match stored {
            Stored::Histogram(histogram) => {
                return self.append_histogram(series, time, histogram);
            }
            Stored::Float(value) => *value,
        };
        let row = &self.rows[series];
        if row.chunk.is_empty() {
            self.totals.parked -= 1;
            self.rows[series].cut_time = first_cut_after(series, time);
        } else if time >= row.cut_time || row.chunk.count() >= self.chunk_samples_max {
            self.cut(series, time);
        }
        self.rows[series].chunk.append(time, value);
    }
}

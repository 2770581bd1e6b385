//! What readers take out of the memtable: where closed chunks lie, and copies of open ones.

use chunk::{Encoding, HistogramAppender, XorAppender};

use super::native::{Open, Stored};
use super::{Memtable, Sealed};
use crate::message::{ChunkSlice, ReadError};

impl Memtable {
    /// Whether a live series has a chunk that overlaps a range of times, both ends included.
    pub(crate) fn overlaps(&self, series: u32, min: i64, max: i64) -> bool {
        let open = self.open(series);
        let parked = open.is_empty();
        (!parked && open.first_time() <= max && open.last_time() >= min)
            || ((parked || min < open.first_time())
                && self.colds[series]
                    .sealed
                    .iter()
                    .any(|c| c.min_time() <= max && c.max_time() >= min))
    }

    /// The chunks of a live series that overlap a range of times, ascending.
    ///
    /// Cost: a reference count each, and a copy and a hash of the open one's bytes. Closed chunks that still wait for the disk are copied.
    pub(crate) fn slices(&self, series: u32, min: i64, max: i64) -> Vec<ChunkSlice> {
        let sealed = &self.colds[series].sealed;
        let open = self.open(series);
        let with_open = !open.is_empty() && open.first_time() <= max && open.last_time() >= min;
        let from = sealed.partition_point(|c| c.max_time() < min);
        let until = from + sealed[from..].partition_point(|c| c.min_time() <= max);
        let mut slices = Vec::with_capacity(until - from + usize::from(with_open));
        slices.extend(sealed[from..until].iter().map(|chunk| self.slice_of(chunk)));
        if with_open {
            slices.push(slice_of_open(open));
        }
        slices
    }

    /// As [`Memtable::slices`], for a reader to whom only the newest sample in the range matters: that one alone where it is the last one
    /// of the series, which is the usual case and needs no copy of a chunk.
    pub(crate) fn newest_slices(&self, series: u32, min: i64, max: i64) -> Vec<ChunkSlice> {
        let open = self.open(series);
        let last = self.last_time(series);
        if open.is_empty() || last > max || last < min {
            return self.slices(series, min, max);
        }
        vec![match open {
            Open::Floats(chunk) => {
                let mut alone = XorAppender::new();
                alone.append(last, chunk.last_value());
                slice_of_open(Open::Floats(&alone))
            }
            Open::Histograms(chunk) => {
                let newest = chunk.last();
                let mut alone = HistogramAppender::for_kind_of(&newest);
                alone.append(last, &newest);
                slice_of_open(Open::Histograms(&alone))
            }
        }]
    }

    /// As [`Memtable::slices`], but without samples at `until` and later: for reads of a poisoned core, which must not show
    /// what never became durable. Cost: decodes the chunk that crosses `until`.
    pub(crate) fn slices_before(
        &self,
        series: u32,
        min: i64,
        max: i64,
        until: i64,
    ) -> Result<Vec<ChunkSlice>, ReadError> {
        let mut slices = self.slices(series, min, max.min(until.saturating_sub(1)));
        if until > i64::MIN
            && let Some(last) = slices.last_mut()
            && last.max_time >= until
        {
            let sealed = last.bytes.read()?;
            *last = before(&sealed, until).map_err(|e| last.bytes.damaged(e.to_string()))?;
        }
        Ok(slices)
    }

    pub(crate) fn slice_of(&self, chunk: &Sealed) -> ChunkSlice {
        ChunkSlice {
            min_time: chunk.min_time(),
            max_time: chunk.max_time(),
            bytes: self.chunks.read(chunk.place()),
        }
    }

    /// The sample of a live series at exactly that time. Cost: decodes a chunk; one that is closed is read from its file, within the budget of the turn.
    pub(super) fn value_at(&mut self, series: u32, time: i64) -> Option<Stored> {
        let open = self.open(series);
        if open.is_empty() || time < open.first_time() {
            let sealed = &self.colds[series].sealed;
            let at = sealed.partition_point(|chunk| chunk.max_time() < time);
            let chunk = *sealed.get(at).filter(|chunk| chunk.min_time() <= time)?;
            let bytes = self.chunks.look_up(chunk.place())?;
            // What is damaged is found by the queries that need it.
            return sample_at(&bytes.read().ok()?, time);
        }
        if time == open.last_time() {
            return Some(match open {
                Open::Floats(chunk) => Stored::Float(chunk.last_value()),
                Open::Histograms(chunk) => Stored::Histogram(chunk.last()),
            });
        }
        sample_at(&open.seal(), time)
    }
}

/// The sample of a chunk at exactly that time; `None` also where the chunk is damaged.
fn sample_at(sealed: &[u8], time: i64) -> Option<Stored> {
    let mut times = Vec::new();
    match chunk::encoding(sealed).ok()? {
        Encoding::Xor => {
            let mut values = Vec::new();
            chunk::decode_range(sealed, time, time, &mut times, &mut values).ok()?;
            values.pop().map(Stored::Float)
        }
        Encoding::Histogram | Encoding::FloatHistogram => {
            let mut histograms = Vec::new();
            chunk::decode_histograms(sealed, time, time, &mut times, &mut histograms).ok()?;
            histograms.pop().map(Stored::Histogram)
        }
    }
}

/// The part of a chunk before `until`, which must not be empty.
fn before(sealed: &[u8], until: i64) -> Result<ChunkSlice, chunk::Error> {
    let mut times = Vec::new();
    let max = until.saturating_sub(1);
    let slice = match chunk::encoding(sealed)? {
        Encoding::Xor => {
            let (mut values, mut kept) = (Vec::new(), XorAppender::new());
            chunk::decode_range(sealed, i64::MIN, max, &mut times, &mut values)?;
            for (time, value) in times.iter().zip(values) {
                kept.append(*time, value);
            }
            slice_of_open(Open::Floats(&kept))
        }
        Encoding::Histogram | Encoding::FloatHistogram => {
            let mut histograms = Vec::new();
            chunk::decode_histograms(sealed, i64::MIN, max, &mut times, &mut histograms)?;
            let first = histograms.first();
            let first = first.ok_or(chunk::Error::Malformed("nothing in its range"))?;
            let mut kept = HistogramAppender::for_kind_of(first);
            for (time, histogram) in times.iter().zip(&histograms) {
                kept.append(*time, histogram);
            }
            slice_of_open(Open::Histograms(&kept))
        }
    };
    Ok(slice)
}

fn slice_of_open(open: Open<'_>) -> ChunkSlice {
    ChunkSlice {
        min_time: open.first_time(),
        max_time: open.last_time(),
        bytes: open.seal().into(),
    }
}

//! What readers take out of the memtable: where closed chunks lie, and copies of open ones.

use chunk::XorAppender;

use super::{Memtable, Sealed};
use crate::message::{ChunkSlice, ReadError};

impl Memtable {
    /// Whether a live series has a chunk that overlaps a range of times, both ends included.
    pub(crate) fn overlaps(&self, series: u32, min: i64, max: i64) -> bool {
        let open = &self.rows[series].chunk;
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
        let open = &self.rows[series].chunk;
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
        let open = &self.rows[series].chunk;
        let last = self.last_time(series);
        if last > max || last < min || open.is_empty() {
            return self.slices(series, min, max);
        }
        let mut alone = XorAppender::new();
        alone.append(last, open.last_value());
        vec![slice_of_open(&alone)]
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
            let (mut times, mut values) = (Vec::new(), Vec::new());
            let sealed = last.bytes.read()?;
            chunk::decode(&sealed, &mut times, &mut values)
                .map_err(|error| last.bytes.damaged(error.to_string()))?;
            let mut kept = XorAppender::new();
            for (&time, &value) in times.iter().zip(&values).filter(|(time, _)| **time < until) {
                kept.append(time, value);
            }
            *last = slice_of_open(&kept);
        }
        Ok(slices)
    }

    fn slice_of(&self, chunk: &Sealed) -> ChunkSlice {
        ChunkSlice {
            min_time: chunk.min_time(),
            max_time: chunk.max_time(),
            bytes: self.chunks.read(chunk.place()),
        }
    }

    /// The value of a live series at exactly that time. Cost: decodes a chunk; one that is closed is read from its file, within the budget of the turn.
    pub(super) fn value_at(&mut self, series: u32, time: i64) -> Option<f64> {
        let open = &self.rows[series].chunk;
        let (mut times, mut values) = (Vec::new(), Vec::new());
        if !open.is_empty() && time >= open.first_time() {
            if time == open.last_time() {
                return Some(open.last_value());
            }
            let copy = open.seal();
            chunk::decode(&copy, &mut times, &mut values).expect("sealed just now");
        } else {
            let sealed = &self.colds[series].sealed;
            let at = sealed.partition_point(|chunk| chunk.max_time() < time);
            let chunk = *sealed.get(at).filter(|chunk| chunk.min_time() <= time)?;
            let bytes = self.chunks.look_up(chunk.place())?;
            // What is damaged is found by the queries that need it.
            chunk::decode(&bytes.read().ok()?, &mut times, &mut values).ok()?;
        }
        let at = times.binary_search(&time).ok()?;
        Some(values[at])
    }
}

fn slice_of_open(open: &XorAppender) -> ChunkSlice {
    ChunkSlice {
        min_time: open.first_time(),
        max_time: open.last_time(),
        bytes: open.seal().into(),
    }
}

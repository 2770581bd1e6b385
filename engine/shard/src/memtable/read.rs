//! What readers take out of the memtable: where closed chunks lie, and copies of open ones.

use chunk::{Encoding, HistogramAppender, XorAppender};

use super::native::{Open, Stored};
use super::{Memtable, Sealed};
use crate::message::ChunkSlice;
use crate::seen::Newest;

impl Memtable {
    /// Whether readers find something of a live series here in a range of times, both ends included: a chunk that overlaps it, and not one that has been
    /// moved into a block, which speaks for it.
    pub(crate) fn overlaps(&self, series: u32, min: i64, max: i64) -> bool {
        self.has_chunk(series, (min, max), |chunk| !chunk.is_in_block())
    }

    /// The same, chunks that are in blocks too.
    pub(crate) fn holds(&self, series: u32, min: i64, max: i64) -> bool {
        self.has_chunk(series, (min, max), |_| true)
    }

    fn has_chunk(
        &self,
        series: u32,
        (min, max): (i64, i64),
        counts: impl Fn(&Sealed) -> bool,
    ) -> bool {
        let open = self.open(series);
        let parked = open.is_empty();
        (!parked && open.first_time() <= max && open.last_time() >= min)
            || ((parked || min < open.first_time())
                && self.colds[series]
                    .sealed
                    .iter()
                    .any(|c| c.min_time() <= max && c.max_time() >= min && counts(c)))
            || self.late_overlaps(series, min, max)
    }

    /// The chunks of a live series that overlap a range of times, in the order of their first times; of the last one what lies in the range. Those
    /// with late samples may overlap others. One that has been moved is left to its block: what has been deleted from that must not be seen here, and what came
    /// late and lies in another block counts.
    ///
    /// Cost: a reference count each, and a copy and a hash of the open one's bytes. Closed chunks that still wait for the disk are copied.
    pub(crate) fn slices(&self, series: u32, min: i64, max: i64) -> Vec<ChunkSlice> {
        let sealed = &self.colds[series].sealed;
        let open = self.open(series);
        let with_open = !open.is_empty() && open.first_time() <= max && open.last_time() >= min;
        let from = sealed.partition_point(|c| c.max_time() < min);
        let until = from + sealed[from..].partition_point(|c| c.min_time() <= max);
        let mut slices = Vec::with_capacity(until - from + usize::from(with_open));
        let closed = sealed[from..until].iter().filter(|c| !c.is_in_block());
        slices.extend(closed.map(|chunk| self.slice_of(chunk, max)));
        if with_open {
            slices.push(slice_of_open(open, max));
        }
        self.add_late_slices(series, (min, max), &mut slices);
        slices
    }

    /// As [`Memtable::slices`], for a reader to whom only the newest sample in the range matters: that one alone where it is the last one
    /// of the series, or the last that the reader may see (`seen`), which is the usual case and needs no copy of a chunk.
    pub(crate) fn newest_slices(
        &self,
        series: u32,
        min: i64,
        max: i64,
        seen: Option<Newest>,
    ) -> Vec<ChunkSlice> {
        if let Some(Newest {
            time,
            value: Some(value),
        }) = seen
        {
            return match (min..=max).contains(&time) {
                true => vec![float_alone(time, value)],
                false => self.slices(series, min, max),
            };
        }
        let open = self.open(series);
        let last = self.last_time(series);
        if open.is_empty() || last > max || last < min {
            return self.slices(series, min, max);
        }
        vec![match open {
            Open::Floats(chunk) => float_alone(last, chunk.last_value()),
            Open::Histograms(chunk) => {
                let newest = chunk.last();
                let mut alone = HistogramAppender::for_kind_of(&newest);
                alone.append(last, &newest);
                slice_of_open(Open::Histograms(&alone), max)
            }
        }]
    }

    /// The newest sample of a live series.
    pub(crate) fn newest(&self, series: u32) -> Newest {
        let open = self.open(series);
        Newest {
            time: self.last_time(series),
            value: match open {
                Open::Floats(chunk) if !open.is_empty() => Some(chunk.last_value()),
                Open::Floats(_) | Open::Histograms(_) => None,
            },
        }
    }

    /// Whether a series is live and has a sample before `until`.
    pub(crate) fn starts_before(&self, series: u32, until: i64) -> bool {
        self.is_live(series) && self.first_time(series) < until
    }

    pub(crate) fn slice_of(&self, chunk: &Sealed, max: i64) -> ChunkSlice {
        ChunkSlice {
            min_time: chunk.min_time(),
            max_time: chunk.max_time().min(max),
            bytes: self.chunks.read(chunk.place()),
        }
    }

    /// The sample of a live series at exactly that time; of two the one that counts. Not one that has been moved: it may have been deleted where it is. Cost: decodes a chunk; one that is closed is read from its file, within the budget of the turn.
    pub(super) fn value_at(&mut self, series: u32, time: i64) -> Option<Stored> {
        if let Some(late) = self.late_value_at(series, time) {
            return Some(late);
        }
        let open = self.open(series);
        if open.is_empty() || time < open.first_time() {
            let sealed = &self.colds[series].sealed;
            let at = sealed.partition_point(|chunk| chunk.max_time() < time);
            let chunk = *sealed.get(at).filter(|chunk| chunk.min_time() <= time)?;
            if chunk.is_in_block() {
                return None;
            }
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
pub(super) fn sample_at(sealed: &[u8], time: i64) -> Option<Stored> {
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

fn float_alone(time: i64, value: f64) -> ChunkSlice {
    let mut alone = XorAppender::new();
    alone.append(time, value);
    slice_of_open(Open::Floats(&alone), time)
}

fn slice_of_open(open: Open<'_>, max: i64) -> ChunkSlice {
    ChunkSlice {
        min_time: open.first_time(),
        max_time: open.last_time().min(max),
        bytes: open.seal().into(),
    }
}

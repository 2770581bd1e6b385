//! The samples of one series from all inputs of a merge, on their way into one order.
//!
//! Floats are columns. Sealed chunks (histograms) pass as they are where nothing of another input lies between their ends and nothing of them is
//! gone: that is the rule, since a series has one core. Where a chunk was copied before it was complete (a flush), where samples came late, or where
//! a deletion has taken a part, the chunks of the series are opened, put into order sample by sample, and sealed anew.
//!
//! What a sender says of counter resets is said against the sample before. It is kept where that one is still before, and *unknown* else, as
//! a query has it that meets both.

use std::ops::Range;

use chunk::{Encoding, HistogramAppender};
use model::{CounterReset, HistogramSample};

use crate::builder::Builder;
use crate::error::{Error, Malformed};
use crate::pack::SealedRun;
use crate::tombstone::Gone;

/// Samples and bytes of a chunk that is sealed anew: some hours of a scrape, decoded in less than a millisecond.
const CHUNK_SAMPLES_MAX: u16 = 240;
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// See the module. The *rank* of an input is its place in the order of logging among those that have the series.
#[derive(Debug, Default)]
pub(super) struct Collected {
    times: Vec<i64>,
    values: Vec<f64>,
    /// Floats of each input, by rank: ascending times.
    runs: Vec<Range<usize>>,
    sealed: Vec<Kept>,
    /// What is gone of each input, by rank.
    gone: Vec<Gone>,
    /// Where the floats of the input that is being read begin.
    from: usize,
}

/// A sealed chunk of an input.
#[derive(Debug)]
struct Kept {
    rank: usize,
    /// Where its page is.
    at: u64,
    min_time: i64,
    max_time: i64,
    count: u64,
    bytes: Vec<u8>,
    /// A part of its times is gone.
    partly: bool,
}

/// How many samples were replaced by later ones and taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Settled {
    pub(super) replaced: u64,
    pub(super) dropped: u64,
}

/// A chunk that cannot be opened: rank of its input, offset of its page, what is wrong.
pub(super) type Unsound = (usize, u64, Malformed);

#[derive(Debug, Clone)]
enum Value {
    Float(f64),
    Histogram(HistogramSample),
}

/// Of which chunk a sample comes, its place in it, and whether it is the last one there.
type Origin = (usize, u32, bool);

/// A sample of an opened series.
#[derive(Debug, Clone)]
struct Sample {
    time: i64,
    rank: usize,
    /// Floats have none.
    chunk: Option<Origin>,
    value: Value,
}

impl Collected {
    pub(super) fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
        self.runs.clear();
        self.sealed.clear();
        self.gone.clear();
        self.from = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.times.is_empty() && self.sealed.is_empty()
    }

    /// The next input has the series.
    pub(super) fn begin(&mut self) {
        self.from = self.times.len();
    }

    /// Its floats, in the order of time; gives how many are gone.
    pub(super) fn floats(&mut self, times: &[i64], values: &[f64], gone: &Gone) -> u64 {
        let before = self.times.len();
        gone.for_each_kept(times, &mut |kept| {
            self.times.extend_from_slice(&times[kept.clone()]);
            self.values.extend_from_slice(&values[kept]);
        });
        (times.len() - (self.times.len() - before)) as u64
    }

    /// One of its sealed chunks, from the page at `at`; gives how many samples are gone with it if it is gone whole.
    pub(super) fn sealed(&mut self, sealed: &SealedRun<'_>, at: u64, gone: &Gone) -> u64 {
        let SealedRun {
            min_time,
            max_time,
            count,
            bytes,
        } = *sealed;
        if gone.covers(min_time, max_time) {
            return count;
        }
        self.sealed.push(Kept {
            rank: self.gone.len(),
            at,
            min_time,
            max_time,
            count,
            bytes: bytes.to_vec(),
            partly: gone.overlaps(min_time, max_time),
        });
        0
    }

    /// That was all of the input.
    pub(super) fn end(&mut self, gone: Gone) {
        self.runs.push(self.from..self.times.len());
        self.gone.push(gone);
    }

    /// Puts everything into the order of time, each time once, what was logged later winning.
    pub(super) fn settle(&mut self) -> Result<Settled, Unsound> {
        let mut settled = Settled::default();
        if !self.sealed.is_empty() {
            settled.replaced += self.drop_twins();
            if self.must_open() {
                self.open(&mut settled)?;
                return Ok(settled);
            }
        }
        settled.replaced += self.order_floats();
        Ok(settled)
    }

    /// Sorts sealed chunks by start and drops those that come again, byte by byte; gives how many samples were dropped.
    fn drop_twins(&mut self) -> u64 {
        // Stable: of equal starts the later logged comes last.
        self.sealed.sort_by_key(|kept| kept.min_time);
        let before: u64 = self.sealed.iter().map(|kept| kept.count).sum();
        self.sealed.dedup_by(|later, first| {
            let same = later.min_time == first.min_time
                && later.max_time == first.max_time
                && later.partly == first.partly
                && later.bytes == first.bytes;
            // What is dropped is the argument in front; the one that stays counts as the later logged.
            if same {
                first.rank = later.rank;
            }
            same
        });
        before - self.sealed.iter().map(|kept| kept.count).sum::<u64>()
    }

    /// Whether chunks of the series cannot pass as they are.
    fn must_open(&self) -> bool {
        let overlap = |pair: &[Kept]| pair[1].min_time <= pair[0].max_time;
        self.sealed.iter().any(|kept| kept.partly)
            || self.sealed.windows(2).any(overlap)
            || self.sealed.iter().any(|kept| self.floats_within(kept))
    }

    /// Whether another input has floats between the ends of a chunk.
    fn floats_within(&self, kept: &Kept) -> bool {
        let others = self.runs.iter().enumerate();
        others
            .filter(|(rank, _)| *rank != kept.rank)
            .any(|(_, run)| {
                let times = &self.times[run.clone()];
                let next = times.partition_point(|&time| time < kept.min_time);
                times.get(next).is_some_and(|&time| time <= kept.max_time)
            })
    }

    /// Puts all floats into the order of time, the later run winning; gives how many were replaced.
    fn order_floats(&mut self) -> u64 {
        let runs = self.runs.iter().filter(|run| !run.is_empty());
        let ordered = runs
            .clone()
            .zip(runs.skip(1))
            .all(|(one, next)| self.times[one.end - 1] < self.times[next.start]);
        if ordered {
            return 0;
        }
        // A stable sort of places: of equal times the later logged comes last.
        let mut places: Vec<usize> = (0..self.times.len()).collect();
        places.sort_by_key(|&place| self.times[place]);
        let (mut times, mut values) = (Vec::new(), Vec::new());
        let mut replaced = 0;
        for place in places {
            let (time, value) = (self.times[place], self.values[place]);
            if times.last() == Some(&time) {
                *values.last_mut().expect("as long as times") = value;
                replaced += 1;
            } else {
                times.push(time);
                values.push(value);
            }
        }
        (self.times, self.values) = (times, values);
        replaced
    }

    /// Opens all chunks, orders sample by sample, and seals anew.
    #[cold]
    fn open(&mut self, settled: &mut Settled) -> Result<(), Unsound> {
        let mut samples = self.float_samples();
        for (number, kept) in self.sealed.iter().enumerate() {
            let unsound = |error: chunk::Error| {
                let malformed = Malformed::new("sealed chunk", "a sound one", error);
                (kept.rank, kept.at, malformed)
            };
            let (times, values) = decode(&kept.bytes).map_err(unsound)?;
            let last = times.len().saturating_sub(1);
            for (at, (time, value)) in times.into_iter().zip(values).enumerate() {
                if self.gone[kept.rank].contains(time) {
                    settled.dropped += 1;
                    continue;
                }
                samples.push(Sample {
                    time,
                    rank: kept.rank,
                    chunk: Some((number, at as u32, at == last)),
                    value,
                });
            }
        }
        settled.replaced += order(&mut samples);
        self.seal(samples);
        Ok(())
    }

    fn float_samples(&self) -> Vec<Sample> {
        let mut samples = Vec::with_capacity(self.times.len());
        for (rank, run) in self.runs.iter().enumerate() {
            samples.extend(run.clone().map(|at| Sample {
                time: self.times[at],
                rank,
                chunk: None,
                value: Value::Float(self.values[at]),
            }));
        }
        samples
    }

    /// Makes floats and chunks of ordered samples.
    fn seal(&mut self, samples: Vec<Sample>) {
        self.times.clear();
        self.values.clear();
        self.sealed.clear();
        let mut open: Option<HistogramAppender> = None;
        let mut before: Option<(usize, Option<Origin>)> = None;
        for sample in samples {
            let Sample {
                time,
                rank,
                chunk,
                value,
            } = sample;
            match value {
                Value::Float(value) => {
                    self.sealed.extend(open.take().map(|open| close(&open)));
                    self.times.push(time);
                    self.values.push(value);
                }
                Value::Histogram(mut histogram) => {
                    if !follows(before, rank, chunk) {
                        forget_reset(&mut histogram);
                    }
                    let has_room = open.as_ref().is_some_and(|open| {
                        open.count() < CHUNK_SAMPLES_MAX
                            && open.has_room_for(&histogram, CHUNK_BYTES_MAX)
                    });
                    if !has_room {
                        self.sealed.extend(open.take().map(|open| close(&open)));
                    }
                    open.get_or_insert_with(|| HistogramAppender::for_kind_of(&histogram))
                        .append(time, &histogram);
                }
            }
            before = Some((rank, chunk));
        }
        self.sealed.extend(open.map(|open| close(&open)));
        self.runs.clear();
        self.runs.push(0..self.times.len());
    }

    /// Adds all of it to the series that has begun; gives how many samples that were. Floats stand before and behind the chunks where their times do.
    pub(super) fn put(&self, builder: &mut Builder) -> Result<u64, Error> {
        let mut from = 0;
        let mut samples = self.times.len() as u64;
        for kept in &self.sealed {
            let rest = &self.times[from..];
            let to = from + rest.partition_point(|&time| time < kept.min_time);
            builder.samples(&self.times[from..to], &self.values[from..to])?;
            from = to;
            builder.sealed(&SealedRun {
                min_time: kept.min_time,
                max_time: kept.max_time,
                count: kept.count,
                bytes: &kept.bytes,
            })?;
            samples += kept.count;
        }
        builder.samples(&self.times[from..], &self.values[from..])?;
        Ok(samples)
    }
}

/// Adds samples from elsewhere to the series that has begun, floats and histograms in whatever order; of a time that comes again the later in the list stays, a histogram before
/// a float. Gives how many samples that were.
///
/// Errors: as [`Builder::samples`] and [`Builder::sealed`]. Histograms must be codable (`chunk::is_codable`).
pub fn add_samples(
    builder: &mut Builder,
    (times, values): (&[i64], &[f64]),
    histograms: Vec<(i64, HistogramSample)>,
) -> Result<u64, Error> {
    if histograms.is_empty() && times.is_sorted_by(|a, b| a < b) {
        builder.samples(times, values)?;
        return Ok(times.len() as u64);
    }
    let floats = times.iter().zip(values).map(|(&time, &value)| Sample {
        time,
        rank: 0,
        chunk: None,
        value: Value::Float(value),
    });
    let others = histograms.into_iter().map(|(time, histogram)| Sample {
        time,
        rank: 1,
        chunk: None,
        value: Value::Histogram(histogram),
    });
    let mut samples: Vec<Sample> = floats.chain(others).collect();
    order(&mut samples);
    let mut collected = Collected::default();
    collected.seal(samples);
    collected.put(builder)
}

/// Sorts by time and keeps of each time the sample of the greatest rank, of equal ranks the last; gives how many were taken out.
fn order(samples: &mut Vec<Sample>) -> u64 {
    samples.sort_by_key(|sample| (sample.time, sample.rank));
    let before = samples.len();
    // The first of equals is kept by `dedup_by`: the later logged takes its place.
    samples.dedup_by(|later, first| {
        let same = later.time == first.time;
        if same {
            std::mem::swap(later, first);
        }
        same
    });
    (before - samples.len()) as u64
}

/// Whether the sample before is the one that was before it when it was told.
fn follows(before: Option<(usize, Option<Origin>)>, rank: usize, chunk: Option<Origin>) -> bool {
    let (Some((rank_before, chunk_before)), Some((number, at, _))) = (before, chunk) else {
        return true;
    };
    match (at.checked_sub(1), chunk_before) {
        (Some(place), Some((other, place_before, _))) => other == number && place == place_before,
        (Some(_), None) => false,
        // The first of a chunk: behind the end of another that was logged before.
        (None, Some((_, _, is_last))) => is_last && rank_before <= rank,
        (None, None) => rank_before <= rank,
    }
}

fn forget_reset(histogram: &mut HistogramSample) {
    let reset = match histogram {
        HistogramSample::Int(histogram) => &mut histogram.counter_reset,
        HistogramSample::Float(histogram) => &mut histogram.counter_reset,
    };
    if *reset != CounterReset::Gauge {
        *reset = CounterReset::Unknown;
    }
}

fn close(open: &HistogramAppender) -> Kept {
    Kept {
        rank: 0,
        at: 0,
        min_time: open.first_time(),
        max_time: open.last_time(),
        count: u64::from(open.count()),
        bytes: open.seal(),
        partly: false,
    }
}

/// The samples of a sealed chunk of whatever encoding.
fn decode(sealed: &[u8]) -> Result<(Vec<i64>, Vec<Value>), chunk::Error> {
    let mut times = Vec::new();
    let values = match chunk::encoding(sealed)? {
        Encoding::Xor => {
            let mut floats = Vec::new();
            chunk::decode(sealed, &mut times, &mut floats)?;
            floats.into_iter().map(Value::Float).collect()
        }
        Encoding::Histogram | Encoding::FloatHistogram => {
            let mut histograms = Vec::new();
            chunk::decode_histograms(sealed, i64::MIN, i64::MAX, &mut times, &mut histograms)?;
            histograms.into_iter().map(Value::Histogram).collect()
        }
    };
    Ok((times, values))
}

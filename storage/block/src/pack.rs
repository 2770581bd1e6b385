//! A chunk page: the runs of some hundred series that follow each other, packed so that a short run costs little more than its bits.
//!
//! Series of a target are scraped at the same moments, so columns of times are kept once per page and shared. An entry is a run of one
//! series: a byte, its length, its values; no count (that of its times), no checksum (the page's), and mostly no name (the next series).
//!
//! Headers of all entries stand before the bodies, so that a reader walks over those it does not want without touching them.

use std::collections::HashMap;
use std::ops::Range;

use model::{TimeRange, varint};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::Malformed;
use crate::ints::{Effort, take, take_byte, take_count, take_signed, take_slice};
use crate::limits::{RUN_SAMPLES_MAX, SEALED_BYTES_MAX};
use crate::times::{self, Times};
use crate::values::{self, Coding, Scratch, take_u32};

/// Low bits of an entry's byte: the coding.
const CODING_MASK: u8 = 15;
/// A column of times other than that of the entry before.
const OTHER_TIMES: u8 = 1 << 4;
/// Not the series after that of the entry before.
const OTHER_SERIES: u8 = 1 << 5;

/// What a page holds, for the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) first_series: u32,
    pub(crate) last_series: u32,
    pub(crate) min_time: i64,
    pub(crate) max_time: i64,
    /// Samples of floats and of sealed chunks.
    pub(crate) samples: u64,
}

/// A column of times of the page, and its number.
type Column = (u32, Box<[i64]>);

/// A page in the making.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    summary: Option<Summary>,
    base: i64,
    headers: Vec<u8>,
    bodies: Vec<u8>,
    entries: u64,
    columns: Vec<u8>,
    column_count: u32,
    /// Columns of this page by hash; the times themselves decide.
    known: HashMap<u64, Vec<Column>>,
    /// Column of the last entry of floats, and its times.
    last_column: Option<u32>,
    last_times: Vec<i64>,
    scratch: Vec<u8>,
}

impl Packer {
    /// Bytes of the payload so far, within a few.
    pub(crate) fn len(&self) -> usize {
        self.headers.len() + self.bodies.len() + self.columns.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Adds a run of floats: 1 to [`RUN_SAMPLES_MAX`] samples, times ascending strictly. `series` does not descend. Gives coding and bytes of
    /// the values.
    pub(crate) fn add(
        &mut self,
        series: u32,
        times: &[i64],
        values: &[f64],
        effort: Effort,
    ) -> (Coding, usize) {
        assert!(times.len() == values.len() && !times.is_empty());
        assert!(times.len() <= RUN_SAMPLES_MAX);
        let (min, max) = (times[0], times[times.len() - 1]);
        let follows = self.note(series, min, max, times.len() as u64);
        let mut body = std::mem::take(&mut self.scratch);
        body.clear();
        let coding = values::encode(values, effort, &mut body);
        let column = self.column(times, effort);
        let same_times = self.last_column == Some(column);
        self.last_column = Some(column);
        let other_times = (!same_times).then_some(column);
        self.entry(coding, follows, other_times, &body);
        let len = body.len();
        self.scratch = body;
        (coding, len)
    }

    /// Adds a sealed chunk as it is; gives the bytes it takes.
    pub(crate) fn add_sealed(&mut self, series: u32, sealed: &SealedRun<'_>) -> usize {
        assert!(sealed.bytes.len() <= SEALED_BYTES_MAX && sealed.min_time <= sealed.max_time);
        let (min, max) = (sealed.min_time, sealed.max_time);
        let follows = self.note(series, min, max, sealed.count);
        let mut body = std::mem::take(&mut self.scratch);
        body.clear();
        varint::put_i64(&mut body, min.wrapping_sub(self.base));
        varint::put_u64(&mut body, max.wrapping_sub(min) as u64);
        varint::put_u64(&mut body, sealed.count);
        body.extend_from_slice(sealed.bytes);
        self.entry(Coding::Sealed, follows, None, &body);
        let len = body.len();
        self.scratch = body;
        len
    }

    /// Extends the summary; gives the distance of the series to the one before, where it is not 1.
    fn note(&mut self, series: u32, min: i64, max: i64, samples: u64) -> Option<u32> {
        let Some(summary) = &mut self.summary else {
            self.base = min;
            self.summary = Some(Summary {
                first_series: series,
                last_series: series,
                min_time: min,
                max_time: max,
                samples,
            });
            return None;
        };
        assert!(summary.last_series <= series, "series ascend");
        let distance = series - summary.last_series;
        summary.last_series = series;
        summary.min_time = summary.min_time.min(min);
        summary.max_time = summary.max_time.max(max);
        summary.samples += samples;
        (distance != 1).then_some(distance)
    }

    fn column(&mut self, times: &[i64], effort: Effort) -> u32 {
        if let Some(last) = self.last_column
            && self.last_times == times
        {
            return last;
        }
        self.last_times.clear();
        self.last_times.extend_from_slice(times);
        let mut bytes = Vec::with_capacity(times.len() * 8);
        times
            .iter()
            .for_each(|t| bytes.extend_from_slice(&t.to_le_bytes()));
        let same = self.known.entry(xxh3_64(&bytes)).or_default();
        if let Some((column, _)) = same.iter().find(|(_, known)| **known == *times) {
            return *column;
        }
        let column = self.column_count;
        same.push((column, times.into()));
        self.column_count += 1;
        bytes.clear();
        times::encode(times, self.base, effort, &mut bytes);
        varint::put_u64(&mut self.columns, bytes.len() as u64);
        self.columns.extend_from_slice(&bytes);
        column
    }

    fn entry(&mut self, coding: Coding, series: Option<u32>, times: Option<u32>, body: &[u8]) {
        let other_series = if series.is_some() { OTHER_SERIES } else { 0 };
        let other_times = if times.is_some() { OTHER_TIMES } else { 0 };
        self.headers.push(coding as u8 | other_series | other_times);
        for number in [series, times].into_iter().flatten() {
            varint::put_u64(&mut self.headers, u64::from(number));
        }
        varint::put_u64(&mut self.headers, body.len() as u64);
        self.bodies.extend_from_slice(body);
        self.entries += 1;
    }

    /// Appends the payload, tells what is in it, and begins the next page. There must be an entry.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) -> Summary {
        let summary = self.summary.take().expect("a page has an entry");
        varint::put_u64(out, u64::from(summary.first_series));
        varint::put_i64(out, self.base);
        varint::put_u64(out, u64::from(self.column_count));
        out.append(&mut self.columns);
        varint::put_u64(out, self.entries);
        out.append(&mut self.headers);
        out.append(&mut self.bodies);
        self.entries = 0;
        self.column_count = 0;
        self.known.clear();
        self.last_column = None;
        summary
    }
}

/// A sealed chunk and what must be known of it without decoding it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedRun<'a> {
    /// Time of its first sample.
    pub min_time: i64,
    /// Time of its last sample.
    pub max_time: i64,
    /// Samples in it.
    pub count: u64,
    /// As `chunk` sealed it.
    pub bytes: &'a [u8],
}

/// A part of a payload.
pub(crate) type Place = Range<u32>;

fn bytes_at<'a>(payload: &'a [u8], place: &Place) -> &'a [u8] {
    &payload[place.start as usize..place.end as usize]
}

/// Where the bytes of an entry are and what they are: enough to read it again without the headers of its page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) coding: Coding,
    /// Its times; of floats.
    column: Place,
    pub(crate) body: Place,
}

/// A chunk page whose headers have been read.
#[derive(Debug)]
pub(crate) struct Unpacker<'a> {
    payload: &'a [u8],
    base: i64,
    /// Of each entry its series.
    pub(crate) series: Vec<u32>,
    pub(crate) entries: Vec<Entry>,
    decoder: Decoder,
}

/// Memory for decoding entries of a page one after another, and the times that were read last.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// Which column `times` holds.
    current: Option<Place>,
    times: Times,
    /// What is in `picks` and `picked`: series of a page mostly share their times.
    current_range: Option<TimeRange>,
    picks: Vec<Range<usize>>,
    picked: Vec<i64>,
    values: Vec<f64>,
    scratch: Scratch,
}

/// Some samples of one series, as a block keeps them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Run<'a> {
    /// Floats; times ascend strictly.
    Floats {
        /// Milliseconds.
        times: &'a [i64],
        /// As many.
        values: &'a [f64],
    },
    /// A sealed chunk of the `chunk` crate.
    Sealed(SealedRun<'a>),
}

impl Decoder {
    /// Decodes an entry, the samples in the range of it; `None` where it has none, and then no values are touched. A sealed chunk comes whole, where
    /// any of its times may be in the range.
    ///
    /// All entries that one decoder is given must be of one page.
    pub(crate) fn run<'s>(
        &'s mut self,
        payload: &'s [u8],
        base: i64,
        entry: &Entry,
        range: &TimeRange,
    ) -> Result<Option<Run<'s>>, Malformed> {
        let body = bytes_at(payload, &entry.body);
        if entry.coding == Coding::Sealed {
            let sealed = sealed(body, base)?;
            let wanted = range.overlaps(sealed.min_time, sealed.max_time);
            return Ok(wanted.then_some(Run::Sealed(sealed)));
        }
        self.read_times(payload, base, entry)?;
        if self.current_range.as_ref() != Some(range) {
            self.times.pick(range, &mut self.picks);
            self.picked.clear();
            self.times.put(&self.picks, &mut self.picked);
            self.current_range = Some(*range);
        }
        if self.picks.is_empty() {
            return Ok(None);
        }
        self.values.clear();
        let (count, picks) = (self.times.count(), &self.picks[..]);
        let scratch = &mut self.scratch;
        values::decode(entry.coding, body, count, picks, scratch, &mut self.values)?;
        Ok(Some(Run::Floats {
            times: &self.picked,
            values: &self.values,
        }))
    }

    /// First and last time of an entry that has samples between the ends of the range and may have some in its windows, without a look at values.
    /// Of a sealed chunk its ends count.
    fn span(
        &mut self,
        payload: &[u8],
        base: i64,
        entry: &Entry,
        range: &TimeRange,
    ) -> Result<Option<(i64, i64)>, Malformed> {
        let (min, max) = if entry.coding == Coding::Sealed {
            let sealed = sealed(bytes_at(payload, &entry.body), base)?;
            (sealed.min_time, sealed.max_time)
        } else {
            self.read_times(payload, base, entry)?;
            if !self.times.any_in(range.min, range.max) {
                return Ok(None);
            }
            self.times.ends()
        };
        Ok(range.overlaps(min, max).then_some((min, max)))
    }

    fn read_times(&mut self, payload: &[u8], base: i64, entry: &Entry) -> Result<(), Malformed> {
        if self.current.as_ref() == Some(&entry.column) {
            return Ok(());
        }
        (self.current, self.current_range) = (None, None);
        let mut column = bytes_at(payload, &entry.column);
        self.times.read(&mut column, base)?;
        if !column.is_empty() {
            return Err(Malformed::new("bytes behind times", 0, column.len()));
        }
        self.current = Some(entry.column.clone());
        Ok(())
    }
}

/// Reads what stands before the bytes of a sealed chunk.
fn sealed(body: &[u8], base: i64) -> Result<SealedRun<'_>, Malformed> {
    let mut rest = body;
    let min_time = base.wrapping_add(take_signed(&mut rest, "time of a sealed chunk")?);
    let span = take(&mut rest, "span of a sealed chunk")?;
    let max_time = min_time.wrapping_add(span as i64);
    let count = take(&mut rest, "samples of a sealed chunk")?;
    if max_time < min_time {
        let what = "span of a sealed chunk";
        return Err(Malformed::new(what, "not negative", span));
    }
    Ok(SealedRun {
        min_time,
        max_time,
        count,
        bytes: rest,
    })
}

impl<'a> Unpacker<'a> {
    /// Reads the headers of a payload. Cost: some nanoseconds for each entry.
    pub(crate) fn new(payload: &'a [u8]) -> Result<Unpacker<'a>, Malformed> {
        let mut rest = payload;
        let rest = &mut rest;
        let first = take_u32(rest, "first series of a page")?;
        let base = take_signed(rest, "base time of a page")?;
        let column_count = take_count(rest, rest.len(), "columns of times")?;
        let mut columns: Vec<Place> = Vec::with_capacity(column_count);
        let place = |rest: &[u8], len: usize| {
            // A payload is bounded far below 4 GiB.
            let from = (payload.len() - rest.len()) as u32;
            from..from + len as u32
        };
        for _ in 0..column_count {
            let len = take_count(rest, rest.len(), "length of times")?;
            columns.push(place(rest, len));
            take_slice(rest, len, "column of times")?;
        }
        let count = take_count(rest, rest.len(), "entries of a page")?;
        if count == 0 {
            return Err(Malformed::new("entries of a page", "at least 1", 0));
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(count);
        let mut numbers = Vec::with_capacity(count);
        let mut series = first;
        let mut column = None;
        for i in 0..count {
            let head = take_byte(rest, "head of an entry")?;
            if head >> 6 != 0 {
                return Err(Malformed::new("head of an entry", "below 64", head));
            }
            let coding = Coding::from_number(head & CODING_MASK)?;
            let distance = match head & OTHER_SERIES {
                0 if i == 0 => 0,
                0 => 1,
                _ => take_u32(rest, "distance of series")?,
            };
            series = series.checked_add(distance).ok_or_else(|| {
                Malformed::new(
                    "number of a series",
                    "32 bits",
                    u64::from(series) + u64::from(distance),
                )
            })?;
            if head & OTHER_TIMES != 0 {
                let number = take_u32(rest, "number of times")?;
                if number as usize >= columns.len() {
                    let expected = format!("below {}", columns.len());
                    return Err(Malformed::new("number of times", expected, number));
                }
                column = Some(number);
            }
            let known = match (coding, column) {
                (Coding::Sealed, _) => 0..0,
                (_, Some(column)) => columns[column as usize].clone(),
                (_, None) => return Err(Malformed::new("times of an entry", "a column", "none")),
            };
            let len = take_count(rest, rest.len(), "length of an entry")?;
            numbers.push(series);
            entries.push(Entry {
                coding,
                column: known,
                body: 0..len as u32,
            });
        }
        for entry in &mut entries {
            let len = entry.body.len();
            entry.body = place(rest, len);
            take_slice(rest, len, "body of an entry")?;
        }
        if !rest.is_empty() {
            return Err(Malformed::new("bytes behind a page", 0, rest.len()));
        }
        Ok(Unpacker {
            payload,
            base,
            series: numbers,
            entries,
            decoder: Decoder::default(),
        })
    }

    /// See [`Decoder::run`].
    pub(crate) fn run(
        &mut self,
        index: usize,
        range: &TimeRange,
    ) -> Result<Option<Run<'_>>, Malformed> {
        let entry = &self.entries[index];
        self.decoder.run(self.payload, self.base, entry, range)
    }

    /// See [`Decoder::span`].
    pub(crate) fn span(
        &mut self,
        index: usize,
        range: &TimeRange,
    ) -> Result<Option<(i64, i64)>, Malformed> {
        let entry = &self.entries[index];
        self.decoder.span(self.payload, self.base, entry, range)
    }

    /// What times of the page are told from.
    pub(crate) fn base(&self) -> i64 {
        self.base
    }
}

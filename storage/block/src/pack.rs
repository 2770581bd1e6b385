//! A chunk page: the runs of some hundred series that follow each other, packed so that a short run costs little more than its bits.
//!
//! Series of a target are scraped at the same moments, so columns of times are kept once per page and shared. An entry is a run of one
//! series: a byte, its length, its values; no count (that of its times), no checksum (the page's), and mostly no name (the next series).
//!
//! Headers of all entries stand before the bodies, so that a reader walks over those it does not want without touching them.

use std::collections::HashMap;

use model::varint;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::Malformed;
use crate::ints::{Effort, take, take_byte, take_count, take_signed, take_slice};
use crate::limits::{RUN_SAMPLES_MAX, SEALED_BYTES_MAX};
use crate::times;
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

/// An entry of a page that is being read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) series: u32,
    pub(crate) coding: Coding,
    /// Of floats.
    column: u32,
    body: &'a [u8],
}

/// A chunk page whose headers have been read.
#[derive(Debug)]
pub(crate) struct Unpacker<'a> {
    base: i64,
    columns: Vec<&'a [u8]>,
    pub(crate) entries: Vec<Entry<'a>>,
    /// Which column `times` holds.
    current: Option<u32>,
    times: Vec<i64>,
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

impl<'a> Unpacker<'a> {
    /// Reads the headers of a payload. Cost: some nanoseconds for each entry.
    pub(crate) fn new(payload: &'a [u8]) -> Result<Unpacker<'a>, Malformed> {
        let mut rest = payload;
        let rest = &mut rest;
        let first = take_u32(rest, "first series of a page")?;
        let base = take_signed(rest, "base time of a page")?;
        let column_count = take_count(rest, rest.len(), "columns of times")?;
        let mut columns = Vec::with_capacity(column_count);
        for _ in 0..column_count {
            let len = take_count(rest, rest.len(), "length of times")?;
            columns.push(take_slice(rest, len, "column of times")?);
        }
        let count = take_count(rest, rest.len(), "entries of a page")?;
        if count == 0 {
            return Err(Malformed::new("entries of a page", "at least 1", 0));
        }
        let mut entries = Vec::with_capacity(count);
        let mut lens = Vec::with_capacity(count);
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
                (Coding::Sealed, _) => 0,
                (_, Some(column)) => column,
                (_, None) => return Err(Malformed::new("times of an entry", "a column", "none")),
            };
            lens.push(take_count(rest, rest.len(), "length of an entry")?);
            entries.push(Entry {
                series,
                coding,
                column: known,
                body: &[],
            });
        }
        for (entry, len) in entries.iter_mut().zip(lens) {
            entry.body = take_slice(rest, len, "body of an entry")?;
        }
        if !rest.is_empty() {
            return Err(Malformed::new("bytes behind a page", 0, rest.len()));
        }
        Ok(Unpacker {
            base,
            columns,
            entries,
            current: None,
            times: Vec::new(),
            values: Vec::new(),
            scratch: Scratch::default(),
        })
    }

    /// Decodes an entry, the samples of `min..=max` of it; `None` where it has none. A sealed chunk comes whole.
    pub(crate) fn run(
        &mut self,
        index: usize,
        min: i64,
        max: i64,
    ) -> Result<Option<Run<'_>>, Malformed> {
        let entry = self.entries[index];
        if entry.coding == Coding::Sealed {
            let mut rest = entry.body;
            let low = self
                .base
                .wrapping_add(take_signed(&mut rest, "time of a sealed chunk")?);
            let span = take(&mut rest, "span of a sealed chunk")?;
            let high = low.wrapping_add(span as i64);
            let count = take(&mut rest, "samples of a sealed chunk")?;
            if high < low {
                return Err(Malformed::new(
                    "span of a sealed chunk",
                    "not negative",
                    span,
                ));
            }
            let wanted = low <= max && high >= min;
            return Ok(wanted.then_some(Run::Sealed(SealedRun {
                min_time: low,
                max_time: high,
                count,
                bytes: rest,
            })));
        }
        self.times_of(index)?;
        let from = self.times.partition_point(|&t| t < min);
        let to = self.times.partition_point(|&t| t <= max);
        if from >= to {
            return Ok(None);
        }
        self.values.clear();
        let count = self.times.len();
        values::decode(
            entry.coding,
            entry.body,
            count,
            &mut self.scratch,
            &mut self.values,
        )?;
        Ok(Some(Run::Floats {
            times: &self.times[from..to],
            values: &self.values[from..to],
        }))
    }

    /// The times of an entry of floats. There is at least one.
    pub(crate) fn times_of(&mut self, index: usize) -> Result<&[i64], Malformed> {
        let entry = self.entries[index];
        if self.current != Some(entry.column) {
            self.current = None;
            self.times.clear();
            let mut column = self.columns[entry.column as usize];
            times::decode(&mut column, self.base, &mut self.times)?;
            if !column.is_empty() {
                return Err(Malformed::new("bytes behind times", 0, column.len()));
            }
            self.current = Some(entry.column);
        }
        Ok(&self.times)
    }

    /// Bytes of the body of an entry.
    pub(crate) fn body_len(&self, index: usize) -> usize {
        self.entries[index].body.len()
    }
}

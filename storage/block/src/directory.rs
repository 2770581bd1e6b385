//! Where the pages of one tenant are, and what each begins with: all that a reader keeps of a part besides its symbols.
//!
//! Pages of a section lie back to back, so a section is where it begins and the lengths of its pages.

use std::ops::Range;

use model::varint;

use crate::error::Malformed;
use crate::ints::{take, take_count};
use crate::limits::{SERIES_MAX, SERIES_PER_PAGE};
use crate::pack;
use crate::page::FRAME_BYTES;
use crate::postings::LISTS_PER_PAGE;
use crate::series::{put_column, take_column, take_numbers};

/// Pages back to back.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) start: u64,
    /// Length of each page with its frame.
    lens: Vec<u32>,
    /// Where each ends, from the start of the file.
    ends: Vec<u64>,
    /// Symbols, series or lists of each; empty for chunk pages.
    pub(crate) counts: Vec<u32>,
}

impl Section {
    pub(crate) fn begin(start: u64) -> Section {
        Section {
            start,
            ..Section::default()
        }
    }

    pub(crate) fn push(&mut self, len: usize) {
        self.lens
            .push(u32::try_from(len).expect("a page is bounded"));
        self.ends.push(self.end() + len as u64);
    }

    pub(crate) fn pages(&self) -> usize {
        self.lens.len()
    }

    pub(crate) fn end(&self) -> u64 {
        self.ends.last().copied().unwrap_or(self.start)
    }

    /// The bytes of a page in the file.
    pub(crate) fn range(&self, page: usize) -> Range<u64> {
        let end = self.ends[page];
        end - u64::from(self.lens[page])..end
    }

    fn put(&self, out: &mut Vec<u8>) {
        varint::put_u64(out, self.start);
        varint::put_u64(out, self.lens.len() as u64);
        put_column(
            &self.lens.iter().map(|&l| i64::from(l)).collect::<Vec<_>>(),
            out,
        );
    }

    fn take(bytes: &mut &[u8], limit: u64, pages_max: usize) -> Result<Section, Malformed> {
        let start = take(bytes, "start of a section")?;
        let pages = take_count(bytes, pages_max, "pages of a section")?;
        let lens = take_numbers(bytes, pages, u32::MAX >> 1, "length of a page")?;
        let mut section = Section::begin(start);
        for len in lens {
            let end = section.end().checked_add(u64::from(len));
            if end.is_none_or(|end| end > limit) || (len as usize) < FRAME_BYTES {
                let expected = format!("a page before {limit}");
                return Err(Malformed::new(
                    "end of a page",
                    expected,
                    format!("{end:?}"),
                ));
            }
            section.push(len as usize);
        }
        Ok(section)
    }

    fn put_counts(&self, out: &mut Vec<u8>) {
        put_column(
            &self
                .counts
                .iter()
                .map(|&c| i64::from(c))
                .collect::<Vec<_>>(),
            out,
        );
    }

    fn take_counts(&mut self, bytes: &mut &[u8], max: u32) -> Result<u64, Malformed> {
        self.counts = take_numbers(bytes, self.pages(), max, "entries of a page")?;
        if let Some(at) = self.counts.iter().position(|&c| c == 0) {
            return Err(Malformed::new(
                "entries of a page",
                "at least 1",
                format!("0 in page {at}"),
            ));
        }
        Ok(self.counts.iter().map(|&c| u64::from(c)).sum())
    }
}

/// The pages of a part.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) chunks: Section,
    /// One for each chunk page.
    pub(crate) summaries: Vec<pack::Summary>,
    pub(crate) symbols: Section,
    pub(crate) series: Section,
    pub(crate) postings: Section,
    /// Name and value of the first list of each page of postings.
    pub(crate) first_labels: Vec<(u32, u32)>,
    pub(crate) symbol_count: u32,
    pub(crate) series_count: u32,
}

fn column<T>(items: &[T], of: impl Fn(&T) -> i64) -> Vec<i64> {
    items.iter().map(of).collect()
}

impl Directory {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.chunks.put(out);
        let s = &self.summaries;
        put_column(&column(s, |s| i64::from(s.first_series)), out);
        put_column(&column(s, |s| i64::from(s.last_series)), out);
        put_column(&column(s, |s| s.min_time), out);
        put_column(&column(s, |s| s.max_time), out);
        put_column(&column(s, |s| s.samples as i64), out);
        self.symbols.put(out);
        self.symbols.put_counts(out);
        self.series.put(out);
        self.series.put_counts(out);
        self.postings.put(out);
        self.postings.put_counts(out);
        put_column(&column(&self.first_labels, |l| i64::from(l.0)), out);
        put_column(&column(&self.first_labels, |l| i64::from(l.1)), out);
    }

    /// Reads a directory whose part lies in `part` and ends with it.
    pub(crate) fn decode(payload: &[u8], part: Range<u64>) -> Result<Directory, Malformed> {
        let mut rest = payload;
        let rest = &mut rest;
        let limit = part.end;
        let pages_max = usize::try_from((limit - part.start) / FRAME_BYTES as u64).unwrap_or(0);
        let chunks = Section::take(rest, limit, pages_max)?;
        let pages = chunks.pages();
        let first = take_numbers(rest, pages, SERIES_MAX, "first series of a page")?;
        let last = take_numbers(rest, pages, SERIES_MAX, "last series of a page")?;
        let min = take_column(rest, pages)?;
        let max = take_column(rest, pages)?;
        let samples = take_column(rest, pages)?;
        let mut symbols = Section::take(rest, limit, pages_max)?;
        let symbol_count = symbols.take_counts(rest, u32::MAX)?;
        let mut series = Section::take(rest, limit, pages_max)?;
        let series_count = series.take_counts(rest, SERIES_PER_PAGE as u32)?;
        let mut postings = Section::take(rest, limit, pages_max)?;
        postings.take_counts(rest, LISTS_PER_PAGE as u32)?;
        let names = take_numbers(rest, postings.pages(), u32::MAX, "first name of a page")?;
        let values = take_numbers(rest, postings.pages(), u32::MAX, "first value of a page")?;
        if !rest.is_empty() {
            return Err(Malformed::new("bytes behind a directory", 0, rest.len()));
        }
        let mut at = part.start;
        for section in [&chunks, &symbols, &series, &postings] {
            if section.start != at {
                return Err(Malformed::new("start of a section", at, section.start));
            }
            at = section.end();
        }
        let symbol_count = u32::try_from(symbol_count)
            .map_err(|_| Malformed::new("symbols", "32 bits", symbol_count))?;
        let series_count = u32::try_from(series_count)
            .ok()
            .filter(|&count| count <= SERIES_MAX)
            .ok_or_else(|| {
                Malformed::new("series", format!("at most {SERIES_MAX}"), series_count)
            })?;
        let mut summaries = Vec::with_capacity(pages);
        let mut before = 0;
        for i in 0..pages {
            let samples = u64::try_from(samples[i])
                .map_err(|_| Malformed::new("samples of a page", "not negative", samples[i]))?;
            let summary = pack::Summary {
                first_series: first[i],
                last_series: last[i],
                min_time: min[i],
                max_time: max[i],
                samples,
            };
            let ordered = before <= first[i] && first[i] <= last[i] && last[i] < series_count;
            if !ordered || min[i] > max[i] {
                return Err(Malformed::new(
                    "summary of a chunk page",
                    format!("series from {before} below {series_count}, times that ascend"),
                    format!("{summary:?}"),
                ));
            }
            before = last[i];
            summaries.push(summary);
        }
        let first_labels: Vec<(u32, u32)> = names.into_iter().zip(values).collect();
        if !first_labels.is_sorted_by(|a, b| a < b) {
            return Err(Malformed::new(
                "first labels of pages",
                "ascending",
                "others",
            ));
        }
        Ok(Directory {
            chunks,
            summaries,
            symbols,
            series,
            postings,
            first_labels,
            symbol_count,
            series_count,
        })
    }

    /// Pages that may hold samples of a series: those whose range of series contains it.
    pub(crate) fn pages_of(&self, series: u32) -> Range<usize> {
        let from = self.summaries.partition_point(|s| s.last_series < series);
        let to = self.summaries.partition_point(|s| s.first_series <= series);
        from..to.max(from)
    }

    /// Where the part ends: behind it stands its own page.
    pub(crate) fn end_of_sections(&self) -> u64 {
        self.postings.end()
    }
}

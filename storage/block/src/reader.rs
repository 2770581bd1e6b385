//! Reading a block: from its last bytes to the samples of the series that matchers select.
//!
//! 1. [`Block::open`]: trailer and footer, one or two reads. What is in it: tenants, times, sizes.
//! 2. [`Block::index`]: directory and symbols of a tenant, two reads. To be kept by whoever reads the block again.
//! 3. [`Index::select`]: matchers to series numbers. Each distinct value is tested once; lists are read for those that pass.
//! 4. [`Index::read`]: the pages that hold these series and times, neighbours together, decoded into columns.
//!
//! Every page is verified before anything in it is used; every field is checked before it is followed. What is damaged is named by file and
//! offset, and fails only what needs it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use model::sorted::{intersect, subtract};
use model::{Labels, Matcher, TenantId, TimeRange, put_label};

use crate::directory::{Directory, Section};
use crate::error::{Error, Malformed};
use crate::limits::{GAP_BYTES_MAX, READ_BYTES_MAX};
use crate::meta::{self, HEADER_BYTES, Meta, Part, TRAILER_BYTES};
use crate::pack::{Run, Unpacker};
use crate::page::{self, Kind};
use crate::postings;
use crate::series::{self, Rows};
use crate::source::{Source, coalesce};
use crate::symbols::Symbols;

/// Read from the end at once: holds the footer of every block and of cuts of a thousand tenants.
const TAIL_BYTES: u64 = 64 << 10;

/// Bytes of postings kept by an index, decoded.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// A block that has been opened: what its footer tells.
#[derive(Debug, Clone)]
pub struct Block {
    meta: Meta,
    len: u64,
}

impl Block {
    /// Reads trailer and footer. Errors: [`Error::NotABlock`], [`Error::Version`], [`Error::Corrupt`], or what the source says.
    pub fn open(source: &mut dyn Source) -> Result<Block, Error> {
        let (len, name) = (source.len(), source.name().to_owned());
        let start = len.saturating_sub(TAIL_BYTES);
        let tail = read_one(source, start..len)?;
        let trailer = meta::read_trailer(&tail, len, &name)?;
        let footer_end = len - TRAILER_BYTES as u64;
        let footer = match trailer.footer_start.checked_sub(start) {
            Some(from) => Cow::Borrowed(&tail[from as usize..(footer_end - start) as usize]),
            None => Cow::Owned(read_one(source, trailer.footer_start..footer_end)?),
        };
        let at = trailer.footer_start;
        let corrupt = |malformed: Malformed| malformed.at(&name, at);
        let payload = page::open(&footer, Kind::Footer, trailer.id, at).map_err(corrupt)?;
        let meta = Meta::decode(&payload, trailer.kind, trailer.id, at).map_err(corrupt)?;
        Ok(Block { meta, len })
    }

    /// A block of whose end all is known already, from an index of such.
    pub fn known(meta: Meta, len: u64) -> Block {
        Block { meta, len }
    }

    /// Checks the first bytes too, which no reader needs.
    pub(crate) fn check_header(&self, source: &mut dyn Source) -> Result<(), Error> {
        let tail = read_one(source, self.len - TRAILER_BYTES as u64..self.len)?;
        let name = source.name().to_owned();
        let trailer = meta::read_trailer(&tail, self.len, &name)?;
        let head = read_one(source, 0..HEADER_BYTES as u64)?;
        meta::check_header(&head, &trailer, &name)
    }

    /// What the footer tells.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Bytes of the file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it holds no tenant.
    pub fn is_empty(&self) -> bool {
        self.meta.parts.is_empty()
    }

    /// Reads directory and symbols of a tenant; `None` if the block has nothing of it.
    ///
    /// Memory: the texts of all labels once, and some 50 bytes for each page of the tenant.
    pub fn index(
        &self,
        source: &mut dyn Source,
        tenant: &TenantId,
    ) -> Result<Option<Index>, Error> {
        match self.meta.part(tenant).filter(|part| !part.is_empty()) {
            Some(part) => Index::load(self, part, source).map(Some),
            None => Ok(None),
        }
    }
}

fn read_one(source: &mut dyn Source, range: Range<u64>) -> Result<Vec<u8>, Error> {
    let mut read = source.read(std::slice::from_ref(&range))?;
    match (read.pop(), read.is_empty()) {
        (Some(bytes), true) if bytes.len() as u64 == range.end - range.start => Ok(bytes),
        _ => Err(Error::Source {
            file: source.name().to_owned(),
            reason: format!("it did not give the bytes {range:?}"),
        }),
    }
}

/// The payload of a page that did not check, read past what keeps bytes nearer: that may be what is wrong, and is put right by it.
fn open_again(
    source: &mut dyn Source,
    range: &Range<u64>,
    (kind, id): (Kind, u128),
    wrong: Error,
) -> Result<Cow<'static, [u8]>, Error> {
    let read = match source.read_again(std::slice::from_ref(range)) {
        Some(read) => read?,
        None => return Err(wrong),
    };
    let [bytes] = &read[..] else {
        return Err(wrong);
    };
    let payload = page::open(bytes, kind, id, range.start);
    let payload = payload.map_err(|malformed| malformed.at(source.name(), range.start))?;
    Ok(Cow::Owned(payload.into_owned()))
}

/// The index of one tenant: symbols and directory in memory, the rest read when needed.
#[derive(Debug)]
pub struct Index {
    file: String,
    id: u128,
    part: Part,
    pub(crate) symbols: Symbols,
    pub(crate) directory: Directory,
    /// Number of the first series of each page of series.
    series_starts: Vec<u32>,
    /// Pages of postings.
    kept: HashMap<usize, Arc<postings::Page>>,
    kept_bytes: usize,
}

impl Index {
    fn load(block: &Block, part: &Part, source: &mut dyn Source) -> Result<Index, Error> {
        let file = source.name().to_owned();
        let id = block.meta.info.id;
        let at = part.directory_start;
        let corrupt = |malformed: Malformed| malformed.at(&file, at);
        let bytes = read_one(source, at..part.range.end)?;
        let payload = match page::open(&bytes, Kind::Directory, id, at) {
            Ok(payload) => payload,
            Err(wrong) => {
                let range = at..part.range.end;
                open_again(source, &range, (Kind::Directory, id), corrupt(wrong))?
            }
        };
        let sections = part.range.start..part.directory_start;
        let directory = Directory::decode(&payload, sections).map_err(corrupt)?;
        if directory.series_count != part.series {
            let found = directory.series_count;
            return Err(corrupt(Malformed::new(
                "series of a tenant",
                part.series,
                found,
            )));
        }
        let samples = directory
            .summaries
            .iter()
            .fold(0u64, |sum, page| sum.saturating_add(page.samples));
        if samples != part.samples {
            return Err(corrupt(Malformed::new(
                "samples of a tenant",
                part.samples,
                samples,
            )));
        }
        if directory.chunks.end() != part.index_start || directory.end_of_sections() != at {
            let found = directory.end_of_sections();
            return Err(corrupt(Malformed::new("end of an index", at, found)));
        }
        let mut series_starts = Vec::with_capacity(directory.series.pages());
        let mut next = 0;
        for &count in &directory.series.counts {
            series_starts.push(next);
            next += count;
        }
        let mut index = Index {
            file,
            id,
            part: part.clone(),
            symbols: Symbols::default(),
            directory,
            series_starts,
            kept: HashMap::new(),
            kept_bytes: 0,
        };
        let mut symbols = Symbols::default();
        let counts = index.directory.symbols.counts.clone();
        let pages: Vec<usize> = (0..counts.len()).collect();
        index.for_each_page(source, Which::Symbols, &pages, &mut |page, payload| {
            symbols.add_page(payload, counts[page] as usize)
        })?;
        index.symbols = symbols;
        Ok(index)
    }

    /// What the footer tells of the tenant.
    pub fn part(&self) -> &Part {
        &self.part
    }

    /// Series of the tenant; they are numbered from 0 in the order of their labels.
    pub fn series_count(&self) -> u32 {
        self.directory.series_count
    }

    /// Bytes of all symbols in the file.
    pub fn symbol_bytes(&self) -> u64 {
        self.directory.symbols.end() - self.directory.symbols.start
    }

    /// Bytes of all label sets in the file.
    pub fn series_bytes(&self) -> u64 {
        self.directory.series.end() - self.directory.series.start
    }

    /// Bytes of all postings in the file.
    pub fn postings_bytes(&self) -> u64 {
        self.directory.postings.end() - self.directory.postings.start
    }

    /// Chunk pages of the tenant.
    pub fn page_count(&self) -> usize {
        self.directory.chunks.pages()
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.symbols.heap_bytes() + self.kept_bytes + self.directory.summaries.len() * 64
    }

    fn section(&self, which: Which) -> (&Section, Kind) {
        match which {
            Which::Chunks => (&self.directory.chunks, Kind::Chunks),
            Which::Symbols => (&self.directory.symbols, Kind::Symbols),
            Which::Series => (&self.directory.series, Kind::Series),
            Which::Postings => (&self.directory.postings, Kind::Postings),
        }
    }

    /// Reads pages (ascending), neighbours together and a bounded amount at once, and calls `each` with number and payload.
    pub(crate) fn for_each_page(
        &self,
        source: &mut dyn Source,
        which: Which,
        pages: &[usize],
        each: &mut EachPage<'_>,
    ) -> Result<(), Error> {
        let (section, kind) = self.section(which);
        let mut pages = pages;
        while !pages.is_empty() {
            let mut bytes = 0;
            let mut count = 0;
            while count < pages.len() && (count == 0 || bytes < READ_BYTES_MAX as u64) {
                let range = section.range(pages[count]);
                bytes += range.end - range.start;
                count += 1;
            }
            let (now, later) = pages.split_at(count);
            pages = later;
            let ranges: Vec<Range<u64>> = now.iter().map(|&page| section.range(page)).collect();
            let joined = coalesce(&ranges, GAP_BYTES_MAX, READ_BYTES_MAX as u64);
            let read = source.read(&joined)?;
            let whole = |(bytes, range): (&Vec<u8>, &Range<u64>)| {
                bytes.len() as u64 == range.end - range.start
            };
            if read.len() != joined.len() || !read.iter().zip(&joined).all(whole) {
                return Err(Error::Source {
                    file: self.file.clone(),
                    reason: format!("it did not give the bytes {joined:?}"),
                });
            }
            let mut chunk = 0;
            for (&page, range) in now.iter().zip(ranges) {
                while joined[chunk].end < range.end {
                    chunk += 1;
                }
                let from = (range.start - joined[chunk].start) as usize;
                let len = (range.end - range.start) as usize;
                let corrupt = |malformed: Malformed| malformed.at(&self.file, range.start);
                let framed = &read[chunk][from..from + len];
                let payload = match page::open(framed, kind, self.id, range.start) {
                    Ok(payload) => payload,
                    Err(wrong) => open_again(source, &range, (kind, self.id), corrupt(wrong))?,
                };
                each(page, &payload).map_err(corrupt)?;
            }
        }
        Ok(())
    }

    fn postings_page(
        &mut self,
        source: &mut dyn Source,
        page: usize,
    ) -> Result<Arc<postings::Page>, Error> {
        if let Some(kept) = self.kept.get(&page) {
            return Ok(Arc::clone(kept));
        }
        let count = self.directory.postings.counts[page] as usize;
        let symbols = self.symbols.count();
        let mut decoded = None;
        self.for_each_page(source, Which::Postings, &[page], &mut |_, payload| {
            decoded = Some(Arc::new(postings::Page::decode(payload, count, symbols)?));
            Ok(())
        })?;
        let decoded = decoded.expect("one page was read");
        if self.kept_bytes > KEPT_BYTES_MAX {
            self.kept.clear();
            self.kept_bytes = 0;
        }
        self.kept_bytes += decoded.heap_bytes();
        self.kept.insert(page, Arc::clone(&decoded));
        Ok(decoded)
    }

    /// The page on which the lists of a label begin, or would.
    fn first_page_of(&self, name: u32, value: u32) -> usize {
        let firsts = &self.directory.first_labels;
        firsts
            .partition_point(|&first| first <= (name, value))
            .saturating_sub(1)
    }

    /// Calls `each` with page, place and value of all lists of a name, values from `from` on, until it says stop (false).
    fn for_each_value(
        &mut self,
        source: &mut dyn Source,
        name: u32,
        from: u32,
        each: &mut EachValue<'_>,
    ) -> Result<(), Error> {
        for number in self.first_page_of(name, from)..self.directory.postings.pages() {
            let page = self.postings_page(source, number)?;
            for at in page.seek(name, from)..page.count() {
                if page.names[at] != name {
                    return Ok(());
                }
                let go_on = each(&self.symbols, &page, at, page.values[at])
                    .map_err(|m| m.at(&self.file, self.directory.postings.range(number).start))?;
                if !go_on {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The series of `name` with a value for which `wanted` is true, ascending. `prefix` and `only` narrow what is looked at.
    fn union(
        &mut self,
        source: &mut dyn Source,
        matcher: &Matcher,
        wanted: bool,
    ) -> Result<Vec<u32>, Error> {
        let Some(name) = self.symbols.find(matcher.name()) else {
            return Ok(Vec::new());
        };
        let count = self.series_count();
        let mut all: Vec<u32> = Vec::new();
        let mut lists = 0;
        match matcher.only_values() {
            Some(values) if wanted => {
                for value in values {
                    let Some(value) = self.symbols.find(value) else {
                        continue;
                    };
                    self.for_each_value(source, name, value, &mut |_, page, at, found| {
                        if found == value {
                            all.append(&mut page.list(at, count)?);
                            lists += 1;
                        }
                        Ok(false)
                    })?;
                }
            }
            _ => {
                // Numbers ascend as texts do: a prefix is a range of them.
                let prefix = matcher.literal_prefix().filter(|_| wanted).unwrap_or("");
                let from = self.symbols.seek(prefix);
                self.for_each_value(source, name, from, &mut |symbols, page, at, value| {
                    let text = symbols.get(value);
                    if !text.starts_with(prefix) {
                        return Ok(false);
                    }
                    if matcher.matches(text) == wanted {
                        all.append(&mut page.list(at, count)?);
                        lists += 1;
                    }
                    Ok(true)
                })?;
            }
        }
        if lists > 1 {
            all.sort_unstable();
            all.dedup();
        }
        Ok(all)
    }

    /// The series that pass all matchers, ascending. Without matchers: all.
    ///
    /// Cost: a look-up for each matcher of plain words; for others a test of each value of the label; then the lists of what passes.
    pub fn select(
        &mut self,
        source: &mut dyn Source,
        matchers: &[Matcher],
    ) -> Result<Vec<u32>, Error> {
        let mut keep: Vec<Vec<u32>> = Vec::new();
        let (strict, lax): (Vec<&Matcher>, Vec<&Matcher>) =
            matchers.iter().partition(|m| !m.matches_empty());
        for matcher in strict {
            let list = self.union(source, matcher, true)?;
            if list.is_empty() {
                return Ok(Vec::new());
            }
            keep.push(list);
        }
        keep.sort_by_key(Vec::len);
        let mut keep = keep.into_iter();
        let mut series = match keep.next() {
            Some(list) => list,
            None => (0..self.series_count()).collect(),
        };
        for list in keep {
            intersect(&mut series, [&list[..]]);
        }
        for matcher in lax {
            if series.is_empty() {
                break;
            }
            let without = self.union(source, matcher, false)?;
            subtract(&mut series, &without);
        }
        Ok(series)
    }

    /// All label names, sorted. Cost: reads all postings.
    pub fn label_names(&mut self, source: &mut dyn Source) -> Result<Vec<String>, Error> {
        let mut names: Vec<u32> = Vec::new();
        for number in 0..self.directory.postings.pages() {
            let page = self.postings_page(source, number)?;
            names.extend(&page.names);
            names.dedup();
        }
        Ok(names
            .iter()
            .map(|&n| self.symbols.get(n).to_owned())
            .collect())
    }

    /// All values of a label, sorted.
    pub fn label_values(
        &mut self,
        source: &mut dyn Source,
        name: &str,
    ) -> Result<Vec<String>, Error> {
        let Some(name) = self.symbols.find(name) else {
            return Ok(Vec::new());
        };
        let mut values = Vec::new();
        self.for_each_value(source, name, 0, &mut |symbols, _, _, value| {
            values.push(symbols.get(value).to_owned());
            Ok(true)
        })?;
        Ok(values)
    }

    /// The labels of series, which ascend.
    pub fn labels(&self, source: &mut dyn Source, series: &[u32]) -> Result<Vec<Labels>, Error> {
        assert!(series.is_sorted() && series.last().is_none_or(|&s| s < self.series_count()));
        let mut pages: Vec<usize> = series.iter().map(|&s| self.page_of_series(s)).collect();
        pages.dedup();
        let mut labels = Vec::with_capacity(series.len());
        let mut packed = Vec::new();
        self.for_each_page(source, Which::Series, &pages, &mut |page, payload| {
            let rows = self.decode_rows(page, payload)?;
            let start = self.series_starts[page];
            while let Some(&next) = series.get(labels.len()) {
                let row = (next - start) as usize;
                if row >= rows.count() {
                    break;
                }
                labels.push(self.row_labels(&rows, row, &mut packed)?);
            }
            Ok(())
        })?;
        assert_eq!(labels.len(), series.len());
        Ok(labels)
    }

    /// The page of series that holds a series.
    pub(crate) fn page_of_series(&self, series: u32) -> usize {
        self.series_starts.partition_point(|&start| start <= series) - 1
    }

    pub(crate) fn series_start(&self, page: usize) -> u32 {
        self.series_starts[page]
    }

    pub(crate) fn decode_rows(&self, page: usize, payload: &[u8]) -> Result<Rows, Malformed> {
        let count = self.directory.series.counts[page] as usize;
        series::decode_page(payload, count, self.symbols.count())
    }

    pub(crate) fn row_labels(
        &self,
        rows: &Rows,
        row: usize,
        packed: &mut Vec<u8>,
    ) -> Result<Labels, Malformed> {
        packed.clear();
        for &(name, value) in rows.get(row) {
            put_label(packed, self.symbols.get(name), self.symbols.get(value));
        }
        Labels::from_packed(packed).map_err(|e| Malformed::new("labels", "a label set", e))
    }

    /// The chunk pages that may hold samples of a range of the series, which ascend: numbers for [`Index::page_range`].
    pub fn pages(&self, series: &[u32], range: &TimeRange) -> Vec<usize> {
        let mut pages: Vec<usize> = Vec::new();
        let mut next = 0;
        for &one in series {
            let of = self.directory.pages_of(one);
            for page in of.start.max(next)..of.end {
                let summary = &self.directory.summaries[page];
                if range.overlaps(summary.min_time, summary.max_time) {
                    pages.push(page);
                }
                next = page + 1;
            }
        }
        pages
    }

    /// Where a chunk page lies in the file.
    pub fn page_range(&self, page: usize) -> Range<u64> {
        self.directory.chunks.range(page)
    }

    /// Decodes the samples of `min..=max` of the series (ascending) out of the bytes of a chunk page.
    ///
    /// Cost: 1 to 3 ns for each sample of a decoded run, some ns for each entry of the page, 0.1 ns for each byte.
    pub fn decode_page(
        &self,
        page: usize,
        framed: &[u8],
        series: &[u32],
        (min, max): (i64, i64),
        each: &mut dyn FnMut(u32, Run<'_>),
    ) -> Result<(), Error> {
        let at = self.page_range(page).start;
        let corrupt = |malformed: Malformed| malformed.at(&self.file, at);
        let payload = page::open(framed, Kind::Chunks, self.id, at).map_err(corrupt)?;
        self.decode_payload(page, &payload, series, min, max, each)
            .map_err(corrupt)
    }

    pub(crate) fn decode_payload(
        &self,
        page: usize,
        payload: &[u8],
        series: &[u32],
        min: i64,
        max: i64,
        each: &mut dyn FnMut(u32, Run<'_>),
    ) -> Result<(), Malformed> {
        let mut unpacker = Unpacker::new(payload)?;
        let summary = self.directory.summaries[page];
        let ends = (
            unpacker.series[0],
            unpacker.series[unpacker.series.len() - 1],
        );
        if ends != (summary.first_series, summary.last_series) {
            let expected = format!("{} to {}", summary.first_series, summary.last_series);
            let found = format!("{} to {}", ends.0, ends.1);
            return Err(Malformed::new("series of a chunk page", expected, found));
        }
        let mut wanted = &series[series.partition_point(|&s| s < ends.0)..];
        for at in 0..unpacker.entries.len() {
            let number = unpacker.series[at];
            while wanted.first().is_some_and(|&first| first < number) {
                wanted = &wanted[1..];
            }
            match wanted.first() {
                None => break,
                Some(&first) if first > number => continue,
                Some(_) => {}
            }
            if let Some(run) = unpacker.run(at, &(min, max).into())? {
                each(number, run);
            }
        }
        Ok(())
    }

    /// Reads the samples of `min..=max` of the series (ascending) and hands them out, series by series, in the order of time.
    ///
    /// Memory: [`READ_BYTES_MAX`](crate::READ_BYTES_MAX) of pages and one run.
    pub fn read(
        &self,
        source: &mut dyn Source,
        series: &[u32],
        (min, max): (i64, i64),
        each: &mut dyn FnMut(u32, Run<'_>),
    ) -> Result<(), Error> {
        let pages = self.pages(series, &(min, max).into());
        self.for_each_page(source, Which::Chunks, &pages, &mut |page, payload| {
            self.decode_payload(page, payload, series, min, max, each)
        })
    }
}

/// Takes the number of a page and its payload.
pub(crate) type EachPage<'a> = dyn FnMut(usize, &[u8]) -> Result<(), Malformed> + 'a;

/// Takes the symbols, a page, the place of a list on it and the value of its label; says whether to go on.
type EachValue<'a> =
    dyn FnMut(&Symbols, &postings::Page, usize, u32) -> Result<bool, Malformed> + 'a;

/// A section of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Chunks,
    Symbols,
    Series,
    Postings,
}

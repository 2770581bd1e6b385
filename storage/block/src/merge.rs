//! Several files of one tenant become one: cuts of cores into a block, blocks into a larger one.
//!
//! 1. Each input is a cursor over its series, in the order of their labels; a page of labels and a piece of chunk pages in memory.
//! 2. The smallest labels of all cursors are the next series. What its inputs hold is put in the order of time ([`collected`]). Equal times: the sample of the
//!    file with the greatest order, i.e. the one logged later, wins, whether or not the values are the same.
//! 3. Deleted and expired samples are left out; a series without any is not written.
//! 4. The builder recodes what is left.
//!
//! Memory: for each input its symbols and directory, a page of labels, 256 KiB of chunk pages, and the samples of one series.

mod collected;

use std::ops::Range;
use std::rc::Rc;

use model::{Labels, TenantId, TimeRange};

pub use self::collected::add_samples;

use self::collected::Collected;
use crate::builder::Builder;
use crate::error::{Error, Malformed};
use crate::pack::{Run, Unpacker};
use crate::page::{self, Kind};
use crate::reader::{Block, Index, Which};
use crate::series::Rows;
use crate::source::Source;
use crate::tombstone::{Gone, Tombstone};

/// Chunk pages of an input that are read at once.
const AHEAD_BYTES: u64 = 256 << 10;

/// What is left out.
#[derive(Debug, Clone, Default)]
pub struct Drops {
    /// Samples before this time: the tenant's retention. `i64::MIN` keeps all.
    pub keep_from: Option<i64>,
    /// Deletions.
    pub tombstones: Vec<Tombstone>,
}

/// What a merge did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Merged {
    /// Series written.
    pub series: u64,
    /// Samples written.
    pub samples: u64,
    /// Samples that a later one of the same time replaced; equal ones too.
    pub replaced: u64,
    /// Samples left out by retention and deletions.
    pub dropped: u64,
}

/// One tenant's part of a file, on its way into a merge.
pub struct Input<'a> {
    source: &'a mut dyn Source,
    index: Index,
    id: u128,
    order: u64,
    /// Rows of the current page of series.
    rows: Rows,
    rows_page: usize,
    /// The series that is next.
    series: u32,
    labels: Option<Labels>,
    packed: Vec<u8>,
    /// Chunk pages read ahead.
    ahead: Vec<(usize, Rc<Vec<u8>>)>,
}

impl<'a> Input<'a> {
    /// Opens a tenant's part; `None` if the file has nothing of it.
    pub fn open(source: &'a mut dyn Source, tenant: &TenantId) -> Result<Option<Input<'a>>, Error> {
        let block = Block::open(source)?;
        Input::of(&block, source, tenant)
    }

    /// The same of a file that has been opened.
    pub fn of(
        block: &Block,
        source: &'a mut dyn Source,
        tenant: &TenantId,
    ) -> Result<Option<Input<'a>>, Error> {
        let Some(index) = block.index(source, tenant)? else {
            return Ok(None);
        };
        let info = &block.meta().info;
        let mut input = Input {
            source,
            index,
            id: info.id,
            order: info.order,
            rows: Rows::default(),
            rows_page: usize::MAX,
            series: 0,
            labels: None,
            packed: Vec::new(),
            ahead: Vec::new(),
        };
        input.load_labels()?;
        Ok(Some(input))
    }

    fn load_labels(&mut self) -> Result<(), Error> {
        self.labels = None;
        if self.series >= self.index.series_count() {
            return Ok(());
        }
        let page = self.index.page_of_series(self.series);
        if page != self.rows_page {
            let (index, rows) = (&self.index, &mut self.rows);
            index.for_each_page(self.source, Which::Series, &[page], &mut |page, payload| {
                *rows = index.decode_rows(page, payload)?;
                Ok(())
            })?;
            self.rows_page = page;
        }
        let row = (self.series - self.index.series_start(page)) as usize;
        let at = self.index.directory.series.range(page).start;
        let labels = self
            .index
            .row_labels(&self.rows, row, &mut self.packed)
            .map_err(|m| m.at(self.source.name(), at))?;
        self.labels = Some(labels);
        Ok(())
    }

    fn advance(&mut self) -> Result<(), Error> {
        let last = self.labels.take();
        self.series += 1;
        self.load_labels()?;
        if let (Some(last), Some(next)) = (&last, &self.labels)
            && last >= next
        {
            let page = self.index.page_of_series(self.series);
            let at = self.index.directory.series.range(page).start;
            let malformed = Malformed::new("series", format!("behind {last}"), next);
            return Err(malformed.at(self.source.name(), at));
        }
        Ok(())
    }

    /// Payload of a chunk page; they are asked for in ascending order.
    fn payload(&mut self, wanted: usize) -> Result<Rc<Vec<u8>>, Error> {
        self.ahead.retain(|(page, _)| *page >= wanted);
        if let Some((page, payload)) = self.ahead.first() {
            assert_eq!(*page, wanted, "pages are read in order");
            return Ok(Rc::clone(payload));
        }
        let start = self.index.page_range(wanted).start;
        let pages: Vec<usize> = (wanted..self.index.page_count())
            .take_while(|&page| {
                page == wanted || self.index.page_range(page).end - start <= AHEAD_BYTES
            })
            .collect();
        let end = self
            .index
            .page_range(*pages.last().expect("at least one"))
            .end;
        let whole: Range<u64> = start..end;
        let read = self.source.read(std::slice::from_ref(&whole))?;
        let bytes = read
            .first()
            .filter(|bytes| bytes.len() as u64 == whole.end - whole.start)
            .ok_or_else(|| Error::Source {
                file: self.source.name().to_owned(),
                reason: format!("it did not give the bytes {whole:?}"),
            })?;
        for page in pages {
            let range = self.index.page_range(page);
            let framed = &bytes[(range.start - start) as usize..(range.end - start) as usize];
            let payload = page::open(framed, Kind::Chunks, self.id, range.start)
                .map_err(|m| m.at(self.source.name(), range.start))?;
            self.ahead.push((page, Rc::new(payload.into_owned())));
        }
        Ok(Rc::clone(&self.ahead[0].1))
    }

    /// Appends all samples of the current series to `into`, less what is gone.
    fn collect(
        &mut self,
        gone: Gone,
        into: &mut Collected,
        merged: &mut Merged,
    ) -> Result<(), Error> {
        let pages = self.index.directory.pages_of(self.series);
        into.begin();
        for page in pages {
            let payload = self.payload(page)?;
            let at = self.index.page_range(page).start;
            let corrupt = |m: Malformed| m.at(self.source.name(), at);
            let mut unpacker = Unpacker::new(&payload).map_err(corrupt)?;
            let first = unpacker.series.partition_point(|&s| s < self.series);
            let last = unpacker.series.partition_point(|&s| s <= self.series);
            for entry in first..last {
                match unpacker.run(entry, &TimeRange::ALL).map_err(corrupt)? {
                    Some(Run::Floats { times, values }) => {
                        merged.dropped += into.floats(times, values, &gone);
                    }
                    Some(Run::Sealed(sealed)) => {
                        merged.dropped += into.sealed(&sealed, at, &gone);
                    }
                    None => {}
                }
            }
        }
        into.end(gone);
        Ok(())
    }
}

/// A merge on its way, series by series.
pub struct Merge<'m, 'a> {
    inputs: &'m mut [Input<'a>],
    drops: &'m Drops,
    merged: Merged,
    collected: Collected,
}

impl<'m, 'a> Merge<'m, 'a> {
    /// Begins to merge parts of one tenant.
    ///
    /// Inputs may come in any order: [`crate::Info::order`] counts; of equal orders the later in the list is the later logged. Where files of
    /// orders 1, 2 and 3 overlap in time and series, 1 and 3 must not be merged without 2: the result would claim the order of 3 for samples of 1.
    pub fn begin(inputs: &'m mut [Input<'a>], drops: &'m Drops) -> Merge<'m, 'a> {
        inputs.sort_by_key(|input| input.order);
        Merge {
            inputs,
            drops,
            merged: Merged::default(),
            collected: Collected::default(),
        }
    }

    /// Adds the next series to the builder, whose tenant has begun; false: there was none left. A series of which nothing is kept is not added.
    pub fn step(&mut self, builder: &mut Builder) -> Result<bool, Error> {
        let all = self.inputs.iter().filter_map(|i| i.labels.as_ref());
        let Some(labels) = all.min().cloned() else {
            return Ok(false);
        };
        let keep_from = self.drops.keep_from.unwrap_or(i64::MIN);
        let collected = &mut self.collected;
        collected.clear();
        let mut ranked = Vec::new();
        for (number, input) in self.inputs.iter_mut().enumerate() {
            if input.labels.as_ref() != Some(&labels) {
                continue;
            }
            let gone = Gone::of(&labels, input.order, keep_from, &self.drops.tombstones);
            input.collect(gone, collected, &mut self.merged)?;
            input.advance()?;
            ranked.push(number);
        }
        let settled = collected.settle().map_err(|(rank, at, malformed)| {
            malformed.at(self.inputs[ranked[rank]].source.name(), at)
        })?;
        self.merged.replaced += settled.replaced;
        self.merged.dropped += settled.dropped;
        if collected.is_empty() {
            return Ok(true);
        }
        builder.series(&labels)?;
        self.merged.samples += collected.put(builder)?;
        self.merged.series += 1;
        Ok(true)
    }

    /// What has been done.
    pub fn merged(&self) -> Merged {
        self.merged
    }
}

/// Merges all of the inputs, as [`Merge`] does it. `each` is called after every series with what was done, to write out what is ready, to show
/// progress, or to stop by an error.
pub fn merge(
    inputs: &mut [Input<'_>],
    drops: &Drops,
    builder: &mut Builder,
    each: &mut dyn FnMut(&mut Builder, &Merged) -> Result<(), Error>,
) -> Result<Merged, Error> {
    let mut merge = Merge::begin(inputs, drops);
    while merge.step(builder)? {
        each(builder, &merge.merged)?;
    }
    Ok(merge.merged)
}

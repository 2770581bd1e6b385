//! Reads all of a block and checks it against itself: every page, every sample, and that the parts of the index say the same.

use std::collections::BTreeMap;

use model::{Labels, TimeRange};

use crate::builder::Spent;
use crate::error::{Error, Malformed};
use crate::meta::Part;
use crate::pack::{Run, Unpacker};
use crate::postings::{Page, for_each_label};
use crate::reader::{Block, Index, Which};
use crate::series::Rows;
use crate::source::Source;
use crate::values::Coding;

/// What a block that is sound holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// Tenants.
    pub tenants: usize,
    /// Series of all tenants.
    pub series: u64,
    /// Samples of all tenants.
    pub samples: u64,
    /// Pages of all kinds, directories and footer included.
    pub pages: u64,
    /// What each coding is used for.
    pub codings: BTreeMap<Coding, Spent>,
}

/// Verifies everything. Cost: reads and decodes the whole block; memory as for one index with its postings.
///
/// Errors: the first thing found wrong, with file and offset.
pub fn verify(source: &mut dyn Source) -> Result<Verified, Error> {
    let block = Block::open(source)?;
    block.check_header(source)?;
    let mut verified = Verified {
        pages: 1,
        ..Verified::default()
    };
    for part in block.meta().parts.iter().filter(|part| !part.is_empty()) {
        let index = block
            .index(source, &part.tenant)?
            .expect("the footer names it");
        verify_part(&index, part, source, &mut verified)?;
    }
    Ok(verified)
}

fn verify_part(
    index: &Index,
    part: &Part,
    source: &mut dyn Source,
    verified: &mut Verified,
) -> Result<(), Error> {
    let rows = verify_series(index, part, source)?;
    verify_postings(index, &rows, source)?;
    verify_chunks(index, part, source, verified)?;
    let directory = &index.directory;
    let sections = [
        &directory.chunks,
        &directory.symbols,
        &directory.series,
        &directory.postings,
    ];
    verified.pages += 1 + sections.iter().map(|s| s.pages() as u64).sum::<u64>();
    verified.tenants += 1;
    verified.series += u64::from(part.series);
    verified.samples += part.samples;
    Ok(())
}

/// Label sets are sound and ascend strictly.
fn verify_series(index: &Index, part: &Part, source: &mut dyn Source) -> Result<Rows, Error> {
    let mut all = Rows::default();
    let mut last: Option<Labels> = None;
    let mut packed = Vec::new();
    let pages: Vec<usize> = (0..index.directory.series.pages()).collect();
    index.for_each_page(source, Which::Series, &pages, &mut |page, payload| {
        let rows = index.decode_rows(page, payload)?;
        for row in 0..rows.count() {
            let labels = index.row_labels(&rows, row, &mut packed)?;
            if let Some(last) = &last
                && *last >= labels
            {
                return Err(Malformed::new("series", format!("behind {last}"), labels));
            }
            last = Some(labels);
            all.push(rows.get(row).iter().copied());
        }
        Ok(())
    })?;
    assert_eq!(
        all.count() as u32,
        part.series,
        "checked when it was loaded"
    );
    Ok(all)
}

/// The lists are exactly those that the label sets make.
fn verify_postings(index: &Index, rows: &Rows, source: &mut dyn Source) -> Result<(), Error> {
    let mut expected = Vec::new();
    for_each_label(rows, index.symbols.count() as usize, |name, value, list| {
        expected.push((name, value, list.to_vec()));
    });
    let mut expected = expected.into_iter();
    let symbols = index.symbols.count();
    let series = index.series_count();
    let pages: Vec<usize> = (0..index.directory.postings.pages()).collect();
    let end = index.directory.postings.end();
    index.for_each_page(source, Which::Postings, &pages, &mut |number, payload| {
        let count = index.directory.postings.counts[number] as usize;
        let page = Page::decode(payload, count, symbols)?;
        let first = (page.names[0], page.values[0]);
        if first != index.directory.first_labels[number] {
            let expected = format!("{:?}", index.directory.first_labels[number]);
            return Err(Malformed::new(
                "first label of a page",
                expected,
                format!("{first:?}"),
            ));
        }
        for at in 0..page.count() {
            let found = (page.names[at], page.values[at], page.list(at, series)?);
            let expected = expected.next();
            if expected.as_ref() != Some(&found) {
                let told = |(name, value, list): &(u32, u32, Vec<u32>)| {
                    let (name, value) = (index.symbols.get(*name), index.symbols.get(*value));
                    format!("{} series of {name}={value:?}", list.len())
                };
                let expected = expected.as_ref().map_or("the end".to_owned(), told);
                return Err(Malformed::new("list", expected, told(&found)));
            }
        }
        Ok(())
    })?;
    match expected.next() {
        None => Ok(()),
        Some((name, value, _)) => {
            let label = format!("{}={:?}", index.symbols.get(name), index.symbols.get(value));
            Err(Malformed::new("lists", label, "the end").at(source.name(), end))
        }
    }
}

/// Samples decode, ascend within a series, and add up to what directory and footer say; no series is without any.
fn verify_chunks(
    index: &Index,
    part: &Part,
    source: &mut dyn Source,
    verified: &mut Verified,
) -> Result<(), Error> {
    let pages: Vec<usize> = (0..index.directory.chunks.pages()).collect();
    // Series of the last entry, and its last time of floats.
    let mut last: Option<(u32, Option<i64>)> = None;
    let (mut earliest, mut latest) = (i64::MAX, i64::MIN);
    index.for_each_page(source, Which::Chunks, &pages, &mut |page, payload| {
        let summary = index.directory.summaries[page];
        index.decode_payload(page, payload, &[], 0, 0, &mut |_, _| {})?;
        let mut unpacker = Unpacker::new(payload)?;
        let mut samples = 0;
        let (mut min, mut max) = (i64::MAX, i64::MIN);
        for at in 0..unpacker.entries.len() {
            let (series, coding) = (unpacker.series[at], unpacker.entries[at].coding);
            let len = unpacker.entries[at].body.len();
            let next = last.map_or(0, |(series, _)| series + 1);
            let same = last.is_some_and(|(last, _)| last == series);
            if !same && series != next {
                return Err(Malformed::new("series of an entry", next, series));
            }
            let before = last.filter(|_| same).and_then(|(_, time)| time);
            let run = unpacker.run(at, &TimeRange::ALL)?;
            let run = run.ok_or_else(|| Malformed::new("samples of an entry", "some", "none"))?;
            let (first, end, count) = match run {
                Run::Floats { times, .. } => {
                    let (first, end) = (times[0], times[times.len() - 1]);
                    if before.is_some_and(|before| before >= first) {
                        let expected = format!("behind {before:?}");
                        return Err(Malformed::new("times of a series", expected, first));
                    }
                    last = Some((series, Some(end)));
                    (first, end, times.len() as u64)
                }
                Run::Sealed(sealed) => {
                    last = Some((series, before));
                    (sealed.min_time, sealed.max_time, sealed.count)
                }
            };
            (min, max) = (min.min(first), max.max(end));
            samples += count;
            let spent = verified.codings.entry(coding).or_default();
            spent.runs += 1;
            spent.samples += count;
            spent.bytes += len as u64;
        }
        if (min, max, samples) != (summary.min_time, summary.max_time, summary.samples) {
            let found = format!("{samples} samples from {min} to {max}");
            return Err(Malformed::new(
                "summary of a page",
                found,
                format!("{summary:?}"),
            ));
        }
        (earliest, latest) = (earliest.min(min), latest.max(max));
        Ok(())
    })?;
    let at = index.directory.chunks.start;
    let next = last.map_or(0, |(series, _)| series + 1);
    if next != part.series {
        let malformed = Malformed::new("series with samples", part.series, next);
        return Err(malformed.at(source.name(), at));
    }
    if (earliest, latest) != (part.min_time, part.max_time) {
        let expected = format!("{} to {}", part.min_time, part.max_time);
        let malformed = Malformed::new("times", expected, format!("{earliest} to {latest}"));
        return Err(malformed.at(source.name(), at));
    }
    Ok(())
}

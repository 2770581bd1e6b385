//! Turns series, in order, into the bytes of a block: no I/O here, the bytes are taken from time to time by whoever writes them.
//!
//! Samples are packed as they come and leave with their page. What stays until the end of a tenant is its index: the numbers of its labels
//! (8 bytes for each label of each series, twice that while postings are made) and the texts, each once. So memory is bounded by the series of
//! the largest tenant, whatever their samples.
//!
//! 1. [`Builder::tenant`], ascending by name.
//! 2. [`Builder::series`], ascending by labels; then its samples, ascending by time. A series without samples leaves no trace.
//! 3. [`Builder::finish`].

use std::collections::BTreeMap;

use model::{Labels, TenantId};

use crate::directory::{Directory, Section};
use crate::error::Error;
use crate::ints::Effort;
use crate::limits::{
    LABELS_MAX, PAGE_BYTES, PAGE_BYTES_MAX, RUN_SAMPLES_MAX, SEALED_BYTES_MAX, SERIES_MAX,
    SERIES_PER_PAGE, SYMBOL_BYTES_MAX, TENANTS_MAX,
};
use crate::meta::{self, FileKind, Info, Meta, Part};
use crate::pack::{Packer, SealedRun};
use crate::page::{self, Kind};
use crate::postings::{self, PageWriter};
use crate::series::{self, Rows};
use crate::symbols::{self, Interner};
use crate::values::Coding;

/// How a block is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Payload of a chunk page at which the next begins, 1 to 1 MiB.
    pub page_bytes: usize,
    /// Work taken on for the size of samples.
    pub effort: Effort,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            page_bytes: PAGE_BYTES,
            effort: Effort::Best,
        }
    }
}

impl Options {
    /// Checks the bounds.
    pub fn validate(&self) -> Result<(), Error> {
        if !(1..=1 << 20).contains(&self.page_bytes) {
            let given = self.page_bytes;
            return Err(Error::Input(format!(
                "block option page_bytes is {given}, must be 1 to 1048576"
            )));
        }
        Ok(())
    }
}

/// Runs, samples and bytes of values (times, heads and frames apart) in one coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// Runs.
    pub runs: u64,
    /// Samples.
    pub samples: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What a builder has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The footer.
    pub meta: Meta,
    /// Bytes of the file.
    pub bytes: u64,
    /// What each coding was used for.
    pub codings: BTreeMap<Coding, Spent>,
}

/// A block in the making.
#[derive(Debug)]
pub struct Builder {
    info: Info,
    options: Options,
    /// Not taken yet.
    out: Vec<u8>,
    /// Where `out` ends in the file.
    position: u64,
    parts: Vec<Part>,
    open: Option<OpenPart>,
    codings: BTreeMap<Coding, Spent>,
    payload: Vec<u8>,
}

#[derive(Debug)]
struct OpenPart {
    tenant: TenantId,
    start: u64,
    interner: Interner,
    rows: Rows,
    packer: Packer,
    directory: Directory,
    /// The series being added; not in `rows` before it has a sample.
    labels: Option<Labels>,
    entered: bool,
    /// Samples not packed yet.
    times: Vec<i64>,
    values: Vec<f64>,
    /// Time of the last sample of the series.
    last_time: Option<i64>,
    /// Start of the last sealed chunk of the series.
    last_sealed: Option<i64>,
    samples: u64,
}

impl Builder {
    /// Begins a file. Errors: [`Error::Input`] if info or options are out of bounds.
    pub fn new(info: Info, options: Options) -> Result<Builder, Error> {
        options.validate()?;
        info.check()?;
        let out = meta::header(&info).to_vec();
        Ok(Builder {
            position: out.len() as u64,
            info,
            options,
            out,
            parts: Vec::new(),
            open: None,
            codings: BTreeMap::new(),
            payload: Vec::new(),
        })
    }

    /// Begins a tenant; the one before is complete then.
    ///
    /// Errors: [`Error::Input`] if tenants do not ascend, a block would have two, or a file too many.
    pub fn tenant(&mut self, tenant: &TenantId) -> Result<(), Error> {
        let last = self
            .open
            .as_ref()
            .map(|open| &open.tenant)
            .or_else(|| self.parts.last().map(|part| &part.tenant));
        if let Some(last) = last {
            if last >= tenant {
                return Err(Error::Input(format!(
                    "tenant {tenant} comes behind {last}: they must ascend"
                )));
            }
            if self.info.kind == FileKind::Block || self.parts.len() + 1 >= TENANTS_MAX {
                return Err(Error::Input(format!(
                    "no room for tenant {tenant}: a block has one, a cut {TENANTS_MAX}"
                )));
            }
        }
        self.close_part();
        self.open = Some(OpenPart {
            tenant: tenant.clone(),
            start: self.position,
            interner: Interner::default(),
            rows: Rows::default(),
            packer: Packer::default(),
            directory: Directory {
                chunks: Section::begin(self.position),
                ..Directory::default()
            },
            labels: None,
            entered: false,
            times: Vec::new(),
            values: Vec::new(),
            last_time: None,
            last_sealed: None,
            samples: 0,
        });
        Ok(())
    }

    /// Begins a series of the tenant.
    ///
    /// Errors: [`Error::Input`] without a tenant, if series do not ascend, or beyond the bounds of labels.
    pub fn series(&mut self, labels: &Labels) -> Result<(), Error> {
        self.flush_samples();
        let Some(open) = &mut self.open else {
            return Err(Error::Input("a series without a tenant".to_owned()));
        };
        if let Some(last) = &open.labels
            && last >= labels
        {
            return Err(Error::Input(format!(
                "series {labels} comes behind {last}: they must ascend"
            )));
        }
        let too_long = |(name, value): (&str, &str)| name.len().max(value.len()) > SYMBOL_BYTES_MAX;
        let count = labels.count();
        let pairs = open.rows.pair_count() + count;
        if count > LABELS_MAX || labels.iter().any(too_long) || pairs > u32::MAX as usize {
            return Err(Error::Input(format!(
                "a series of {count} labels is beyond the bounds of a block"
            )));
        }
        if open.rows.count() >= SERIES_MAX as usize {
            return Err(Error::Input(format!(
                "tenant {} has more than {SERIES_MAX} series",
                open.tenant
            )));
        }
        open.labels = Some(labels.clone());
        open.entered = false;
        open.last_time = None;
        open.last_sealed = None;
        Ok(())
    }

    /// Adds samples of the series, as many times as values.
    ///
    /// Errors: [`Error::Input`] without a series, or if times do not ascend strictly; nothing was added then.
    pub fn samples(&mut self, times: &[i64], values: &[f64]) -> Result<(), Error> {
        assert_eq!(times.len(), values.len());
        let Some(open) = self.open.as_mut().filter(|open| open.labels.is_some()) else {
            return Err(Error::Input("samples without a series".to_owned()));
        };
        let Some(&first) = times.first() else {
            return Ok(());
        };
        if open.last_time.is_some_and(|last| last >= first) || !times.is_sorted_by(|a, b| a < b) {
            let labels = open.labels.as_ref().expect("there is a series");
            return Err(Error::Input(format!(
                "samples of {labels} do not ascend behind {:?}",
                open.last_time
            )));
        }
        open.last_time = times.last().copied();
        let (mut times, mut values) = (times, values);
        while !times.is_empty() {
            let open = self.open.as_mut().expect("there is a series");
            let room = (RUN_SAMPLES_MAX - open.times.len()).min(times.len());
            open.times.extend_from_slice(&times[..room]);
            open.values.extend_from_slice(&values[..room]);
            (times, values) = (&times[room..], &values[room..]);
            if open.times.len() == RUN_SAMPLES_MAX {
                self.flush_samples();
            }
        }
        Ok(())
    }

    /// Adds a sealed chunk of the series, of whatever encoding, as it is.
    ///
    /// Errors: [`Error::Input`] without a series, if chunks do not ascend by their start, or if it is too long.
    pub fn sealed(&mut self, sealed: &SealedRun<'_>) -> Result<(), Error> {
        self.flush_samples();
        let Some(open) = self.open.as_mut().filter(|open| open.labels.is_some()) else {
            return Err(Error::Input("a chunk without a series".to_owned()));
        };
        let len = sealed.bytes.len();
        let descends = open.last_sealed.is_some_and(|last| last > sealed.min_time);
        if len > SEALED_BYTES_MAX || sealed.min_time > sealed.max_time || descends {
            return Err(Error::Input(format!(
                "a sealed chunk of {len} bytes from {} to {} is too long or out of order",
                sealed.min_time, sealed.max_time
            )));
        }
        open.last_sealed = Some(sealed.min_time);
        // No page grows beyond its bound, however large its last entry.
        if open.packer.len() + len > PAGE_BYTES_MAX / 2 && !open.packer.is_empty() {
            self.seal_page();
        }
        let series = self.enter();
        let open = self.open.as_mut().expect("there is a series");
        open.samples += sealed.count;
        let len = open.packer.add_sealed(series, sealed);
        spend(&mut self.codings, Coding::Sealed, sealed.count, len);
        self.seal_full_page();
        Ok(())
    }

    /// The number of the series being added, which has a sample now.
    fn enter(&mut self) -> u32 {
        let open = self.open.as_mut().expect("there is a series");
        if !open.entered {
            open.entered = true;
            let labels = open.labels.clone().expect("there is a series");
            let interner = &mut open.interner;
            let pairs: Vec<(u32, u32)> = labels
                .iter()
                .map(|(name, value)| (interner.number(name), interner.number(value)))
                .collect();
            open.rows.push(pairs.into_iter());
        }
        (open.rows.count() - 1) as u32
    }

    fn flush_samples(&mut self) {
        if self.open.as_ref().is_none_or(|open| open.times.is_empty()) {
            return;
        }
        let series = self.enter();
        let open = self.open.as_mut().expect("checked above");
        let count = open.times.len() as u64;
        let effort = self.options.effort;
        let (coding, len) = open.packer.add(series, &open.times, &open.values, effort);
        open.samples += count;
        open.times.clear();
        open.values.clear();
        spend(&mut self.codings, coding, count, len);
        self.seal_full_page();
    }

    fn seal_full_page(&mut self) {
        let open = self.open.as_ref().expect("there is a series");
        if open.packer.len() >= self.options.page_bytes {
            self.seal_page();
        }
    }

    fn seal_page(&mut self) {
        let open = self.open.as_mut().expect("there is a tenant");
        self.payload.clear();
        let summary = open.packer.finish(&mut self.payload);
        open.directory.summaries.push(summary);
        let compress = self.options.effort == Effort::Best;
        let len = self.put_page(Kind::Chunks, compress);
        let open = self.open.as_mut().expect("there is a tenant");
        open.directory.chunks.push(len);
    }

    /// Seals `payload` behind what there is.
    fn put_page(&mut self, kind: Kind, compress: bool) -> usize {
        let len = page::seal(
            kind,
            &self.payload,
            compress,
            self.info.id,
            self.position,
            &mut self.out,
        );
        self.position += len as u64;
        self.payload.clear();
        len
    }

    /// Writes the index of the open tenant. A tenant without samples leaves no trace but in a merged file, where it says that nothing is left.
    fn close_part(&mut self) {
        self.flush_samples();
        if self
            .open
            .as_ref()
            .is_some_and(|open| !open.packer.is_empty())
        {
            self.seal_page();
        }
        let Some(mut open) = self.open.take() else {
            return;
        };
        if open.rows.count() == 0 {
            if self.info.level > 0 {
                self.parts.push(Part {
                    tenant: open.tenant,
                    min_time: 0,
                    max_time: 0,
                    series: 0,
                    samples: 0,
                    range: open.start..open.start,
                    index_start: open.start,
                    directory_start: open.start,
                });
            }
            return;
        }
        let index_start = self.position;
        let mut directory = open.directory;
        assert_eq!(directory.chunks.end(), index_start);
        let (texts, ranks) = open.interner.sort();
        open.rows.renumber(&ranks);
        self.put_symbols(&texts, &mut directory);
        self.put_series(&open.rows, &mut directory);
        self.put_postings(&open.rows, texts.len(), &mut directory);
        let directory_start = self.position;
        assert_eq!(directory.end_of_sections(), directory_start);
        directory.encode(&mut self.payload);
        self.put_page(Kind::Directory, true);
        let times = directory.summaries.iter();
        self.parts.push(Part {
            tenant: open.tenant,
            min_time: times.clone().map(|s| s.min_time).min().expect("a page"),
            max_time: times.map(|s| s.max_time).max().expect("a page"),
            series: open.rows.count() as u32,
            samples: open.samples,
            range: open.start..self.position,
            index_start,
            directory_start,
        });
    }

    fn put_symbols(&mut self, texts: &[Box<str>], directory: &mut Directory) {
        directory.symbols = Section::begin(self.position);
        let mut rest = texts;
        while !rest.is_empty() {
            let count = symbols::encode_page(rest, &mut self.payload);
            rest = &rest[count..];
            let len = self.put_page(Kind::Symbols, true);
            directory.symbols.push(len);
            directory.symbols.counts.push(count as u32);
        }
    }

    fn put_series(&mut self, rows: &Rows, directory: &mut Directory) {
        directory.series = Section::begin(self.position);
        for start in (0..rows.count()).step_by(SERIES_PER_PAGE) {
            let end = (start + SERIES_PER_PAGE).min(rows.count());
            series::encode_page(rows, start..end, &mut self.payload);
            let len = self.put_page(Kind::Series, true);
            directory.series.push(len);
            directory.series.counts.push((end - start) as u32);
        }
    }

    fn put_postings(&mut self, rows: &Rows, symbols: usize, directory: &mut Directory) {
        directory.postings = Section::begin(self.position);
        let mut page = PageWriter::default();
        let mut seal = |builder: &mut Builder, page: &mut PageWriter| {
            directory.postings.counts.push(page.count() as u32);
            directory.first_labels.push(page.first());
            page.finish(&mut builder.payload);
            let len = builder.put_page(Kind::Postings, true);
            directory.postings.push(len);
        };
        postings::for_each_label(rows, symbols, |name, value, list| {
            page.add(name, value, list);
            if page.is_full() {
                seal(self, &mut page);
            }
        });
        if page.count() > 0 {
            seal(self, &mut page);
        }
    }

    /// Completes the file; its last bytes are still to be taken.
    pub fn finish(&mut self) -> Built {
        self.close_part();
        let meta = Meta {
            info: self.info.clone(),
            parts: std::mem::take(&mut self.parts),
        };
        meta.encode(&mut self.payload);
        let footer_start = self.position;
        let footer_len = self.put_page(Kind::Footer, true);
        let trailer = meta::trailer(&self.info, footer_start, footer_len);
        self.out.extend_from_slice(&trailer);
        self.position += trailer.len() as u64;
        Built {
            meta,
            bytes: self.position,
            codings: std::mem::take(&mut self.codings),
        }
    }

    /// Bytes that can be taken.
    pub fn ready(&self) -> usize {
        self.out.len()
    }

    /// Takes the bytes made since the last call.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }
}

fn spend(codings: &mut BTreeMap<Coding, Spent>, coding: Coding, samples: u64, bytes: usize) {
    let spent = codings.entry(coding).or_default();
    spent.runs += 1;
    spent.samples += samples;
    spent.bytes += bytes as u64;
}

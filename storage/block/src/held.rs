//! Chunk pages that a reader keeps, to decode runs out of them when it comes to their series.
//!
//! A query reads the pages that it needs in one go and evaluates series by series, on several threads. So the pages are shared and stay packed:
//! a page of 16 KiB holds some ten thousand samples, which would be sixteen times as many bytes as columns.

use std::fmt;
use std::sync::Arc;

use chunk::HistogramAppender;
use model::TimeRange;

use crate::error::{Error, Malformed};
use crate::pack::{Decoder, Entry, Run, SealedRun, Unpacker};
use crate::reader::{Index, Which};
use crate::source::Source;
use crate::tombstone::Gone;

/// The payload of a chunk page, verified.
pub(crate) struct HeldPage {
    file: Arc<str>,
    /// Of the page in its file, for messages.
    offset: u64,
    /// Of the file: of two samples of a series and time that of the greater order counts.
    order: u64,
    /// What its times are told from.
    base: i64,
    payload: Vec<u8>,
}

/// A run on a page: one series over some time.
#[derive(Debug, Clone)]
pub struct HeldRun {
    page: Arc<HeldPage>,
    entry: Entry,
    /// What has been deleted of its series; `None` where nothing has.
    gone: Option<Arc<Gone>>,
}

/// What [`Index::runs`] finds.
#[derive(Debug, Clone)]
pub struct FoundRun {
    /// Number of its series.
    pub series: u32,
    /// Time of its first sample, milliseconds.
    pub min_time: i64,
    /// Time of its last sample.
    pub max_time: i64,
    /// Where its samples are.
    pub run: HeldRun,
}

impl HeldRun {
    /// Bytes that it takes on its page.
    pub fn len(&self) -> usize {
        self.entry.body.len()
    }

    /// Never: a run has samples.
    pub fn is_empty(&self) -> bool {
        self.entry.body.is_empty()
    }

    /// Place of its file in the order of logging.
    pub fn order(&self) -> u64 {
        self.page.order
    }

    /// The same without what is gone.
    pub fn without(self, gone: &Arc<Gone>) -> HeldRun {
        HeldRun {
            gone: Some(gone.clone()),
            ..self
        }
    }

    /// Hands out the samples of a range, if there are any, in pieces where something between them is gone. A sealed chunk comes whole, but for what is gone,
    /// if any of it can be in the range; and where the range has windows, floats between them may come too.
    ///
    /// Errors: [`Error::Corrupt`] naming file and page. Cost: 2 to 7 ns for each sample of the run; where few of them are wanted, what unpacking them takes; where
    /// none is, that of reading the times.
    pub fn decode(&self, range: &TimeRange, each: &mut dyn FnMut(Run<'_>)) -> Result<(), Error> {
        let page = &*self.page;
        let mut decoder = Decoder::default();
        let mut unpack = || -> Result<(), Malformed> {
            let run = decoder.run(&page.payload, page.base, &self.entry, range)?;
            let Some(run) = run else {
                return Ok(());
            };
            match (&self.gone, run) {
                (None, run) => each(run),
                (Some(gone), Run::Floats { times, values }) => {
                    gone.for_each_kept(times, &mut |kept| {
                        let (times, values) = (&times[kept.clone()], &values[kept]);
                        each(Run::Floats { times, values });
                    });
                }
                (Some(gone), Run::Sealed(sealed)) => {
                    let rest = Reopened::of(&sealed, gone)?;
                    match &rest {
                        Some(rest) => rest.run().into_iter().for_each(|s| each(Run::Sealed(s))),
                        None => each(Run::Sealed(sealed)),
                    }
                }
            }
            Ok(())
        };
        unpack().map_err(|malformed| malformed.at(&page.file, page.offset))
    }
}

impl Index {
    /// Finds the runs of the series (ascending) that may have samples in a range; pages that have none are not read, the others are handed to `hold` with their bytes, which may refuse.
    ///
    /// Runs come by series, those of floats of one series by time. `None`: `hold` has said no.
    /// Memory: the pages, for as long as a run of them is kept. Cost: reads each page once, decodes its times.
    pub fn runs(
        &self,
        source: &mut dyn Source,
        order: u64,
        series: &[u32],
        range: &TimeRange,
        hold: &mut dyn FnMut(usize) -> bool,
        each: &mut dyn FnMut(FoundRun),
    ) -> Result<Option<()>, Error> {
        let file: Arc<str> = source.name().into();
        let pages = self.pages(series, range);
        let mut refused = false;
        // In bounded pieces, so that a refusal comes soon.
        for some in pages.chunks(PAGES_AT_ONCE) {
            self.for_each_page(source, Which::Chunks, some, &mut |page, payload| {
                if refused || !hold(payload.len()) {
                    refused = true;
                    return Ok(());
                }
                let payload = payload.to_vec();
                let (base, found) = {
                    let mut unpacker = Unpacker::new(&payload)?;
                    (unpacker.base(), find(&mut unpacker, series, range)?)
                };
                let page = Arc::new(HeldPage {
                    file: Arc::clone(&file),
                    offset: self.page_range(page).start,
                    order,
                    base,
                    payload,
                });
                for (series, (min_time, max_time), entry) in found {
                    let run = HeldRun {
                        page: Arc::clone(&page),
                        entry,
                        gone: None,
                    };
                    each(FoundRun {
                        series,
                        min_time,
                        max_time,
                        run,
                    });
                }
                Ok(())
            })?;
            if refused {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }
}

/// What is left of a sealed chunk of which a part is gone.
struct Reopened {
    times: Vec<i64>,
    bytes: Vec<u8>,
}

impl Reopened {
    /// `None` where nothing of the chunk is gone.
    fn of(sealed: &SealedRun<'_>, gone: &Gone) -> Result<Option<Reopened>, Malformed> {
        if !gone.overlaps(sealed.min_time, sealed.max_time) {
            return Ok(None);
        }
        let wrong = |error: chunk::Error| Malformed::new("sealed chunk", "a sound one", error);
        let (mut times, mut values) = (Vec::new(), Vec::new());
        let (min, max) = (i64::MIN, i64::MAX);
        chunk::decode_histograms(sealed.bytes, min, max, &mut times, &mut values).map_err(wrong)?;
        let mut rest = Reopened {
            times: Vec::with_capacity(times.len()),
            bytes: Vec::new(),
        };
        let mut chunk: Option<HistogramAppender> = None;
        let mut gap = false;
        for (time, mut value) in times.into_iter().zip(values) {
            if gone.contains(time) {
                gap = true;
                continue;
            }
            if gap {
                // It was said of a sample that is gone.
                value.forget_counter_reset();
            }
            gap = false;
            let chunk = chunk.get_or_insert_with(|| HistogramAppender::for_kind_of(&value));
            chunk.append(time, &value);
            rest.times.push(time);
        }
        rest.bytes = chunk.map_or_else(Vec::new, |chunk| chunk.seal());
        Ok(Some(rest))
    }

    fn run(&self) -> Option<SealedRun<'_>> {
        Some(SealedRun {
            min_time: *self.times.first()?,
            max_time: *self.times.last()?,
            count: self.times.len() as u64,
            bytes: &self.bytes,
        })
    }
}

/// Pages between two looks at whether to go on: 4 MiB of the usual ones.
const PAGES_AT_ONCE: usize = 256;

/// A series, and of one of its entries first and last time and where it is.
type Found = (u32, (i64, i64), Entry);

fn find(
    unpacker: &mut Unpacker<'_>,
    series: &[u32],
    range: &TimeRange,
) -> Result<Vec<Found>, Malformed> {
    let (mut found, mut wanted) = (Vec::new(), series);
    for at in 0..unpacker.entries.len() {
        let number = unpacker.series[at];
        let skipped = wanted.partition_point(|&one| one < number);
        wanted = &wanted[skipped..];
        match wanted.first() {
            None => break,
            Some(&first) if first > number => continue,
            Some(_) => {}
        }
        if let Some(ends) = unpacker.span(at, range)? {
            found.push((number, ends, unpacker.entries[at].clone()));
        }
    }
    Ok(found)
}

impl fmt::Debug for HeldPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeldPage({} at {})", self.file, self.offset)
    }
}

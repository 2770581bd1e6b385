//! Series of native histograms, and series that have both kinds of samples.
//!
//! A series has one open chunk, of floats or of histograms; a sample of the other kind closes it. While it is one of histograms, it lies in a
//! box at the cold row, and the row, which every float sample touches, says so without a bit of its own: its cut time is
//! [`HISTOGRAMS_OPEN`], before every time, and its chunk holds a single placeholder at the same time. So the hot path
//! finds that a float is late for a cut, as it does every two hours, and only there learns that it has to close histograms.
//! Nobody outside this module and `append` looks at the chunk of such a row: see [`Memtable::open`].

use chunk::{HistogramAppender, XorAppender};
use model::{HistogramSample, SeriesId, same_value};

use super::append::{Admission, Bounds, SeriesLimits, SeriesRefused};
use super::{Memtable, NO_SEGMENT, cut_after};
use crate::limits::HISTOGRAM_CHUNK_BYTES;
use crate::message::RejectReason;

/// The cut time of a row whose open chunk is one of histograms; no cut lies there. A parked row has another.
pub(crate) const HISTOGRAMS_OPEN: i64 = i64::MIN;

/// Value of the placeholder: a NaN that nobody sends, since a float of the same time and bits would count as a repetition of it.
const PLACEHOLDER: f64 = f64::from_bits(0x7ff0_6d79_656c_696e);

/// The open chunk of a series of histograms.
#[derive(Debug)]
pub(crate) struct Native {
    pub(crate) chunk: HistogramAppender,
    /// The chunk ends before this time.
    cut_time: i64,
}

impl Native {
    /// Goes on with a chunk that is not empty.
    pub(super) fn new(chunk: HistogramAppender) -> Box<Native> {
        let cut_time = cut_after(chunk.first_time());
        Box::new(Native { chunk, cut_time })
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        size_of::<Native>() + self.chunk.heap_bytes()
    }
}

/// The open chunk of a live series; an empty one of floats where the series is parked.
#[derive(Clone, Copy)]
pub(crate) enum Open<'a> {
    Floats(&'a XorAppender),
    Histograms(&'a HistogramAppender),
}

impl Open<'_> {
    pub(crate) fn is_empty(self) -> bool {
        self.count() == 0
    }

    pub(crate) fn first_time(self) -> i64 {
        match self {
            Open::Floats(chunk) => chunk.first_time(),
            Open::Histograms(chunk) => chunk.first_time(),
        }
    }

    pub(crate) fn last_time(self) -> i64 {
        match self {
            Open::Floats(chunk) => chunk.last_time(),
            Open::Histograms(chunk) => chunk.last_time(),
        }
    }

    /// Samples so far.
    pub(crate) fn count(self) -> u16 {
        match self {
            Open::Floats(chunk) => chunk.count(),
            Open::Histograms(chunk) => chunk.count(),
        }
    }

    pub(crate) fn seal(self) -> Vec<u8> {
        match self {
            Open::Floats(chunk) => chunk.seal(),
            Open::Histograms(chunk) => chunk.seal(),
        }
    }
}

/// A sample of either kind, to be compared or started with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    Float(f64),
    Histogram(&'a HistogramSample),
}

/// A sample as it is stored.
#[derive(Debug, Clone)]
pub(crate) enum Stored {
    Float(f64),
    Histogram(HistogramSample),
}

impl Stored {
    /// To be stored again.
    pub(crate) fn value(&self) -> Value<'_> {
        match self {
            Stored::Float(value) => Value::Float(*value),
            Stored::Histogram(histogram) => Value::Histogram(histogram),
        }
    }

    /// Whether a sample of the same time says the same. A float never says what a histogram says.
    pub(crate) fn is(&self, value: Value<'_>) -> bool {
        match (self, value) {
            (Stored::Float(stored), Value::Float(value)) => same_value(*stored, value),
            (Stored::Histogram(stored), Value::Histogram(value)) => stored.same_value(value),
            _ => false,
        }
    }
}

impl Memtable {
    /// Whether the open chunk of a live series is one of histograms.
    #[inline]
    pub(crate) fn holds_histograms(&self, series: u32) -> bool {
        self.rows[series].cut_time == HISTOGRAMS_OPEN
    }

    /// The open chunk of a live series.
    pub(crate) fn open(&self, series: u32) -> Open<'_> {
        let row = &self.rows[series];
        if row.cut_time != HISTOGRAMS_OPEN {
            return Open::Floats(&row.chunk);
        }
        Open::Histograms(&self.native(series).chunk)
    }

    fn native(&self, series: u32) -> &Native {
        let native = self.colds[series].native.as_ref();
        native.expect("the cut time says that there is one")
    }

    /// What is to be done with a histogram of a live series; see [`super::append`] for the rules, which are those of floats.
    pub(crate) fn admit_histogram(
        &mut self,
        series: u32,
        time: i64,
        histogram: &HistogramSample,
        bounds: Bounds,
    ) -> Admission {
        if time > self.last_time(series) {
            return match time {
                i64::MAX => Admission::Rejected(RejectReason::OutOfBounds),
                _ => Admission::Append,
            };
        }
        self.admit_old(series, time, Value::Histogram(histogram), bounds)
    }

    /// Appends an admitted histogram, into a chunk of its own kind.
    pub(crate) fn append_histogram(&mut self, series: u32, time: i64, histogram: &HistogramSample) {
        let full = match &self.colds[series].native {
            Some(native) if self.holds_histograms(series) => {
                time >= native.cut_time
                    || native.chunk.count() >= self.chunk_samples_max
                    || !native.chunk.has_room_for(histogram, HISTOGRAM_CHUNK_BYTES)
            }
            _ => true,
        };
        if full {
            match self.is_parked(series) {
                true => self.totals.parked -= 1,
                false => self.seal_open(series),
            }
            self.open_histograms(series, time, histogram);
        }
        let native = self.colds[series].native.as_mut();
        native.expect("opened above").chunk.append(time, histogram);
    }

    /// Begins an empty chunk of histograms, to which the caller appends this one. What was open has been sealed, or there was nothing.
    fn open_histograms(&mut self, series: u32, time: i64, histogram: &HistogramSample) {
        self.colds[series].native = Some(Box::new(Native {
            chunk: HistogramAppender::for_kind_of(histogram),
            cut_time: cut_after(time),
        }));
        self.mark_histograms_open(series);
    }

    /// Makes the row one whose open chunk is at the cold row.
    pub(super) fn mark_histograms_open(&mut self, series: u32) {
        let row = &mut self.rows[series];
        row.cut_time = HISTOGRAMS_OPEN;
        // Whatever float comes next has nothing to build on.
        row.segment = NO_SEGMENT;
        row.chunk.clear();
        row.chunk.shrink();
        row.chunk.append(HISTOGRAMS_OPEN, PLACEHOLDER);
    }

    /// What is to be done with a float of a series whose open chunk is one of histograms. If it is appended, the caller cuts first.
    #[cold]
    pub(crate) fn admit_float_after_histograms(
        &mut self,
        series: u32,
        (time, value): (i64, f64),
        bounds: Bounds,
    ) -> Admission {
        if time > self.native(series).chunk.last_time() {
            return Admission::Append;
        }
        self.admit_old(series, time, Value::Float(value), bounds)
    }

    /// Makes a series whose first sample is a histogram; see [`Memtable::create_series`].
    pub(crate) fn create_histogram_series(
        &mut self,
        tenant: u32,
        id: SeriesId,
        packed: &[u8],
        first: (i64, &HistogramSample),
        limits: SeriesLimits,
    ) -> Result<u32, SeriesRefused> {
        let placeholder = (HISTOGRAMS_OPEN, PLACEHOLDER);
        let series = self.create_series(tenant, id, packed, placeholder, limits)?;
        self.open_histograms(series, first.0, first.1);
        self.append_histogram(series, first.0, first.1);
        Ok(series)
    }

    /// Makes a row live with a histogram; see [`Memtable::start_series`].
    pub(super) fn start_histogram_series(
        &mut self,
        series: u32,
        tenant: u32,
        generation: u32,
        first: (i64, &HistogramSample),
    ) {
        let placeholder = (HISTOGRAMS_OPEN, PLACEHOLDER);
        self.start_series(series, tenant, generation, placeholder);
        self.open_histograms(series, first.0, first.1);
        self.append_histogram(series, first.0, first.1);
    }
}

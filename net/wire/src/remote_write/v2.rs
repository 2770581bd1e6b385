//! A walk over `io.prometheus.write.v2.Request` in place.
//!
//! ```text
//! Request    { 4 symbols, 5 timeseries }                       symbol 0 is the empty string
//! TimeSeries { 1 labels_refs, 2 samples, 3 histograms, 4 exemplars, 5 metadata, 6 created timestamp }
//! Sample     { 1 double value, 2 int64 timestamp in ms, 3 int64 start timestamp in ms }
//! Metadata   { 1 type, 3 help_ref, 4 unit_ref }
//! ```
//!
//! Labels are references into the symbols of this request: the same series has other references in the next one. [`Symbols`] is read
//! first, in a pass of its own (protobuf lets symbols follow series), into memory that is used again. A series' *reference bytes*
//! are the packed varints of its label references: what a caller folds into a hash, and what [`labels`] turns into names and values.
//! Field 6 is of an older draft. The rules of version 2 that concern the whole request are checked here: symbol 0 is empty, each
//! reference names a symbol, a series has a sample or a histogram.

use super::Error;
use super::sample::{read_started_sample, take_usual_sample};
use crate::proto::{self, BYTES, Malformed, Reader, VARINT, bytes_tag};

const SYMBOLS: u32 = 4;
const SERIES: u32 = 5;
const REFS_TAG: u8 = bytes_tag(1);
const SAMPLES_TAG: u8 = bytes_tag(2);

/// Where the symbols of a request lie in its body.
#[derive(Debug, Clone, Default)]
pub struct Symbols {
    spans: Vec<(u32, u32)>,
}

impl Symbols {
    /// Reads the symbols of a body, replacing those of the last one.
    ///
    /// Errors: broken framing, a body above 4 GiB, a first symbol that is not empty. Cost: one pass over the records, series are
    /// skipped whole; 8 bytes a symbol.
    pub fn read(&mut self, body: &[u8]) -> Result<(), Error> {
        self.spans.clear();
        let mut reader = Reader::new(body);
        while !reader.is_empty() {
            let at = body.len() - reader.rest().len();
            let error = |what| Error { at, what };
            let (field, kind) = reader.tag().map_err(error)?;
            if field != SYMBOLS {
                reader.skip(field, kind).map_err(error)?;
                continue;
            }
            proto::expect(field, kind, BYTES).map_err(error)?;
            let symbol = reader.bytes().map_err(error)?;
            let end = body.len() - reader.rest().len();
            if self.spans.is_empty() && !symbol.is_empty() {
                return Err(error(Malformed::FirstSymbol));
            }
            let end = u32::try_from(end).map_err(|_| error(Malformed::Truncated))?;
            self.spans.push((end - symbol.len() as u32, end));
        }
        Ok(())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.spans.len()
    }

    /// All symbols in order; `body` is the one they were read from.
    pub fn iter<'a>(&'a self, body: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.spans
            .iter()
            .map(|&(begin, end)| &body[begin as usize..end as usize])
    }

    /// The symbol of a reference.
    #[inline]
    pub fn get<'a>(&self, body: &'a [u8], reference: u64) -> Result<&'a [u8], Malformed> {
        let span = usize::try_from(reference)
            .ok()
            .and_then(|at| self.spans.get(at));
        match span {
            Some(&(begin, end)) => Ok(&body[begin as usize..end as usize]),
            None => Err(Malformed::SymbolRange {
                reference,
                count: self.spans.len(),
            }),
        }
    }
}

/// Walks the series of an unpacked body.
#[derive(Debug, Clone)]
pub struct Walk<'a> {
    body: &'a [u8],
    reader: Reader<'a>,
}

impl<'a> Walk<'a> {
    /// Begins at the first record.
    pub fn new(body: &'a [u8]) -> Walk<'a> {
        Walk::at(body, 0)
    }

    /// Begins at a record whose offset an earlier walk told.
    ///
    /// Panics: an offset beyond the body.
    pub fn at(body: &'a [u8], offset: usize) -> Walk<'a> {
        Walk {
            body,
            reader: Reader::new(&body[offset..]),
        }
    }

    /// Byte of the body at which the next record begins: of a series, or of something between series that is skipped.
    #[inline]
    pub fn offset(&self) -> usize {
        self.body.len() - self.reader.rest().len()
    }

    /// The next series; `None` at the end.
    #[inline]
    pub fn next_series(&mut self) -> Result<Option<RawSeries<'a>>, Error> {
        while !self.reader.is_empty() {
            let at = self.offset();
            match self.read_record() {
                Ok(Some(series)) => return Ok(Some(series)),
                Ok(None) => {}
                Err(what) => return Err(Error { at, what }),
            }
        }
        Ok(None)
    }

    #[inline]
    fn read_record(&mut self) -> Result<Option<RawSeries<'a>>, Malformed> {
        let (field, kind) = self.reader.tag()?;
        if field != SERIES {
            return self.reader.skip(field, kind).map(|()| None);
        }
        proto::expect(field, kind, BYTES)?;
        RawSeries::read(self.reader.bytes()?).map(Some)
    }
}

/// A series as it lies in the body.
#[derive(Debug, Clone, Copy)]
pub struct RawSeries<'a> {
    message: &'a [u8],
    refs: &'a [u8],
    rest: &'a [u8],
}

impl<'a> RawSeries<'a> {
    #[inline]
    fn read(message: &'a [u8]) -> Result<RawSeries<'a>, Malformed> {
        let mut reader = Reader::new(message);
        let refs: &[u8] = if reader.eat(REFS_TAG) {
            reader.bytes()?
        } else {
            &[]
        };
        Ok(RawSeries {
            message,
            refs,
            rest: reader.rest(),
        })
    }

    /// The packed label references that the series begins with.
    #[inline]
    pub fn reference_bytes(&self) -> &'a [u8] {
        self.refs
    }

    /// What follows the reference bytes.
    #[inline]
    pub fn parts(&self) -> Parts<'a> {
        Parts {
            reader: Reader::new(self.rest),
        }
    }

    /// Writes all label references, packed or not and wherever they are, into `out`. Only needed once [`Part::References`] has turned up.
    pub fn gather_references(&self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        out.clear();
        let mut parts = Parts {
            reader: Reader::new(self.message),
        };
        while let Some(part) = parts.next_part()? {
            if let Part::References(packed) = part {
                out.extend_from_slice(packed);
            }
        }
        Ok(())
    }
}

/// A field of a series behind its reference bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Part<'a> {
    /// A float sample.
    Sample {
        /// Milliseconds.
        time: i64,
        /// Value, any bits.
        value: f64,
        /// When its counter began, in milliseconds; 0 where that is not said.
        start: i64,
    },
    /// When the counter of all samples of the series that do not say it themselves began, in milliseconds.
    Created(i64),
    /// A native histogram, see [`super::histogram::decode`].
    Histogram(&'a [u8]),
    /// An exemplar; its labels are references.
    Exemplar(&'a [u8]),
    /// What the metric is.
    Metadata(RawMetadata),
    /// Label references that do not stand where they belong: varints.
    References(&'a [u8]),
}

/// Walks the parts of a series.
#[derive(Debug, Clone)]
pub struct Parts<'a> {
    reader: Reader<'a>,
}

impl<'a> Parts<'a> {
    /// The next part; `None` at the end. A sample as nearly all are, without a start, and the end cost no call.
    #[inline(always)]
    pub fn next_part(&mut self) -> Result<Option<Part<'a>>, Malformed> {
        if let Some((time, value)) = take_usual_sample(&mut self.reader, SAMPLES_TAG) {
            return Ok(Some(Part::Sample {
                time,
                value,
                start: 0,
            }));
        }
        if self.reader.is_empty() {
            return Ok(None);
        }
        if self.reader.eat(SAMPLES_TAG) {
            let (time, value, start) = read_started_sample(self.reader.bytes()?)?;
            return Ok(Some(Part::Sample { time, value, start }));
        }
        self.next_other_part()
    }

    #[inline(never)]
    fn next_other_part(&mut self) -> Result<Option<Part<'a>>, Malformed> {
        while !self.reader.is_empty() {
            let (field, kind) = self.reader.tag()?;
            if field == 1 && kind == VARINT {
                let before = self.reader.rest();
                self.reader.varint()?;
                let len = before.len() - self.reader.rest().len();
                return Ok(Some(Part::References(&before[..len])));
            }
            if field == 6 && kind == VARINT {
                return Ok(Some(Part::Created(self.reader.varint()? as i64)));
            }
            if !(1..=5).contains(&field) {
                self.reader.skip(field, kind)?;
                continue;
            }
            proto::expect(field, kind, BYTES)?;
            let content = self.reader.bytes()?;
            return Ok(Some(match field {
                1 => Part::References(content),
                2 => {
                    let (time, value, start) = read_started_sample(content)?;
                    Part::Sample { time, value, start }
                }
                3 => Part::Histogram(content),
                4 => Part::Exemplar(content),
                _ => Part::Metadata(RawMetadata::read(content)?),
            }));
        }
        Ok(None)
    }
}

/// The references within reference bytes.
#[inline]
pub fn references(reference_bytes: &[u8]) -> References<'_> {
    References {
        reader: Reader::new(reference_bytes),
    }
}

/// Iterator over references; it ends after an error.
#[derive(Debug, Clone)]
pub struct References<'a> {
    reader: Reader<'a>,
}

impl Iterator for References<'_> {
    type Item = Result<u64, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let reference = self.reader.varint();
        if reference.is_err() {
            self.reader = Reader::new(&[]);
        }
        Some(reference)
    }
}

/// The labels that reference bytes mean, in the order of the sender, unchecked as in [`super::v1::labels`].
pub fn labels<'a>(
    reference_bytes: &'a [u8],
    body: &'a [u8],
    symbols: &'a Symbols,
) -> LabelReferences<'a> {
    LabelReferences {
        references: references(reference_bytes),
        body,
        symbols,
    }
}

/// Iterator over (name, value); it ends after an error.
#[derive(Debug, Clone)]
pub struct LabelReferences<'a> {
    references: References<'a>,
    body: &'a [u8],
    symbols: &'a Symbols,
}

impl<'a> Iterator for LabelReferences<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.references.next()?;
        let value = self
            .references
            .next()
            .unwrap_or(Err(Malformed::OddReferences));
        let label = name.and_then(|name| {
            Ok((
                self.symbols.get(self.body, name)?,
                self.symbols.get(self.body, value?)?,
            ))
        });
        if label.is_err() {
            self.references = references(&[]);
        }
        Some(label)
    }
}

/// Metadata of a series; texts are references.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RawMetadata {
    /// Number of the metric type.
    pub kind: u64,
    /// Help text.
    pub help: u64,
    /// Unit.
    pub unit: u64,
}

impl RawMetadata {
    fn read(message: &[u8]) -> Result<RawMetadata, Malformed> {
        let mut reader = Reader::new(message);
        let mut metadata = RawMetadata::default();
        while !reader.is_empty() {
            let (field, kind) = reader.tag()?;
            let place = match field {
                1 => &mut metadata.kind,
                3 => &mut metadata.help,
                4 => &mut metadata.unit,
                _ => {
                    reader.skip(field, kind)?;
                    continue;
                }
            };
            proto::expect(field, kind, VARINT)?;
            *place = reader.varint()?;
        }
        Ok(metadata)
    }

    /// Whether it says nothing at all.
    pub fn is_empty(&self) -> bool {
        *self == RawMetadata::default()
    }
}

#[cfg(test)]
mod tests;

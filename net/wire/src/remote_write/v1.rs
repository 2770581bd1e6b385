//! A walk over `prometheus.WriteRequest` in place.
//!
//! ```text
//! WriteRequest { 1 timeseries, 2 source, 3 metadata }
//! TimeSeries   { 1 labels, 2 samples, 3 exemplars, 4 histograms }
//! Label        { 1 name, 2 value }
//! Sample       { 1 double value, 2 int64 timestamp in ms }
//! Metadata     { 1 type, 2 metric family name, 4 help, 5 unit }
//! ```
//!
//! The hot path wants two things of a series: the *label bytes*, the run of label fields at its begin, tags and lengths included, as one
//! slice to hash; and its samples. Both cost no copy. What is inside a label field is not looked at until somebody iterates
//! [`labels`]: bytes that an alias knows were good when they were learned. Structure is always checked: every length of
//! every record, sample, exemplar and histogram field lies within its parent, or the whole body is refused.
//!
//! As everywhere in protobuf, fields may come in any order, unknown ones are skipped, and the last of a repeated scalar wins. Labels
//! that are not one run at the begin ([`Part::Label`] turns up among the parts) are rare enough to be gathered by copying: [`RawSeries::gather_labels`].

use super::sample::{read_sample, take_usual_sample};
use crate::proto::{self, BYTES, Malformed, Reader, VARINT, bytes_tag};

pub use super::Error;

const SERIES: u32 = 1;
const METADATA: u32 = 3;
const LABELS: u32 = 1;
const SAMPLES: u32 = 2;
const EXEMPLARS: u32 = 3;
const HISTOGRAMS: u32 = 4;
const SERIES_TAG: u8 = bytes_tag(SERIES as u8);
const LABELS_TAG: u8 = bytes_tag(LABELS as u8);
const SAMPLES_TAG: u8 = bytes_tag(SAMPLES as u8);

/// A record of a write request.
#[derive(Debug, Clone, Copy)]
pub enum Record<'a> {
    /// A series with its samples.
    Series(RawSeries<'a>),
    /// What a metric is.
    Metadata(RawMetadata<'a>),
}

/// Walks the records of an unpacked body.
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

    /// Byte of the body at which the next record begins.
    #[inline]
    pub fn offset(&self) -> usize {
        self.body.len() - self.reader.rest().len()
    }

    /// The next record; `None` at the end.
    ///
    /// Errors: broken framing of the record, or of the label fields a series begins with; nothing after it can be believed.
    #[inline]
    pub fn next_record(&mut self) -> Result<Option<Record<'a>>, Error> {
        while !self.reader.is_empty() {
            let at = self.offset();
            match self.read_record() {
                Ok(Some(record)) => return Ok(Some(record)),
                Ok(None) => {}
                Err(what) => return Err(Error { at, what }),
            }
        }
        Ok(None)
    }

    #[inline]
    fn read_record(&mut self) -> Result<Option<Record<'a>>, Malformed> {
        if self.reader.eat(SERIES_TAG) {
            return RawSeries::read(self.reader.bytes()?)
                .map(|series| Some(Record::Series(series)));
        }
        let (field, kind) = self.reader.tag()?;
        match field {
            SERIES => {
                proto::expect(field, kind, BYTES)?;
                let series = RawSeries::read(self.reader.bytes()?)?;
                Ok(Some(Record::Series(series)))
            }
            METADATA => {
                proto::expect(field, kind, BYTES)?;
                let metadata = RawMetadata::read(self.reader.bytes()?)?;
                Ok(Some(Record::Metadata(metadata)))
            }
            _ => self.reader.skip(field, kind).map(|()| None),
        }
    }
}

/// A series as it lies in the body.
#[derive(Debug, Clone, Copy)]
pub struct RawSeries<'a> {
    message: &'a [u8],
    labels_len: usize,
}

impl<'a> RawSeries<'a> {
    #[inline]
    fn read(message: &'a [u8]) -> Result<RawSeries<'a>, Malformed> {
        let mut reader = Reader::new(message);
        while reader.eat(LABELS_TAG) {
            reader.bytes()?;
        }
        Ok(RawSeries {
            message,
            labels_len: message.len() - reader.rest().len(),
        })
    }

    /// The run of label fields that the series begins with: what is hashed, and what [`labels`] reads.
    #[inline]
    pub fn label_bytes(&self) -> &'a [u8] {
        &self.message[..self.labels_len]
    }

    /// What follows the label bytes.
    #[inline]
    pub fn parts(&self) -> Parts<'a> {
        Parts {
            reader: Reader::new(&self.message[self.labels_len..]),
        }
    }

    /// Writes all label fields, wherever they are, as one run into `out`: [`Self::label_bytes`] of a series that had been
    /// sent in order. Only needed once [`Part::Label`] has turned up.
    pub fn gather_labels(&self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        out.clear();
        let mut parts = Parts {
            reader: Reader::new(self.message),
        };
        while let Some(part) = parts.next_part()? {
            if let Part::Label(content) = part {
                out.push(LABELS_TAG);
                model::varint::put_u64(out, content.len() as u64);
                out.extend_from_slice(content);
            }
        }
        Ok(())
    }
}

/// A field of a series behind its label bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Part<'a> {
    /// A float sample.
    Sample {
        /// Milliseconds.
        time: i64,
        /// Value, any bits.
        value: f64,
    },
    /// A native histogram, see [`super::histogram::decode`].
    Histogram(&'a [u8]),
    /// An exemplar, see [`super::exemplar::decode`].
    Exemplar(&'a [u8]),
    /// A label that does not stand where labels belong: the label bytes are not all labels of this series.
    Label(&'a [u8]),
}

/// Walks the parts of a series.
#[derive(Debug, Clone)]
pub struct Parts<'a> {
    reader: Reader<'a>,
}

impl<'a> Parts<'a> {
    /// The next part; `None` at the end. A sample as nearly all are, and the end, cost no call.
    #[inline(always)]
    pub fn next_part(&mut self) -> Result<Option<Part<'a>>, Malformed> {
        if let Some((time, value)) = take_usual_sample(&mut self.reader, SAMPLES_TAG) {
            return Ok(Some(Part::Sample { time, value }));
        }
        if self.reader.is_empty() {
            return Ok(None);
        }
        self.next_rare_part()
    }

    #[inline(never)]
    fn next_rare_part(&mut self) -> Result<Option<Part<'a>>, Malformed> {
        while !self.reader.is_empty() {
            let (field, kind) = self.reader.tag()?;
            if !(LABELS..=HISTOGRAMS).contains(&field) {
                self.reader.skip(field, kind)?;
                continue;
            }
            proto::expect(field, kind, BYTES)?;
            let content = self.reader.bytes()?;
            return match field {
                LABELS => Ok(Some(Part::Label(content))),
                SAMPLES => {
                    let (time, value) = read_sample(content)?;
                    Ok(Some(Part::Sample { time, value }))
                }
                EXEMPLARS => Ok(Some(Part::Exemplar(content))),
                _ => Ok(Some(Part::Histogram(content))),
            };
        }
        Ok(None)
    }
}

/// The labels within label bytes, in the order of the sender, unchecked: not sorted, perhaps repeated, empty or not UTF-8.
pub fn labels(label_bytes: &[u8]) -> LabelFields<'_> {
    LabelFields {
        reader: Reader::new(label_bytes),
    }
}

/// Iterator over (name, value); it ends after an error.
#[derive(Debug, Clone)]
pub struct LabelFields<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for LabelFields<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let label = read_label_field(&mut self.reader);
        if label.is_err() {
            self.reader = Reader::new(&[]);
        }
        Some(label)
    }
}

fn read_label_field<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], &'a [u8]), Malformed> {
    let (field, kind) = reader.tag()?;
    proto::expect(field, kind, BYTES)?;
    read_label(reader.bytes()?)
}

/// Name and value of one label message; a field that is not there is empty.
pub(super) fn read_label(message: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut reader = Reader::new(message);
    let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
    while !reader.is_empty() {
        match reader.tag()? {
            (1, kind) => {
                proto::expect(1, kind, BYTES)?;
                name = reader.bytes()?;
            }
            (2, kind) => {
                proto::expect(2, kind, BYTES)?;
                value = reader.bytes()?;
            }
            (field, kind) => reader.skip(field, kind)?,
        }
    }
    Ok((name, value))
}

/// Metadata as it lies in the body. Texts are not checked for UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RawMetadata<'a> {
    /// Number of the metric type.
    pub kind: u64,
    /// Name of the metric family.
    pub metric: &'a [u8],
    /// Help text.
    pub help: &'a [u8],
    /// Unit.
    pub unit: &'a [u8],
}

impl<'a> RawMetadata<'a> {
    fn read(message: &'a [u8]) -> Result<RawMetadata<'a>, Malformed> {
        let mut reader = Reader::new(message);
        let mut metadata = RawMetadata::default();
        while !reader.is_empty() {
            let (field, kind) = reader.tag()?;
            match field {
                1 => {
                    proto::expect(field, kind, VARINT)?;
                    metadata.kind = reader.varint()?;
                }
                2 | 4 | 5 => {
                    proto::expect(field, kind, BYTES)?;
                    let text = reader.bytes()?;
                    match field {
                        2 => metadata.metric = text,
                        4 => metadata.help = text,
                        _ => metadata.unit = text,
                    }
                }
                _ => reader.skip(field, kind)?,
            }
        }
        Ok(metadata)
    }
}

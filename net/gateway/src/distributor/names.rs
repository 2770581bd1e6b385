//! How the two protocols say which series it is.
//!
//! Version 1 sends labels, version 2 references into the symbols of the request. Either way a series has *name bytes* (label bytes, reference
//! bytes) that its alias hash is made of, and labels that are only read on a miss. In version 2 the same series has other references in every
//! request, so each symbol is hashed once per request and the alias hash is that of the symbols' hashes in reference order: at some 20
//! references a series and a few hundred symbols shared by all of them, fewer bytes than the labels themselves.

use std::collections::HashSet;

use wire::Malformed;
use wire::remote_write::v1::{self, RawMetadata};
use wire::remote_write::{Error, histogram, v2};

use crate::alias::{AliasHash, Secret};

/// Name bytes of one request, understood.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Names<'a> {
    /// Label fields.
    V1,
    /// References into these symbols.
    V2 {
        body: &'a [u8],
        table: &'a SymbolTable,
    },
}

impl<'a> Names<'a> {
    /// The alias hash of a series; `fold` is cleared and used.
    #[inline]
    pub(crate) fn hash(
        &self,
        name_bytes: &[u8],
        secret: &Secret,
        fold: &mut Vec<u8>,
    ) -> Result<AliasHash, Malformed> {
        match self {
            Names::V1 => Ok(secret.hash(name_bytes)),
            Names::V2 { table, .. } => {
                fold.clear();
                for reference in v2::references(name_bytes) {
                    let hash = table.hash(reference?)?;
                    fold.extend_from_slice(&hash.0.to_le_bytes());
                }
                Ok(secret.hash(fold))
            }
        }
    }

    /// The labels, in the order of the sender, unchecked.
    pub(crate) fn labels<'n>(&self, name_bytes: &'n [u8]) -> LabelIter<'n>
    where
        'a: 'n,
    {
        match *self {
            Names::V1 => LabelIter::Fields(v1::labels(name_bytes)),
            Names::V2 { body, table } => {
                LabelIter::References(v2::labels(name_bytes, body, &table.symbols))
            }
        }
    }
}

/// Labels of either protocol.
#[derive(Debug, Clone)]
pub(crate) enum LabelIter<'a> {
    Fields(v1::LabelFields<'a>),
    References(v2::LabelReferences<'a>),
}

impl<'a> Iterator for LabelIter<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self {
            LabelIter::Fields(fields) => fields.next(),
            LabelIter::References(references) => references.next(),
        }
    }
}

/// The symbols of one version 2 request, each hashed once. Used again for the next.
#[derive(Debug, Default)]
pub(crate) struct SymbolTable {
    symbols: v2::Symbols,
    hashes: Vec<AliasHash>,
    /// The symbol `__name__`.
    metric_name: Option<u64>,
}

impl SymbolTable {
    /// Reads and hashes the symbols of a body.
    pub(crate) fn read(&mut self, body: &[u8], secret: &Secret) -> Result<(), Error> {
        self.symbols.read(body)?;
        self.hashes.clear();
        self.metric_name = None;
        for (reference, symbol) in self.symbols.iter(body).enumerate() {
            self.hashes.push(secret.hash(symbol));
            if symbol == model::METRIC_NAME.as_bytes() {
                self.metric_name.get_or_insert(reference as u64);
            }
        }
        Ok(())
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.hashes.len()
    }

    pub(crate) fn symbols(&self) -> &v2::Symbols {
        &self.symbols
    }

    #[inline]
    fn hash(&self, reference: u64) -> Result<AliasHash, Malformed> {
        let hash = usize::try_from(reference)
            .ok()
            .and_then(|at| self.hashes.get(at));
        hash.copied().ok_or(Malformed::SymbolRange {
            reference,
            count: self.hashes.len(),
        })
    }

    /// Metadata of a series, unless this request has told the same of its metric before, or it says nothing.
    ///
    /// Cost for a series that says what the first one of its metric did: two references read.
    pub(crate) fn metadata<'b>(
        &self,
        body: &'b [u8],
        reference_bytes: &[u8],
        raw: &v2::RawMetadata,
        told: &mut Told,
    ) -> Result<Option<RawMetadata<'b>>, Malformed> {
        let (Some(metric_name), false) = (self.metric_name, raw.is_empty()) else {
            return Ok(None);
        };
        let mut references = v2::references(reference_bytes);
        while let (Some(name), Some(value)) = (references.next(), references.next()) {
            let (name, value) = (name?, value?);
            if name != metric_name {
                continue;
            }
            let metric = self.symbols.get(body, value)?;
            if !told.is_news(value, raw) {
                return Ok(None);
            }
            let help = self.symbols.get(body, raw.help)?;
            let unit = self.symbols.get(body, raw.unit)?;
            return Ok(Some(RawMetadata {
                kind: raw.kind,
                metric,
                help,
                unit,
            }));
        }
        Ok(None)
    }
}

/// What a version 2 request has told of its metrics. Used again for the next.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The first record of each metric, by the symbol of its name: a place in `records` and one more, or 0.
    first: Vec<u32>,
    records: Vec<v2::RawMetadata>,
    /// Records that say something else than the first of their metric.
    others: HashSet<(u64, [u64; 3])>,
}

impl Told {
    /// Forgets all, for a request with so many symbols.
    pub(crate) fn begin(&mut self, symbols: usize) {
        self.first.clear();
        self.first.resize(symbols, 0);
        self.records.clear();
        // Hardly a request has any; one with many shall not keep their memory.
        self.others = HashSet::new();
    }

    /// Whether the request has not told this of the metric; it has now. The same texts as other symbols are news.
    fn is_news(&mut self, metric: u64, raw: &v2::RawMetadata) -> bool {
        let first = &mut self.first[metric as usize];
        if let Some(place) = first.checked_sub(1) {
            let record = [raw.kind, raw.help, raw.unit];
            return self.records[place as usize] != *raw && self.others.insert((metric, record));
        }
        self.records.push(*raw);
        *first = u32::try_from(self.records.len()).expect("there are fewer than bytes of a body");
        true
    }
}

/// A series of either protocol, as it lies in the body.
pub(crate) trait Series: Copy {
    /// The name bytes it begins with.
    fn name_bytes(&self) -> &[u8];

    /// All name bytes of a series whose [`Rest::scattered`] turned out to be set.
    fn gather(&self, out: &mut Vec<u8>) -> Result<(), Malformed>;

    /// Calls `sample` with time and value of every float sample, and notes everything else.
    fn read(&self, rest: &mut Rest, sample: impl FnMut(i64, f64)) -> Result<(), Malformed>;

    /// Calls `other` with every histogram and exemplar, and where the start of a counter is another than that of the sample before; of
    /// series that turned out to have some.
    fn others(
        &self,
        other: impl FnMut(Other<'_>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed>;
}

/// What a series has beside float samples and what it is, undecoded.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Other<'a> {
    /// A histogram, and when its observations began; 0 where that is not said.
    Histogram(&'a [u8], i64),
    Exemplar(&'a [u8]),
    /// Time of a float sample, and when its counter began.
    Start(i64, i64),
}

/// What a series has beside float samples.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    pub(crate) histograms: u64,
    pub(crate) exemplars: u64,
    pub(crate) metadata: Option<v2::RawMetadata>,
    /// The name bytes at its begin are not all of them.
    pub(crate) scattered: bool,
    /// When the counter of a float sample began; 0 where nothing is said.
    pub(crate) start: i64,
    /// Another float sample says something else.
    pub(crate) starts_differ: bool,
}

impl Rest {
    /// Histograms or exemplars.
    #[inline]
    pub(crate) fn has_others(&self) -> bool {
        self.histograms + self.exemplars > 0
    }

    #[inline]
    pub(crate) fn is_nothing(&self) -> bool {
        self.histograms == 0 && self.exemplars == 0 && self.metadata.is_none() && self.start == 0
    }

    #[inline]
    fn note_start(&mut self, start: i64) {
        if start != 0 {
            self.starts_differ |= self.start != 0 && self.start != start;
            self.start = start;
        }
    }
}

impl Series for v1::RawSeries<'_> {
    #[inline]
    fn name_bytes(&self) -> &[u8] {
        self.label_bytes()
    }

    fn gather(&self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.gather_labels(out)
    }

    #[inline]
    fn read(&self, rest: &mut Rest, mut sample: impl FnMut(i64, f64)) -> Result<(), Malformed> {
        let mut parts = self.parts();
        while let Some(part) = parts.next_part()? {
            match part {
                v1::Part::Sample { time, value } => sample(time, value),
                v1::Part::Histogram(_) => rest.histograms += 1,
                v1::Part::Exemplar(_) => rest.exemplars += 1,
                v1::Part::Label(_) => rest.scattered = true,
            }
        }
        Ok(())
    }

    fn others(
        &self,
        mut other: impl FnMut(Other<'_>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let mut parts = self.parts();
        while let Some(part) = parts.next_part()? {
            match part {
                v1::Part::Histogram(message) => other(Other::Histogram(message, 0))?,
                v1::Part::Exemplar(message) => other(Other::Exemplar(message))?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl Series for v2::RawSeries<'_> {
    #[inline]
    fn name_bytes(&self) -> &[u8] {
        self.reference_bytes()
    }

    fn gather(&self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.gather_references(out)
    }

    #[inline]
    fn read(&self, rest: &mut Rest, mut sample: impl FnMut(i64, f64)) -> Result<(), Malformed> {
        let mut parts = self.parts();
        let mut is_empty = true;
        while let Some(part) = parts.next_part()? {
            match part {
                v2::Part::Sample { time, value, start } => {
                    sample(time, value);
                    rest.note_start(start);
                    is_empty = false;
                }
                v2::Part::Created(start) => rest.note_start(start),
                v2::Part::Histogram(_) => {
                    rest.histograms += 1;
                    is_empty = false;
                }
                v2::Part::Exemplar(_) => rest.exemplars += 1,
                v2::Part::Metadata(metadata) => rest.metadata = Some(metadata),
                v2::Part::References(_) => rest.scattered = true,
            }
        }
        if is_empty {
            Err(Malformed::NoSamples)
        } else {
            Ok(())
        }
    }

    fn others(
        &self,
        mut other: impl FnMut(Other<'_>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let mut created = 0;
        let mut parts = self.parts();
        while let Some(part) = parts.next_part()? {
            if let v2::Part::Created(start) = part {
                created = start;
            }
        }
        let or_created = |start: i64| if start == 0 { created } else { start };
        let mut told = 0;
        let mut parts = self.parts();
        while let Some(part) = parts.next_part()? {
            match part {
                v2::Part::Sample { time, start, .. } => {
                    let start = or_created(start);
                    if start != 0 && std::mem::replace(&mut told, start) != start {
                        other(Other::Start(time, start))?;
                    }
                }
                v2::Part::Histogram(message) => {
                    let start = or_created(histogram::start(message)?);
                    other(Other::Histogram(message, start))?;
                }
                v2::Part::Exemplar(message) => other(Other::Exemplar(message))?,
                _ => {}
            }
        }
        Ok(())
    }
}

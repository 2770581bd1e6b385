//! The version 2 request in the making: symbols, each once, and series that refer to them.

use std::cmp::Ordering;
use std::collections::HashMap;

use model::{HistogramSample, varint};

use crate::proto::Malformed;
use crate::remote_write::encode::{histogram_message, put_bytes, put_double, put_varint};

/// A text of the request.
pub(super) type Symbol = u32;

/// Name and value.
pub(super) type Label = (Symbol, Symbol);

/// The empty text.
pub(super) const EMPTY: Symbol = 0;

/// What a symbol takes beside its text: its place in the map and in the list, and the allocation of its copy.
const SYMBOL_BYTES: usize = 96;

/// An exemplar, ready to be written.
#[derive(Debug, Clone, Default)]
pub(super) struct Exemplar {
    pub(super) labels: Vec<Label>,
    pub(super) value: f64,
    pub(super) time_ms: i64,
}

/// A sample of a series.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sample<'s> {
    Float(f64),
    Histogram(&'s HistogramSample),
}

/// When a sample is of, and when what it counts began, in milliseconds; 0 where that is not said.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Times {
    pub(super) time: i64,
    pub(super) start: i64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Output {
    known: HashMap<Box<[u8]>, Symbol>,
    /// Where each symbol's text lies in `symbols`.
    spans: Vec<(u32, u32)>,
    symbols: Vec<u8>,
    series: Vec<u8>,
    pub(super) metadata: Vec<u8>,
    /// Where the series of each point begin and end.
    points: Vec<(u32, u32)>,
    /// Bytes counted that are not written: text that was made and came to a known symbol.
    counted: usize,
    bytes_max: usize,
    message: Vec<u8>,
    references: Vec<u8>,
    /// How often names were compared.
    #[cfg(test)]
    pub(super) compared: std::cell::Cell<usize>,
}

impl Output {
    pub(super) fn new(bytes_max: usize) -> Output {
        let mut output = Output {
            known: HashMap::new(),
            spans: Vec::new(),
            symbols: Vec::new(),
            series: Vec::new(),
            metadata: Vec::new(),
            points: Vec::new(),
            counted: 0,
            // Places in it are counted in 32 bits.
            bytes_max: bytes_max.min(u32::MAX as usize),
            message: Vec::new(),
            references: Vec::new(),
            #[cfg(test)]
            compared: Default::default(),
        };
        output.add(b"");
        output
    }

    /// The symbol of a text.
    pub(super) fn symbol(&mut self, text: &[u8]) -> Result<Symbol, Malformed> {
        if let Some(symbol) = self.known.get(text) {
            return Ok(*symbol);
        }
        self.take(text.len())?;
        Ok(self.add(text))
    }

    fn add(&mut self, text: &[u8]) -> Symbol {
        put_bytes(&mut self.symbols, 4, text);
        let end = self.symbols.len();
        self.spans.push(((end - text.len()) as u32, end as u32));
        let symbol = (self.spans.len() - 1) as Symbol;
        self.known.insert(text.into(), symbol);
        symbol
    }

    /// The text of a symbol.
    pub(super) fn text(&self, symbol: Symbol) -> &[u8] {
        let (begin, end) = self.spans[symbol as usize];
        &self.symbols[begin as usize..end as usize]
    }

    /// How the texts of two symbols are ordered.
    pub(super) fn order(&self, a: Symbol, b: Symbol) -> Ordering {
        #[cfg(test)]
        self.compared.update(|count| count + 1);
        self.text(a).cmp(self.text(b))
    }

    /// Counts work that leaves nothing behind.
    pub(super) fn count(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.counted = self.counted.saturating_add(bytes);
        self.take(0)
    }

    /// Whether so many bytes more are within the bound.
    fn take(&self, more: usize) -> Result<(), Malformed> {
        let now = self.symbols.len() + self.series.len() + self.metadata.len();
        let beside = self.spans.len() * SYMBOL_BYTES + self.points.len() * 8 + self.counted;
        let max = self.bytes_max;
        match now.saturating_add(beside).saturating_add(more) > max {
            true => Err(Malformed::TooMuchText { max }),
            false => Ok(()),
        }
    }

    /// Where the series of the next point begin.
    pub(super) fn begin_point(&self) -> usize {
        self.series.len()
    }

    /// Ends a point, of which nothing stays if it is refused.
    pub(super) fn end_point(&mut self, begin: usize, is_taken: bool) {
        match is_taken {
            true => self.points.push((begin as u32, self.series.len() as u32)),
            false => {
                // It was work all the same.
                self.counted = self.counted.saturating_add(self.series.len() - begin);
                self.series.truncate(begin);
            }
        }
    }

    /// Writes a series of one sample: `base` and `own` labels, both sorted by their names' text; those of `own` hold where both have one.
    pub(super) fn put_series(
        &mut self,
        base: &[Label],
        own: &[Label],
        times: Times,
        sample: Sample<'_>,
        exemplars: &[Exemplar],
    ) -> Result<(), Malformed> {
        let mut message = std::mem::take(&mut self.message);
        let mut references = std::mem::take(&mut self.references);
        message.clear();
        references.clear();
        self.merge(base, own, &mut references);
        put_bytes(&mut message, 1, &references);
        match sample {
            Sample::Float(value) => put_float(&mut message, times, value),
            Sample::Histogram(histogram) => {
                let mut content = histogram_message(times.time, histogram);
                if times.start != 0 {
                    put_varint(&mut content, 17, times.start as u64);
                }
                put_bytes(&mut message, 3, &content);
            }
        }
        for exemplar in exemplars {
            put_exemplar(&mut message, exemplar);
        }
        let taken = self.take(message.len() + 8);
        if taken.is_ok() {
            put_bytes(&mut self.series, 5, &message);
        }
        (self.message, self.references) = (message, references);
        taken
    }

    fn merge(&self, base: &[Label], own: &[Label], references: &mut Vec<u8>) {
        let mut put = |(name, value): Label| {
            varint::put_u64(references, u64::from(name));
            varint::put_u64(references, u64::from(value));
        };
        let mut own = own.iter().copied().peekable();
        for &label in base {
            let name = self.text(label.0);
            while let Some(first) = own.next_if(|own| self.text(own.0) < name) {
                put(first);
            }
            if own.peek().is_none_or(|own| own.0 != label.0) {
                put(label);
            }
        }
        own.for_each(put);
    }

    /// Adds a sample of 1 for each of the times, as one series.
    pub(super) fn put_ones(&mut self, labels: &[Label], times: &[i64]) -> Result<(), Malformed> {
        let mut message = Vec::new();
        let mut references = Vec::new();
        self.merge(labels, &[], &mut references);
        put_bytes(&mut message, 1, &references);
        for &time in times {
            put_float(&mut message, Times { time, start: 0 }, 1.0);
        }
        self.take(message.len() + 8)?;
        put_bytes(&mut self.series, 5, &message);
        Ok(())
    }

    /// The request, the metadata, and where in the request the series of each point are.
    pub(super) fn finish(mut self) -> (Vec<u8>, Vec<u8>, Vec<(u32, u32)>) {
        let before = self.symbols.len() as u32;
        for (begin, end) in &mut self.points {
            (*begin, *end) = (*begin + before, *end + before);
        }
        // Whoever walks the request finds its first record where the symbols begin.
        if let Some((begin, _)) = self.points.first_mut()
            && *begin == before
        {
            *begin = 0;
        }
        self.symbols.append(&mut self.series);
        (self.symbols, self.metadata, self.points)
    }
}

fn put_float(out: &mut Vec<u8>, times: Times, value: f64) {
    let mut content = Vec::with_capacity(24);
    put_double(&mut content, 1, value);
    put_varint(&mut content, 2, times.time as u64);
    if times.start != 0 {
        put_varint(&mut content, 3, times.start as u64);
    }
    put_bytes(out, 2, &content);
}

fn put_exemplar(out: &mut Vec<u8>, exemplar: &Exemplar) {
    let mut references = Vec::with_capacity(exemplar.labels.len() * 4);
    for &(name, value) in &exemplar.labels {
        varint::put_u64(&mut references, u64::from(name));
        varint::put_u64(&mut references, u64::from(value));
    }
    let mut content = Vec::with_capacity(references.len() + 24);
    put_bytes(&mut content, 1, &references);
    put_double(&mut content, 2, exemplar.value);
    put_varint(&mut content, 3, exemplar.time_ms as u64);
    put_bytes(out, 4, &content);
}

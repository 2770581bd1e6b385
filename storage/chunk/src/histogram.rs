//! Native histograms: integer counts (encoding 2) and float counts (encoding 3).
//!
//! A sample is told against the one before. Times as in `xor`. Numbers (zero bucket, count, every bucket's own count, not its
//! distance to its neighbour) against what they were: integers by the change of their change, of which nearly all are
//! zero or small, floats by XOR inside a window that each number has of its own. So a bucket that is not hit costs a bit, and one that
//! grows steadily little more.
//!
//! The *layout* (schema, zero threshold, spans, custom bounds) stands in the stream where it changes; a chunk need not end there.
//! Numbers of buckets that the new layout has too go on from where they were; others begin at zero. What a sender says about counter
//! resets is kept and stands in the stream where it changes. The bits are in `docs/formats/chunk.md`.
//!
//! Both directions keep the same [`State`] and change it through the same functions, so that they cannot drift apart.
//! Deliberately absent: arithmetic, and judgement: whatever numbers a histogram has, they come back to the bit.

mod append;
mod decode;

use model::{CounterReset, HistogramSample, Span};

use crate::limits::HISTOGRAM_PARTS_MAX;
use crate::xor::Window;

pub use append::HistogramAppender;
pub(crate) use decode::{decode, decode_floats, first_time};

/// Bits of a signed number, by the count of ones in front of it (the seventh is not followed by a zero).
///
/// 3 and 6 for what Poisson noise does to a bucket, 33 for any offset or length of a span.
const NUMBER_BITS: [u32; 8] = [0, 3, 6, 9, 12, 18, 33, 64];

/// Integer or float counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Int,
    Float,
}

/// A number as the next sample sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Number {
    /// Integer, or the bits of a float.
    value: u64,
    /// How it changed last, or its window (`leading | length << 8`).
    memory: u64,
}

impl Number {
    fn window(self) -> Window {
        Window {
            leading: self.memory as u8,
            length: (self.memory >> 8) as u8,
        }
    }

    fn set_window(&mut self, window: Window) {
        self.memory = u64::from(window.leading) | u64::from(window.length) << 8;
    }
}

/// Where the buckets are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    pub(crate) schema: i32,
    pub(crate) zero_threshold: f64,
    pub(crate) positive: Vec<Span>,
    pub(crate) negative: Vec<Span>,
    pub(crate) custom: Vec<f64>,
}

impl Layout {
    pub(crate) fn of(sample: &HistogramSample) -> Layout {
        let (positive, negative) = sample.spans();
        Layout {
            schema: sample.schema(),
            zero_threshold: sample.zero_threshold(),
            positive: positive.to_vec(),
            negative: negative.to_vec(),
            custom: sample.custom_values().to_vec(),
        }
    }

    /// By bits, as everything comes back.
    pub(crate) fn is_of(&self, sample: &HistogramSample) -> bool {
        let (positive, negative) = sample.spans();
        self.schema == sample.schema()
            && self.zero_threshold.to_bits() == sample.zero_threshold().to_bits()
            && self.positive == positive
            && self.negative == negative
            && same_bits(&self.custom, sample.custom_values())
    }

    /// Buckets of either side.
    fn counts(&self) -> (usize, usize) {
        (spanned(&self.positive), spanned(&self.negative))
    }

    /// Spans, buckets and bounds: what a decoded sample takes memory for.
    fn parts(&self) -> usize {
        let (positive, negative) = self.counts();
        positive + negative + self.positive.len() + self.negative.len() + self.custom.len()
    }

    fn heap_bytes(&self) -> usize {
        (self.positive.capacity() + self.negative.capacity()) * size_of::<Span>()
            + self.custom.capacity() * 8
    }
}

fn same_bits(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

fn spanned(spans: &[Span]) -> usize {
    spans.iter().map(|span| span.length as usize).sum()
}

/// The indexes of the buckets that spans describe, in their order.
fn indexes(spans: &[Span]) -> impl Iterator<Item = i64> + '_ {
    let mut next = 0i64;
    spans.iter().flat_map(move |span| {
        let start = next + i64::from(span.offset);
        next = start + i64::from(span.length);
        start..next
    })
}

/// All that the next sample's code depends on.
#[derive(Debug, Clone, Default)]
struct State {
    time: i64,
    /// Distance to the time before.
    delta: u64,
    reset: CounterReset,
    layout: Layout,
    zero_count: Number,
    count: Number,
    /// Coded as a float always.
    sum: Number,
    /// The positive ones, then the negative ones.
    buckets: Vec<Number>,
}

impl State {
    /// Takes over another layout: buckets that both have keep their numbers.
    fn relayout(&mut self, layout: Layout) {
        let (positive, negative) = layout.counts();
        let mut buckets = Vec::with_capacity(positive + negative);
        let old = &self.layout;
        // Indexes mean the same bounds only within a schema, and among custom bounds only if those are the same.
        if old.schema == layout.schema && same_bits(&old.custom, &layout.custom) {
            let (old_positive, old_negative) = self.buckets.split_at(old.counts().0);
            carry(&old.positive, old_positive, &layout.positive, &mut buckets);
            carry(&old.negative, old_negative, &layout.negative, &mut buckets);
        } else {
            buckets.resize(positive + negative, Number::default());
        }
        assert_eq!(buckets.len(), positive + negative);
        self.buckets = buckets;
        self.layout = layout;
    }
}

/// Appends the numbers of the buckets of `new`: those of `old` by index, zero where there was none. Both ascend where they were
/// checked; if they do not, a number is found or not, but alike in both directions.
fn carry(old: &[Span], numbers: &[Number], new: &[Span], out: &mut Vec<Number>) {
    let mut old = indexes(old).zip(numbers).peekable();
    for index in indexes(new) {
        while old.next_if(|(at, _)| *at < index).is_some() {}
        let number = old.next_if(|(at, _)| *at == index);
        out.push(number.map_or(Number::default(), |(_, number)| *number));
    }
}

/// Most bytes that a histogram takes, as a record of the log or as the first sample of a chunk.
pub fn histogram_bytes_max(sample: &HistogramSample) -> usize {
    let (positive, negative) = sample.spans();
    // 10 a bucket: a varint of 64 bits, or 2 + 11 + 64 bits of XOR; 10 a span: two numbers of 7 + 33 bits, or two varints.
    96 + 10 * (sample.bucket_count() + positive.len() + negative.len())
        + 8 * sample.custom_values().len()
}

/// Whether spans and counts of a histogram agree, and there are not more of them than can be coded.
pub fn is_codable(sample: &HistogramSample) -> bool {
    let (positive, negative) = sample.spans();
    let (positive_counts, negative_counts) = sample.bucket_counts();
    let described = |spans: &[Span]| spans.iter().map(|span| u64::from(span.length)).sum::<u64>();
    let sizes = [
        positive.len(),
        negative.len(),
        positive_counts,
        negative_counts,
        sample.custom_values().len(),
    ];
    sizes.into_iter().all(|size| size <= HISTOGRAM_PARTS_MAX)
        && described(positive) == positive_counts as u64
        && described(negative) == negative_counts as u64
}

#[cfg(test)]
mod tests;

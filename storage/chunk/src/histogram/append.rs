//! The open chunk of histograms.

use model::{HistogramSample, Span, varint};

use super::{Kind, Layout, NUMBER_BITS, Number, State, histogram_bytes_max, is_codable};
use crate::bits::{Writer, mask};
use crate::limits::{DECODED_PARTS_MAX, FIRST_TIME_LEN_MAX};
use crate::xor::{LEADING_BITS, LEADING_MAX, LENGTH_BITS, TIME_BITS, Window};
use crate::{Encoding, Error, SAMPLES_MAX, sealed};

/// An open chunk of histograms of one kind, appended in place.
#[derive(Debug, Clone)]
pub struct HistogramAppender {
    kind: Kind,
    first_time: i64,
    samples: u16,
    /// Sum of the parts of all samples: what decoding takes memory for.
    parts: usize,
    state: State,
    stream: Writer,
}

impl HistogramAppender {
    /// An empty chunk for histograms of the kind of this one.
    pub fn for_kind_of(sample: &HistogramSample) -> HistogramAppender {
        HistogramAppender::new(match sample {
            HistogramSample::Int(_) => Kind::Int,
            HistogramSample::Float(_) => Kind::Float,
        })
    }

    fn new(kind: Kind) -> HistogramAppender {
        HistogramAppender {
            kind,
            first_time: 0,
            samples: 0,
            parts: 0,
            state: State::default(),
            stream: Writer::default(),
        }
    }

    /// Goes on where a sealed chunk ended.
    ///
    /// Errors: as decoding it; [`Error::NotHistograms`]. Cost: decodes it once.
    pub fn reopen(chunk: &[u8]) -> Result<HistogramAppender, Error> {
        let (kind, samples, payload) = sealed::open_histograms(chunk)?;
        let mut appender = HistogramAppender::new(kind);
        if samples == 0 {
            super::decode::walk(kind, samples, payload, |_| true)?;
            return Ok(appender);
        }
        let mut parts = 0;
        let end = super::decode::walk(kind, samples, payload, |state| {
            parts += state.layout.parts();
            true
        })?;
        let bits = u32::try_from(end.bits).map_err(|_| Error::Malformed("too many bits"))?;
        appender.first_time = end.first_time;
        appender.samples = samples;
        appender.parts = parts;
        appender.state = end.state;
        appender.stream = Writer::reopen(end.stream, bits);
        Ok(appender)
    }

    /// Whether a histogram can come next: of the same kind, and the sealed chunk still below `bytes_max` (which a first one
    /// never exceeds, if its [`histogram_bytes_max`] does not).
    pub fn has_room_for(&self, sample: &HistogramSample, bytes_max: usize) -> bool {
        let same_kind = matches!(
            (self.kind, sample),
            (Kind::Int, HistogramSample::Int(_)) | (Kind::Float, HistogramSample::Float(_))
        );
        let (positive, negative) = sample.spans();
        let parts =
            sample.bucket_count() + positive.len() + negative.len() + sample.custom_values().len();
        same_kind
            && self.samples < SAMPLES_MAX
            && (self.samples == 0
                || (self.parts + parts <= DECODED_PARTS_MAX
                    && self.stream.len_bytes() + histogram_bytes_max(sample) <= bytes_max))
    }

    /// Appends a histogram. Every bit of it comes back: of NaNs, markers, and counts that contradict each other.
    ///
    /// `time` must be later than that of the sample before; there must be room for it
    /// ([`HistogramAppender::has_room_for`]), and it must be codable ([`is_codable`]): our fault otherwise, and a panic. Cost: 5 to 20 ns a bucket.
    pub fn append(&mut self, time: i64, sample: &HistogramSample) {
        assert!(
            self.has_room_for(sample, usize::MAX),
            "no room for this histogram"
        );
        assert!(is_codable(sample), "spans and counts agree");
        if self.samples == 0 {
            self.first_time = time;
            self.state.time = time;
        } else {
            self.put_time(time);
        }
        self.put_head(sample);
        let State {
            zero_count,
            count,
            sum,
            buckets,
            ..
        } = &mut self.state;
        let stream = &mut self.stream;
        match sample {
            HistogramSample::Int(h) => {
                put_int(stream, zero_count, h.zero_count);
                put_int(stream, count, h.count);
                put_float(stream, sum, h.sum);
                let (positive, negative) = buckets.split_at_mut(h.positive_deltas.len());
                for (numbers, deltas) in [
                    (positive, &h.positive_deltas),
                    (negative, &h.negative_deltas),
                ] {
                    let mut absolute = 0i64;
                    for (number, delta) in numbers.iter_mut().zip(deltas) {
                        absolute = absolute.wrapping_add(*delta);
                        put_int(stream, number, absolute as u64);
                    }
                }
            }
            HistogramSample::Float(h) => {
                put_float(stream, zero_count, h.zero_count);
                put_float(stream, count, h.count);
                put_float(stream, sum, h.sum);
                let counts = h.positive_counts.iter().chain(&h.negative_counts);
                for (number, value) in buckets.iter_mut().zip(counts) {
                    put_float(stream, number, *value);
                }
            }
        }
        self.parts += self.state.layout.parts();
        self.samples += 1;
    }

    fn put_time(&mut self, time: i64) {
        let State {
            time: last, delta, ..
        } = &mut self.state;
        assert!(time > *last, "times of a chunk ascend");
        let distance = time.wrapping_sub(*last) as u64;
        let change = distance.wrapping_sub(*delta) as i64;
        (*last, *delta) = (time, distance);
        if change == 0 {
            return self.stream.put(0, 1);
        }
        let needed = signed_bits(change);
        let width = TIME_BITS
            .iter()
            .position(|bits| needed <= *bits)
            .expect("64 bits are enough");
        self.stream.put(1 | (width as u64) << 1, 3);
        self.stream
            .put(change as u64 & mask(TIME_BITS[width]), TIME_BITS[width]);
    }

    fn put_head(&mut self, sample: &HistogramSample) {
        let State { reset, layout, .. } = &mut self.state;
        let (same_reset, same_layout) = (*reset == sample.counter_reset(), layout.is_of(sample));
        if same_reset && same_layout {
            return self.stream.put(0, 1);
        }
        *reset = sample.counter_reset();
        self.stream
            .put(1 | (*reset as u64) << 1 | u64::from(!same_layout) << 3, 4);
        if !same_layout {
            let layout = Layout::of(sample);
            put_layout(&mut self.stream, &layout);
            self.state.relayout(layout);
        }
    }

    /// Samples so far.
    pub fn count(&self) -> u16 {
        self.samples
    }

    /// Time of the first sample; the chunk must not be empty.
    pub fn first_time(&self) -> i64 {
        debug_assert!(self.samples > 0);
        self.first_time
    }

    /// Time of the last sample; the chunk must not be empty.
    pub fn last_time(&self) -> i64 {
        debug_assert!(self.samples > 0);
        self.state.time
    }

    /// The last sample; the chunk must not be empty.
    pub fn last(&self) -> HistogramSample {
        debug_assert!(self.samples > 0);
        self.state.sample(self.kind)
    }

    /// Bytes of the stream so far.
    pub fn len_bytes(&self) -> usize {
        self.stream.len_bytes()
    }

    /// Bytes on the heap, for accounting.
    pub fn heap_bytes(&self) -> usize {
        self.stream.heap_bytes()
            + self.state.buckets.capacity() * size_of::<Number>()
            + self.state.layout.heap_bytes()
    }

    /// The sealed form of the content so far; the appender can go on.
    ///
    /// Cost: an allocation, a copy and a hash of [`HistogramAppender::len_bytes`].
    pub fn seal(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut head = Vec::with_capacity(FIRST_TIME_LEN_MAX);
        if self.samples > 0 {
            varint::put_i64(&mut head, self.first_time);
        }
        let encoding = match self.kind {
            Kind::Int => Encoding::Histogram,
            Kind::Float => Encoding::FloatHistogram,
        };
        sealed::begin(
            &mut out,
            encoding,
            self.samples,
            head.len() + self.len_bytes(),
        );
        out.extend_from_slice(&head);
        self.stream.copy_to(&mut out);
        sealed::finish(&mut out, 0);
        out
    }
}

/// Bits that a signed number needs.
fn signed_bits(value: i64) -> u32 {
    65 - ((value ^ (value >> 63)) as u64).leading_zeros()
}

/// A signed number: ones and a zero tell its width.
fn put_number(stream: &mut Writer, value: i64) {
    if value == 0 {
        return stream.put(0, 1);
    }
    let needed = signed_bits(value);
    let class = NUMBER_BITS
        .iter()
        .position(|bits| needed <= *bits)
        .expect("64 bits are enough");
    // The last class needs no zero behind its ones.
    stream.put(mask(class as u32), (class as u32 + 1).min(7));
    stream.put(value as u64 & mask(NUMBER_BITS[class]), NUMBER_BITS[class]);
}

fn put_int(stream: &mut Writer, number: &mut Number, value: u64) {
    let change = value.wrapping_sub(number.value);
    put_number(stream, change.wrapping_sub(number.memory) as i64);
    *number = Number {
        value,
        memory: change,
    };
}

/// `0` the same, `10` bits inside the window, `11` a new window and its bits: as `xor` codes the value of a late sample.
fn put_float(stream: &mut Writer, number: &mut Number, value: f64) {
    let xor = value.to_bits() ^ number.value;
    number.value = value.to_bits();
    if xor == 0 {
        return stream.put(0, 1);
    }
    let leading = xor.leading_zeros().min(LEADING_MAX);
    let trailing = xor.trailing_zeros();
    let length = 64 - leading - trailing;
    let window = number.window();
    let kept = u32::from(window.length);
    if leading >= u32::from(window.leading)
        && trailing >= window.trailing()
        && kept <= length + LEADING_BITS + LENGTH_BITS
    {
        stream.put(0b01, 2);
        return stream.put(xor >> window.trailing(), kept);
    }
    number.set_window(Window {
        leading: leading as u8,
        length: length as u8,
    });
    let head = 0b11 | u64::from(leading) << 2 | u64::from(length - 1) << (2 + LEADING_BITS);
    stream.put(head, 2 + LEADING_BITS + LENGTH_BITS);
    stream.put(xor >> trailing, length);
}

fn put_layout(stream: &mut Writer, layout: &Layout) {
    put_number(stream, i64::from(layout.schema));
    stream.put(layout.zero_threshold.to_bits(), 64);
    for spans in [&layout.positive, &layout.negative] {
        put_number(stream, spans.len() as i64);
        for Span { offset, length } in spans {
            put_number(stream, i64::from(*offset));
            put_number(stream, i64::from(*length));
        }
    }
    put_number(stream, layout.custom.len() as i64);
    for bound in &layout.custom {
        stream.put(bound.to_bits(), 64);
    }
}

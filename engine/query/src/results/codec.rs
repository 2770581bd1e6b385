//! What is kept of a span of results, as bytes. All numbers are little-endian; bits of floats stay as they are.
//!
//! ```text
//! u16 holders, of each: u64 u64 number of its history, u64 mark
//! i64 kept since (milliseconds)
//! u16 parts, of each:
//!   i64 first step, i64 last step
//!   u16 texts, of each: u32 length, bytes
//!   u32 series, of each:
//!     u32 length, packed labels
//!     u8  1: a float at each step; 0: a bit for each step tells where floats are
//!         the bits, if told so
//!         the floats, each XORed with the one before, in eight planes: all first bytes, all second bytes
//!     u32 histograms, of each: u32 step, then its fields
//! ```
//!
//! Neighbours that are alike differ in their low bytes only, so that most planes are zeros, which snappy packs to next to nothing.

use model::{CounterReset, FloatHistogram, FloatPoint, HistogramPoint, Labels, RangeSeries, Span};

use super::part::{Part, View};
use super::{Kept, Marks};

pub(super) fn encode(marks: &Marks, since_ms: i64, views: &[View], step: i64) -> Vec<u8> {
    let mut out = Vec::new();
    put_u16(&mut out, marks.len());
    for ((life, watch), mark) in marks {
        for number in [life, watch, mark] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
    out.extend_from_slice(&since_ms.to_le_bytes());
    put_u16(&mut out, views.len());
    for view in views {
        let (first, last, series) = view.slice();
        let series = super::join(&[(first, last, series)]);
        out.extend_from_slice(&first.to_le_bytes());
        out.extend_from_slice(&last.to_le_bytes());
        put_u16(&mut out, view.infos().len());
        for text in view.infos() {
            put_bytes(&mut out, text.as_bytes());
        }
        put_u32(&mut out, series.len());
        let steps = steps((first, last), step).unwrap_or(0);
        for series in &series {
            put_series(&mut out, series, (first, step, steps));
        }
    }
    out
}

/// How many steps there are from the first to the last.
fn steps((first, last): (i64, i64), step: i64) -> Option<usize> {
    let width = last.checked_sub(first)?;
    let is_sound = width >= 0 && width % step == 0;
    is_sound.then(|| usize::try_from(width / step).ok()?.checked_add(1))?
}

fn put_u16(out: &mut Vec<u8>, n: usize) {
    let n = u16::try_from(n).expect("holders, parts and texts are few");
    out.extend_from_slice(&n.to_le_bytes());
}

fn put_u32(out: &mut Vec<u8>, n: usize) {
    let n = u32::try_from(n).expect("what is kept is far smaller");
    out.extend_from_slice(&n.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_floats(out: &mut Vec<u8>, values: &[f64]) {
    put_u32(out, values.len());
    for value in values {
        out.extend_from_slice(&value.to_bits().to_le_bytes());
    }
}

fn put_series(out: &mut Vec<u8>, series: &RangeSeries, (first, step, steps): (i64, i64, usize)) {
    let place = |t: i64| ((t - first) / step) as usize;
    put_bytes(out, series.labels.packed());
    let is_dense = series.floats.len() == steps;
    out.push(u8::from(is_dense));
    if !is_dense {
        let mut bits = vec![0_u8; steps.div_ceil(8)];
        for point in &series.floats {
            let at = place(point.t);
            bits[at / 8] |= 1 << (at % 8);
        }
        out.extend_from_slice(&bits);
    }
    let mut before = 0;
    let mut mixed = Vec::with_capacity(series.floats.len());
    for point in &series.floats {
        let bits = point.v.to_bits();
        mixed.push((bits ^ before).to_le_bytes());
        before = bits;
    }
    for plane in 0..8 {
        out.extend(mixed.iter().map(|bytes| bytes[plane]));
    }
    put_u32(out, series.histograms.len());
    for point in &series.histograms {
        put_u32(out, place(point.t));
        put_histogram(out, &point.h);
    }
}

fn put_histogram(out: &mut Vec<u8>, h: &FloatHistogram) {
    out.push(h.counter_reset as u8);
    out.extend_from_slice(&h.schema.to_le_bytes());
    for value in [h.zero_threshold, h.zero_count, h.count, h.sum] {
        out.extend_from_slice(&value.to_bits().to_le_bytes());
    }
    for (spans, counts) in [
        (&h.positive_spans, &h.positive_counts),
        (&h.negative_spans, &h.negative_counts),
    ] {
        put_u32(out, spans.len());
        for span in spans {
            out.extend_from_slice(&span.offset.to_le_bytes());
            out.extend_from_slice(&span.length.to_le_bytes());
        }
        put_floats(out, counts);
    }
    put_floats(out, &h.custom_values);
}

/// `None`: these are not such bytes.
pub(super) fn decode(bytes: &[u8], step: i64) -> Option<Kept> {
    let mut rest = Rest(bytes);
    let mut marks = Marks::new();
    for _ in 0..rest.u16()? {
        marks.push(((rest.u64()?, rest.u64()?), rest.u64()?));
    }
    let since_ms = rest.i64()?;
    let mut views: Vec<View> = Vec::new();
    for _ in 0..rest.u16()? {
        let view = rest.view(step)?;
        let ascends = views.last().is_none_or(|before| before.last < view.first);
        views.push(view);
        if !ascends {
            return None;
        }
    }
    let kept = Kept {
        marks,
        since_ms,
        views,
    };
    rest.0.is_empty().then_some(kept)
}

/// What has not been read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<usize> {
        self.array().map(|bytes| u32::from_le_bytes(bytes) as usize)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn f64(&mut self) -> Option<f64> {
        self.u64().map(f64::from_bits)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(len)
    }

    fn floats(&mut self) -> Option<Vec<f64>> {
        let len = self.u32()?.checked_mul(8)?;
        let bytes = self.take(len)?.chunks_exact(8);
        let float = |bytes: &[u8]| Some(f64::from_bits(u64::from_le_bytes(bytes.try_into().ok()?)));
        bytes.map(float).collect()
    }

    fn view(&mut self, step: i64) -> Option<View> {
        let (first, last) = (self.i64()?, self.i64()?);
        let steps = steps((first, last), step)?;
        let mut infos = Vec::new();
        for _ in 0..self.u16()? {
            infos.push(String::from_utf8(self.bytes()?.to_vec()).ok()?);
        }
        let mut series: Vec<RangeSeries> = Vec::new();
        for _ in 0..self.u32()? {
            let one = self.series((first, step, steps))?;
            let ascends = series
                .last()
                .is_none_or(|before| before.labels < one.labels);
            series.push(one);
            if !ascends {
                return None;
            }
        }
        Some(View::whole(Part::new(first, last, series, infos)))
    }

    fn series(&mut self, (first, step, steps): (i64, i64, usize)) -> Option<RangeSeries> {
        let labels = Labels::from_packed(self.bytes()?).ok()?;
        let places: Vec<usize> = match self.take(1)? {
            // Before so many are listed: there are bytes for them.
            [1] if self.0.len() / 8 >= steps => (0..steps).collect(),
            [0] => {
                let bits = self.take(steps.div_ceil(8))?;
                let is_set = |at: &usize| bits[at / 8] >> (at % 8) & 1 == 1;
                (0..steps).filter(is_set).collect()
            }
            _ => return None,
        };
        let count = places.len();
        let planes = self.take(count.checked_mul(8)?)?;
        let mut before = 0;
        let mut floats = Vec::with_capacity(count);
        for (at, place) in places.into_iter().enumerate() {
            let bytes = std::array::from_fn(|plane| planes[plane * count + at]);
            before ^= u64::from_le_bytes(bytes);
            let t = first + place as i64 * step;
            let v = f64::from_bits(before);
            floats.push(FloatPoint { t, v });
        }
        let mut histograms: Vec<HistogramPoint> = Vec::new();
        for _ in 0..self.u32()? {
            let place = self.u32().filter(|place| *place < steps)?;
            let t = first + place as i64 * step;
            if histograms.last().is_some_and(|before| before.t >= t) {
                return None;
            }
            let h = Box::new(self.histogram()?);
            histograms.push(HistogramPoint { t, h });
        }
        Some(RangeSeries {
            labels,
            floats,
            histograms,
        })
    }

    fn histogram(&mut self) -> Option<FloatHistogram> {
        let counter_reset = match self.take(1)? {
            [0] => CounterReset::Unknown,
            [1] => CounterReset::Yes,
            [2] => CounterReset::No,
            [3] => CounterReset::Gauge,
            _ => return None,
        };
        let schema = i32::from_le_bytes(self.array()?);
        let [zero_threshold, zero_count, count, sum] =
            [self.f64()?, self.f64()?, self.f64()?, self.f64()?];
        let (positive_spans, positive_counts) = (self.spans()?, self.floats()?);
        let (negative_spans, negative_counts) = (self.spans()?, self.floats()?);
        Some(FloatHistogram {
            counter_reset,
            schema,
            zero_threshold,
            zero_count,
            count,
            sum,
            positive_spans,
            positive_counts,
            negative_spans,
            negative_counts,
            custom_values: self.floats()?,
        })
    }

    fn spans(&mut self) -> Option<Vec<Span>> {
        let mut spans = Vec::new();
        for _ in 0..self.u32()? {
            let offset = i32::from_le_bytes(self.array()?);
            let length = u32::from_le_bytes(self.array()?);
            spans.push(Span { offset, length });
        }
        Some(spans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(first: i64, last: i64, series: Vec<RangeSeries>) -> View {
        let infos = vec!["something to say".to_owned()];
        View::whole(Part::new(first, last, series, infos))
    }

    fn views() -> Vec<View> {
        let labels = |name: &str| Labels::from_pairs([("__name__", name)]).unwrap();
        let point = |t: i64, bits: u64| FloatPoint {
            t,
            v: f64::from_bits(bits),
        };
        let dense = (0..50).map(|i| point(i * 10, (i as f64 * 0.1).to_bits()));
        let h = FloatHistogram {
            counter_reset: CounterReset::Gauge,
            schema: -53,
            zero_threshold: 0.5,
            zero_count: 1.0,
            count: 9.0,
            sum: f64::NAN,
            positive_spans: vec![Span {
                offset: -2,
                length: 2,
            }],
            positive_counts: vec![3.0, 5.0],
            negative_spans: Vec::new(),
            negative_counts: Vec::new(),
            custom_values: vec![1.0, 2.5],
        };
        let mixed = RangeSeries {
            labels: labels("b"),
            floats: vec![
                point(20, 0x7ff0_0000_0000_0002),
                point(480, (-0.0_f64).to_bits()),
            ],
            histograms: vec![HistogramPoint {
                t: 100,
                h: Box::new(h),
            }],
        };
        let first = RangeSeries {
            labels: labels("a"),
            floats: dense.collect(),
            histograms: Vec::new(),
        };
        vec![view(0, 490, vec![first, mixed]), view(600, 600, Vec::new())]
    }

    fn encoded() -> Vec<u8> {
        encode(&vec![((1, 2), 3), ((4, 5), 6)], 77, &views(), 10)
    }

    #[test]
    fn everything_comes_back_to_the_bit() {
        let bytes = encoded();
        let kept = decode(&bytes, 10).unwrap();
        assert_eq!(kept.marks, [((1, 2), 3), ((4, 5), 6)]);
        assert_eq!(kept.since_ms, 77);
        // NaN is not itself: the bytes are compared.
        let again = encode(&kept.marks, kept.since_ms, &kept.views, 10);
        assert_eq!(again, bytes);
        let bounds: Vec<_> = kept.views.iter().map(|v| (v.first, v.last)).collect();
        assert_eq!(bounds, [(0, 490), (600, 600)]);
        for (ours, theirs) in kept.views.iter().zip(views()) {
            assert_eq!(ours.infos(), theirs.infos());
            assert_eq!(ours.part.bytes, theirs.part.bytes);
            let shown = |view: &View| format!("{:?}", view.slice());
            assert_eq!(shown(ours), shown(&theirs));
        }
    }

    #[test]
    fn a_part_of_a_view_is_written_alone() {
        let clipped = views()[0].clip(15, 105, 10).unwrap();
        let bytes = encode(&Marks::new(), 0, &[clipped], 10);
        let kept = decode(&bytes, 10).unwrap();
        let (first, last, series) = kept.views[0].slice();
        assert_eq!((first, last), (20, 100));
        let points: Vec<_> = series
            .iter()
            .map(|s| (s.floats.len(), s.histograms.len()))
            .collect();
        assert_eq!(points, [(9, 0), (1, 1)]);
    }

    #[test]
    fn bytes_that_are_not_such_are_refused_or_mean_something_and_take_no_memory() {
        let bytes = encoded();
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len], 10).is_none(), "cut to {len}");
        }
        for at in 0..bytes.len() {
            for value in [0, 0x7f, 0xff] {
                let mut wrong = bytes.clone();
                wrong[at] = value;
                // A checksum is looked at elsewhere; here nothing may panic.
                let _ = decode(&wrong, 10);
            }
        }
        assert!(decode(&bytes, 7).is_none(), "another step");
    }
}

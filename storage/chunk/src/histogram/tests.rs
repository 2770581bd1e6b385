//! What the codec promises, on histograms as they come and on bytes as they do not.

use model::{CounterReset, FloatHistogram, Histogram, HistogramSample, Span, stale_nan};
use proptest::collection::vec;
use proptest::prelude::*;

use super::{HistogramAppender, histogram_bytes_max, is_codable};
use crate::{Encoding, Error, HEADER_LEN, XorAppender, count, decode_float_histograms};
use crate::{decode_histograms, encoding, first_time};

type Samples = Vec<(i64, HistogramSample)>;

fn seal(samples: &[(i64, HistogramSample)]) -> Vec<u8> {
    append_all(samples).seal()
}

fn append_all(samples: &[(i64, HistogramSample)]) -> HistogramAppender {
    let mut appender = HistogramAppender::for_kind_of(&samples[0].1);
    samples.iter().for_each(|(t, h)| appender.append(*t, h));
    appender
}

fn decoded(sealed: &[u8]) -> Result<Samples, Error> {
    let (mut times, mut histograms) = (Vec::new(), Vec::new());
    decode_histograms(sealed, i64::MIN, i64::MAX, &mut times, &mut histograms)?;
    assert_eq!(times.len(), histograms.len());
    Ok(times.into_iter().zip(histograms).collect())
}

/// Also what is said about resets must come back.
fn same(a: &[(i64, HistogramSample)], b: &[(i64, HistogramSample)]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|((t, h), (u, g))| {
            t == u && h.same_value(g) && h.counter_reset() == g.counter_reset()
        })
}

fn spans(pairs: &[(i32, u32)]) -> Vec<Span> {
    let span = |&(offset, length)| Span { offset, length };
    pairs.iter().map(span).collect()
}

/// A counter with `buckets` buckets after `n` scrapes, some of them busier than others.
fn counter(n: u64, buckets: u64) -> Histogram {
    let counts: Vec<u64> = (0..buckets)
        .map(|b| n * b / 3 + (n * 7919 + b * 31) % (1 + b / 2))
        .collect();
    let deltas = counts.iter().scan(0, |before, count| {
        let delta = *count as i64 - *before;
        *before = *count as i64;
        Some(delta)
    });
    Histogram {
        schema: 3,
        zero_threshold: 1e-128,
        zero_count: n / 5,
        count: n / 5 + counts.iter().sum::<u64>(),
        sum: n as f64 * 1.37,
        positive_spans: spans(&[(-4, buckets as u32 - 2), (3, 2)]),
        positive_deltas: deltas.collect(),
        ..Histogram::default()
    }
}

fn scrapes(count: u64, buckets: u64) -> Samples {
    let at = |n| {
        (
            1_700_000_000_000 + 15_000 * n as i64,
            HistogramSample::Int(counter(n, buckets)),
        )
    };
    (0..count).map(at).collect()
}

#[test]
fn a_counter_of_twenty_buckets_costs_about_a_byte_a_bucket() {
    let samples = scrapes(120, 20);
    let sealed = seal(&samples);
    assert_eq!(encoding(&sealed), Ok(Encoding::Histogram));
    assert_eq!(
        (count(&sealed), first_time(&sealed)),
        (Ok(120), Ok(Some(samples[0].0)))
    );
    assert!(same(&decoded(&sealed).unwrap(), &samples));
    let bytes_a_sample = sealed.len() as f64 / 120.0;
    assert!(bytes_a_sample < 21.0, "{bytes_a_sample:.1} bytes a sample");
    // A bucket that is not hit costs a bit.
    let idle: Samples = (0..120)
        .map(|n| (n * 15_000, samples[60].1.clone()))
        .collect();
    let bytes_a_sample = seal(&idle).len() as f64 / 120.0;
    assert!(
        bytes_a_sample < 7.0,
        "{bytes_a_sample:.1} bytes an idle sample"
    );
}

#[test]
fn layouts_resets_and_markers_change_within_a_chunk() {
    let mut gauge = counter(9, 5);
    gauge.counter_reset = CounterReset::Gauge;
    let mut wider = counter(9, 5);
    wider.positive_spans = spans(&[(-5, 1), (0, 3), (3, 3)]);
    wider.positive_deltas = vec![1, 2, 3, 4, 5, 6, i64::MIN];
    let mut coarse = wider.clone();
    coarse.schema = 2;
    coarse.zero_threshold = 0.5;
    let marker = Histogram {
        sum: stale_nan(),
        ..Histogram::default()
    };
    let custom = Histogram {
        schema: -53,
        custom_values: vec![1.0, 2.5, 10.0],
        positive_spans: spans(&[(0, 2), (1, 1)]),
        positive_deltas: vec![1, 1, -2],
        ..Histogram::default()
    };
    let other_bounds = Histogram {
        custom_values: vec![1.0, 2.5],
        ..custom.clone()
    };
    let both = Histogram {
        negative_spans: spans(&[(i32::MIN, 1), (i32::MAX, 1), (7, 0)]),
        negative_deltas: vec![4, u32::MAX as i64],
        count: u64::MAX,
        zero_count: 1 << 63,
        ..counter(3, 4)
    };
    let list = [
        counter(8, 5),
        gauge,
        wider,
        coarse,
        marker,
        custom,
        other_bounds,
        both,
        counter(9, 5),
    ];
    let samples: Samples = list
        .into_iter()
        .enumerate()
        .map(|(n, h)| (n as i64 * 7, HistogramSample::Int(h)))
        .collect();
    assert!(samples.iter().all(|(_, h)| is_codable(h)));
    assert!(same(&decoded(&seal(&samples)).unwrap(), &samples));
}

#[test]
fn integer_counts_are_read_as_floats_too() {
    let samples = scrapes(5, 8);
    let sealed = seal(&samples);
    let (mut times, mut floats) = (vec![1], Vec::new());
    decode_float_histograms(&sealed, samples[1].0, samples[3].0, &mut times, &mut floats).unwrap();
    assert_eq!(
        times[1..],
        samples[1..4].iter().map(|s| s.0).collect::<Vec<_>>()
    );
    for ((_, sample), float) in samples[1..4].iter().zip(&floats) {
        let HistogramSample::Int(h) = sample else {
            unreachable!()
        };
        assert_eq!(&h.to_float().unwrap(), float);
    }
}

#[test]
fn a_chunk_that_was_reopened_anywhere_goes_on_as_if_it_had_not_been() {
    let samples = scrapes(30, 9);
    let whole = seal(&samples);
    for cut in 1..samples.len() {
        let mut appender = HistogramAppender::reopen(&seal(&samples[..cut])).unwrap();
        assert!(appender.last().same_value(&samples[cut - 1].1));
        samples[cut..]
            .iter()
            .for_each(|(t, h)| appender.append(*t, h));
        assert_eq!(appender.seal(), whole, "cut before {cut}");
        assert_eq!(
            (appender.first_time(), appender.last_time()),
            (samples[0].0, samples[29].0)
        );
    }
}

#[test]
fn one_kind_is_not_read_as_the_other() {
    let histograms = seal(&scrapes(3, 4));
    let (mut times, mut values) = (Vec::new(), Vec::new());
    assert_eq!(
        crate::decode(&histograms, &mut times, &mut values),
        Err(Error::NotFloats(Encoding::Histogram))
    );
    assert!(XorAppender::reopen(&histograms).is_err());
    let mut floats = XorAppender::new();
    floats.append(1, 1.0);
    let error = Err(Error::NotHistograms(Encoding::Xor));
    assert_eq!(decoded(&floats.seal()), error);
    assert!(HistogramAppender::reopen(&floats.seal()).is_err());
}

#[test]
fn a_chunk_is_full_before_it_is_too_long_or_takes_too_much_memory() {
    let large = HistogramSample::Int(Histogram {
        schema: -53,
        custom_values: (0..60_000).map(f64::from).collect(),
        ..Histogram::default()
    });
    let mut appender = HistogramAppender::for_kind_of(&large);
    let mut time = 0;
    while appender.has_room_for(&large, usize::MAX) {
        appender.append(time, &large);
        time += 1;
    }
    // They differ in nothing, so bytes do not bound them.
    assert_eq!(appender.count(), 17);
    let small = HistogramSample::Int(counter(4, 10));
    assert!(appender.has_room_for(&small, usize::MAX));
    assert!(!appender.has_room_for(&small, appender.len_bytes() + 10));
    let float = HistogramSample::Float(FloatHistogram::default());
    assert!(!appender.has_room_for(&float, usize::MAX), "another kind");
    assert!(histogram_bytes_max(&large) > seal(&[(0, large)]).len());
}

/// Any side: spans and as many counts as they describe.
fn side() -> impl Strategy<Value = (Vec<Span>, usize)> {
    vec((prop_oneof![-3..4i32, any::<i32>()], 0..5u32), 0..4).prop_map(|pairs| {
        let spans = spans(&pairs);
        let count = spans.iter().map(|s| s.length as usize).sum();
        (spans, count)
    })
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..20u64,
        any::<u64>(),
        Just(f64::NAN.to_bits()),
        (0..9u64).prop_map(|n| (n as f64).to_bits())
    ]
}

fn layout() -> impl Strategy<Value = Histogram> {
    let custom = prop_oneof![Just(Vec::new()), vec(any::<f64>(), 0..4)];
    (side(), side(), custom, any::<i32>(), any::<f64>(), 0..4u8).prop_map(
        |(
            (positive_spans, p),
            (negative_spans, n),
            custom_values,
            schema,
            zero_threshold,
            reset,
        )| Histogram {
            counter_reset: [
                CounterReset::Unknown,
                CounterReset::Yes,
                CounterReset::No,
                CounterReset::Gauge,
            ][usize::from(reset)],
            schema,
            zero_threshold,
            positive_spans,
            positive_deltas: vec![0; p],
            negative_spans,
            negative_deltas: vec![0; n],
            custom_values,
            ..Histogram::default()
        },
    )
}

/// A run of histograms with few layouts, any numbers.
fn series() -> impl Strategy<Value = Samples> {
    let numbers = vec(number(), 64);
    let one = (1..1_000_000i64, 0..3usize, numbers);
    (vec(layout(), 3), vec(one, 1..12), any::<bool>()).prop_map(|(layouts, samples, float)| {
        let mut time = -1_000_000;
        let at = |(step, layout, numbers): (i64, usize, Vec<u64>)| {
            time += step;
            (time, filled(&layouts[layout], &numbers, float))
        };
        samples.into_iter().map(at).collect()
    })
}

fn filled(layout: &Histogram, numbers: &[u64], float: bool) -> HistogramSample {
    let mut next = numbers.iter().copied().cycle();
    let mut take = || next.next().unwrap_or(0);
    if float {
        let mut value = || f64::from_bits(take());
        return HistogramSample::Float(FloatHistogram {
            counter_reset: layout.counter_reset,
            schema: layout.schema,
            zero_threshold: layout.zero_threshold,
            zero_count: value(),
            count: value(),
            sum: value(),
            positive_counts: layout.positive_deltas.iter().map(|_| value()).collect(),
            negative_counts: layout.negative_deltas.iter().map(|_| value()).collect(),
            positive_spans: layout.positive_spans.clone(),
            negative_spans: layout.negative_spans.clone(),
            custom_values: layout.custom_values.clone(),
        });
    }
    HistogramSample::Int(Histogram {
        zero_count: take(),
        count: take(),
        sum: f64::from_bits(take()),
        positive_deltas: layout
            .positive_deltas
            .iter()
            .map(|_| take() as i64)
            .collect(),
        negative_deltas: layout
            .negative_deltas
            .iter()
            .map(|_| take() as i64)
            .collect(),
        ..layout.clone()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_histograms_come_back_to_the_bit(samples in series()) {
        let sealed = seal(&samples);
        prop_assert!(same(&decoded(&sealed).unwrap(), &samples));
        let bound: usize = samples.iter().map(|(_, h)| histogram_bytes_max(h)).sum();
        prop_assert!(sealed.len() <= HEADER_LEN + bound);
        let reopened = HistogramAppender::reopen(&sealed).unwrap();
        prop_assert_eq!(reopened.seal(), sealed);
    }

    #[test]
    fn a_range_is_the_samples_of_the_range(samples in series(), from in 0..12usize, to in 0..12usize) {
        let at = |index: usize| samples[index.min(samples.len() - 1)].0;
        let (min, max) = (at(from), at(to));
        let (mut times, mut histograms) = (Vec::new(), Vec::new());
        decode_histograms(&seal(&samples), min, max, &mut times, &mut histograms).unwrap();
        let wanted: Samples = samples.iter().filter(|(t, _)| (min..=max).contains(t)).cloned().collect();
        prop_assert!(same(&times.into_iter().zip(histograms).collect::<Vec<_>>(), &wanted));
    }

    #[test]
    fn a_flipped_bit_is_an_error_or_changes_nothing(samples in series(), at in any::<prop::sample::Index>()) {
        let mut sealed = seal(&samples);
        let bit = at.index(sealed.len() * 8);
        sealed[bit / 8] ^= 1 << (bit % 8);
        if let Ok(found) = decoded(&sealed) {
            prop_assert!(same(&found, &samples), "bit {bit}");
        }
    }

    /// The checksum keeps damage away from the decoder; here it is made to fit.
    #[test]
    fn any_payload_is_refused_or_is_a_chunk(count in 0..40u16, payload in vec(any::<u8>(), 0..200), float in any::<bool>()) {
        let encoding = if float { 3u8 } else { 2 };
        let mut sealed = vec![encoding];
        sealed.extend_from_slice(&count.to_le_bytes());
        let seed = u64::from(encoding) | u64::from(count) << 8;
        let sum = xxhash_rust::xxh3::xxh3_64_with_seed(&payload, seed) as u32;
        sealed.extend_from_slice(&sum.to_le_bytes());
        sealed.extend_from_slice(&payload);
        if let Ok(found) = decoded(&sealed) {
            prop_assert_eq!(found.len(), usize::from(count));
            prop_assert!(found.iter().all(|(_, h)| is_codable(h)));
            if !found.is_empty() {
                prop_assert!(same(&decoded(&seal(&found)).unwrap(), &found));
            }
        }
    }
}

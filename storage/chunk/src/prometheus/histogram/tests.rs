//! Round trips of whatever histograms, the bits of a small one, and bytes that are none.

use model::stale_nan;
use proptest::prelude::*;

use super::*;

fn decoded(chunks: &[PrometheusHistograms]) -> (Vec<i64>, Vec<HistogramSample>) {
    let (mut times, mut samples) = (Vec::new(), Vec::new());
    for chunk in chunks {
        let before = times.len();
        decode_prometheus_histograms(&chunk.bytes, chunk.floats, &mut times, &mut samples).unwrap();
        assert_eq!(times.len() - before, usize::from(chunk.count));
        assert_eq!((times[before], times[times.len() - 1]), chunk.times);
    }
    (times, samples)
}

fn small(count: u64, sum: f64) -> HistogramSample {
    HistogramSample::Int(Histogram {
        count,
        sum,
        positive_spans: vec![Span {
            offset: 1,
            length: 2,
        }],
        positive_deltas: vec![count as i64 - 1, 2 - count as i64],
        ..Histogram::default()
    })
}

/// Worked out by hand from the format.
#[test]
fn the_bits_are_those_of_the_format() {
    let chunks = encode_prometheus_histograms(&[3, 6], &[small(2, 1.0), small(3, 1.0)]);
    assert_eq!(chunks.len(), 1);
    let mut bits = String::from("0000000000000010"); // two samples
    bits += "00000000"; // resets unknown
    bits += "00000000"; // threshold 0
    bits += "0"; // schema 0
    bits += "10001"; // a positive span
    bits += "10010"; // of two buckets
    bits += "10001"; // from 1 on
    bits += "0"; // no negative ones
    bits += "10011"; // at 3
    bits += "10010"; // count 2
    bits += "0"; // zero count 0
    bits += &format!("{:064b}", 1.0f64.to_bits());
    bits += "10001"; // 1
    bits += "0"; // 1 again
    bits += "10011"; // three later
    bits += "10001"; // one more
    bits += "0"; // still no zeros
    bits += "0"; // the same sum
    bits += "10001"; // one more in the first
    bits += "10111"; // as many in the second, which are one less than in the first
    while !bits.len().is_multiple_of(8) {
        bits += "0";
    }
    let wanted: Vec<u8> = (0..bits.len() / 8)
        .map(|at| u8::from_str_radix(&bits[at * 8..at * 8 + 8], 2).unwrap())
        .collect();
    assert_eq!(chunks[0].bytes, wanted);
}

#[test]
fn resets_other_layouts_and_markers_begin_chunks() {
    let marker = HistogramSample::Int(Histogram {
        sum: stale_nan(),
        ..Histogram::default()
    });
    let mut gauge = small(3, 4.0);
    if let HistogramSample::Int(histogram) = &mut gauge {
        histogram.counter_reset = CounterReset::Gauge;
    }
    let mut told = small(90, 1.0);
    if let HistogramSample::Int(histogram) = &mut told {
        histogram.counter_reset = CounterReset::Yes;
    }
    let samples = [
        small(5, 1.0),
        small(9, 2.0),
        marker.clone(),
        marker,
        small(10, 3.0), // behind markers
        small(3, 3.0),  // less
        gauge,
        told,
        small(95, 1.0),
    ];
    let times: Vec<i64> = (0..samples.len() as i64).collect();
    let chunks = encode_prometheus_histograms(&times, &samples);
    let counts: Vec<u16> = chunks.iter().map(|chunk| chunk.count).collect();
    assert_eq!(counts, [4, 1, 1, 1, 2]);
    let (_, found) = decoded(&chunks);
    let resets: Vec<CounterReset> = found.iter().map(HistogramSample::counter_reset).collect();
    use CounterReset::{Gauge, No, Unknown, Yes};
    let wanted = [
        Unknown, No, Unknown, Unknown, Unknown, Unknown, Gauge, Yes, No,
    ];
    assert_eq!(resets, wanted);
    assert!(found.iter().zip(&samples).all(|(a, b)| a.same_value(b)));
    let many = vec![small(7, 1.0); 1000];
    let times: Vec<i64> = (0..1000).collect();
    let counts = encode_prometheus_histograms(&times, &many);
    assert!(counts.iter().all(|chunk| chunk.count <= 120) && counts.len() == 9);
}

fn spans() -> impl Strategy<Value = Vec<Span>> {
    let span = (any::<i16>(), 0u32..4).prop_map(|(offset, length)| Span {
        offset: i32::from(offset),
        length,
    });
    proptest::collection::vec(span, 0..4)
}

fn sample() -> impl Strategy<Value = HistogramSample> {
    let reset = prop_oneof![
        Just(CounterReset::Unknown),
        Just(CounterReset::Yes),
        Just(CounterReset::No),
        Just(CounterReset::Gauge)
    ];
    let threshold = prop_oneof![Just(0.0), Just(2f64.powi(-128)), any::<f64>()];
    let bounds = prop_oneof![
        Just(vec![0.005, 0.25, 1.0, 33_554.43]),
        proptest::collection::vec(any::<f64>(), 0..5)
    ];
    let schema = prop_oneof![-4i32..9, Just(CUSTOM_BUCKETS_SCHEMA)];
    let numbers = proptest::collection::vec(any::<i64>(), 24);
    (
        any::<bool>(),
        reset,
        schema,
        (threshold, bounds),
        spans(),
        spans(),
        numbers,
    )
        .prop_map(
            |(
                float,
                counter_reset,
                schema,
                (zero_threshold, bounds),
                positive_spans,
                negative_spans,
                numbers,
            )| {
                let buckets =
                    |spans: &[Span]| spans.iter().map(|s| s.length as usize).sum::<usize>();
                let (p, n) = (buckets(&positive_spans), buckets(&negative_spans));
                let (positive, negative) = (&numbers[..p], &numbers[12..12 + n]);
                let custom_values = match schema {
                    CUSTOM_BUCKETS_SCHEMA => bounds,
                    _ => Vec::new(),
                };
                let float_of = |n: &i64| f64::from_bits(*n as u64);
                match float {
                    false => HistogramSample::Int(Histogram {
                        counter_reset,
                        schema,
                        zero_threshold,
                        zero_count: numbers[23] as u64,
                        count: numbers[22] as u64,
                        sum: float_of(&numbers[21]),
                        positive_deltas: positive.to_vec(),
                        negative_deltas: negative.to_vec(),
                        positive_spans,
                        negative_spans,
                        custom_values,
                    }),
                    true => HistogramSample::Float(FloatHistogram {
                        counter_reset,
                        schema,
                        zero_threshold,
                        zero_count: float_of(&numbers[23]),
                        count: float_of(&numbers[22]),
                        sum: float_of(&numbers[21]),
                        positive_counts: positive.iter().map(float_of).collect(),
                        negative_counts: negative.iter().map(float_of).collect(),
                        positive_spans,
                        negative_spans,
                        custom_values,
                    }),
                }
            },
        )
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        samples in proptest::collection::vec((sample(), 1usize..4), 1..6),
        start in -1_000_000i64..1 << 50,
    ) {
        let samples: Vec<HistogramSample> = samples
            .into_iter()
            .flat_map(|(sample, times)| std::iter::repeat_n(sample, times))
            .filter(|sample| !is_stale(sample))
            .collect();
        let times: Vec<i64> = (0..samples.len() as i64).map(|n| start + n * n * 999).collect();
        let (found_times, found) = decoded(&encode_prometheus_histograms(&times, &samples));
        prop_assert_eq!(found_times, times);
        for (found, sample) in found.iter().zip(&samples) {
            prop_assert!(found.same_value(sample), "{:?} {:?}", found, sample);
        }
    }

    #[test]
    fn any_bytes_are_samples_or_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        floats in any::<bool>(),
    ) {
        let (mut times, mut samples) = (Vec::new(), Vec::new());
        let _ = decode_prometheus_histograms(&bytes, floats, &mut times, &mut samples);
        prop_assert_eq!(times.len(), samples.len());
        prop_assert!(samples.iter().all(is_codable));
    }
}

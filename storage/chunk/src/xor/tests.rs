//! What the codec promises, on series as they come and on bytes as they do not.

use proptest::prelude::*;

use super::XorAppender;
use crate::{Error, HEADER_LEN, SAMPLES_MAX, count, decode, decode_range, first_time};

type Columns = (Vec<i64>, Vec<u64>);

fn columns(sealed: &[u8]) -> Result<Columns, Error> {
    let (mut times, mut values) = (Vec::new(), Vec::new());
    decode(sealed, &mut times, &mut values)?;
    Ok((times, values.into_iter().map(f64::to_bits).collect()))
}

fn append_all(samples: &[(i64, u64)]) -> XorAppender {
    let mut appender = XorAppender::new();
    for (time, value) in samples {
        appender.append(*time, f64::from_bits(*value));
    }
    appender
}

fn check_round_trip(samples: &[(i64, u64)]) {
    let appender = append_all(samples);
    let sealed = appender.seal();
    let expected: Columns = samples.iter().copied().unzip();
    assert_eq!(columns(&sealed).unwrap(), expected);
    assert_eq!(usize::from(count(&sealed).unwrap()), samples.len());
    assert_eq!(first_time(&sealed).unwrap(), samples.first().map(|s| s.0));
    if let (Some(first), Some(last)) = (samples.first(), samples.last()) {
        assert_eq!(appender.first_time(), first.0);
        assert_eq!(appender.last_time(), last.0);
        assert_eq!(appender.last_value().to_bits(), last.1);
    }
}

/// A series as scrapes make it.
struct Shape {
    name: &'static str,
    samples: Vec<(i64, u64)>,
    /// Bytes a sample that a chunk of it may cost.
    bytes_max: f64,
}

/// 120 samples every 15 s, each late by `jitter(i)` ms.
fn shape(
    name: &'static str,
    bytes_max: f64,
    mut jitter: impl FnMut() -> i64,
    mut value: impl FnMut(u64) -> f64,
) -> Shape {
    let start = 1_700_000_000_123i64;
    let samples = (0..120)
        .map(|i| (start + 15_000 * i as i64 + jitter(), value(i).to_bits()))
        .collect();
    Shape {
        name,
        samples,
        bytes_max,
    }
}

/// A sequence of numbers below `n`, the same in every run.
fn chance(n: u64) -> impl FnMut() -> u64 {
    let mut noise = 0x9e37_79b9_7f4a_7c15u64;
    move || {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise % n
    }
}

fn shapes() -> Vec<Shape> {
    let (mut late, mut step, mut few, mut drift) =
        (chance(5), chance(2000), chance(8), chance(100));
    let mut total = 0.0;
    let mut level = 50.0f64;
    vec![
        shape("constant", 0.3, || 0, |_| 1.0),
        shape("constant with jitter", 1.7, || late() as i64, |_| 1.0),
        shape("counter by ten", 2.2, || 0, |i| (i * 10) as f64),
        shape(
            "counter by chance",
            4.0,
            || 0,
            |_| {
                total += step() as f64;
                total
            },
        ),
        shape("gauge of few values", 2.2, || 0, |_| few() as f64),
        shape(
            "gauge of decimals",
            7.5,
            || 0,
            |_| {
                level += drift() as f64 / 100.0 - 0.5;
                (level * 100.0).round() / 100.0
            },
        ),
    ]
}

#[test]
fn series_as_they_are_scraped_take_few_bytes() {
    for Shape {
        name,
        samples,
        bytes_max,
    } in shapes()
    {
        check_round_trip(&samples);
        let bytes = append_all(&samples).seal().len() as f64 / samples.len() as f64;
        println!("{name}: {bytes:.2} bytes a sample");
        assert!(
            bytes <= bytes_max,
            "{name}: {bytes:.2} bytes a sample, expected at most {bytes_max}"
        );
    }
}

#[test]
fn an_empty_chunk_is_a_chunk() {
    let sealed = XorAppender::new().seal();
    assert_eq!(sealed.len(), HEADER_LEN);
    assert_eq!(columns(&sealed).unwrap(), (vec![], vec![]));
    assert_eq!(first_time(&sealed).unwrap(), None);
    assert!(XorAppender::reopen(&sealed).unwrap().is_empty());
}

#[test]
fn the_ends_of_time_and_every_kind_of_float_survive() {
    let values = [
        0.0f64.to_bits(),
        (-0.0f64).to_bits(),
        1,
        u64::MAX,
        f64::INFINITY.to_bits(),
        f64::NEG_INFINITY.to_bits(),
        f64::NAN.to_bits(),
        model::STALE_NAN_BITS,
        0xfff8_dead_beef_0001,
        f64::MIN_POSITIVE.to_bits(),
        f64::MAX.to_bits(),
    ];
    let times = [
        i64::MIN,
        i64::MIN + 1,
        -1,
        0,
        1,
        1 << 40,
        i64::MAX - 1,
        i64::MAX,
    ];
    for first in values {
        let samples: Vec<_> = times.iter().map(|time| (*time, first)).collect();
        check_round_trip(&samples);
        let samples: Vec<_> = times
            .iter()
            .enumerate()
            .map(|(i, time)| (*time, values[i] ^ first))
            .collect();
        check_round_trip(&samples);
    }
    check_round_trip(&[(i64::MIN, 1), (i64::MAX, 2)]);
}

#[test]
fn a_full_chunk_of_the_longest_samples_fits_its_bounds() {
    let samples: Vec<_> = (0..i64::from(SAMPLES_MAX))
        .map(|i| (i * i * 0x4000_0001, if i % 2 == 0 { 0 } else { u64::MAX }))
        .collect();
    check_round_trip(&samples);
}

#[test]
#[should_panic(expected = "times of a chunk ascend")]
fn a_time_that_does_not_ascend_is_our_fault() {
    append_all(&[(5, 1), (5, 2)]);
}

#[test]
fn every_bit_flip_is_an_error_or_the_same_data() {
    for Shape { name, samples, .. } in shapes() {
        let sealed = append_all(&samples).seal();
        let expected = columns(&sealed).unwrap();
        let mut flipped = sealed.clone();
        for bit in 0..sealed.len() * 8 {
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(found) = columns(&flipped) {
                assert_eq!(found, expected, "{name}: bit {bit}");
            }
            flipped[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn a_chunk_cut_short_or_too_long_is_an_error() {
    let sealed = append_all(&shapes()[3].samples).seal();
    for len in 0..sealed.len() {
        assert!(columns(&sealed[..len]).is_err(), "{len} bytes");
    }
    let mut longer = sealed.clone();
    longer.push(0);
    assert!(columns(&longer).is_err());
}

/// The checksum must not be what protects the decoder: forges it after every change.
#[test]
fn a_wrong_payload_under_a_right_checksum_is_an_error_or_ascending_columns() {
    for Shape { samples, .. } in shapes() {
        let sealed = append_all(&samples).seal();
        for bit in 8..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            crate::sealed::finish(&mut flipped, 0);
            if let Ok((times, values)) = columns(&flipped) {
                assert_eq!(times.len(), values.len());
                assert!(times.is_sorted_by(|a, b| a < b));
            }
        }
    }
}

#[test]
fn columns_are_untouched_by_a_chunk_that_fails() {
    let mut sealed = append_all(&shapes()[3].samples).seal();
    let last = sealed.len() - 1;
    sealed[last] ^= 0xff;
    crate::sealed::finish(&mut sealed, 0);
    let (mut times, mut values) = (vec![7], vec![7.5]);
    assert!(decode(&sealed, &mut times, &mut values).is_err());
    assert!(decode_range(&sealed, i64::MIN, i64::MAX, &mut times, &mut values).is_err());
    assert_eq!((times, values), (vec![7], vec![7.5]));
}

#[test]
fn a_million_small_series_stay_small() {
    // Six scrapes of a constant, a counter and a gauge; the state itself is 64 bytes.
    for (value, bound) in [
        ([1.0; 6], 0),
        ([0., 10., 20., 31., 40., 55.], 32),
        ([0.1, 0.2, 0.35, 7.1, 3.3, 9.9], 64),
    ] {
        let mut appender = XorAppender::new();
        for (i, value) in value.into_iter().enumerate() {
            appender.append(1_700_000_000_000 + 15_000 * i as i64, value);
        }
        assert!(
            appender.heap_bytes() <= bound,
            "{} bytes",
            appender.heap_bytes()
        );
    }
}

#[test]
fn a_cleared_or_shrunk_appender_goes_on() {
    let shape = &shapes()[3].samples;
    let mut appender = append_all(shape);
    appender.clear();
    assert!(appender.is_empty() && appender.heap_bytes() > 0);
    for (i, (time, value)) in shape.iter().enumerate() {
        if i % 7 == 0 {
            appender.shrink();
        }
        appender.append(*time, f64::from_bits(*value));
    }
    appender.shrink();
    assert_eq!(appender.seal(), append_all(shape).seal());
}

fn any_samples() -> impl Strategy<Value = Vec<(i64, u64)>> {
    let time = prop_oneof![
        8 => Just(15_000u64),
        4 => 1u64..40,
        4 => 14_900u64..15_100,
        2 => 1u64..10_000_000,
        1 => 1u64..1 << 62,
    ];
    let value = prop_oneof![
        4 => Just(1.5f64.to_bits()),
        4 => (0u32..100_000).prop_map(|n| f64::from(n).to_bits()),
        2 => any::<f64>().prop_map(f64::to_bits),
        1 => any::<u64>(),
        1 => Just(model::STALE_NAN_BITS),
        1 => Just((-0.0f64).to_bits()),
    ];
    (any::<i64>(), prop::collection::vec((time, value), 0..300)).prop_map(|(start, steps)| {
        let mut time = start;
        let mut samples = Vec::new();
        for (step, value) in steps {
            samples.push((time, value));
            match time.checked_add_unsigned(step) {
                Some(next) => time = next,
                None => break,
            }
        }
        samples
    })
}

proptest! {
    #[test]
    fn any_series_survives_the_round_trip(samples in any_samples()) {
        check_round_trip(&samples);
    }

    #[test]
    fn a_range_is_what_filtering_all_would_give(
        samples in any_samples(), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(), shift in -1i64..=1,
    ) {
        prop_assume!(!samples.is_empty());
        let sealed = append_all(&samples).seal();
        let min = a.get(&samples).0.saturating_add(shift);
        let max = b.get(&samples).0.saturating_sub(shift);
        let (mut times, mut values) = (vec![3], vec![4.0]);
        decode_range(&sealed, min, max, &mut times, &mut values).unwrap();
        let expected: Vec<_> =
            samples.iter().copied().filter(|(time, _)| (min..=max).contains(time)).collect();
        let found: Vec<_> =
            times[1..].iter().copied().zip(values[1..].iter().map(|v| v.to_bits())).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!((times[0], values[0]), (3, 4.0));
    }

    #[test]
    fn a_reopened_chunk_goes_on_as_if_never_sealed(samples in any_samples(), cut in any::<prop::sample::Index>()) {
        prop_assume!(!samples.is_empty());
        let (before, after) = samples.split_at(cut.index(samples.len()));
        let mut appender = XorAppender::reopen(&append_all(before).seal()).unwrap();
        for (time, value) in after {
            appender.append(*time, f64::from_bits(*value));
        }
        prop_assert_eq!(appender.seal(), append_all(&samples).seal());
    }

    #[test]
    fn garbage_is_an_error_or_ascending_columns(mut bytes in prop::collection::vec(any::<u8>(), HEADER_LEN..400), samples in 0u16..200) {
        if bytes[HEADER_LEN - 1] % 2 == 0 {
            bytes[0] = 1;
            bytes[1..3].copy_from_slice(&samples.to_le_bytes());
            crate::sealed::finish(&mut bytes, 0);
        }
        if let Ok((times, values)) = columns(&bytes) {
            prop_assert_eq!(times.len(), values.len());
            prop_assert!(times.is_sorted_by(|a, b| a < b));
            XorAppender::reopen(&bytes).unwrap();
        }
    }
}

//! Every value comes back to the bit, in every coding; hostile bytes are an error or values.

use proptest::prelude::*;

use super::*;

thread_local! {
    /// Columns of values that this thread has unpacked.
    pub(crate) static DECODED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// `width` places from every `stride`th on.
fn every(count: usize, stride: usize, width: usize) -> Vec<Range<usize>> {
    (stride / 2..count)
        .step_by(stride)
        .map(|from| from..(from + width).min(count))
        .collect()
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn round_trip(values: &[f64], effort: Effort) -> (Coding, usize) {
    let mut bytes = vec![9];
    let coding = encode(values, effort, &mut bytes);
    let mut out = vec![1.5];
    let mut scratch = Scratch::default();
    let (bytes, count) = (&bytes[1..], values.len());
    let whole = 0..count;
    let all = std::slice::from_ref(&whole);
    decode(coding, bytes, count, all, &mut scratch, &mut out).unwrap();
    assert_eq!(bits(&out[1..]), bits(values), "{coding:?}");
    for (stride, width) in [(2, 1), (3, 2), (7, 7), (50, 1), (64, 10), (1000, 1)] {
        let picks = every(count, stride, width);
        let picked = picks.iter().flat_map(|pick| &values[pick.clone()]);
        let picked: Vec<f64> = picked.copied().collect();
        out.truncate(1);
        decode(coding, bytes, count, &picks, &mut scratch, &mut out).unwrap();
        assert_eq!(bits(&out[1..]), bits(&picked), "{coding:?} {picks:?}");
    }
    (coding, bytes.len())
}

fn both(values: &[f64]) -> (Coding, usize) {
    round_trip(values, Effort::Fast);
    round_trip(values, Effort::Best)
}

#[test]
fn what_was_written_as_a_decimal_is_coded_as_one() {
    let gauge: Vec<f64> = (0..240)
        .map(|i| (100_000 + i * 7919 % 101) as f64 / 100.0)
        .collect();
    let (coding, len) = both(&gauge);
    assert_eq!(coding, Coding::Decimal);
    assert!(len <= 240 * 7 / 8 + 8, "{len}");
    let counter: Vec<f64> = (0..240).map(|i| (i * 1000 + i * i % 7) as f64).collect();
    let (coding, len) = both(&counter);
    assert_eq!(coding, Coding::Decimal);
    assert!(len <= 240 / 2 + 8, "{len}");
    assert_eq!(both(&[4.25; 480]), (Coding::Constant, 3));
    assert_eq!(both(&[f64::NAN; 480]), (Coding::Constant, 9));
    // Small seconds, as of garbage collections.
    let (coding, _) = both(&[6.1709e-05, 6.1709e-05, 0.000187, 1.0]);
    assert_eq!(coding, Coding::Decimal);
}

#[test]
fn marks_of_staleness_and_other_odd_values_are_kept_beside_decimals() {
    let mut values: Vec<f64> = (0..100).map(|i| f64::from(i) / 10.0).collect();
    values[99] = model::stale_nan();
    values[0] = -0.0;
    values[50] = f64::from_bits(0x7ff8_dead_beef_0001);
    let (coding, len) = both(&values);
    assert_eq!(coding, Coding::Decimal);
    assert!(len < 80, "{len}");
}

#[test]
fn all_values_odd_is_still_exact() {
    let odd = [
        0.0,
        -0.0,
        f64::NAN,
        -f64::NAN,
        model::stale_nan(),
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MIN_POSITIVE,
        f64::from_bits(1),
        f64::MAX,
        f64::MIN,
        9_007_199_254_740_991.0,
        9_007_199_254_740_992.0,
        9_007_199_254_740_993.0,
        -9_007_199_254_740_992.0,
        4_503_599_627_370_497.5,
        1e300,
        1.0 / 3.0,
        0.1 + 0.2,
    ];
    both(&odd);
    for value in odd {
        both(&[value]);
        both(&[value, 1.0]);
        both(&[1.0, value, value]);
        both(&vec![value; 300]);
    }
    // Two words that no decimal says.
    let words: Vec<f64> = (0..300u64)
        .map(|i| [1e100 / 3.0, f64::NAN, 1e-90][(i * i * 7 % 31 % 3) as usize])
        .collect();
    assert_eq!(both(&words).0, Coding::Words);
}

#[test]
fn sums_of_floats_are_never_larger_than_raw() {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..1000)
        .map(|i| {
            sum += (f64::from(i)).sqrt();
            sum
        })
        .collect();
    let (coding, len) = both(&sums);
    assert!(len <= 8 * sums.len(), "{coding:?} {len}");
}

fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        (-1_000_000i64..1_000_000, 0i32..10).prop_map(|(i, e)| i as f64 / 10f64.powi(e)),
        (-50i64..50).prop_map(|i| i as f64),
        Just(model::stale_nan()),
        Just(-0.0),
    ]
}

proptest! {
    #[test]
    fn any_values_come_back_to_the_bit(values in prop::collection::vec(any_value(), 1..300)) {
        both(&values);
    }

    #[test]
    fn runs_of_words_come_back(values in prop::collection::vec(prop::sample::select(vec![0.1, 1.0 / 3.0, f64::NAN, -0.0, 7.0]), 1..300)) {
        both(&values);
    }

    #[test]
    fn hostile_bytes_are_an_error_or_values(coding in 0u8..6, bytes in prop::collection::vec(any::<u8>(), 0..80), count in 1usize..400) {
        let coding = Coding::from_number(coding).unwrap();
        for picks in [std::iter::once(0..count).collect(), every(count, 9, 2)] {
            let mut out = Vec::new();
            if decode(coding, &bytes, count, &picks, &mut Scratch::default(), &mut out).is_ok() {
                prop_assert_eq!(out.len(), picks.iter().map(Range::len).sum::<usize>());
            } else {
                prop_assert!(out.is_empty());
            }
        }
    }
}

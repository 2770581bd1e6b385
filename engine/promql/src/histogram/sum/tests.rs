//! Sums by hand, and against adding bucket by bucket.

use model::Span;
use proptest::prelude::*;

use super::*;
use crate::histogram::testing::{both, custom, exponential, summing};

fn add(a: &FloatHistogram, b: &FloatHistogram) -> (FloatHistogram, Notice) {
    let mut sums = Sums::new(a);
    let notice = sums.add(b).unwrap();
    (sums.value(), notice)
}

#[test]
fn a_finer_histogram_is_brought_to_the_coarser_resolution() {
    // Schema 1, buckets up to sqrt(1/2)^.., 1, sqrt 2, 2: indexes 0, 1, 2 become 0, 1, 1.
    let (sum, _) = add(
        &exponential(0, &[1.0, 2.0]),
        &exponential(1, &[3.0, 4.0, 5.0]),
    );
    assert_eq!(sum, exponential(0, &[4.0, 11.0]));
    let (swapped, _) = add(
        &exponential(1, &[3.0, 4.0, 5.0]),
        &exponential(0, &[1.0, 2.0]),
    );
    assert_eq!(swapped, sum);
}

#[test]
fn a_wider_zero_bucket_takes_the_buckets_within() {
    let narrow = both(0, (0.001, 1.0), &[2.0, 3.0], &[4.0]);
    let wide = both(0, (1.0, 5.0), &[0.0, 7.0], &[]);
    let expected = FloatHistogram {
        positive_spans: vec![Span {
            offset: 1,
            length: 1,
        }],
        positive_counts: vec![10.0],
        ..both(0, (1.0, 12.0), &[], &[])
    };
    let expected = FloatHistogram {
        count: 22.0,
        ..expected
    };
    for (a, b) in [(&narrow, &wide), (&wide, &narrow)] {
        assert_eq!(add(a, b).0, expected);
    }
}

#[test]
fn a_zero_bucket_that_ends_within_a_filled_bucket_takes_it_whole() {
    let narrow = both(0, (0.001, 0.0), &[0.0, 3.0], &[]);
    let wide = both(0, (1.5, 1.0), &[], &[]);
    let (sum, _) = add(&narrow, &wide);
    assert_eq!(
        (sum.zero_threshold, sum.zero_count, sum.count),
        (2.0, 4.0, 4.0)
    );
    assert!(sum.positive_counts.is_empty());
}

#[test]
fn custom_bounds_meet_on_the_common_ones() {
    let (sum, notice) = add(
        &custom(&[2.0, 4.0, 6.0], &[1.0, 2.0, 5.0, 7.0]),
        &custom(&[3.0, 4.0, 8.0], &[1.0, 1.0, 5.0, 8.0]),
    );
    assert_eq!(sum, custom(&[4.0], &[5.0, 25.0]));
    assert!(notice.reconciled_bounds);
    let (none, _) = add(&custom(&[1.0], &[1.0, 2.0]), &custom(&[5.0], &[3.0, 4.0]));
    assert_eq!(none, custom(&[], &[10.0]));
    let (same, notice) = add(&custom(&[1.0], &[1.0, 2.0]), &custom(&[1.0], &[3.0, 4.0]));
    assert_eq!(
        (same, notice),
        (custom(&[1.0], &[4.0, 6.0]), Notice::default())
    );
}

#[test]
fn kinds_do_not_mix_and_nothing_is_changed() {
    let mut sums = Sums::new(&exponential(0, &[1.0]));
    assert_eq!(sums.add(&custom(&[1.0], &[1.0, 1.0])), Err(Incompatible));
    assert_eq!(sums.value(), exponential(0, &[1.0]));
}

#[test]
fn a_gauge_makes_the_sum_a_gauge_and_contradicting_resets_are_noticed() {
    use CounterReset::{Gauge, No, Unknown, Yes};
    for (a, b, expected, conflict) in [
        (No, No, No, false),
        (Yes, Gauge, Gauge, false),
        (Gauge, Unknown, Gauge, false),
        (No, Unknown, Unknown, false),
        (Unknown, Yes, Unknown, false),
        (Yes, No, Unknown, true),
    ] {
        let with = |counter_reset| FloatHistogram {
            counter_reset,
            ..exponential(0, &[1.0])
        };
        let (sum, notice) = add(&with(a), &with(b));
        assert_eq!(
            (sum.counter_reset, notice.conflicting_resets),
            (expected, conflict)
        );
    }
}

#[test]
fn every_number_is_compensated() {
    let terms = [1e100, 1.0, 1.0, -1e100].map(|v| summing(v, exponential(0, &[v, -v])));
    let mut sums = Sums::new(&terms[0]);
    for term in &terms[1..] {
        sums.add(term).unwrap();
    }
    assert_eq!(
        sums.value(),
        FloatHistogram {
            count: 0.0,
            ..summing(2.0, exponential(0, &[2.0, -2.0]))
        }
    );
}

#[test]
fn subtracting_itself_leaves_no_buckets() {
    let histogram = summing(5.0, both(2, (0.1, 3.0), &[1.0, 0.0, 2.0], &[4.0]));
    let mut sums = Sums::new(&histogram);
    sums.subtract(&histogram).unwrap();
    assert_eq!(sums.value(), both(2, (0.1, 0.0), &[], &[]));
}

proptest! {
    #[test]
    fn sums_have_all_observations_wherever_they_were_cut(
        parts in prop::collection::vec((0..3i32, prop::collection::vec(0..9u32, 0..9)), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let histograms: Vec<FloatHistogram> = parts
            .iter()
            .map(|(schema, counts)| {
                let counts: Vec<f64> = counts.iter().map(|c| f64::from(*c)).collect();
                exponential(*schema, &counts)
            })
            .collect();
        let add = |histograms: &[FloatHistogram]| {
            let mut sums = Sums::new(&histograms[0]);
            histograms[1..].iter().for_each(|h| { sums.add(h).unwrap(); });
            sums
        };
        let whole = add(&histograms);
        let cut = 1 + cut.index(histograms.len());
        let mut merged = add(&histograms[..cut]);
        if cut < histograms.len() {
            merged.merge(add(&histograms[cut..])).unwrap();
        }
        prop_assert_eq!(merged.value(), whole.value());
        let lowest = parts.iter().map(|p| p.0).min().unwrap();
        let mut expected = std::collections::BTreeMap::new();
        for (schema, counts) in &parts {
            for (index, count) in (0i32..).zip(counts).filter(|(_, count)| **count > 0) {
                *expected.entry(((index - 1) >> (schema - lowest)) + 1).or_insert(0.0) += f64::from(*count);
            }
        }
        let value = whole.value();
        let got: Vec<_> = indexed(&value.positive_spans, &value.positive_counts).collect();
        prop_assert_eq!(got, expected.into_iter().collect::<Vec<_>>());
    }
}

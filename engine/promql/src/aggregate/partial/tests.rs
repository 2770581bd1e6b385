//! Each operator against a plain computation over rows, however the series are partitioned.

use proptest::prelude::*;

use super::*;

const OPS: [AggregateOp; 9] = [
    AggregateOp::Sum,
    AggregateOp::Avg,
    AggregateOp::Count,
    AggregateOp::Group,
    AggregateOp::Min,
    AggregateOp::Max,
    AggregateOp::Stddev,
    AggregateOp::Stdvar,
    AggregateOp::Quantile,
];

fn aggregate(op: AggregateOp, columns: &[Vec<f64>], cuts: &[usize]) -> Vec<f64> {
    let steps = columns[0].len();
    let mut total = Partial::new(op, steps);
    let mut start = 0;
    for cut in cuts.iter().copied().chain([columns.len()]) {
        let mut part = Partial::new(op, steps);
        columns[start..cut].iter().for_each(|c| part.add(c));
        total.merge(part);
        start = cut;
    }
    total.finish(&vec![0.25; steps])
}

/// One step by the textbook.
fn by_hand(op: AggregateOp, row: &[f64]) -> f64 {
    let count = row.len() as f64;
    let mean = row.iter().sum::<f64>() / count;
    let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count;
    match op {
        _ if row.is_empty() => ABSENT,
        AggregateOp::Sum => row.iter().sum(),
        AggregateOp::Avg => mean,
        AggregateOp::Count => count,
        AggregateOp::Group => 1.0,
        AggregateOp::Min => row.iter().copied().fold(f64::NAN, f64::min),
        AggregateOp::Max => row.iter().copied().fold(f64::NAN, f64::max),
        AggregateOp::Stddev => variance.sqrt(),
        AggregateOp::Stdvar => variance,
        _ => {
            let mut sorted = row.to_vec();
            sorted.sort_by(f64::total_cmp);
            let rank = 0.25 * (count - 1.0);
            let low = rank.floor() as usize;
            let high = (low + 1).min(row.len() - 1);
            let weight = rank - rank.floor();
            sorted[low] * (1.0 - weight) + sorted[high] * weight
        }
    }
}

proptest! {
    #[test]
    fn partitions_do_not_change_a_result(
        rows in prop::collection::vec(
            prop::collection::vec(prop_oneof![1 => Just(ABSENT), 4 => -100.0..100.0f64], 1..20),
            1..4,
        ),
        cut in any::<prop::sample::Index>(),
    ) {
        let width = rows.iter().map(Vec::len).min().unwrap();
        let columns: Vec<Vec<f64>> = (0..width).map(|s| rows.iter().map(|r| r[s]).collect()).collect();
        for op in OPS {
            let whole = aggregate(op, &columns, &[]);
            let parts = aggregate(op, &columns, &[cut.index(width + 1)]);
            for (step, row) in rows.iter().enumerate() {
                let row: Vec<f64> = row[..width].iter().copied().filter(|v| !is_absent(*v)).collect();
                let expected = by_hand(op, &row);
                for got in [whole[step], parts[step]] {
                    prop_assert!(
                        got.to_bits() == expected.to_bits() || (got - expected).abs() < 1e-9,
                        "{} of {:?}: {} is not {}", op.name(), row, got, expected
                    );
                }
            }
        }
    }
}

#[test]
fn nan_counts_except_for_extremes_that_have_another_value() {
    let columns = [
        vec![f64::NAN, f64::NAN],
        vec![1.0, ABSENT],
        vec![2.0, ABSENT],
    ];
    for cuts in [&[][..], &[1], &[2], &[1, 2]] {
        assert_eq!(aggregate(AggregateOp::Min, &columns, cuts)[0], 1.0);
        assert_eq!(aggregate(AggregateOp::Max, &columns, cuts)[0], 2.0);
        for op in [
            AggregateOp::Min,
            AggregateOp::Max,
            AggregateOp::Sum,
            AggregateOp::Avg,
        ] {
            let alone = aggregate(op, &columns, cuts)[1];
            assert!(alone.is_nan() && !is_absent(alone), "{}", op.name());
        }
        assert_eq!(aggregate(AggregateOp::Count, &columns, cuts), [3.0, 1.0]);
        assert!(aggregate(AggregateOp::Stddev, &columns, cuts)[0].is_nan());
    }
}

#[test]
fn means_survive_sums_that_overflow_in_any_partition() {
    let big = 9.98846567431158e307;
    let columns = vec![vec![big, f64::INFINITY, 1.0]; 4];
    for cuts in [&[][..], &[1], &[2], &[1, 2, 3]] {
        assert_eq!(
            aggregate(AggregateOp::Avg, &columns, cuts),
            [big, f64::INFINITY, 1.0]
        );
    }
    let mixed = [vec![f64::INFINITY], vec![f64::NEG_INFINITY], vec![1.0]];
    for cuts in [&[][..], &[1], &[2]] {
        assert!(aggregate(AggregateOp::Avg, &mixed, cuts)[0].is_nan());
        assert!(aggregate(AggregateOp::Sum, &mixed, cuts)[0].is_nan());
    }
}

#[test]
fn large_values_that_cancel_leave_the_small_ones() {
    let columns = [vec![2.0], vec![8.0], vec![1e100], vec![-1e100]];
    for cuts in [&[][..], &[1], &[2], &[3]] {
        assert_eq!(aggregate(AggregateOp::Sum, &columns, cuts), [10.0]);
        assert_eq!(aggregate(AggregateOp::Avg, &columns, cuts), [2.5]);
    }
}

#[test]
fn equal_values_have_no_variance_in_partitions_either() {
    let columns = vec![vec![1.33]; 5];
    for cuts in [&[][..], &[2], &[1, 4]] {
        assert_eq!(aggregate(AggregateOp::Stdvar, &columns, cuts), [0.0]);
    }
    assert!(aggregate(AggregateOp::Stdvar, &[vec![f64::INFINITY]], &[])[0].is_nan());
}

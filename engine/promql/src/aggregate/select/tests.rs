//! Choosing series, against sorting whole rows.

use model::Labels;
use proptest::prelude::*;

use super::*;
use crate::annotations::Annotations;
use crate::expr::Span;

fn series(columns: &[Vec<f64>]) -> Vec<VectorSeries> {
    columns
        .iter()
        .enumerate()
        .map(|(i, values)| {
            let labels = Labels::from_pairs([("i", i.to_string())]).unwrap();
            VectorSeries::new(labels, false, values.clone())
        })
        .collect()
}

/// Numbers and values of what was kept.
fn kept(series: &[VectorSeries]) -> Vec<(usize, Vec<f64>)> {
    series
        .iter()
        .map(|one| {
            (
                one.labels.get("i").unwrap().parse().unwrap(),
                one.values.clone(),
            )
        })
        .collect()
}

fn checked(op: AggregateOp, parameter: &[f64]) -> (Result<(), String>, Vec<String>) {
    let mut annotations = Annotations::default();
    let mut notes = Notes {
        annotations: &mut annotations,
        text: "",
        args: &[Span::default()],
        metric: "",
    };
    let result = check_parameter(op, parameter, &mut notes).map_err(|e| e.to_string());
    (result, annotations.warnings())
}

#[test]
fn an_instant_topk_is_ordered_by_group_then_value_with_nan_last() {
    let columns = [[1.0], [f64::NAN], [5.0], [3.0], [5.0]].map(Vec::from);
    let top = select(
        AggregateOp::Topk,
        &[0, 0, 0, 1, 0],
        series(&columns),
        &[3.0],
        true,
    );
    let order: Vec<usize> = kept(&top).iter().map(|k| k.0).collect();
    assert_eq!(order, [2, 4, 0, 3]);
    let bottom = select(
        AggregateOp::Bottomk,
        &[0; 5],
        series(&columns),
        &[9.0],
        true,
    );
    let order: Vec<usize> = kept(&bottom).iter().map(|k| k.0).collect();
    assert_eq!(order, [0, 3, 2, 4, 1]);
}

#[test]
fn a_k_below_one_keeps_nothing_and_may_change_from_step_to_step() {
    let columns = [[1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0]].map(Vec::from);
    for op in [AggregateOp::Topk, AggregateOp::Limitk] {
        let result = select(op, &[0, 0], series(&columns), &[0.0, 1.0, 2.0, -5.0], false);
        let count = |step: usize| {
            result
                .iter()
                .filter(|one| !is_absent(one.values[step]))
                .count()
        };
        assert_eq!([0, 1, 2, 3].map(count), [0, 1, 2, 0], "{}", op.name());
    }
}

#[test]
fn limitk_takes_the_first_that_have_a_sample() {
    let columns = [[ABSENT, 1.0], [2.0, 2.0], [3.0, ABSENT]].map(Vec::from);
    let result = select(
        AggregateOp::Limitk,
        &[0; 3],
        series(&columns),
        &[1.0; 2],
        false,
    );
    let chosen: Vec<_> = result
        .iter()
        .map(|one| {
            one.values
                .iter()
                .map(|v| !is_absent(*v))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(chosen, [[false, true], [true, false]]);
}

#[test]
fn a_ratio_and_its_complement_divide_all_series() {
    let columns = vec![vec![1.0]; 200];
    let part = |ratio: f64| {
        kept(&select(
            AggregateOp::LimitRatio,
            &[0; 200],
            series(&columns),
            &[ratio],
            false,
        ))
    };
    let (mut low, high) = (part(0.3), part(-0.7));
    assert!((30..90).contains(&low.len()), "{}", low.len());
    low.extend(high);
    low.sort_by_key(|k| k.0);
    assert_eq!(low, part(1.0));
    assert_eq!(low.len(), 200);
    assert!(part(0.0).is_empty());
    assert_eq!(part(-9.0).len(), 200);
}

#[test]
fn parameters_that_are_no_number_are_refused_and_odd_ones_warned_about() {
    assert_eq!(
        checked(AggregateOp::Topk, &[1.0, f64::NAN]).0,
        Err("Parameter value is NaN".to_owned())
    );
    assert_eq!(
        checked(AggregateOp::Limitk, &[1e19]).0,
        Err("Scalar value 1e+19 overflows int64".to_owned())
    );
    assert_eq!(
        checked(AggregateOp::LimitRatio, &[f64::NAN]).0,
        Err("Ratio value is NaN".to_owned())
    );
    assert_eq!(
        checked(AggregateOp::LimitRatio, &[0.5, -1.5]).1,
        ["PromQL warning: ratio value should be between -1 and 1, got -1.5, capping to -1 (1:1)"]
    );
    assert_eq!(
        checked(AggregateOp::Quantile, &[f64::NAN]).1,
        ["PromQL warning: quantile value should be between 0 and 1, got NaN (1:1)"]
    );
    assert_eq!(checked(AggregateOp::Sum, &[]), (Ok(()), vec![]));
}

proptest! {
    #[test]
    fn heaps_of_partitions_choose_what_sorting_would(
        columns in prop::collection::vec(
            prop::collection::vec(
                prop_oneof![1 => Just(ABSENT), 1 => Just(f64::NAN), 6 => (0..6i32).prop_map(f64::from)],
                2,
            ),
            1..40,
        ),
        k in 0..12u32,
        cut in any::<prop::sample::Index>(),
        top in any::<bool>(),
    ) {
        let op = if top { AggregateOp::Topk } else { AggregateOp::Bottomk };
        let groups: Vec<u32> = (0..columns.len() as u32).map(|i| i % 2).collect();
        let parameter = [f64::from(k), f64::from(k / 2)];
        let cut = cut.index(columns.len() + 1);
        let empty = Best::new(op, &parameter);
        let mut parts = [empty.clone(), empty];
        for (i, column) in columns.iter().enumerate() {
            parts[usize::from(i >= cut)].add(groups[i], i as u32, column);
        }
        let [mut best, later] = parts;
        best.merge(&later);
        for group in 0..groups.len().min(2) {
            for (step, k) in parameter.iter().enumerate() {
                let mut row: Vec<Entry> = columns
                    .iter()
                    .enumerate()
                    .filter(|(i, column)| i % 2 == group && !is_absent(column[step]))
                    .map(|(i, column)| (column[step], i as u32))
                    .collect();
                row.sort_by(|a, b| best.order.compare(*a, *b));
                row.truncate(*k as usize);
                let mut heap = best.groups.get(group).map_or(Vec::new(), |heaps| heaps.heap(step).to_vec());
                heap.sort_by(|a, b| best.order.compare(*a, *b));
                let numbers = |row: &[Entry]| row.iter().map(|e| e.1).collect::<Vec<_>>();
                prop_assert_eq!(numbers(&heap), numbers(&row));
            }
        }
        let all = series(&columns);
        let label = |n: &u32| (*n, all[*n as usize].labels.clone(), false);
        let left = best.keep(best.chosen().iter().map(label).collect(), false);
        let left: Vec<usize> = kept(&left).iter().map(|k| k.0).collect();
        let chosen: Vec<usize> = best.chosen().iter().map(|n| *n as usize).collect();
        prop_assert_eq!(left, chosen);
    }
}

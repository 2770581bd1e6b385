//! Every function over a column against the same function window by window.

use proptest::prelude::*;

use super::*;
use crate::annotations::{Annotations, Notes};
use crate::functions::{Edges, Kind, Window, lookup};
use crate::value::is_absent;

const NAMES: [&str; 6] = [
    "rate",
    "increase",
    "min_over_time",
    "max_over_time",
    "sum_over_time",
    "avg_over_time",
];

fn windows(times: &[i64], range: i64, step: i64) -> Vec<Bounds> {
    let last = times.last().copied().unwrap_or(0) + range;
    (0..)
        .map(|i| i * step)
        .take_while(|end| *end <= last)
        .map(|end| Bounds {
            low: times.partition_point(|t| *t <= end - range),
            high: times.partition_point(|t| *t <= end),
            start: end - range,
            end,
        })
        .collect()
}

fn check(times: &[i64], values: &[f64], windows: &[Bounds]) -> Result<(), TestCaseError> {
    for name in NAMES {
        let Some(Kind::Range(function)) = lookup(name).map(|f| &f.kind) else {
            panic!("{name} is a range function");
        };
        let column = function.column.expect("it has a column form");
        let mut got = Vec::new();
        let mut grid = Grid::default();
        grid.set(times, windows.iter().copied());
        // A second series of the same times finds the grid as the first one left it.
        column(&mut grid, values, &mut got);
        got.clear();
        column(&mut grid, values, &mut got);
        prop_assert_eq!(got.len(), windows.len());
        for (got, bounds) in got.iter().zip(windows) {
            let expected = if bounds.low == bounds.high {
                ABSENT
            } else {
                let window = Window {
                    times: &times[bounds.low..bounds.high],
                    values: &values[bounds.low..bounds.high],
                    start: bounds.start,
                    end: bounds.end,
                    step_time: bounds.end,
                    edges: Edges::Plain,
                };
                let mut annotations = Annotations::default();
                let mut notes = Notes {
                    annotations: &mut annotations,
                    text: "",
                    args: &[],
                    metric: "",
                };
                (function.eval)(&window, &[], &mut notes)
            };
            let same = *got == expected
                || (got.is_nan() && expected.is_nan() && is_absent(*got) == is_absent(expected));
            prop_assert!(
                same,
                "{name}: {got} is not {expected} in {bounds:?} of {values:?}"
            );
        }
    }
    Ok(())
}

fn values() -> impl Strategy<Value = Vec<f64>> {
    prop_oneof![
        // Gauges and counters of whole numbers, and of fractions.
        prop::collection::vec((-9..99i32).prop_map(f64::from), 0..60),
        prop::collection::vec(-1e3..1e3f64, 0..60),
        // All that is strange.
        prop::collection::vec(
            prop_oneof![
                3 => -1e3..1e3f64,
                1 => Just(f64::NAN),
                1 => Just(f64::INFINITY),
                1 => Just(f64::NEG_INFINITY),
                1 => Just(f64::MAX / 2.0),
                1 => Just(1e100),
                1 => Just(-1e100),
                1 => Just(9e15),
            ],
            0..30
        ),
    ]
}

proptest! {
    #[test]
    fn a_column_at_once_equals_window_by_window(
        values in values(),
        gaps in prop::collection::vec(prop_oneof![5 => Just(15i64), 1 => 1..200i64], 60),
        range in 1..200i64,
        step in 1..200i64,
    ) {
        let mut time = 0;
        let times: Vec<i64> = gaps.iter().take(values.len()).map(|gap| { time += gap; time }).collect();
        check(&times, &values, &windows(&times, range, step))?;
    }
}

#[test]
fn running_sums_are_used_only_where_they_lose_nothing() {
    assert!(running_sums(&[1.0, -2.0, 3e9]).is_some());
    assert!(running_sums(&[]).is_some());
    for values in [
        [0.5, 1.0],
        [9e15, 9e13],
        [f64::NAN, 1.0],
        [f64::INFINITY, 1.0],
    ] {
        assert!(running_sums(&values).is_none(), "{values:?}");
    }
}

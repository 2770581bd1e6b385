//! Claims about plans: which samples are asked for, what is folded, what is evaluated once.

use model::Windows;

use super::{Node, NodeKind, Params, Plan, plan, subquery_steps};
use crate::parse;
use crate::value::Steps;

const MINUTE: i64 = 60_000;
const LOOKBACK: i64 = 5 * MINUTE;

fn planned(text: &str, params: Params) -> Plan {
    plan(&parse(text).unwrap(), &params).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The time ranges that the selectors of a query ask for, in order.
fn ranges(text: &str, params: Params) -> Vec<(i64, i64)> {
    let plan = planned(text, params);
    plan.selectors()
        .iter()
        .map(|s| (s.min_time, s.max_time))
        .collect()
}

#[test]
fn selectors_ask_for_what_can_count_and_nothing_more() {
    let start = 100 * MINUTE;
    let end = 110 * MINUTE;
    let range = Params::range(start, end, MINUTE);
    let hour = 60 * MINUTE;
    let cases = [
        ("x", (start - LOOKBACK + 1, end)),
        ("x offset 1h", (start - hour - LOOKBACK + 1, end - hour)),
        ("x offset -1h", (start + hour - LOOKBACK + 1, end + hour)),
        ("x @ 600", (600_000 - LOOKBACK + 1, 600_000)),
        (
            "x @ end() offset 1h",
            (end - hour - LOOKBACK + 1, end - hour),
        ),
        ("rate(x[10m])", (start - 10 * MINUTE + 1, end)),
        (
            "rate(x[10m] anchored)",
            (start - 10 * MINUTE - LOOKBACK + 1, end),
        ),
        (
            "rate(x[10m] smoothed)",
            (start - 10 * MINUTE - LOOKBACK + 1, end + LOOKBACK),
        ),
        // First inner step: the first full minute after the open left edge.
        (
            "max_over_time(x[10m:1m])",
            (start - 9 * MINUTE - LOOKBACK + 1, end),
        ),
        (
            "max_over_time(x[10m:7m])",
            (start - 9 * MINUTE - LOOKBACK + 1, end - 5 * MINUTE),
        ),
        (
            "max_over_time(x[10m:1m] @ 600)",
            (MINUTE - LOOKBACK + 1, 600_000),
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(ranges(text, range), [expected], "{text}");
    }
}

#[test]
fn windows_are_told_where_steps_leave_something_out_and_everybody_agrees() {
    let hour = 60 * MINUTE;
    // Neither are the steps aligned, nor is the end one of them.
    let (start, end) = (7 * MINUTE + 123, 7 * MINUTE + 123 + 30 * hour);
    let hourly = Params::range(start, end, hour);
    let windows = |end, width| Windows::new(end, hour, width);
    let cases = [
        ("x", windows(start, LOOKBACK)),
        ("sum(rate(x[10m]))", windows(start, 10 * MINUTE)),
        ("rate(x[1h])", None),
        ("rate(x[59m])", windows(start, 59 * MINUTE)),
        ("x offset 17m", windows(start - 17 * MINUTE, LOOKBACK)),
        ("x offset -17m", windows(start + 17 * MINUTE, LOOKBACK)),
        ("timestamp(x)", windows(start, LOOKBACK)),
        // One time.
        ("x @ 600", None),
        ("rate(x[10m] @ end())", None),
        // All that is between may be of use.
        ("rate(x[10m] anchored)", None),
        ("rate(x[10m] smoothed)", None),
        // Steps of its own, multiples of them.
        ("max_over_time(x[6h:1m])", None),
        ("max_over_time(x[6h:5m])", None),
        (
            "max_over_time(x[6h:7m])",
            Windows::new(0, 7 * MINUTE, LOOKBACK),
        ),
        (
            "max_over_time(x[6h:7m] offset 1h)",
            Windows::new(0, 7 * MINUTE, LOOKBACK),
        ),
        (
            "max_over_time((x offset 1m)[6h:7m] @ end())",
            Windows::new(-MINUTE, 7 * MINUTE, LOOKBACK),
        ),
        // Twice the same windows.
        ("x + count_over_time(x[5m])", windows(start, LOOKBACK)),
    ];
    for (text, expected) in cases {
        let plan = planned(text, hourly);
        let found: Vec<_> = plan.selectors().iter().map(|s| s.windows).collect();
        assert_eq!(found, [expected], "{text}");
    }
    let one = planned("x", Params::instant(start));
    assert_eq!(one.selectors()[0].windows, None);
    // One selection for two that look at other times.
    let lookback_ms = 3 * MINUTE;
    let params = Params {
        lookback_ms,
        ..Params::range(0, 20 * MINUTE, 10 * MINUTE)
    };
    let plan = planned("x + max_over_time(x[25m:5m] @ end())", params);
    let found: Vec<_> = plan.selectors().iter().map(|s| s.windows).collect();
    assert_eq!(found, [None], "every ten minutes, and every five");
}

#[test]
fn equal_selectors_are_asked_for_once() {
    let range = Params::range(0, MINUTE, 1_000);
    assert_eq!(ranges("x / x", range).len(), 1);
    assert_eq!(ranges("x / x offset 1m", range).len(), 2);
    assert_eq!(ranges("x{a='1'} / x{a='2'}", range).len(), 2);
}

#[test]
fn subqueries_step_on_multiples_of_their_step_in_a_range_open_on_the_left() {
    let steps = |first, last, range, step| {
        let Steps { start, count, .. } = subquery_steps(first, last, range, step);
        (start, count)
    };
    assert_eq!(steps(100, 100, 30, 10), (80, 3));
    assert_eq!(steps(105, 105, 30, 10), (80, 3));
    assert_eq!(steps(100, 120, 30, 10), (80, 5));
    assert_eq!(steps(-100, -100, 30, 10), (-120, 3));
    assert_eq!(steps(5, 5, 3, 10).1, 0);
    assert_eq!(steps(i64::MIN, i64::MIN, i64::MAX, 10).1, 0);
    assert_eq!(steps(i64::MAX, i64::MAX, 1, i64::MAX), (i64::MAX, 1));
}

#[test]
fn constants_are_folded() {
    for (text, expected) in [
        ("1 + 2 * 3 ^ 2", 19.0),
        ("-(2)", -2.0),
        ("2 > bool 1", 1.0),
        ("end() - start()", 60.0),
        ("range() / step()", 4.0),
    ] {
        let plan = planned(text, Params::range(0, MINUTE, 15_000));
        assert!(
            matches!(plan.root.kind, NodeKind::Number(value) if value == expected),
            "{text}"
        );
    }
}

#[test]
fn the_largest_parts_without_a_time_of_their_own_are_evaluated_once() {
    fn once(node: &Node, found: &mut usize) {
        *found += usize::from(node.once);
        match &node.kind {
            NodeKind::Call(call) => call.args.iter().for_each(|arg| once(arg, found)),
            NodeKind::Binary(binary) => {
                once(&binary.left, found);
                once(&binary.right, found);
            }
            NodeKind::Aggregate(aggregate) => once(&aggregate.input, found),
            NodeKind::Negate(inner) => once(inner, found),
            _ => {}
        }
    }
    for (text, root, count) in [
        ("sum(rate(x[5m] @ 60)) + x", false, 1),
        ("sum(x @ 60) + abs(x @ start())", true, 1),
        ("x", false, 0),
        ("timestamp(x @ 60)", false, 1),
        ("time() + x @ 60", false, 1),
        ("predict_linear(x[5m] @ 60, 5)", false, 0),
    ] {
        let plan = planned(text, Params::range(0, MINUTE, 15_000));
        let mut found = 0;
        once(&plan.root, &mut found);
        assert_eq!((plan.root.once, found), (root, count), "{text}");
    }
}

#[test]
fn durations_are_computed_and_held_to_their_range() {
    let params = Params::range(0, 60_000, 10_000);
    assert_eq!(ranges("rate(x[step()*3])", params), [(-29_999, 60_000)]);
    assert_eq!(ranges("x offset (range() + 1)", params)[0].1, -1_000);
    assert_eq!(ranges("x offset -max_of(step(), 3s) ", params)[0].1, 70_000);
    for text in [
        "rate(x[step() - 10])",
        "rate(x[1m / 0])",
        "rate(x[step() % 0])",
        "x offset (step() * 1e300)",
    ] {
        let error = plan(&parse(text).unwrap(), &params).unwrap_err();
        assert_eq!(error.class(), model::Class::Client, "{text}: {error}");
    }
}

#[test]
fn a_range_query_returns_no_range_vectors_or_texts() {
    for text in ["x[5m]", "'text'"] {
        let error = plan(&parse(text).unwrap(), &Params::range(0, 1, 1)).unwrap_err();
        assert!(error.to_string().contains("for range query"), "{error}");
        plan(&parse(text).unwrap(), &Params::instant(0)).unwrap();
    }
}

/// Story: within a subquery the last step lies before the end, and hid that a selector looked ahead of it.
#[test]
fn what_looks_ahead_of_an_inner_step_is_no_sum_of_parts() {
    // The last inner step is half a minute or more before the end.
    let params = Params::range(100 * MINUTE, 110 * MINUTE + MINUTE / 2, MINUTE);
    assert!(planned("max_over_time(x[5m:1m])", params).is_sum_of_parts());
    for text in [
        "max_over_time((x offset -30s)[5m:1m])",
        "max_over_time(rate(x[1m] smoothed)[20m:7m])",
    ] {
        assert!(!planned(text, params).is_sum_of_parts(), "{text}");
    }
}

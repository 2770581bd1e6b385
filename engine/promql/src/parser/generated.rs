//! Generated queries, read by our parser and by `promql-parser`: both must understand them, and understand the same.
//!
//! Trees are compared by what they print, ours once directly and once by way of the other's printed form. Only what both know is
//! generated: no duration expressions, `anchored`, `smoothed`, `fill` or trims.

use proptest::prelude::*;

use super::parse;

fn selector() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("foo"), Just("bar:baz"), Just("node_cpu_total")];
    let matcher = (
        prop_oneof![Just("a"), Just("job"), Just("le")],
        prop_oneof![Just("="), Just("!="), Just("=~"), Just("!~")],
        "[a-c|.*]{0,4}".prop_filter("a valid expression", |v| {
            model::re2::anchored(v).is_ok() && regex::Regex::new(v).is_ok()
        }),
    )
        .prop_map(|(label, op, value)| format!("{label}{op}\"{value}\""));
    (name, prop::collection::vec(matcher, 0..3)).prop_map(|(name, matchers)| {
        if matchers.is_empty() {
            name.to_owned()
        } else {
            format!("{name}{{{}}}", matchers.join(", "))
        }
    })
}

fn shift() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just(String::new()),
        1 => (1..90u32).prop_map(|n| format!(" offset {n}m")),
        1 => (1..90u32).prop_map(|n| format!(" offset -{n}s")),
        1 => (0..2_000u32).prop_map(|n| format!(" @ {n}")),
        1 => Just(" @ start()".to_owned()),
        1 => (1..9u32).prop_map(|n| format!(" @ end() offset {n}h")),
    ]
}

fn labels() -> impl Strategy<Value = String> {
    let label = prop_oneof![Just("a"), Just("b"), Just("job"), Just("__name__")];
    prop::collection::vec(label, 0..3).prop_map(|labels| labels.join(", "))
}

/// An instant vector.
pub(crate) fn vector() -> impl Strategy<Value = String> {
    let leaf = (selector(), shift()).prop_map(|(selector, shift)| format!("{selector}{shift}"));
    leaf.prop_recursive(4, 24, 3, |inner| {
        let ranged = prop_oneof![
            (selector(), 1..99u32, shift()).prop_map(|(s, n, shift)| format!("{s}[{n}m]{shift}")),
            (inner.clone(), 1..9u32, shift())
                .prop_map(|(s, n, shift)| format!("({s})[{n}h:{n}m]{shift}")),
        ];
        let arithmetic = prop_oneof![
            Just("+"),
            Just("-"),
            Just("*"),
            Just("/"),
            Just("%"),
            Just("^"),
            Just("atan2"),
            Just("=="),
            Just("> bool"),
            Just("<="),
        ];
        let set = prop_oneof![Just("and"), Just("or"), Just("unless")];
        let side = prop_oneof![Just("left"), Just("right")];
        prop_oneof![
            inner.clone().prop_map(|e| format!("({e})")),
            inner.clone().prop_map(|e| format!("-{e}")),
            ranged.clone().prop_map(|e| format!("rate({e})")),
            ranged.prop_map(|e| format!("quantile_over_time(0.5, {e})")),
            inner.clone().prop_map(|e| format!("abs({e})")),
            inner.clone().prop_map(|e| format!("round({e}, 5)")),
            (inner.clone(), labels()).prop_map(|(e, l)| format!("sum by ({l}) ({e})")),
            (inner.clone(), labels()).prop_map(|(e, l)| format!("topk(3, {e}) without ({l})")),
            (inner.clone(), arithmetic.clone(), inner.clone())
                .prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            (inner.clone(), arithmetic.clone(), 0..50u32)
                // In parentheses: a number that an operator with matching gets hold of is an error.
                .prop_map(|(a, op, n)| format!("({a} {op} {n})")),
            (inner.clone(), set, labels(), inner.clone())
                .prop_map(|(a, op, l, b)| format!("{a} {op} ignoring ({l}) {b}")),
            (inner.clone(), arithmetic, labels(), side, inner)
                .prop_map(|(a, op, l, side, b)| format!("{a} {op} on ({l}) group_{side} (x) {b}")),
        ]
    })
}

proptest! {
    #[test]
    fn our_parser_and_the_other_understand_the_same(text in vector()) {
        let ours = parse(&text).map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?;
        let theirs = promql_parser::parser::parse(&text)
            .map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?
            .to_string();
        let again = parse(&theirs).map_err(|e| TestCaseError::fail(format!("{theirs}: {e}")))?;
        prop_assert_eq!(again.to_string(), ours.to_string(), "of {}", text);
        // And what we print is the same query.
        let reread = parse(&ours.to_string()).map_err(|e| TestCaseError::fail(format!("{ours}: {e}")))?;
        prop_assert_eq!(reread.to_string(), ours.to_string());
    }
}

//! Claims about the parser: what it prints, what it refuses and in which words, and that hostile text costs nothing.

use model::METRIC_NAME;

use super::{ParseLimits, parse, parse_selector, parse_within};
use crate::expr::{ExprKind, Span};

fn printed(text: &str) -> String {
    parse(text)
        .unwrap_or_else(|error| panic!("{text}: {error}"))
        .to_string()
}

fn refused(text: &str) -> String {
    match parse(text) {
        Ok(expr) => panic!("{text} was understood as {expr}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_is_printed_is_what_prometheus_prints() {
    let cases = [
        ("1", "1"),
        ("+Inf", "+Inf"),
        ("1e3", "1000"),
        ("0x1f", "31"),
        ("010", "8"),
        ("1_000", "1000"),
        ("5m", "5m"),
        ("-90s", "-1m30s"),
        ("- 1 ^ 2", "-1 ^ 2"),
        ("'a\\'b'", "\"a'b\""),
        ("foo", "foo"),
        ("foo{}", "foo"),
        ("foo{b='x',a!='y'}", "foo{a!=\"y\",b=\"x\"}"),
        ("{__name__='foo'}", "{__name__=\"foo\"}"),
        ("{'foo'}", "foo"),
        ("{'foo.bar', 'a b'='c'}", "{\"a b\"=\"c\",\"foo.bar\"}"),
        ("foo[5m] offset 1w", "foo[5m] offset 1w"),
        ("foo offset -90s @ 1.5", "foo @ 1.500 offset -1m30s"),
        ("foo[1d:] @ end()", "foo[1d:] @ end()"),
        ("rate(foo[90d:1y])[1h:5m]", "rate(foo[90d:1y])[1h:5m]"),
        ("SUM(foo) BY (b, a)", "sum by (b, a) (foo)"),
        ("sum without(a,)(foo)", "sum without (a) (foo)"),
        ("sum by () (foo)", "sum(foo)"),
        ("topk(3, foo)", "topk(3, foo)"),
        ("sum by ('a b') (foo)", "sum by (\"a b\") (foo)"),
        ("a+on(x)group_left(y)b", "a + on (x) group_left (y) b"),
        ("a == bool on() b", "a == bool on () b"),
        ("a unless ignoring(x) b", "a unless ignoring (x) b"),
        ("a + fill(0) b", "a + fill (0) b"),
        ("a + on(x) fill_right(-1) b", "a + on (x) fill_right (-1) b"),
        ("h </ 3", "h </ 3"),
        ("rate(foo[5m] smoothed)", "rate(foo[5m] smoothed)"),
        ("foo[step()*2+1m]", "foo[step() * 2 + 1m]"),
        (
            "foo offset -(max_of(step(),1m))",
            "foo offset -(max_of(step(), 1m))",
        ),
        ("foo offset (100+2)", "foo offset (100 + 2)"),
        ("((a))", "((a))"),
        ("-foo", "-foo"),
        ("time()", "time()"),
        ("# nothing\nfoo # more", "foo"),
    ];
    for (text, expected) in cases {
        assert_eq!(printed(text), expected, "{text}");
    }
}

#[test]
fn printing_and_parsing_again_changes_nothing() {
    for text in [
        "sum by (a) (rate(x{a=~\"b|c\"}[5m] offset 1h)) / on (a) group_left () y > bool 3 ^ 2 ^ 1",
        "a or b and c unless d == 1 + 2 * 3 atan2 4",
        "label_replace(up, \"a\", \"$1\", \"b\", \"(.*)\")",
        "max_over_time((x + y)[1h:1m] @ start() offset 2m)",
        "count_values(\"v\", x) or vector(0)",
    ] {
        let once = printed(text);
        assert_eq!(printed(&once), once, "{text}");
    }
}

#[test]
fn operators_bind_as_in_prometheus() {
    let shape = |text: &str| -> String {
        fn walk(expr: &crate::expr::Expr) -> String {
            match &expr.kind {
                ExprKind::Binary(binary) => format!(
                    "({} {} {})",
                    walk(&binary.left),
                    binary.op.symbol(),
                    walk(&binary.right)
                ),
                ExprKind::Unary { expr, .. } => format!("-{}", walk(expr)),
                _ => expr.to_string(),
            }
        }
        walk(&parse(text).unwrap())
    };
    assert_eq!(shape("a + b * c"), "(a + (b * c))");
    assert_eq!(shape("a - b - c"), "((a - b) - c)");
    assert_eq!(shape("a ^ b ^ c"), "(a ^ (b ^ c))");
    assert_eq!(shape("-a ^ b"), "-(a ^ b)");
    assert_eq!(shape("-a * b"), "(-a * b)");
    assert_eq!(shape("a or b and c"), "(a or (b and c))");
    assert_eq!(shape("a == b + c"), "(a == (b + c))");
    assert_eq!(shape("a ^ -b"), "(a ^ -b)");
    assert_eq!(shape("a offset 1m + b"), "(a offset 1m + b)");
}

#[test]
fn keywords_are_names_where_nothing_else_is_possible() {
    for text in [
        "sum",
        "by + without",
        "offset",
        "start * end",
        "step",
        "fill",
        "and + or",
        "anchored",
    ] {
        parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    assert_eq!(printed("sum{by='x'}"), "sum{by=\"x\"}");
    assert_eq!(
        printed("sum by (on, bool, inf) (x)"),
        "sum by (on, bool, inf) (x)"
    );
    assert!(refused("on").contains("unexpected <on>"));
}

#[test]
fn errors_say_where_and_what_in_prometheus_words() {
    let cases = [
        ("", "1:1: parse error: no expression found in input"),
        ("1 +", "1:4: parse error: unexpected end of input"),
        (
            "foo{",
            "1:5: parse error: unexpected end of input inside braces",
        ),
        ("(foo", "1:5: parse error: unclosed left parenthesis"),
        ("foo)", "1:5: parse error: unexpected right parenthesis ')'"),
        (
            "a!b",
            "1:2: parse error: unexpected character after '!': 'b'",
        ),
        (
            "a{b!c}",
            "1:4: parse error: unexpected character after '!' inside braces: 'c'",
        ),
        (
            "{}",
            "1:1: parse error: vector selector must contain at least one non-empty matcher",
        ),
        (
            "{a=~'.*'}",
            "1:1: parse error: vector selector must contain at least one non-empty matcher",
        ),
        (
            "foo{__name__='bar'}",
            "1:1: parse error: metric name must not be set twice: \"foo\" or \"bar\"",
        ),
        (
            "1 == 1",
            "1:3: parse error: comparisons between scalars must use BOOL modifier",
        ),
        (
            "foo + bool bar",
            "1:5: parse error: bool modifier can only be used on comparison operators",
        ),
        (
            "1 and foo",
            "1:1: parse error: set operator \"and\" not allowed in binary scalar expression",
        ),
        (
            "foo + on(a) group_left(a) bar",
            "1:5: parse error: label \"a\" must not occur in ON and GROUP clause at once",
        ),
        (
            "foo and on(a) group_left() bar",
            "1:1: parse error: no grouping allowed for \"and\" operation",
        ),
        (
            "nope(1)",
            "1:1: parse error: unknown function with name \"nope\"",
        ),
        (
            "rate(foo)",
            "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector",
        ),
        (
            "rate()",
            "1:1: parse error: expected 1 argument(s) in call to \"rate\", got 0",
        ),
        (
            "round(a, 1, 2)",
            "1:1: parse error: expected at most 2 argument(s) in call to \"round\", got 3",
        ),
        (
            "sum()",
            "1:1: parse error: no arguments for aggregate expression provided",
        ),
        (
            "sum(1)",
            "1:5: parse error: expected type instant vector in aggregation expression, got scalar",
        ),
        (
            "topk(foo, foo)",
            "1:6: parse error: expected type scalar in aggregation parameter, got instant vector",
        ),
        (
            "topk(foo)",
            "1:1: parse error: wrong number of arguments for aggregate expression provided, expected 2, got 1",
        ),
        ("foo[5m", "1:7: parse error: unclosed left bracket"),
        (
            "foo[0s]",
            "1:5: parse error: duration must be greater than 0",
        ),
        (
            "foo offset 1m offset 1m",
            "1:1: parse error: offset may not be set multiple times",
        ),
        (
            "sum(foo) offset 5m",
            "1:1: parse error: offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
        ),
        (
            "foo @ 1 @ 2",
            "1:1: parse error: @ <timestamp> may not be set multiple times",
        ),
        (
            "foo @ inf",
            "1:1: parse error: timestamp out of bounds for @ modifier: +Inf",
        ),
        (
            "-'a'",
            "1:1: parse error: unary expression only allowed on expressions of type scalar or instant vector, got \"string\"",
        ),
        ("foo\n  + +", "2:6: parse error: unexpected end of input"),
        (
            "foo[1m]offset",
            "1:14: parse error: unexpected end of input in offset, expected number, duration, step(), or range()",
        ),
        (
            "foo{a=~'('}",
            "1:5: parse error: error parsing regexp: missing closing ): `(`",
        ),
        (
            "max_over_time(foo[5m] anchored)",
            "1:15: parse error: anchored modifier can only be used with: changes, delta, increase, rate, resets - not with max_over_time",
        ),
        ("5 6", "1:3: parse error: unexpected number \"6\""),
        (
            "1e400",
            "1:1: parse error: error parsing number: parsing \"1e400\": value out of range",
        ),
    ];
    for (text, expected) in cases {
        let error = refused(text);
        assert!(
            error.starts_with(expected),
            "{text}: {error}\nwanted {expected}"
        );
    }
}

#[test]
fn depth_and_operators_are_bounded_and_length_too() {
    let limits = ParseLimits::default();
    let parens = |n: usize| format!("{}1{}", "(".repeat(n), ")".repeat(n));
    parse(&parens(100)).unwrap();
    assert!(refused(&parens(300_000)).contains("nested deeper than 128"));
    assert!(refused(&"-".repeat(500).replace('-', "- ")).contains("nested deeper"));
    assert!(refused(&format!("foo{}", "[1m:1m]".repeat(2))).contains("subquery is only allowed"));
    let sum = |n: usize| format!("1{}", " + a".repeat(n));
    parse(&sum(limits.operators_max)).unwrap();
    assert!(refused(&sum(30_000)).contains("more than 1000 operators"));
    assert!(refused(&"2^".repeat(500)).contains("nested deeper"));
    assert!(refused(&"x".repeat(limits.length_max + 1)).contains("bytes long"));
    let tight = ParseLimits {
        length_max: 3,
        ..limits
    };
    assert!(parse_within("abc", &tight).is_ok() && parse_within("abcd", &tight).is_err());
}

#[test]
fn an_alternation_of_twelve_thousand_words_is_an_ordinary_query() {
    let words: Vec<String> = (0..12_000).map(|i| format!("pod-{i}")).collect();
    let text = format!("up{{pod=~\"{}\"}}", words.join("|"));
    assert!(text.len() > 100_000);
    parse(&text).unwrap();
}

#[test]
fn a_series_selector_is_only_a_selector() {
    let matchers = parse_selector("foo{a!='b'}").unwrap();
    assert_eq!(matchers[0].name(), METRIC_NAME);
    assert_eq!(matchers.len(), 2);
    // Found against a real Prometheus: these are queries' errors, not selectors'.
    assert_eq!(parse_selector("foo{__name__!='b'}").unwrap().len(), 2);
    assert_eq!(parse_selector("{a=''}").unwrap().len(), 1);
    assert!(parse("foo{__name__!='b'}").is_err() && parse("{a=''}").is_err());
    for text in ["foo[5m]", "sum(foo)", "foo offset 1m", "1", ""] {
        assert!(parse_selector(text).is_err(), "{text}");
    }
}

#[test]
fn strings_are_unquoted_as_in_go() {
    let text = |quoted: &str| match parse(quoted).unwrap().kind {
        ExprKind::String(text) => text,
        _ => panic!("{quoted} is a string"),
    };
    assert_eq!(
        text(r#""\n\t\x41\u00e4\U0001F600\101""#),
        "\n\tAäAA".replace("äAA", "ä😀A")
    );
    assert_eq!(text(r"`\n`"), r"\n");
    assert_eq!(text(r#"'"'"#), "\"");
    assert!(refused(r#""\xff""#).contains("not valid UTF-8"));
    assert!(refused(r#""\q""#).contains("unknown escape sequence"));
    assert!(refused("\"a\nb\"").contains("unterminated quoted string"));
}

#[test]
fn places_count_lines_and_columns_from_one() {
    assert_eq!(Span::new(5, 6).place("ab\ncdef"), "2:3");
    assert_eq!(Span::new(0, 1).place(""), "1:1");
}

#[test]
fn any_text_is_answered_without_a_panic() {
    bolero::check!().with_type::<String>().for_each(|text| {
        let _ = parse(text);
    });
}

//! The tree as JSON: `/api/v1/parse_query`, as the tree view of Prometheus' own page reads it.
//!
//! Source: Prometheus `web/api/v1/translate_ast.go`. Every node is an object with a `type`; durations are milliseconds, numbers
//! texts, what is missing is `null`. A duration that is computed from the query's parameters is 0 here, as there.

use std::fmt::Write;

use model::{METRIC_NAME, MatchOp, Matcher};

use super::{
    At, Binary, Cardinality, Duration, Expr, ExprKind, Matching, Selector, Shift, number_text,
};
use crate::functions::Edges;
use crate::value::ValueType;

impl Expr {
    /// The tree as one JSON document. Cost: linear in the text; recursion as deep as the tree.
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        put_expr(&mut out, self);
        out
    }
}

fn put_expr(out: &mut String, expr: &Expr) {
    match &expr.kind {
        ExprKind::Number(number) => {
            out.push_str("{\"type\":\"numberLiteral\",\"val\":");
            put_string(out, &number_text(number.value));
            out.push('}');
        }
        ExprKind::String(text) => {
            out.push_str("{\"type\":\"stringLiteral\",\"val\":");
            put_string(out, text);
            out.push('}');
        }
        ExprKind::Selector(selector) => {
            out.push_str("{\"type\":\"vectorSelector\"");
            put_selector(out, selector);
            out.push('}');
        }
        ExprKind::Matrix { selector, range } => {
            out.push_str("{\"type\":\"matrixSelector\",\"range\":");
            put_duration(out, Some(range));
            put_selector(out, selector);
            out.push('}');
        }
        ExprKind::Subquery(subquery) => {
            out.push_str("{\"type\":\"subquery\",\"expr\":");
            put_expr(out, &subquery.expr);
            out.push_str(",\"range\":");
            put_duration(out, Some(&subquery.range));
            out.push_str(",\"step\":");
            put_duration(out, subquery.step.as_ref());
            put_shift(out, &subquery.shift);
            out.push('}');
        }
        ExprKind::Call { function, args } => {
            out.push_str("{\"type\":\"call\",\"func\":{\"name\":");
            put_string(out, function.name);
            out.push_str(",\"argTypes\":");
            put_list(out, function.args, |out, kind| {
                put_string(out, type_name(*kind))
            });
            let _ = write!(out, ",\"variadic\":{},\"returnType\":", function.variadic);
            put_string(out, type_name(function.returns));
            out.push_str("},\"args\":");
            put_list(out, args, put_expr);
            out.push('}');
        }
        ExprKind::Aggregate(aggregate) => {
            out.push_str("{\"type\":\"aggregation\",\"op\":");
            put_string(out, aggregate.op.name());
            out.push_str(",\"expr\":");
            put_expr(out, &aggregate.expr);
            out.push_str(",\"param\":");
            match &aggregate.parameter {
                Some(parameter) => put_expr(out, parameter),
                None => out.push_str("null"),
            }
            let grouping = aggregate.grouping.as_ref();
            out.push_str(",\"grouping\":");
            put_strings(out, grouping.map_or(&[], |grouping| &grouping.labels));
            let without = grouping.is_some_and(|grouping| grouping.without);
            let _ = write!(out, ",\"without\":{without}}}");
        }
        ExprKind::Binary(binary) => put_binary(out, binary),
        ExprKind::Unary { negative, expr } => {
            out.push_str("{\"type\":\"unaryExpr\",\"op\":");
            put_string(out, if *negative { "-" } else { "+" });
            out.push_str(",\"expr\":");
            put_expr(out, expr);
            out.push('}');
        }
        ExprKind::Paren(inner) => {
            out.push_str("{\"type\":\"parenExpr\",\"expr\":");
            put_expr(out, inner);
            out.push('}');
        }
    }
}

fn put_binary(out: &mut String, binary: &Binary) {
    out.push_str("{\"type\":\"binaryExpr\",\"op\":");
    put_string(out, binary.op.symbol());
    out.push_str(",\"lhs\":");
    put_expr(out, &binary.left);
    out.push_str(",\"rhs\":");
    put_expr(out, &binary.right);
    out.push_str(",\"matching\":");
    let vectors = [&binary.left, &binary.right]
        .into_iter()
        .all(|side| side.value_type() == ValueType::Vector);
    match vectors {
        true => put_matching(out, &binary.matching),
        false => out.push_str("null"),
    }
    let _ = write!(out, ",\"bool\":{}}}", binary.returns_bool);
}

fn put_matching(out: &mut String, matching: &Matching) {
    out.push_str("{\"card\":");
    put_string(
        out,
        match matching.cardinality {
            Cardinality::OneToOne => "one-to-one",
            Cardinality::ManyToOne => "many-to-one",
            Cardinality::OneToMany => "one-to-many",
            Cardinality::ManyToMany => "many-to-many",
        },
    );
    out.push_str(",\"labels\":");
    put_strings(out, &matching.labels);
    let _ = write!(out, ",\"on\":{},\"include\":", matching.on);
    put_strings(out, &matching.include);
    out.push_str(",\"fillValues\":{\"lhs\":");
    put_number(out, matching.fill_left);
    out.push_str(",\"rhs\":");
    put_number(out, matching.fill_right);
    out.push_str("}}");
}

/// Everything of a selector but its type and range; begins with a comma.
fn put_selector(out: &mut String, selector: &Selector) {
    out.push_str(",\"name\":");
    put_string(out, selector.name.as_deref().unwrap_or_default());
    out.push_str(",\"matchers\":");
    // As there, the matcher that a name before the braces stands for comes last.
    let named = |matcher: &&Matcher| {
        matcher.name() == METRIC_NAME
            && matcher.op() == MatchOp::Equal
            && selector.name.as_deref() == Some(matcher.value())
    };
    let others = selector.matchers.iter().filter(|matcher| !named(matcher));
    let names = selector.matchers.iter().filter(named);
    put_list(out, others.chain(names), put_matcher);
    put_shift(out, &selector.shift);
    let _ = write!(
        out,
        ",\"anchored\":{},\"smoothed\":{}",
        selector.edges == Edges::Anchored,
        selector.edges == Edges::Smoothed
    );
}

fn put_matcher(out: &mut String, matcher: &Matcher) {
    out.push_str("{\"name\":");
    put_string(out, matcher.name());
    out.push_str(",\"value\":");
    put_string(out, matcher.value());
    out.push_str(",\"type\":");
    put_string(out, matcher.op().symbol());
    out.push('}');
}

fn put_shift(out: &mut String, shift: &Shift) {
    out.push_str(",\"offset\":");
    put_duration(out, shift.offset.as_ref());
    let (time, edge) = match shift.at {
        Some(At::Time(ms)) => (Some(ms), None),
        Some(At::Start) => (None, Some("start")),
        Some(At::End) => (None, Some("end")),
        None => (None, None),
    };
    out.push_str(",\"timestamp\":");
    match time {
        Some(ms) => _ = write!(out, "{ms}"),
        None => out.push_str("null"),
    }
    out.push_str(",\"startOrEnd\":");
    match edge {
        Some(edge) => put_string(out, edge),
        None => out.push_str("null"),
    }
}

fn put_duration(out: &mut String, duration: Option<&Duration>) {
    let ms = match duration {
        Some(Duration::Plain(ms)) => *ms,
        Some(Duration::Expr(_)) | None => 0,
    };
    let _ = write!(out, "{ms}");
}

/// JSON has no infinities and no NaN: `null`.
fn put_number(out: &mut String, number: Option<f64>) {
    match number.filter(|number| number.is_finite()) {
        Some(number) => _ = write!(out, "{number}"),
        None => out.push_str("null"),
    }
}

fn type_name(kind: ValueType) -> &'static str {
    match kind {
        ValueType::Scalar => "scalar",
        ValueType::String => "string",
        ValueType::Vector => "vector",
        ValueType::Matrix => "matrix",
    }
}

fn put_strings(out: &mut String, texts: &[String]) {
    put_list(out, texts, |out, text| put_string(out, text));
}

fn put_list<T>(
    out: &mut String,
    items: impl IntoIterator<Item = T>,
    mut put: impl FnMut(&mut String, T),
) {
    out.push('[');
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        put(out, item);
    }
    out.push(']');
}

fn put_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if (c as u32) < 0x20 || matches!(c, '\u{2028}' | '\u{2029}') => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use crate::parse;

    fn json(text: &str) -> String {
        parse(text).unwrap().to_json()
    }

    #[test]
    fn a_selector_tells_its_matchers_and_modifiers() {
        assert_eq!(
            json(r#"up{job!~"a\"b"} offset 5m @ 1.5"#),
            r#"{"type":"vectorSelector","name":"up","matchers":[{"name":"job","value":"a\"b","type":"!~"},{"name":"__name__","value":"up","type":"="}],"offset":300000,"timestamp":1500,"startOrEnd":null,"anchored":false,"smoothed":false}"#
        );
        assert_eq!(
            json("x[5m:1m] @ end()"),
            r#"{"type":"subquery","expr":{"type":"vectorSelector","name":"x","matchers":[{"name":"__name__","value":"x","type":"="}],"offset":0,"timestamp":null,"startOrEnd":null,"anchored":false,"smoothed":false},"range":300000,"step":60000,"offset":0,"timestamp":null,"startOrEnd":"end"}"#
        );
    }

    #[test]
    fn only_an_operation_between_vectors_has_a_matching() {
        assert!(json("up * 2").contains(r#""matching":null,"bool":false"#));
        assert!(json("a and b").contains(r#""card":"many-to-many","labels":[],"on":false"#));
        assert!(
            json("a / on (x) group_left (y) fill_right (0) b").contains(
                r#""card":"many-to-one","labels":["x"],"on":true,"include":["y"],"fillValues":{"lhs":null,"rhs":0}"#
            )
        );
    }

    #[test]
    fn calls_and_aggregations_tell_their_signature() {
        assert!(json("round(up, -1)").starts_with(
            r#"{"type":"call","func":{"name":"round","argTypes":["vector","scalar"],"variadic":1,"returnType":"vector"},"args":["#
        ));
        let topk = json("topk without (a) (-Inf, (up))");
        assert!(
            topk.contains(
                r#""param":{"type":"numberLiteral","val":"-Inf"},"grouping":["a"],"without":true"#
            ),
            "{topk}"
        );
        assert!(topk.contains(r#""expr":{"type":"parenExpr","expr":{"type":"vectorSelector""#));
        assert!(json("sum(up)").contains(r#""param":null,"grouping":[],"without":false"#));
        assert!(json("-up").starts_with(r#"{"type":"unaryExpr","op":"-","expr":"#));
    }
}

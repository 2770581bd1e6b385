//! Whether a range query may be put together from parts of its range.

use crate::aggregate::AggregateOp;
use crate::expr::{Binary, BinaryOp, Duration, DurationExpr, Expr, ExprKind, Selector, Shift};

impl Expr {
    /// Whether the values of a range query at some of its steps are those of a range query over these steps alone (with the same step).
    ///
    /// Not so where something looks at the bounds of the query (`start()`, `@ end()`, `range()`, any `@`, since its value is that of one time),
    /// where the choice of series is one for the whole query (`limitk`, `info`), and where `or` may meet a series whose name is about to be removed
    /// on one side and is kept on the other: in a range that is one series, in parts it may be two.
    pub fn is_sum_of_parts(&self) -> bool {
        let mut rest = vec![self];
        while let Some(expr) = rest.pop() {
            if !is_local(expr) {
                return false;
            }
            expr.push_children(&mut rest);
        }
        true
    }
}

/// Of this node itself.
fn is_local(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) | ExprKind::Unary { .. } | ExprKind::Paren(_) => {
            true
        }
        ExprKind::Selector(selector) => unmoved(selector),
        ExprKind::Matrix { selector, range } => unmoved(selector) && steady(range),
        ExprKind::Subquery(subquery) => {
            steady(&subquery.range)
                && subquery.step.as_ref().is_none_or(steady)
                && steady_shift(&subquery.shift)
        }
        ExprKind::Call { function, .. } => {
            !matches!(function.name, "start" | "end" | "range" | "info")
        }
        ExprKind::Aggregate(aggregate) => {
            !matches!(aggregate.op, AggregateOp::Limitk | AggregateOp::LimitRatio)
        }
        ExprKind::Binary(binary) => or_is_clear(binary),
    }
}

fn unmoved(selector: &Selector) -> bool {
    steady_shift(&selector.shift)
}

fn steady_shift(shift: &Shift) -> bool {
    shift.at.is_none() && shift.offset.as_ref().is_none_or(steady)
}

fn steady(duration: &Duration) -> bool {
    match duration {
        Duration::Plain(_) => true,
        Duration::Expr(expr) => steady_expr(expr),
    }
}

/// Depth is bounded by the parser.
fn steady_expr(expr: &DurationExpr) -> bool {
    match expr {
        DurationExpr::Number(_) | DurationExpr::Step => true,
        DurationExpr::Range => false,
        DurationExpr::Paren(inner) | DurationExpr::Unary { expr: inner, .. } => steady_expr(inner),
        DurationExpr::Binary { left, right, .. } | DurationExpr::Pick { left, right, .. } => {
            steady_expr(left) && steady_expr(right)
        }
    }
}

fn or_is_clear(binary: &Binary) -> bool {
    binary.op != BinaryOp::Or || (keeps_names(&binary.left) && keeps_names(&binary.right))
}

/// Whether no series of it is about to lose its name.
fn keeps_names(expr: &Expr) -> bool {
    let mut rest = vec![expr];
    while let Some(expr) = rest.pop() {
        match &expr.unwrap_parens().kind {
            ExprKind::Selector(_) => {}
            ExprKind::Call { function, .. } if matches!(function.name, "vector" | "absent") => {}
            ExprKind::Aggregate(aggregate) if makes_series(aggregate.op) => {
                let by_name = |labels: &[String]| labels.iter().any(|l| l.starts_with("__"));
                let clear = match &aggregate.grouping {
                    None => true,
                    Some(grouping) => !grouping.without && !by_name(&grouping.labels),
                };
                if !clear {
                    return false;
                }
            }
            ExprKind::Binary(binary) if binary.op.is_set() => {
                rest.push(&binary.left);
                if binary.op == BinaryOp::Or {
                    rest.push(&binary.right);
                }
            }
            _ => return false,
        }
    }
    true
}

/// Whether its series are new ones, rather than some of those it was given.
fn makes_series(op: AggregateOp) -> bool {
    !matches!(
        op,
        AggregateOp::Topk
            | AggregateOp::Bottomk
            | AggregateOp::Limitk
            | AggregateOp::LimitRatio
            | AggregateOp::CountValues
    )
}

#[cfg(test)]
mod tests {
    use crate::parse;

    #[test]
    fn what_looks_at_the_whole_range_is_known_wherever_it_stands() {
        for text in [
            "sum by (job) (rate(x[5m] offset 1h)) / 2 > bool 1",
            "topk(3, x) and on (a) y unless z",
            "max_over_time(rate(x[step() * 2])[1h:step()])",
            "sum(rate(x[5m])) or vector(0)",
            "x or y or (z and rate(a[5m]))",
            "sum by (job) (x) or max by (job) (y) or absent(z)",
            "timestamp(x) + time() + scalar(y)",
        ] {
            assert!(parse(text).unwrap().is_sum_of_parts(), "{text}");
        }
        for text in [
            "x @ 100",
            "rate(x[5m] @ end())",
            "sum(max_over_time(x[1h:1m] @ start()))",
            "rate(x[range()])",
            "x offset (range() / 2)",
            "max_over_time(x[5m:range() / 10])",
            "x + start()",
            "end() - time()",
            "limitk(2, x)",
            "sum(limit_ratio(0.5, x))",
            "info(x)",
            "rate(x[5m]) or y",
            "x or -y",
            "(x + 1) or y",
            "sum by (__name__) (x) or y",
            "sum without (a) (x) or y",
            "topk(1, rate(x[5m])) or y",
            "1 + sum(x or label_replace(y, \"a\", \"b\", \"c\", \"d\"))",
        ] {
            assert!(!parse(text).unwrap().is_sum_of_parts(), "{text}");
        }
    }
}

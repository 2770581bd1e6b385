//! Which part of a query is experimental in Prometheus: functions, aggregations and syntax that stand behind a flag there.

use super::{Duration, Expr, ExprKind, Matching, Shift};
use crate::aggregate::AggregateOp;
use crate::functions::Edges;

impl Expr {
    /// The first experimental part, as a text for an error; `None` where there is none. Cost: a walk over the tree, without recursion.
    pub fn experimental(&self) -> Option<String> {
        let mut rest = vec![self];
        while let Some(expr) = rest.pop() {
            if let Some(what) = here(expr) {
                return Some(what);
            }
            expr.push_children(&mut rest);
        }
        None
    }
}

/// What of this node itself is experimental.
fn here(expr: &Expr) -> Option<String> {
    match &expr.kind {
        ExprKind::Call { function, .. } if function.experimental => {
            Some(format!("function {:?}", function.name))
        }
        ExprKind::Aggregate(aggregate)
            if matches!(aggregate.op, AggregateOp::Limitk | AggregateOp::LimitRatio) =>
        {
            Some(format!("aggregation {:?}", aggregate.op.name()))
        }
        ExprKind::Binary(binary) if fills(&binary.matching) => Some("modifier \"fill\"".to_owned()),
        ExprKind::Selector(selector) => edges(selector.edges).or_else(|| shifted(&selector.shift)),
        ExprKind::Matrix { selector, range } => edges(selector.edges)
            .or_else(|| computed(Some(range)))
            .or_else(|| shifted(&selector.shift)),
        ExprKind::Subquery(subquery) => computed(Some(&subquery.range))
            .or_else(|| computed(subquery.step.as_ref()))
            .or_else(|| shifted(&subquery.shift)),
        _ => None,
    }
}

fn fills(matching: &Matching) -> bool {
    matching.fill_left.is_some() || matching.fill_right.is_some()
}

fn edges(edges: Edges) -> Option<String> {
    match edges {
        Edges::Plain => None,
        Edges::Anchored => Some("modifier \"anchored\"".to_owned()),
        Edges::Smoothed => Some("modifier \"smoothed\"".to_owned()),
    }
}

fn shifted(shift: &Shift) -> Option<String> {
    computed(shift.offset.as_ref())
}

fn computed(duration: Option<&Duration>) -> Option<String> {
    matches!(duration, Some(Duration::Expr(_))).then(|| "a duration expression".to_owned())
}

#[cfg(test)]
mod tests {
    use crate::parse;

    #[test]
    fn the_first_experimental_part_is_named_wherever_it_stands() {
        for (text, what) in [
            ("sum(rate(x[5m])) / 2", None),
            ("x offset 5m @ end()", None),
            (
                "1 + abs(mad_over_time(x[5m]))",
                Some("function \"mad_over_time\""),
            ),
            ("limitk(1, x)", Some("aggregation \"limitk\"")),
            (
                "topk(scalar(limit_ratio(0.5, x)), y)",
                Some("aggregation \"limit_ratio\""),
            ),
            ("x + fill(0) y", Some("modifier \"fill\"")),
            ("rate(x[5m] anchored)", Some("modifier \"anchored\"")),
            ("x smoothed", Some("modifier \"smoothed\"")),
            ("rate(x[step() * 2])", Some("a duration expression")),
            ("x offset (1m + 30s)", Some("a duration expression")),
            ("max_over_time(x[5m:step()])", Some("a duration expression")),
        ] {
            let found = parse(text).unwrap().experimental();
            assert_eq!(found.as_deref(), what, "{text}");
        }
    }
}

//! Expressions over several lines, as `format_query` shows them: what is longer than a line is broken behind its opening parenthesis or around its operator.
//! Source: Prometheus' `prettier.go`.

use std::fmt::{self, Write as _};

use super::{Aggregate, Expr, ExprKind};

/// Bytes of an expression that stays on one line.
const LINE_BYTES: usize = 100;

/// What is left of a line.
struct Room(usize);

impl fmt::Write for Room {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.checked_sub(text.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}

/// Whether it does not fit into a line. Nothing is kept: a chain is a thousand levels, each of which may have a megabyte below it.
fn is_long(expr: &Expr) -> bool {
    write!(Room(LINE_BYTES), "{expr}").is_err()
}

impl Expr {
    /// The expression as Prometheus' formatter writes it. Cost: each level of the tree writes all that is below it.
    pub fn pretty(&self) -> String {
        self.pretty_at(0)
    }

    fn pretty_at(&self, level: usize) -> String {
        let indent = "  ".repeat(level);
        let split = is_long(self);
        match &self.kind {
            // Its parts indent themselves; a whole one is not indented, in Prometheus neither.
            ExprKind::Subquery(subquery) => match split {
                true => format!("{}{}", subquery.expr.pretty_at(level), subquery.suffix()),
                false => self.to_string(),
            },
            ExprKind::Unary { negative, expr } => {
                let sign = if *negative { "-" } else { "+" };
                format!("{indent}{sign}{}", expr.pretty_at(level).trim())
            }
            ExprKind::Aggregate(aggregate) if split => {
                let Aggregate {
                    parameter, expr, ..
                } = &**aggregate;
                let inner = parameter.iter().chain([expr]);
                format!(
                    "{indent}{}({}\n{indent})",
                    aggregate.head(),
                    inside(inner, level)
                )
            }
            ExprKind::Call { function, args } if split => {
                format!(
                    "{indent}{}({}\n{indent})",
                    function.name,
                    inside(args, level)
                )
            }
            ExprKind::Paren(expr) if split => {
                format!("{indent}({}\n{indent})", inside([&**expr], level))
            }
            ExprKind::Binary(binary) if split => format!(
                "{}\n{indent}{}\n{}",
                binary.left.pretty_at(level + 1),
                binary.operation(),
                binary.right.pretty_at(level + 1)
            ),
            _ => format!("{indent}{self}"),
        }
    }
}

/// Lines of what stands between parentheses, a comma behind each but the last.
fn inside<'a>(all: impl IntoIterator<Item = &'a Expr>, level: usize) -> String {
    let lines = all
        .into_iter()
        .map(|one| format!("\n{}", one.pretty_at(level + 1)));
    lines.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use crate::parse;

    /// As a Prometheus 2.42 answered.
    #[test]
    fn what_does_not_fit_into_a_line_is_broken_where_prometheus_breaks_it() {
        let cases = [
            ("foo/bar", "foo / bar"),
            (
                "sum by (job, instance) (rate(http_requests_total{job=\"a-rather-long-name\", instance=\"another-long-name:9090\", code=~\"5..\"}[5m])) / ignoring (code) group_left sum(up)",
                "  sum by (job, instance) (\n    rate(\n      http_requests_total{code=~\"5..\",instance=\"another-long-name:9090\",job=\"a-rather-long-name\"}[5m]\n    )\n  )\n/ ignoring (code) group_left ()\n  sum(up)",
            ),
            (
                "quantile without (instance) (0.9, max_over_time((-http_requests_total{job=\"a-rather-long-name\", instance=\"another-long-name:9090\"} + on (job) group_left (x) bar offset 5m)[1h:5m] @ 100 offset 1m))",
                "quantile without (instance) (\n  0.9,\n  max_over_time(\n    (\n        -http_requests_total{instance=\"another-long-name:9090\",job=\"a-rather-long-name\"}\n      + on (job) group_left (x)\n        bar offset 5m\n    )[1h:5m] @ 100.000 offset 1m\n  )\n)",
            ),
            (
                "-label_replace((http_requests_total{job=\"a-rather-long-name\", instance=\"another-long-name:9090\"} > bool 5), \"a\", \"$1\", \"b\", \"(.*)\")",
                "-label_replace(\n  (http_requests_total{instance=\"another-long-name:9090\",job=\"a-rather-long-name\"} > bool 5),\n  \"a\",\n  \"$1\",\n  \"b\",\n  \"(.*)\"\n)",
            ),
        ];
        for (text, expected) in cases {
            let expr = parse(text).unwrap();
            assert_eq!(expr.pretty(), expected);
            assert_eq!(parse(&expr.pretty()).unwrap().to_string(), expr.to_string());
        }
    }

    #[test]
    fn a_long_chain_with_a_long_matcher_is_printed() {
        let text = format!("a{{b=\"{}\"}}{}", "x".repeat(10_000), " + c".repeat(900));
        let print = move || parse(&text).unwrap().pretty().len();
        let thread = std::thread::Builder::new().stack_size(16 << 20);
        assert!(thread.spawn(print).unwrap().join().unwrap() > 10_000);
    }
}

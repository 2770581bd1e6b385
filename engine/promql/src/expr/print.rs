//! Printing as Prometheus prints: `/format_query`, error texts, annotations.
//!
//! Source: `promql/parser/printer.go`. Numbers are in plain decimals whatever their size, durations in the units of
//! `model.Duration`, matchers sorted by their text, names outside of the old character set in quotes within the braces.

use std::fmt::{self, Write as _};

use model::{METRIC_NAME, MatchOp, Matcher};

use super::{
    Aggregate, At, Binary, Cardinality, Duration, DurationExpr, Expr, ExprKind, Number, Selector,
    Shift, Subquery,
};
use crate::functions::Edges;
use model::quoted;

/// A number as Go's `FormatFloat(v, 'f', -1, 64)` writes it.
pub fn number_text(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        format!("{value}")
    }
}

/// Milliseconds in the units of Prometheus: `1h30m`, `0s`. Years and weeks are used only where they come out even.
pub fn duration_text(ms: i64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    const UNITS: [(&str, u64, bool); 7] = [
        ("y", 365 * 24 * 3_600_000, true),
        ("w", 7 * 24 * 3_600_000, true),
        ("d", 24 * 3_600_000, false),
        ("h", 3_600_000, false),
        ("m", 60_000, false),
        ("s", 1_000, false),
        ("ms", 1, false),
    ];
    let mut rest = ms.unsigned_abs();
    let mut out = String::new();
    if ms < 0 {
        out.push('-');
    }
    for (unit, length, exact) in UNITS {
        if exact && !rest.is_multiple_of(length) {
            continue;
        }
        if rest >= length {
            out.push_str(&format!("{}{unit}", rest / length));
            rest %= length;
        }
    }
    out
}

/// Whether a label's name may stand without quotes.
fn is_plain_label(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_plain_metric(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || b == b':')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

fn label_text(name: &str) -> String {
    if is_plain_label(name) {
        name.to_owned()
    } else {
        quoted(name)
    }
}

fn matcher_text(matcher: &Matcher) -> String {
    format!(
        "{}{}{}",
        label_text(matcher.name()),
        matcher.op().symbol(),
        quoted(matcher.value())
    )
}

struct List<'a>(&'a [String]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, label) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            f.write_str(&label_text(label))?;
        }
        Ok(())
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.duration {
            f.write_str(&duration_text((self.value * 1000.0).round() as i64))
        } else {
            f.write_str(&number_text(self.value))
        }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Duration::Plain(ms) => f.write_str(&duration_text(*ms)),
            Duration::Expr(expr) => expr.fmt(f),
        }
    }
}

impl fmt::Display for DurationExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DurationExpr::Number(number) => number.fmt(f),
            DurationExpr::Step => f.write_str("step()"),
            DurationExpr::Range => f.write_str("range()"),
            DurationExpr::Unary {
                negative: true,
                expr,
            } => write!(f, "-{expr}"),
            DurationExpr::Unary { expr, .. } => expr.fmt(f),
            DurationExpr::Binary { op, left, right } => {
                write!(f, "{left} {} {right}", op.symbol())
            }
            DurationExpr::Pick {
                max: false,
                left,
                right,
            } => write!(f, "min_of({left}, {right})"),
            DurationExpr::Pick { left, right, .. } => write!(f, "max_of({left}, {right})"),
            DurationExpr::Paren(expr) => write!(f, "({expr})"),
        }
    }
}

impl fmt::Display for Shift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_at(f)?;
        self.write_offset(f)
    }
}

impl Shift {
    fn write_at(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            None => Ok(()),
            Some(At::Time(ms)) => write!(f, " @ {:.3}", ms as f64 / 1000.0),
            Some(At::Start) => f.write_str(" @ start()"),
            Some(At::End) => f.write_str(" @ end()"),
        }
    }

    fn write_offset(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.offset {
            None | Some(Duration::Plain(0)) => Ok(()),
            Some(offset) => write!(f, " offset {offset}"),
        }
    }
}

fn edges_text(edges: Edges) -> &'static str {
    match edges {
        Edges::Plain => "",
        Edges::Anchored => " anchored",
        Edges::Smoothed => " smoothed",
    }
}

impl Selector {
    /// Name and braces, without any modifier.
    fn write_series(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let mut named = false;
        for matcher in &self.matchers {
            let is_name = matcher.name() == METRIC_NAME
                && matcher.op() == MatchOp::Equal
                && !matcher.value().is_empty()
                && self.name.as_deref() == Some(matcher.value());
            if !is_name {
                parts.push(matcher_text(matcher));
            } else if is_plain_metric(matcher.value()) {
                f.write_str(matcher.value())?;
                named = true;
            } else {
                parts.push(quoted(matcher.value()));
            }
        }
        if parts.is_empty() {
            return if named { Ok(()) } else { f.write_str("{}") };
        }
        // A quoted name sorts before every label, as in `{"a.b", c="d"}`.
        parts.sort();
        write!(f, "{{{}}}", parts.join(","))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_series(f)?;
        self.shift.write_at(f)?;
        f.write_str(edges_text(self.edges))?;
        self.shift.write_offset(f)
    }
}

impl fmt::Display for Subquery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.expr, self.suffix())
    }
}

impl Subquery {
    /// What stands behind the expression.
    pub(super) fn suffix(&self) -> String {
        let step = self.step.as_ref().map(Duration::to_string);
        let step = step.unwrap_or_default();
        format!("[{}:{step}]{}", self.range, self.shift)
    }
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.head())?;
        match &self.parameter {
            Some(parameter) => write!(f, "({parameter}, {})", self.expr),
            None => write!(f, "({})", self.expr),
        }
    }
}

impl Aggregate {
    /// What stands before the parenthesis.
    pub(super) fn head(&self) -> String {
        let op = self.op.name();
        match &self.grouping {
            Some(grouping) if grouping.without => {
                format!("{op} without ({}) ", List(&grouping.labels))
            }
            Some(grouping) if !grouping.labels.is_empty() => {
                format!("{op} by ({}) ", List(&grouping.labels))
            }
            _ => op.to_owned(),
        }
    }
}

impl Binary {
    /// What stands between the sides.
    pub(super) fn operation(&self) -> String {
        let mut out = self.op.symbol().to_owned();
        self.write_matching(&mut out)
            .expect("a string takes everything");
        out
    }

    fn write_matching(&self, f: &mut String) -> fmt::Result {
        if self.returns_bool {
            f.write_str(" bool")?;
        }
        let matching = &self.matching;
        let group = match matching.cardinality {
            Cardinality::ManyToOne => Some("left"),
            Cardinality::OneToMany => Some("right"),
            _ => None,
        };
        if matching.on || !matching.labels.is_empty() || group.is_some() {
            let tag = if matching.on { "on" } else { "ignoring" };
            write!(f, " {tag} ({})", List(&matching.labels))?;
        }
        if let Some(side) = group {
            write!(f, " group_{side} ({})", List(&matching.include))?;
        }
        match (matching.fill_left, matching.fill_right) {
            (Some(left), Some(right)) if left.to_bits() == right.to_bits() => {
                write!(f, " fill ({})", number_text(left))?;
            }
            (left, right) => {
                if let Some(left) = left {
                    write!(f, " fill_left ({})", number_text(left))?;
                }
                if let Some(right) = right {
                    write!(f, " fill_right ({})", number_text(right))?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.left, self.operation(), self.right)
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ExprKind::Number(number) => number.fmt(f),
            ExprKind::String(text) => f.write_str(&quoted(text)),
            ExprKind::Selector(selector) => selector.fmt(f),
            ExprKind::Matrix { selector, range } => {
                selector.write_series(f)?;
                write!(
                    f,
                    "[{range}]{}{}",
                    edges_text(selector.edges),
                    selector.shift
                )
            }
            ExprKind::Subquery(subquery) => subquery.fmt(f),
            ExprKind::Call { function, args } => {
                write!(f, "{}(", function.name)?;
                for (i, arg) in args.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    arg.fmt(f)?;
                }
                f.write_str(")")
            }
            ExprKind::Aggregate(aggregate) => aggregate.fmt(f),
            ExprKind::Binary(binary) => binary.fmt(f),
            ExprKind::Unary { negative, expr } => {
                write!(f, "{}{expr}", if *negative { "-" } else { "+" })
            }
            ExprKind::Paren(expr) => write!(f, "({expr})"),
        }
    }
}

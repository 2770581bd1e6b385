//! Types: every node is held to them when it is made. Texts are those of Prometheus (`checkAST`).

use super::Fault;
use crate::aggregate::AggregateOp;
use crate::expr::{
    Aggregate, Binary, Cardinality, Expr, ExprKind, Number, Selector, Span, Subquery,
};
use crate::functions::{Edges, EngineFunction, Function, Kind};
use crate::value::ValueType;

fn expect_type(expr: &Expr, want: ValueType, context: &str) -> Result<(), Fault> {
    let got = expr.value_type();
    if got == want {
        return Ok(());
    }
    Err(Fault::new(
        expr.span,
        format!(
            "expected type {} in {context}, got {}",
            want.documented(),
            got.documented()
        ),
    ))
}

pub(super) fn unary(span: Span, negative: bool, expr: Expr) -> Result<Expr, Fault> {
    if let ExprKind::Number(number) = expr.kind {
        let value = if negative {
            -number.value
        } else {
            number.value
        };
        return Ok(Expr {
            span,
            kind: ExprKind::Number(Number { value, ..number }),
        });
    }
    let found = expr.value_type();
    if !matches!(found, ValueType::Scalar | ValueType::Vector) {
        return Err(Fault::new(
            span,
            format!(
                "unary expression only allowed on expressions of type scalar or instant vector, got {:?}",
                found.documented()
            ),
        ));
    }
    Ok(Expr {
        span,
        kind: ExprKind::Unary {
            negative,
            expr: Box::new(expr),
        },
    })
}

pub(super) fn binary(span: Span, op_span: Span, mut binary: Binary) -> Result<Expr, Fault> {
    let left = binary.left.value_type();
    let right = binary.right.value_type();
    let op = binary.op;
    let fault = |span: Span, message: String| Err(Fault::new(span, message));
    let scalars = left == ValueType::Scalar && right == ValueType::Scalar;
    let vectors = left == ValueType::Vector && right == ValueType::Vector;
    let matching = &mut binary.matching;
    if binary.returns_bool && !op.is_comparison() {
        return fault(
            op_span,
            "bool modifier can only be used on comparison operators".to_owned(),
        );
    }
    if op.is_comparison() && !binary.returns_bool && scalars {
        return fault(
            op_span,
            "comparisons between scalars must use BOOL modifier".to_owned(),
        );
    }
    if op.is_set() && matching.cardinality == Cardinality::OneToOne {
        matching.cardinality = Cardinality::ManyToMany;
    }
    if matching.on
        && let Some(label) = matching
            .labels
            .iter()
            .find(|label| matching.include.contains(label))
    {
        return fault(
            op_span,
            format!("label {label:?} must not occur in ON and GROUP clause at once"),
        );
    }
    for (side, found) in [(&binary.left, left), (&binary.right, right)] {
        if !matches!(found, ValueType::Scalar | ValueType::Vector) {
            return fault(
                side.span,
                "binary expression must contain only scalar and instant vector types".to_owned(),
            );
        }
    }
    let filled = matching.fill_left.is_some() || matching.fill_right.is_some();
    if !vectors {
        if !matching.labels.is_empty() {
            return fault(
                span,
                "vector matching only allowed between instant vectors".to_owned(),
            );
        }
        if filled {
            return fault(
                span,
                "filling in missing series only allowed between instant vectors".to_owned(),
            );
        }
        if op.is_set() {
            return fault(
                span,
                format!(
                    "set operator {:?} not allowed in binary scalar expression",
                    op.symbol()
                ),
            );
        }
    } else if op.is_set() {
        if matching.cardinality != Cardinality::ManyToMany {
            return fault(
                span,
                format!("no grouping allowed for {:?} operation", op.symbol()),
            );
        }
        if filled {
            return fault(
                span,
                "filling in missing series not allowed for set operators".to_owned(),
            );
        }
    }
    Ok(Expr {
        span,
        kind: ExprKind::Binary(Box::new(binary)),
    })
}

pub(super) fn aggregate(span: Span, aggregate: Aggregate) -> Result<Expr, Fault> {
    expect_type(&aggregate.expr, ValueType::Vector, "aggregation expression")?;
    if let Some(parameter) = &aggregate.parameter {
        let want = if aggregate.op == AggregateOp::CountValues {
            ValueType::String
        } else {
            ValueType::Scalar
        };
        expect_type(parameter, want, "aggregation parameter")?;
    }
    Ok(Expr {
        span,
        kind: ExprKind::Aggregate(Box::new(aggregate)),
    })
}

pub(super) fn subquery(span: Span, subquery: Subquery) -> Result<Expr, Fault> {
    let found = subquery.expr.value_type();
    if found != ValueType::Vector {
        return Err(Fault::new(
            span,
            format!(
                "subquery is only allowed on instant vector, got {} instead",
                match found {
                    ValueType::Matrix => "matrix",
                    ValueType::Scalar => "scalar",
                    _ => "string",
                }
            ),
        ));
    }
    Ok(Expr {
        span,
        kind: ExprKind::Subquery(Box::new(subquery)),
    })
}

pub(super) fn call(
    span: Span,
    function: &'static Function,
    args: Vec<Expr>,
) -> Result<Expr, Fault> {
    count(span, function, args.len())?;
    if matches!(function.kind, Kind::Engine(EngineFunction::Info))
        && let Some(second) = args.get(1)
    {
        info_argument(second)?;
    }
    for (i, arg) in args.iter().enumerate() {
        let want = function.args[i.min(function.args.len() - 1)];
        expect_type(
            arg,
            want,
            &format!("call to function \"{}\"", function.name),
        )?;
        edges(function, arg)?;
    }
    Ok(Expr {
        span,
        kind: ExprKind::Call { function, args },
    })
}

fn count(span: Span, function: &Function, given: usize) -> Result<(), Fault> {
    let declared = function.args.len();
    let fault = |wanted: String| {
        Err(Fault::new(
            span,
            format!(
                "expected {wanted} argument(s) in call to \"{}\", got {given}",
                function.name
            ),
        ))
    };
    if function.variadic == 0 {
        return if given == declared {
            Ok(())
        } else {
            fault(declared.to_string())
        };
    }
    let least = declared.saturating_sub(1);
    if given < least {
        return fault(format!("at least {least}"));
    }
    let most = least + usize::try_from(function.variadic).unwrap_or(usize::MAX - least);
    if given > most {
        return fault(format!("at most {most}"));
    }
    Ok(())
}

/// The second argument of `info` is a selector of labels, not of a metric.
fn info_argument(expr: &Expr) -> Result<(), Fault> {
    match &expr.kind {
        ExprKind::Selector(Selector { name: Some(_), .. }) => Err(Fault::new(
            expr.span,
            "expected label selectors only, got vector selector instead",
        )),
        ExprKind::Selector(_) => Ok(()),
        _ => Err(Fault::new(expr.span, "expected label selectors only")),
    }
}

/// `anchored` and `smoothed` ranges are understood by some functions only.
fn edges(function: &Function, arg: &Expr) -> Result<(), Fault> {
    let ExprKind::Matrix { selector, .. } = &arg.unwrap_parens().kind else {
        return Ok(());
    };
    let range = match &function.kind {
        Kind::Range(range) => Some(range),
        _ => None,
    };
    let (fits, message) = match selector.edges {
        Edges::Plain => return Ok(()),
        Edges::Anchored => (
            range.is_some_and(|r| r.anchored),
            "anchored modifier can only be used with: changes, delta, increase, rate, resets",
        ),
        Edges::Smoothed => (
            range.is_some_and(|r| r.smoothed),
            "smoothed modifier can only be used with: delta, increase, rate",
        ),
    };
    if fits {
        return Ok(());
    }
    Err(Fault::new(
        arg.span,
        format!("{message} - not with {}", function.name),
    ))
}

/// A selector that would select everything is refused. (Not asked for the second argument of `info`.)
pub(super) fn selector(expr: &Expr) -> Result<(), Fault> {
    let (ExprKind::Selector(selector) | ExprKind::Matrix { selector, .. }) = &expr.kind else {
        return Ok(());
    };
    if selector.matchers.iter().any(|m| !m.matches_empty()) {
        return Ok(());
    }
    Err(Fault::new(
        expr.span,
        "vector selector must contain at least one non-empty matcher",
    ))
}

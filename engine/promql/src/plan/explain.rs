//! A plan as a tree for people: what is evaluated, in which order, over which selectors.

use super::{Node, NodeKind, Plan, RangeInput};
use crate::aggregate::AggregateOp;
use crate::expr::{Grouping, Span, duration_text};

/// One node of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Explained {
    /// `number`, `string`, `selector`, `range`, `subquery`, `call`, `aggregation`, `binary` or `negation`.
    pub kind: &'static str,
    /// The function, operator or range, with what belongs to it.
    pub detail: String,
    /// Its place in the text.
    pub span: Span,
    /// Its value is the same at every step, and it is evaluated at the first only.
    pub once: bool,
    /// For selectors their index in [`Plan::selectors`].
    pub selector: Option<usize>,
    /// What it is made from.
    pub children: Vec<Explained>,
}

impl Plan {
    /// The plan as a tree. Cost: linear in the plan; recursion as deep as it.
    pub fn explain(&self) -> Explained {
        explained(&self.root)
    }

    /// The text that it was made from, as [`Plan::with_text`] was told.
    pub fn text(&self) -> &str {
        &self.text
    }
}

fn explained(node: &Node) -> Explained {
    let mut children = Vec::new();
    let mut found = None;
    let (kind, detail) = match &node.kind {
        NodeKind::Number(value) => ("number", crate::expr::number_text(*value)),
        NodeKind::Text(text) => ("string", crate::expr::quoted(text)),
        NodeKind::Instant(instant) => {
            found = Some(instant.selector);
            ("selector", String::new())
        }
        NodeKind::Range(range) => {
            let length = duration_text(range.range_ms);
            match &range.input {
                RangeInput::Raw { selector, .. } => {
                    found = Some(*selector);
                    ("range", format!("[{length}]"))
                }
                RangeInput::Sub { inner, step_ms } => {
                    children.push(explained(inner));
                    (
                        "subquery",
                        format!("[{length}:{}]", duration_text(*step_ms)),
                    )
                }
            }
        }
        NodeKind::Call(call) => {
            children.extend(call.args.iter().map(explained));
            if let Some(info) = &call.info {
                children.push(Explained {
                    kind: "selector",
                    detail: "info series".to_owned(),
                    span: node.span,
                    once: false,
                    selector: Some(info.selector),
                    children: Vec::new(),
                });
            }
            ("call", call.function.name.to_owned())
        }
        NodeKind::Aggregate(aggregate) => {
            children.extend(aggregate.parameter.as_ref().map(explained));
            children.push(explained(&aggregate.input));
            ("aggregation", grouped(aggregate.op, &aggregate.grouping))
        }
        NodeKind::Binary(binary) => {
            children.extend([explained(&binary.left), explained(&binary.right)]);
            ("binary", binary.op.symbol().to_owned())
        }
        NodeKind::Negate(inner) => {
            children.push(explained(inner));
            ("negation", "-".to_owned())
        }
    };
    Explained {
        kind,
        detail,
        span: node.span,
        once: node.once,
        selector: found,
        children,
    }
}

fn grouped(op: AggregateOp, grouping: &Grouping) -> String {
    let labels = grouping.labels.join(", ");
    let word = if grouping.without { "without" } else { "by" };
    format!("{} {word} ({labels})", op.name())
}
